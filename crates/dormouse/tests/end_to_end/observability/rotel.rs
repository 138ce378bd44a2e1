//! A collector that others use, Rotel, between the server and the test: what it does not understand it does not pass on.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::traces::{CALLER, TRACE, print, query, shown, traced, whole, without_fetches};
use crate::harness::{Collector, run_program, until};

/// How often a port is taken by somebody else before Rotel has it.
const TRIES: usize = 5;

struct Rotel {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
}

/// The program that `cargo xtask test` brings.
fn program() -> Option<PathBuf> {
    let clients = std::env::var_os("DORMOUSE_TEST_CLIENTS").map(PathBuf::from);
    let Some(clients) = clients else {
        eprintln!("skipped: `cargo xtask test` brings the clients");
        return None;
    };
    let python = |program: &str| {
        let mut python = Command::new(clients.join("python/bin/python"));
        run_program(python.args(["-c", program])).done()
    };
    // As clients/python/requirements.in says.
    let is_there = python("import sys; print(sys.version_info < (3, 14))");
    if is_there.trim_end() == "False" {
        eprintln!("skipped: there is no Rotel for Python 3.14 and later");
        return None;
    }
    let folder = python("import rotel; print(rotel.__path__[0])");
    Some(Path::new(folder.trim_end()).join("rotel-agent"))
}

/// A port that was free a moment ago: Rotel takes no other.
fn free() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap()
}

impl Rotel {
    /// Passes on what it understands, and writes down what spans it got.
    fn start(program: &Path, onto: &Collector) -> Self {
        let tries = (0..TRIES).find_map(|_| Self::try_start(program, onto));
        tries.expect("Rotel does not start")
    }

    fn try_start(program: &Path, onto: &Collector) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let address = free();
        let mut command = Command::new(program);
        command.arg("start").current_dir(folder.path());
        command.args(["--otlp-http-endpoint", &address.to_string()]);
        command.args(["--otlp-grpc-endpoint", &free().to_string()]);
        command.args(["--debug-log", "traces", "--debug-log-verbosity", "detailed"]);
        command.args(["--exporter", "otlp", "--otlp-exporter-protocol", "http"]);
        command.args(["--otlp-exporter-endpoint", &onto.endpoint()]);
        command.args(["--batch-timeout", "50ms"]);
        command.stdin(Stdio::null());
        let log = File::create(folder.path().join("log")).unwrap();
        command.stderr(log.try_clone().unwrap()).stdout(log);
        let mut rotel = Self {
            child: command.spawn().unwrap(),
            address,
            folder,
        };
        let is_up = || match rotel.child.try_wait().unwrap() {
            Some(_ended) => Some(false),
            None => TcpStream::connect(address).ok().map(|_| true),
        };
        let is_up = until(is_up, Option::is_some);
        is_up?.then_some(rotel)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

impl Drop for Rotel {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- Rotel's log\n{}---", self.log());
        }
    }
}

#[test]
fn a_collector_that_others_use_understands_what_we_send() {
    let Some(program) = program() else {
        return;
    };
    let behind = Collector::start();
    let rotel = Rotel::start(&program, &behind);
    let server = traced(&format!("http://{}", rotel.address), "0.0");
    server.sql("shop", "create table fruit (name text, price numeric)");
    server.until_awake(0);
    let headers = format!("traceparent: 00-{TRACE}-{CALLER}-01\r\n");
    let insert = "insert into fruit values ('apple', 1.5)";
    let answer = query(&mut server.http(), "shop", insert, &headers);
    assert_eq!(answer.status, 200, "{}", answer.text());

    let all = whole(&behind, TRACE);
    print(&all, CALLER, 0);
    let lines = shown(&without_fetches(all));
    let expected = [
        "POST /v1/databases/{name}/query",
        "  wait",
        "  wake",
        "    wake queue",
        "    claim",
        "    resume",
        "  wait",
        "  INSERT shop",
        "  gate",
    ];
    assert_eq!(lines, expected);
    let log = rotel.log();
    for line in expected {
        let name = line.trim();
        assert!(log.contains(name), "{name}: {log}");
    }
    until(
        || behind.metrics(),
        |names| names.iter().any(|name| name == "dormouse_statements_total"),
    );
}
