//! The command line.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Output, Server, dormouse, run_program};

fn ask(server: &Server, args: &[&str]) -> Output {
    let mut command = dormouse();
    run_program(
        command
            .args(args)
            .env("DORMOUSE_SERVER", format!("http://{}", server.http)),
    )
}

fn here(data: &Path, args: &[&str]) -> Output {
    run_program(dormouse().args(args).arg("--data").arg(data))
}

#[test]
fn statements_print_tables_documents_and_tags() {
    let server = Server::start();
    let sql = |args: &[&str]| ask(&server, &[&["sql", "shop"], args].concat());
    let create = "create table fruit (name text, price numeric, tags jsonb)";
    assert_eq!(sql(&[create]).done(), "CREATE TABLE\n");
    let insert = "insert into fruit values ($1, $2, $3), ('fig', 12.50, null)";
    let params = [
        "--param",
        "apple",
        "--param",
        "-1",
        "--param",
        "{\"red\": true}",
    ];
    assert_eq!(sql(&[&[insert], &params[..]].concat()).done(), "INSERT 2\n");
    let select = "select *, price > 0 as dear from fruit order by price";
    let table = concat!(
        " name  | price |     tags      | dear \n",
        "-------+-------+---------------+------\n",
        " apple |    -1 | {\"red\": true} | f\n",
        " fig   | 12.50 |               | t\n",
        "(2 rows)\n",
    );
    assert_eq!(sql(&[select]).done(), table);
    let document: Value = serde_json::from_str(&sql(&[select, "--json"]).done()).unwrap();
    assert_eq!(document["rows"][0]["tags"]["red"], true);
    assert_eq!(document["rowCount"], 2);
}

#[test]
fn errors_look_like_psqls_and_have_exit_codes() {
    let server = Server::start();
    let sql = |args: &[&str]| ask(&server, &[&["sql", "shop"], args].concat());
    let said = sql(&["select 1,\n  nope"]).failed(1);
    let expected = "ERROR:  column \"nope\" does not exist\nLINE 2:   nope\n          ^\n";
    assert_eq!(said, expected);
    let said = sql(&["select nope", "--json"]).failed(1);
    let document: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(document["error"]["code"], "42703");
    sql(&["select 1", "--colour"]).failed(2);
    let said = ask(&server, &["sql", "no/name", "select 1"]).failed(2);
    assert!(said.contains("1 to 63 characters"), "{said}");
    // Port 1 is nobody's.
    let nobody = ["sql", "shop", "select 1", "--server", "http://127.0.0.1:1"];
    let said = run_program(dormouse().args(nobody)).failed(3);
    assert!(
        said.contains("dormouse serve") && said.contains("127.0.0.1:1"),
        "{said}"
    );
}

#[test]
fn databases_are_created_listed_forked_and_deleted() {
    let server = Server::start();
    let db = |args: &[&str]| ask(&server, &[&["db"], args].concat());
    assert_eq!(db(&["create", "shop"]).done(), "created shop\n");
    assert_eq!(
        db(&["fork", "shop", "try"]).done(),
        "created try from shop\n"
    );
    assert_eq!(
        db(&["create", "other", "--from", "shop"]).done(),
        "created other\n"
    );
    let list = db(&["list"]).done();
    let lines: Vec<&str> = list.lines().collect();
    assert!(
        lines[0].contains("name") && lines[0].contains("state"),
        "{list}"
    );
    assert!(
        list.contains(" try ") && list.contains("| shop\n"),
        "{list}"
    );
    let list: Value = serde_json::from_str(&db(&["list", "--json"]).done()).unwrap();
    let names: Vec<&str> = list["databases"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|db| db["name"].as_str())
        .collect();
    for name in ["shop", "try", "other"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let info = db(&["info", "try"]).done();
    assert!(info.contains("parent   shop\n"), "{info}");
    let info: Value = serde_json::from_str(&db(&["info", "try", "--json"]).done()).unwrap();
    assert_eq!(info["parent"], "shop");
    let info = db(&[
        "set",
        "try",
        "--durability",
        "relaxed",
        "--maintenance",
        "off",
    ])
    .done();
    assert!(info.contains("durable  relaxed\nupkeep   off\n"), "{info}");
    // What is not mentioned stays.
    let info = db(&["set", "try", "--maintenance", "default"]).done();
    assert!(info.contains("durable  relaxed\nupkeep   on\n"), "{info}");
    assert_eq!(db(&["flush", "try"]).done(), "flushed try\n");
    db(&["set", "try", "--durability", "perhaps"]).failed(2);
    assert_eq!(db(&["delete", "try"]).done(), "deleted try\n");
    for (args, code) in [
        (&["info", "try"][..], "does not exist"),
        (&["delete", "try"], "does not exist"),
        (&["create", "shop"], "already exists"),
        (&["fork", "nobody", "x"], "does not exist"),
    ] {
        let said = db(args).failed(1);
        assert!(said.contains(code), "{said}");
    }
    let session = server.connect("shop");
    db(&["delete", "shop"]).failed(1);
    db(&["delete", "shop", "--force"]).done();
    drop(session);
}

#[test]
fn a_data_directory_without_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    here(&data, &["sql", "shop", "create table t as select 1 as n"]).done();
    here(&data, &["db", "fork", "shop", "try"]).done();
    here(&data, &["sql", "try", "insert into t values (2)"]).done();
    let count = |name: &str| here(&data, &["sql", name, "select count(*) from t"]).done();
    assert_eq!(count("shop"), " count \n-------\n     1\n(1 row)\n");
    assert_eq!(count("try"), " count \n-------\n     2\n(1 row)\n");
    here(&data, &["db", "delete", "try"]).done();
    assert!(!here(&data, &["db", "list"]).done().contains("try"));
    let said = here(&data, &["sql", "shop", "select nope"]).failed(1);
    assert!(
        said.contains("LINE 1: select nope\n               ^"),
        "{said}"
    );

    let server = Server::start_in(folder.path(), &[]);
    let said = here(&data, &["db", "list"]).failed(3);
    assert!(
        said.contains(&format!("process {}", server.pid())),
        "{said}"
    );
    assert_eq!(server.sql("shop", "table t")["rowCount"], 1);
}

