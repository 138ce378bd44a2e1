//! `dormouse dev` with bindings that variables of the environment lead to a Postgres of one's own.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::stage::workerd;
use crate::harness::{
    Http, Origin, Output, Response, SECRET, Server, dormouse, has_psql, program, run_program, until,
};

const VARIABLE: &str = "CLOUDFLARE_HYPERDRIVE_LOCAL_CONNECTION_STRING_DB";

/// Tells what it has, which no app of yours should.
const TELLS: &str = "export default { fetch(_, { DB }) {\n\
    return Response.json({ user: DB.user, password: DB.password, database: DB.database }); } };";

/// A folder that is served, with `DB` where a variable leads; killed when dropped.
struct Dev {
    running: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.running.kill();
        let _ = self.running.wait();
    }
}

impl Dev {
    fn start(workerd: &Path, code: &str, url: &str, args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let app = folder.path().join("app");
        fs::create_dir_all(app.join("backend")).unwrap();
        fs::write(app.join("backend/index.js"), code).unwrap();
        let manifest = r#"{"bindings":{"hyperdrive":[{"binding":"DB","id":"anything"}]}}"#;
        fs::write(app.join("w7s.json"), manifest).unwrap();
        let mut command = dormouse();
        command
            .args(["dev", "--port", "0", "--repository", "acme/shop"])
            .args(args)
            .arg(&app)
            .env(VARIABLE, url)
            .env("DORMOUSE_WORKERS__WORKERD", workerd)
            .env("DORMOUSE_WORKERS__START_MS_MAX", "60000")
            .env(
                "DORMOUSE_BINDINGS__SOCKET_DIRECTORY",
                folder.path().join("s"),
            )
            .stdout(Stdio::piped())
            .stderr(File::create(folder.path().join("log")).unwrap());
        let mut running = command.spawn().unwrap();
        let mut lines = BufReader::new(running.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let mut until_line = |text: &str| lines.find(|line| line.contains(text)).unwrap();
        let address = until_line("HTTP: ");
        until_line("serves");
        Self {
            running,
            address: address.rsplit('/').next().unwrap().parse().unwrap(),
            folder,
        }
    }

    fn visit(&self) -> Response {
        let host = [("host", "acme.apps.localhost")];
        Http::connect(self.address).request_with("GET", "/shop/", &host, None)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    /// psql with what the backend has been told.
    fn psql(&self, told: &Value, sql: &str) -> Output {
        let text = |name: &str| told[name].as_str().unwrap();
        let mut command = program("psql", 18).unwrap();
        command
            .arg(format!(
                "host={} port=5432 user={} dbname={}",
                self.path("s").display(),
                text("user"),
                text("database")
            ))
            .env("PGPASSWORD", text("password"))
            .args(["--no-psqlrc", "-qAtw", "-v", "VERBOSITY=verbose", "-c", sql]);
        run_program(&mut command)
    }

    fn hits(&self) -> String {
        let page = Http::connect(self.address).get("/metrics").text();
        let hits = page.lines().find(|line| {
            line.starts_with("dormouse_binding_queries_total{")
                && line.contains("cache_status=\"hit\"")
        });
        hits.unwrap().rsplit(' ').next().unwrap().to_owned()
    }
}

/// The same pool and cache as in production, with credentials that are not the string's, and nothing of it on the disk. The
/// Postgres may go and come back.
#[test]
fn behaviour_26_a_variable_leads_through_the_pool() {
    let (Some(workerd), true) = (workerd(), has_psql()) else {
        return;
    };
    let Some(mut origin) = Origin::start() else {
        return;
    };
    let dev = Dev::start(&workerd, TELLS, &origin.url(), &[]);
    let told = dev.visit().json();
    assert_ne!(told["user"], "postgres");
    assert_ne!(told["password"], SECRET);
    let gives = |sql: &str| dev.psql(&told, sql).done().trim_end().to_owned();
    // Two clients, one connection.
    let process = gives("select pg_backend_pid()");
    assert_eq!(gives("select pg_backend_pid()"), process);
    gives("create table t as select 7 as n");
    let before = dev.hits();
    assert_eq!(gives("select n from t"), "7");
    assert_eq!(gives("select n from t"), "7");
    assert_ne!(dev.hits(), before);
    gives("update t set n = 8");
    assert_eq!(gives("select n from t"), "8");
    assert!(!dev.log().contains("warning: "), "{}", dev.log());
    assert!(dev.path("app/.dormouse/node.key").exists());
    assert!(!dev.path("app/.dormouse/bindings").exists());

    origin.native.kill().unwrap();
    let said = until(
        || dev.psql(&told, "select count(*) from t").stderr,
        |said| said.contains("connection_refused"),
    );
    assert!(said.contains("58000"), "{said}");
    origin.native.run().unwrap();
    until(
        || dev.psql(&told, "select n from t").stdout,
        |n| n.trim_end() == "8",
    );
}

/// What is not there yet is said, and the folder is served; a string that is none is an error.
#[test]
fn behaviour_26_what_cannot_be_reached_is_said() {
    let Some(workerd) = workerd() else { return };
    let nowhere = format!("postgres://postgres:{SECRET}@127.0.0.1:1/postgres");
    let dev = Dev::start(&workerd, TELLS, &nowhere, &[]);
    assert_eq!(dev.visit().status, 200);
    let log = until(|| dev.log(), |log| log.contains("warning: "));
    assert!(
        log.contains(&format!("warning: {VARIABLE}: "))
            && log.contains("(connection_refused). Queries of DB fail until it can be reached.")
            && !log.contains(SECRET),
        "{log}"
    );
    for (url, args, why) in [
        ("mysql://u:secret@h/d", &[][..], "must be postgres://"),
        ("postgres://u:secret@h", &[], "database is missing"),
        (
            "postgres://u:secret@h/d?sslmode=require",
            &["--direct"],
            "without TLS",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut refused = dormouse();
        refused.args(["dev", "--port", "0"]).args(args);
        let said = run_program(refused.arg(folder.path()).env(VARIABLE, url)).failed(2);
        assert!(
            said.contains(VARIABLE) && said.contains(why) && !said.contains("secret"),
            "{said}"
        );
    }
}

/// Without pool and cache, if that is wished: here to a server of ours.
#[test]
fn dev_leads_straight_where_variables_say() {
    let Some(workerd) = workerd() else { return };
    let postgres = Server::start();
    // The first words of PostgreSQL's protocol: what the server says to them comes back through the binding.
    let code = "export default { async fetch(_, env) { const socket = env.DB.connect();\n\
        const text = `user\\0${env.DB.user}\\0database\\0${env.DB.database}\\0\\0`;\n\
        const body = new TextEncoder().encode(text); const all = new Uint8Array(8 + body.length);\n\
        const view = new DataView(all.buffer); view.setInt32(0, all.length); view.setInt32(4, 196608); all.set(body, 8);\n\
        await socket.writable.getWriter().write(all);\n\
        const { value } = await socket.readable.getReader().read();\n\
        return new Response(new TextDecoder().decode(value).replaceAll('\\0', ' ')); } };";
    let url = format!("postgres://postgres:any@{}/led", postgres.pg);
    let dev = Dev::start(&workerd, code, &url, &["--direct"]);
    let said = dev.visit().text();
    assert!(
        said.starts_with('R') || said.contains("server_version"),
        "{said}"
    );
    let databases = postgres.http().get("/v1/databases").text();
    assert!(databases.contains("\"led\""), "{databases}");
}
