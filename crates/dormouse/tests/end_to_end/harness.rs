//! A server of one's own, and clients for it.

mod authority;
mod collector;
pub(crate) mod extended;
mod http;
pub(crate) mod http2;
mod login;
mod origin;
mod pg;
mod program;
pub(crate) mod provider;
mod tokens;
mod websocket;

pub(crate) use authority::{Authority, Files};
pub(crate) use collector::{Collector, attributes, hex};
pub(crate) use http::{Http, Response};
pub(crate) use login::{ADMIN, Login, SCRAM, has_psql};
pub(crate) use origin::{Origin, SECRET, User, binding};
pub(crate) use pg::{Answer, Pg, startup};
pub(crate) use program::{Output, dormouse, program, run_program};
pub(crate) use tokens::Tokens;
pub(crate) use websocket::{Client, connect, connect_as, read_json};

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use wire::PgError;

/// Longer than anything that a test waits for may take, in milliseconds, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running `dormouse serve`. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    pub(crate) pg: SocketAddr,
    pub(crate) http: SocketAddr,
    log: PathBuf,
    /// Removed with the server.
    folder: Option<TempDir>,
}

impl Server {
    /// In a folder of its own.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With variables of the environment.
    pub(crate) fn start_with(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Self::start_in(folder.path(), settings);
        server.folder = Some(folder);
        server
    }

    /// In this folder; the data is in its `data`.
    pub(crate) fn start_in(folder: &Path, settings: &[(&str, &str)]) -> Self {
        let log = folder.join("log");
        let mut command = serve(folder, settings);
        let mut child = command.stderr(File::create(&log).unwrap()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let nowhere = SocketAddr::from(([0; 4], 0));
        // From here on it is killed whatever happens.
        let mut server = Self {
            child,
            pg: nowhere,
            http: nowhere,
            log,
            folder: None,
        };
        let mut lines = stdout.lines().map_while(Result::ok);
        let mut address = |prefix: &str| {
            let line = lines.next();
            let address = line.as_deref().and_then(|line| line.strip_prefix(prefix));
            let address = address.and_then(|rest| rest.split_once("://"));
            let address = address.and_then(|(_, rest)| {
                rest.trim_start_matches("postgres@")
                    .split('/')
                    .next()?
                    .parse()
                    .ok()
            });
            address.unwrap_or_else(|| panic!("no {prefix} but {line:?}"))
        };
        server.pg = address("PostgreSQL: ");
        server.http = address("HTTP:       ");
        server
    }

    /// A session as `postgres`.
    pub(crate) fn connect(&self, database: &str) -> Pg {
        Pg::connect(self.pg, &startup(database)).unwrap()
    }

    /// Why there is no session.
    pub(crate) fn refused(&self, database: &str) -> PgError {
        Pg::connect(self.pg, &startup(database))
            .err()
            .expect("the connection was accepted")
    }

    /// An HTTP connection.
    pub(crate) fn http(&self) -> Http {
        Http::connect(self.http)
    }

    /// Runs a statement over HTTP, which must work: the document.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> serde_json::Value {
        let response = self.http().query(database, sql);
        assert_eq!(response.status, 200, "{sql}: {}", response.text());
        response.json()
    }

    /// The server goes on: what every test of bad input ends with.
    pub(crate) fn still_answers(&self) {
        assert_eq!(self.sql("still", "select 1 as one")["rows"][0]["one"], 1);
        let rows = self.connect("still").query("select 2").unwrap();
        assert_eq!(rows, [[Some("2".to_owned())]]);
    }

    /// Waits until the server has noticed that clients went.
    pub(crate) fn until_sessions(&self, count: u64) {
        let mut http = self.http();
        let now = || health(&mut http)["connections"]["pgwire"]["open"].as_u64();
        until(now, |open| *open == Some(count));
    }

    /// Waits until so many databases are awake.
    pub(crate) fn until_awake(&self, count: u64) {
        let mut http = self.http();
        let now = || health(&mut http)["databases"]["awake"].as_u64();
        until(now, |awake| *awake == Some(count));
    }

