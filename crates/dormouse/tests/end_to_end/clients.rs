//! Clients that others use, each with the suite of `clients/` that it is asked to pass.
//!
//! Without `cargo xtask test`, which brings the clients, there is nothing to run, and a word about it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Server, run_program};

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

/// The suite passes, or what it said is the failure's text.
fn pass(command: &mut Command, server: &Server) {
    let address = format!("postgres://postgres@{}", server.pg);
    command.env("DORMOUSE_TEST_URL", address);
    for name in ["DATABASE_URL", "PGDATABASE", "PGOPTIONS", "PGPASSWORD"] {
        command.env_remove(name);
    }
    let said = run_program(command).done();
    // Shown with `--no-capture`.
    eprintln!("{said}");
}

/// The tests of a folder of `clients/node`.
fn node(suite: &str) {
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
    let server = Server::start();
    let mut command = Command::new("node");
    command.args(["--test", "--test-reporter=spec", MILLISECONDS_MAX]);
    pass(command.args(tests).current_dir(folder.path()), &server);
}

/// The tests of a folder of `clients/python`.
fn python(suite: &str) {
    let Some(clients) = brought("DORMOUSE_TEST_CLIENTS") else {
        return;
    };
    let server = Server::start();
    let mut command = Command::new(clients.join("python/bin/python"));
    // -B: nothing is written into the checkout.
    command.args(["-B", "-W", "error::ResourceWarning", "-m", "unittest"]);
    command.args(["discover", "--verbose", "--top-level-directory", "."]);
    command.args(["--start-directory", suite]);
    pass(command.current_dir(sources("python")), &server);
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
