//! Clients that others use, each with the suite of `clients/` that it is asked to pass.
//!
//! Without `cargo xtask test`, which brings the clients, there is nothing to run, and a word about it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::Server;

/// More than any file of tests takes on a busy machine.
const MILLISECONDS_MAX: &str = "--test-timeout=300000";

fn brought(variable: &str) -> Option<PathBuf> {
    let folder = std::env::var_os(variable).map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: `cargo xtask test` brings the clients");
    }
    folder
}

fn sources(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../clients");
    path.join(name).canonicalize().unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let place = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &place);
        } else {
            fs::copy(entry.path(), place).unwrap();
        }
    }
}

/// The suite passes with this server.
fn pass(command: &mut Command, server: &Server) {
    let address = format!("postgres://postgres@{}", server.pg);
    command.env("DORMOUSE_TEST_URL", address);
    command.env("DORMOUSE_TEST_HTTP", server.http.to_string());
    pass_alone(command);
}

/// The suite passes; it starts what it needs.
fn pass_alone(command: &mut Command) {
    for name in ["PGDATABASE", "PGOPTIONS", "PGPASSWORD"] {
        command.env_remove(name);
    }
    // What it says is this test's to say, also if it is ended for taking too long.
    let status = command.stdin(Stdio::null()).status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

/// The tests of a folder of `clients/node`.
fn node(suite: &str) {
    with_node(suite, |command| pass(command, &Server::start()));
}

/// The tests of a folder of `clients/node` that start servers by themselves.
fn node_alone(suite: &str) {
    let program = env!("CARGO_BIN_EXE_dormouse");
    with_node(suite, |command| {
        pass_alone(command.env("DORMOUSE_TEST_PROGRAM", program));
    });
}

fn with_node(suite: &str, run: impl FnOnce(&mut Command)) {
    let Some(clients) = brought("DORMOUSE_TEST_CLIENTS") else {
        return;
    };
    // Packages are looked for beside what imports them, and they are not in the checkout.
    let folder = tempfile::tempdir().unwrap();
    copy(&sources("node"), folder.path());
    let modules = folder.path().join("node_modules");
    std::os::unix::fs::symlink(clients.join("node_modules"), modules).unwrap();
    let files = fs::read_dir(folder.path().join(suite)).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let tests: Vec<_> = files
        .filter(|file| file.to_string_lossy().ends_with(".test.mjs"))
        .collect();
    assert!(!tests.is_empty());
    let mut command = Command::new("node");
    command.args(["--test", "--test-reporter=spec", MILLISECONDS_MAX]);
    run(command.args(tests).current_dir(folder.path()));
}

/// The tests of a folder of `clients/python`.
fn python(suite: &str) {
    python_with(suite, &[], Server::start);
}

/// The same with variables of the environment, and a server that is begun only where the clients are there.
fn python_with(suite: &str, variables: &[(&str, &str)], start: impl FnOnce() -> Server) {
    let Some(clients) = brought("DORMOUSE_TEST_CLIENTS") else {
        return;
    };
    let server = start();
    let mut command = Command::new(clients.join("python/bin/python"));
    command.envs(variables.iter().copied());
    // -B: nothing is written into the checkout.
    command.args(["-B", "-W", "error::ResourceWarning", "-m", "unittest"]);
    command.args(["discover", "--verbose", "--top-level-directory", "."]);
    command.args(["--start-directory", suite]);
    pass(command.current_dir(sources("python")), &server);
}

/// The tests of a file of `clients/rust`, with variables for those who compile it.
fn rust(suite: &str, server: &Server, variables: &[(&str, &str)]) {
    let Some(target) = brought("DORMOUSE_TEST_RUST") else {
        return;
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["test", "--quiet", "--locked", "--test", suite]);
    command.arg("--target-dir").arg(target);
    command.env("SQLX_OFFLINE", "false");
    command.envs(variables.iter().copied());
    pass(command.current_dir(sources("rust")), server);
}

#[test]
fn node_postgres() {
    node("node-postgres");
}

#[test]
fn postgres_js() {
    node("postgres.js");
}

#[test]
fn drizzle() {
    node("drizzle");
}

#[test]
fn kysely() {
    node("kysely");
}

#[test]
fn neon() {
    node("neon");
}

#[test]
fn websocket() {
    node("websocket");
}

#[test]
fn browser() {
    node_alone("browser");
}

#[test]
fn deploy() {
    node_alone("deploy");
}

#[test]
fn openid() {
    node_alone("oidc");
}

#[test]
fn psycopg() {
    python("psycopg_suite");
}

#[test]
fn asyncpg() {
    python("asyncpg_suite");
}

#[test]
fn sqlalchemy() {
    python("sqlalchemy_suite");
}

#[test]
fn openapi() {
    python("openapi_suite");
}

#[test]
fn openapi_with_tokens_and_limits() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    let mut create = crate::harness::dormouse();
    create.args(["token", "create", "--name", "root", "--scope", "admin"]);
    let made = crate::harness::run_program(create.env("DORMOUSE_AUTH__TOKENS_FILE", &file));
    let token = made.done();
    let variables = [("DORMOUSE_TEST_TOKEN", token.trim_end())];
    // Far enough away: that they are passed is for other tests.
    let settings = [
        ("DORMOUSE_AUTH__TOKENS_FILE", file.to_str().unwrap()),
        ("DORMOUSE_LIMITS__TOKEN_REQUESTS_PER_SECOND", "100000"),
        ("DORMOUSE_LIMITS__DATABASE_CONCURRENCY_MAX", "1000"),
    ];
    python_with("openapi_suite", &variables, || {
        Server::start_with(&settings)
    });
}

#[test]
fn tokio_postgres() {
    rust("tokio_postgres", &Server::start(), &[]);
}

#[test]
fn sqlx() {
    rust("sqlx", &Server::start(), &[]);
}

#[test]
fn sqlx_compiles_against_a_database() {
    let server = Server::start();
    // Another name each time, so that it is compiled each time.
    let database = format!("checked_{}", std::process::id());
    let mut client = server.connect(&database);
    let migrations = sources("rust").join("migrations/sqlx");
    for name in ["1_animals.up.sql", "2_stock.up.sql"] {
        let script = fs::read_to_string(migrations.join(name)).unwrap();
        client.query(&script).unwrap();
    }
    let address = format!("postgres://postgres@{}/{database}", server.pg);
    rust("sqlx_checked", &server, &[("DATABASE_URL", &address)]);
}

#[test]
fn diesel() {
    rust("diesel", &Server::start(), &[]);
}
