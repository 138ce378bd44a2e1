//! The configuration is read again while the server runs.

use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Output, Server, dormouse, run_program, until};

/// A server with a configuration file.
struct Configured {
    folder: tempfile::TempDir,
    server: Server,
}

impl Configured {
    fn start(file: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), file);
        let server = Server::start_in(folder.path(), &[]);
        Self { folder, server }
    }

    /// Writes the file anew, and asks over HTTP.
    fn reload(&self, file: &str) -> Value {
        write(self.folder.path(), file);
        let response = self.server.http().request("POST", "/v1/reload", None);
        assert_eq!(response.status, 200, "{}", response.text());
        response.json()
    }

    /// By the command line.
    fn run(&self, args: &[&str]) -> Output {
        let url = format!("http://{}", self.server.http);
        run_program(dormouse().arg("reload").args(args).args(["--server", &url]))
    }

    fn status(&self, database: &str) -> u16 {
        self.server.http().query(database, "select 1").status
    }
}

fn write(folder: &Path, file: &str) {
    std::fs::write(folder.join("dormouse.toml"), file).unwrap();
}

#[test]
fn what_is_live_holds_at_once() {
    let configured = Configured::start("");
    let server = &configured.server;
    assert_eq!(configured.status("shop"), 200);
    let file = "
        [log]
        filter = \"debug\"
        slow_query_ms = 1
        [routing]
        blocked_names = [\"shut\"]
        [http]
        body_bytes_max = 1000
        cors.origins = [\"https://app.example\"]
        [databases]
        auto_create = false
        [volume]
        bytes_max = 0
        [pgwire]
        connections_max = 0
        [limits]
        database_requests_per_second = 1000
        ";
    let changes = configured.reload(file);
    let applied = [
        "log.filter",
        "log.slow_query_ms",
        "pgwire.connections_max",
        "http.body_bytes_max",
        "routing.blocked_names",
        "databases.auto_create",
        "volume.bytes_max",
        "http.cors.origins",
        "limits.database_requests_per_second",
    ];
    let mut said: Vec<&str> = changes["applied"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key.as_str().unwrap())
        .collect();
    said.sort_unstable();
    let mut expected = applied.to_vec();
    expected.sort_unstable();
    assert_eq!(said, expected);
    assert_eq!(changes["needRestart"], json!([]));

    assert_eq!(configured.status("shut"), 403);
    assert_eq!(configured.status("nowhere"), 404);
    assert_eq!(configured.status("shop"), 200);
    let large = format!("select '{}'", "x".repeat(1_000));
    let (code, message) = server.http().query("shop", &large).error(413);
    assert_eq!(code, "54000");
    assert!(message.contains("http.body_bytes_max, 1000"), "{message}");
    let headers = [("origin", "https://app.example")];
    let answer = server.http().request_with("GET", "/ping", &headers, None);
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://app.example")
    );
    // The volume is open already.
    let grows = "create table t as select repeat('x', 100) from generate_series(1, 100000)";
    let (code, message) = server.http().query("shop", grows).error(507);
    assert_eq!((&*code, message.is_empty()), ("53100", false));
    let refused = server.refused("shop");
    assert!(refused.message().contains("pgwire.connections_max is 0"));
    server.http().query("shop", "select pg_sleep(0.01)");
    until(
        || server.log(),
        |log| log.contains("slow query") && log.contains("DEBUG"),
    );

    // Back, also on the connection that was open all the time.
    let mut kept = server.http();
    assert_eq!(kept.query("shut", "select 1").status, 403);
    configured.reload("");
    assert_eq!(kept.query("shut", "select 1").status, 200);
    server.connect("shop").query("select 1").unwrap();
}

#[test]
fn what_needs_a_restart_is_named() {
    let configured = Configured::start("");
    let file =
        "[log]\nformat = \"json\"\n[databases]\nawake_max = 7\n[sessions]\nwait_ms_max = 7\n";
    write(configured.folder.path(), file);
    let said = configured.run(&[]).done();
    assert_eq!(
        said,
        "applied        sessions.wait_ms_max\nneeds restart  log.format\nneeds restart  databases.awake_max\n"
    );
    // Also the next time; what holds is not told again.
    let said: Value = serde_json::from_str(&configured.run(&["--json"]).done()).unwrap();
    let needed = ["log.format", "databases.awake_max"];
    assert_eq!(said, json!({"applied": [], "needRestart": needed}));
    assert!(
        configured
            .server
            .log()
            .contains("changed settings that need a restart")
    );
    write(configured.folder.path(), "[sessions]\nwait_ms_max = 7\n");
    assert_eq!(configured.run(&[]).done(), "nothing has changed\n");
    assert_eq!(configured.status("shop"), 200);
}

#[test]
fn a_wrong_configuration_changes_nothing() {
    let configured = Configured::start("[routing]\nblocked_names = [\"shut\"]\n");
    let right = "[routing]\nblocked_names = []\n";
    let tls = "[tls]\ncertificate = \"none.crt\"\nkey = \"none.key\"\n";
    for (wrong, word) in [
        ("[routing]\ncolour = 1\n", "routing.colour"),
        ("[http]\nbody_bytes_max = \"many\"\n", "http.body_bytes_max"),
        (
            "[http]\ncors.origins = [\"nonsense\"]\n",
            "http.cors.origins",
        ),
        ("[log]\nfilter = \"a=b=c\"\n", "log filter"),
        (tls, "tls.key"),
        ("[", "dormouse.toml"),
    ] {
        let file = match wrong.contains("[routing]") {
            true => wrong.to_owned(),
            false => format!("{right}{wrong}"),
        };
        write(configured.folder.path(), &file);
        let response = configured.server.http().request("POST", "/v1/reload", None);
        let (code, message) = response.error(409);
        assert_eq!(code, "F0000");
        assert!(message.contains(word), "{message}");
        assert!(configured.run(&[]).failed(1).contains(word));
        assert_eq!(configured.status("shut"), 403);
    }
    configured.server.signal(Signal::HUP);
    let refused = "the configuration cannot be used; nothing has changed";
    // Twice for each over HTTP, and once more.
    until(
        || configured.server.log().matches(refused).count(),
        |told| *told == 13,
    );
    write(configured.folder.path(), right);
    configured.server.signal(Signal::HUP);
    until(|| configured.status("shut"), |status| *status == 200);
}