#[test]
fn statements_come_from_standard_input_too() {
    use std::io::Write as _;
    use std::process::Stdio;
    let folder = tempfile::tempdir().unwrap();
    let mut command = dormouse();
    command
        .args(["sql", "shop", "-", "--data"])
        .arg(folder.path());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"select 1\n as one\n")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, b" one \n-----\n   1\n(1 row)\n");
}

fn serve(args: &[&str]) -> Command {
    let mut command = dormouse();
    command.arg("serve").args(args);
    command
}

#[test]
fn configuration_mistakes_are_told_before_anything_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dormouse.toml");
    std::fs::write(&file, "[pgwire]\nport = 7432\n").unwrap();
    let said = run_program(serve(&[]).current_dir(folder.path())).failed(2);
    assert!(
        said.contains("dormouse.toml") && said.contains("pgwire.port"),
        "{said}"
    );
    std::fs::remove_file(&file).unwrap();
    let said = run_program(serve(&[]).env("DORMOUSE_PGWIRE__PORT", "1")).failed(2);
    assert!(said.contains("DORMOUSE_PGWIRE__PORT"), "{said}");
    let said = run_program(&mut serve(&["--config", "/none/dormouse.toml"])).failed(2);
    assert!(said.contains("/none/dormouse.toml"), "{said}");
    let said = run_program(&mut serve(&["--log", "a=b=c"])).failed(2);
    assert!(said.contains("a=b=c"), "{said}");
    let in_folder = |args: &[&str]| run_program(serve(args).current_dir(folder.path()));
    let said = in_folder(&["--pg", "0.0.0.0:0"]).failed(3);
    assert!(said.contains("server.insecure_listen"), "{said}");
    let said = in_folder(&["--http", "nonsense"]).failed(3);
    assert!(said.contains("http.listen"), "{said}");
    assert!(!folder.path().join("dormouse-data").exists());

    let printed = run_program(dormouse().args(["config", "--pg", "127.0.0.1:1"])).done();
    assert!(
        printed.contains("# Set by --pg\nlisten = \"127.0.0.1:1\""),
        "{printed}"
    );
    let read_back = folder.path().join("again.toml");
    std::fs::write(&read_back, &printed).unwrap();
    run_program(dormouse().arg("config").arg("--config").arg(read_back)).done();
}

#[test]
fn a_taken_port_is_told() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let taken = server.pg.to_string();
    let said = run_program(serve(&["--pg", &taken]).current_dir(folder.path())).failed(3);
    assert!(
        said.contains(&taken) && said.contains("another port"),
        "{said}"
    );
}

#[test]
fn help_has_examples_and_exit_codes() {
    for args in [
        &["--help"][..],
        &["serve", "--help"],
        &["sql", "--help"],
        &["db", "--help"],
    ] {
        let help = run_program(dormouse().args(args)).done();
        assert!(
            help.contains("Examples:") && help.contains("Exit codes:"),
            "{help}"
        );
    }
    assert!(
        run_program(dormouse().arg("--version"))
            .done()
            .starts_with("dormouse ")
    );
}

#[test]
fn doctor_says_what_would_not_work() {
    let folder = tempfile::tempdir().unwrap();
    let doctor = |args: &[&str]| {
        let mut command = dormouse();
        command.arg("doctor").args(args).current_dir(folder.path());
        run_program(&mut command)
    };
    let server = Server::start();
    let url = format!("http://{}", server.http);
    let found = doctor(&["--expect-server", "--server", &url]).done();
    assert!(
        found.contains(&format!("ok    server: {url} is ready")),
        "{found}"
    );
    let document: serde_json::Value =
        serde_json::from_str(&doctor(&["--json", "--server", &url]).done()).unwrap();
    assert_eq!(document["findings"][0]["what"], "configuration");
    drop(server);
    doctor(&["--server", &url]).done();
    doctor(&["--expect-server", "--server", &url]).failed(3);
    std::fs::write(
        folder.path().join("dormouse.toml"),
        "[tls]\nkey = \"none\"\n",
    )
    .unwrap();
    doctor(&["--server", &url]).failed(3);
}
