//! psql and pg_dump, and what other programs of PostgreSQL have in common with them.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::{Server, program, run_program};

/// Rows of a table as one number: equal only if the rows are.
const GARDEN: &str = "select md5(string_agg(p::text, '|' order by plant_id)) as sum, count(*) as \
                      count, heights(1) as heights, (select count(*) from tall) as tall from plant p";

/// Clients that only run SQL may be older than the server.
pub(crate) const ANY: u32 = 10;

/// Clients that read the server's catalogs may not.
pub(crate) const SAME: u32 = 18;

pub(crate) fn client(name: &str, version: u32, server: &Server) -> Option<Command> {
    let mut command = program(name, version)?;
    command.args(["-h", "127.0.0.1", "-U", "postgres"]);
    command.args(["-p", &server.pg.port().to_string()]);
    // Nothing of the machine's own.
    command.env_remove("PGDATABASE").env_remove("PGOPTIONS");
    Some(command)
}

fn psql(version: u32, server: &Server) -> Option<Command> {
    let mut command = client("psql", version, server)?;
    command.args(["--no-psqlrc", "-v", "ON_ERROR_STOP=1"]);
    Some(command)
}

fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/data")
        .join(name);
    path.exists().then_some(path)
}

pub(crate) fn load(server: &Server, database: &str, script: &Path) -> Option<()> {
    let mut psql = psql(ANY, server)?;
    run_program(psql.args(["-q", database, "-f"]).arg(script)).done();
    Some(())
}

/// Whether there was a program for it.
#[track_caller]
fn dumped_and_restored(server: &Server, from: &str, to: &str) -> bool {
    let dump = |database: &str| {
        let mut command = client("pg_dump", SAME, server)?;
        // Otherwise a dump has a new random word each time.
        let dump = command.args(["--restrict-key=test", database]);
        Some(run_program(dump).done())
    };
    let Some(dumped) = dump(from) else {
        return false;
    };
    let mut psql = psql(ANY, server).unwrap();
    psql.args(["-q", to])
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    let mut restoring = psql.spawn().unwrap();
    let mut input = restoring.stdin.take().unwrap();
    input.write_all(dumped.as_bytes()).unwrap();
    drop(input);
    assert!(restoring.wait().unwrap().success());
    let again = dump(to).unwrap();
    assert!(dumped == again, "the dump of {to} is not that of {from}");
    true
}

#[test]
fn a_script_that_makes_its_own_database() {
    let server = Server::start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/data/garden.sql");
    // Twice: the second time there is something to drop.
    for _ in 0..2 {
        if load(&server, "postgres", &script).is_none() {
            return;
        }
    }
    let garden = server.sql("garden", GARDEN);
    let row = &garden["rows"][0];
    assert_eq!(
        (&row["count"], &row["heights"], &row["tall"]),
        (&3.into(), &390.5.into(), &2.into())
    );
    if dumped_and_restored(&server, "garden", "garden2") {
        assert_eq!(server.sql("garden2", GARDEN)["rows"], garden["rows"]);
    }
}

#[test]
fn commands_of_psql() {
    let server = Server::start();
    let Some(mut command) = psql(SAME, &server) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows");
    let script = format!(
        "create database one;\n\\c one\ncreate table t (n int, s text);\n\
         insert into t values (1, 'a'), (2, null);\n\\copy t to '{file}'\n\
         create database two template one;\n\\c two\n\\copy t from '{file}'\n\
         select 'rows ' || count(*) from t;\n\\d t\n\\dt\n\\l\n\\conninfo\n\\c one\n\
         select 'rows ' || count(*) from t;\n",
        file = file.display()
    );
    let input = folder.path().join("script");
    std::fs::write(&input, script).unwrap();
    let shown = run_program(command.args(["-A", "-t", "postgres", "-f"]).arg(input)).done();
    let lines: Vec<&str> = shown.lines().collect();
    assert!(
        lines.contains(&"rows 4") && lines.contains(&"rows 2"),
        "{shown}"
    );
    for name in ["one", "two", "postgres"] {
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with(&format!("{name}|postgres|UTF8"))),
            "{shown}"
        );
    }
    assert!(lines.contains(&"n|integer|||"), "{shown}");
}

#[test]
fn an_error_ends_a_script_with_its_line() {
    let server = Server::start();
    let Some(mut command) = psql(ANY, &server) else {
        return;
    };
    let output = run_program(command.args(["errors", "-c", "select nope"]));
    let said = output.failed(1);
    assert!(
        said.contains("column \"nope\" does not exist") && said.contains("LINE 1"),
        "{said}"
    );
}

#[test]
fn chinook() {
    let Some(script) = shared("chinook.sql") else {
        return;
    };
    let server = Server::start();
    if load(&server, "postgres", &script).is_none() {
        return;
    }
    let best = "select artist.name, sum(il.unit_price * il.quantity) as revenue \
                from invoice_line il join track using (track_id) join album using (album_id) \
                join artist using (artist_id) group by artist.name order by 2 desc, 1 limit 5";
    let rows = server.sql("chinook", best)["rows"].to_string();
    assert!(
        rows.starts_with("[{\"name\":\"Iron Maiden\",\"revenue\":138.6"),
        "{rows}"
    );
    if dumped_and_restored(&server, "chinook", "chinook2") {
        assert_eq!(server.sql("chinook2", best)["rows"].to_string(), rows);
    }
}

#[test]
fn northwind() {
    let Some(script) = shared("northwind.sql") else {
        return;
    };
    let server = Server::start();
    if load(&server, "northwind", &script).is_none() {
        return;
    }
    let row = server.sql("northwind", "select count(*) as n from orders");
    assert_eq!(row["rows"][0]["n"], 830);
    dumped_and_restored(&server, "northwind", "northwind2");
}