    /// Somebody who sees which statements run in a database: to be there before them, as nobody comes in beside the only
    /// session of a database while it runs one (docs/sessions.md, "What is left").
    pub(crate) fn watch(&self, database: &str) -> Watch {
        // No limit of HTTP is in its way.
        let mut client = self.connect(database);
        // So it keeps its process.
        client.query("listen watch").unwrap();
        Watch(client)
    }

    /// Waits until so many statements like this run in a database, which has more sessions than one.
    #[track_caller]
    pub(crate) fn until_running(&self, database: &str, like: &str, count: u64) {
        self.watch(database).until_running(like, count);
    }

    /// Waits until nobody is in any database.
    #[track_caller]
    pub(crate) fn until_alone(&self) {
        self.until_metric("dormouse_sessions ", 0.0);
    }

    /// Waits until a sample at `/metrics` is this.
    #[track_caller]
    pub(crate) fn until_metric(&self, name: &str, value: f64) {
        let mut http = self.http();
        until(|| metric(&mut http, name), |now| *now == Some(value));
    }

    /// A sample at `/metrics`.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> f64 {
        metric(&mut self.http(), name).unwrap()
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        read(&self.log)
    }

    /// KiB of its memory, as the system tells it by this name.
    pub(crate) fn kib(&self, name: &str) -> u64 {
        let status = read(Path::new(&format!("/proc/{}/status", self.pid())));
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let line = line.and_then(|line| line.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    /// Ends it as an operator does.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the server's log\n{}---", read(&self.log));
        }
    }
}

/// `dormouse serve` on free ports, its standard output a pipe.
pub(crate) fn serve(folder: &Path, settings: &[(&str, &str)]) -> Command {
    let mut command = dormouse();
    command.args([
        "serve",
        "--pg",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
        "--data",
    ]);
    command.arg(folder.join("data"));
    command.current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.envs(settings.iter().copied());
    command
}

/// Somebody who looks at the statements of a database.
pub(crate) struct Watch(Pg);

impl Watch {
    /// Waits until so many statements like this run.
    #[track_caller]
    pub(crate) fn until_running(&mut self, like: &str, count: u64) {
        let sql = format!(
            "select count(*) from pg_stat_activity
             where state = 'active' and query like '{like}' and pid <> pg_backend_pid()"
        );
        let running = || self.0.query(&sql).unwrap()[0][0].clone();
        let count = count.to_string();
        until(running, |running| running.as_deref() == Some(&*count));
    }

    /// Waits until so many advisory locks are held.
    #[track_caller]
    pub(crate) fn until_locked(&mut self, count: u64) {
        let sql = "select count(*) from pg_locks where locktype = 'advisory' and granted";
        let held = || self.0.query(sql).unwrap()[0][0].clone();
        let count = count.to_string();
        until(held, |held| held.as_deref() == Some(&*count));
    }
}

/// Asks again until the answer is right.
#[track_caller]
pub(crate) fn until<T: std::fmt::Debug>(
    mut ask: impl FnMut() -> T,
    right: impl Fn(&T) -> bool,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask();
        if right(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "it stayed {answer:?}");
        std::thread::yield_now();
    }
}

fn metric(http: &mut Http, name: &str) -> Option<f64> {
    let page = http.get("/metrics").text();
    let sample = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
    page.lines().find_map(sample)
}

fn read(path: &Path) -> String {
    let mut text = String::new();
    let read = File::open(path).and_then(|mut file| file.read_to_string(&mut text));
    read.map_or_else(|error| error.to_string(), |_| text)
}

/// What the node's administrator is told; where nobody is asked, everybody.
pub(crate) fn health(http: &mut Http) -> serde_json::Value {
    use base64::Engine as _;
    let password = base64::engine::general_purpose::STANDARD.encode(format!("postgres:{ADMIN}"));
    let headers = [("authorization", &*format!("Basic {password}"))];
    http.request_with("GET", "/health", &headers, None).json()
}
