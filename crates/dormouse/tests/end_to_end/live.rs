//! Every setting that is called live: it is changed, the configuration is read again, and it holds, as is seen through a door.

mod asked;
mod databases;
mod http;
mod limits;
mod told;
mod websockets;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    ADMIN, Client, Http, Pg, Response, Server, connect, dormouse, read_json, run_program, startup,
    until,
};

/// A setting, and what shows that it holds.
struct Case {
    key: &'static str,
    value: &'static str,
    /// Whether it holds. Where it does not, that is found out at once only if `is_quick`.
    holds: fn(&Live) -> bool,
    is_quick: bool,
}

/// What shows at once whether it holds: not before, but after, and not when it was taken back.
const fn at_once(key: &'static str, value: &'static str, holds: fn(&Live) -> bool) -> Case {
    Case {
        key,
        value,
        holds,
        is_quick: true,
    }
}

/// What would not happen, or not in the patience of a test, as the server was configured before.
const fn in_time(key: &'static str, value: &'static str, holds: fn(&Live) -> bool) -> Case {
    Case {
        is_quick: false,
        ..at_once(key, value, holds)
    }
}

/// A sample of the metrics.
const RESIDENT: &str = "process_resident_memory_bytes ";

/// A server with a configuration file.
struct Live {
    server: Server,
    folder: tempfile::TempDir,
    base: String,
    /// A WebSocket of the database `socket` is open whenever the configuration is read again.
    has_socket: bool,
    socket: RefCell<Option<Client>>,
    names: Cell<u32>,
    /// What the server had in memory before the configuration was changed.
    resident: Cell<f64>,
}

impl Live {
    fn start(base: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), base, &[])
    }

    fn start_in(folder: tempfile::TempDir, base: &str, variables: &[(&str, &str)]) -> Self {
        std::fs::write(folder.path().join("dormouse.toml"), base).unwrap();
        Self {
            server: Server::start_in(folder.path(), variables),
            folder,
            base: base.to_owned(),
            has_socket: false,
            socket: RefCell::default(),
            names: Cell::default(),
            resident: Cell::default(),
        }
    }

    /// The configuration is as at the start but for these lines, in place of those of the same keys.
    fn set(&self, lines: &str) {
        let key = |line: &str| line.split(" =").next().map(str::to_owned);
        let keys: Vec<_> = lines.lines().map(key).collect();
        let base = self.base.lines().filter(|line| !keys.contains(&key(line)));
        let text: String = base
            .chain(lines.lines())
            .map(|line| format!("{line}\n"))
            .collect();
        std::fs::write(self.folder.path().join("dormouse.toml"), text).unwrap();
        let count = |log: &str| log.matches("the configuration was read again").count();
        let before = count(&self.server.log());
        self.server.signal(Signal::HUP);
        let read = |log: &String| {
            assert!(!log.contains("the configuration cannot be used"), "{log}");
            count(log) > before
        };
        until(|| self.server.log(), read);
    }

    /// Tries each.
    fn try_all(&self, cases: &[Case]) {
        for case in cases {
            let Case { key, value, .. } = case;
            eprintln!("{key} = {value}");
            if case.is_quick {
                assert!(!(case.holds)(self), "{key} holds before it is changed");
            }
            self.open_socket();
            self.resident.set(self.metric(RESIDENT));
            self.set(&format!("{key} = {value}"));
            let log = self.server.log();
            let told = log.lines().rfind(|line| line.contains("was read again"));
            let told = told.unwrap();
            let applied = told.split(['"', ' ']).any(|word| word == *key);
            assert!(applied, "{key}: {told}");
            assert!((case.holds)(self), "{key} = {value} does not hold");
            self.set("");
            // One that was opened under a limit of messages reads no larger ones.
            self.open_socket();
            if case.is_quick {
                assert!(!(case.holds)(self), "{key} still holds when taken back");
            }
        }
    }

    fn open_socket(&self) {
        if self.has_socket {
            *self.socket.borrow_mut() = self.try_open_socket();
        }
    }

    /// None where there is no place for one.
    fn try_open_socket(&self) -> Option<Client> {
        let path = "/v1/databases/socket/ws";
        let mut socket = connect(&self.server, path, Some("dormouse.v1")).ok()?;
        let hello = read_json(&mut socket).ok()?;
        Some(Client { socket, hello })
    }

    /// The WebSocket that was open before.
    fn socket(&self) -> Client {
        let open = self.socket.take();
        open.unwrap_or_else(|| Client::open(&self.server, "socket"))
    }

    /// What a request in it is answered with.
    fn ask_socket(&self, message: &Value) -> Value {
        let mut socket = self.socket();
        let answer = socket.ask(message);
        *self.socket.borrow_mut() = Some(socket);
        answer
    }

    fn http(&self) -> Http {
        self.server.http()
    }

    fn status(&self, sql: &str) -> u16 {
        self.http().query("shop", sql).status
    }

    /// A database that nobody has asked for yet.
    fn fresh(&self) -> String {
        self.names.set(self.names.get() + 1);
        format!("fresh_{}", self.names.get())
    }

    /// Over PostgreSQL's protocol: the code of the error of the session or of its statement, if there is one.
    fn code(&self, sql: &str) -> Option<String> {
        let session = Pg::connect(self.server.pg, &startup("shop"));
        let done = session.and_then(|mut session| session.query(sql));
        done.err().map(|error| error.code().to_owned())
    }

    /// A sample of the metrics.
    fn metric(&self, name: &str) -> f64 {
        let page = self.http().get("/metrics").text();
        let sample = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
        page.lines().find_map(sample).unwrap_or_default()
    }

    /// Whether a sample becomes greater than it is now, after something was done.
    fn grows(&self, name: &str, by: f64, done: impl FnOnce()) -> bool {
        let before = self.metric(name);
        done();
        until(|| self.metric(name), |now| *now > before + by);
        true
    }
}

/// A request of the administrator where passwords are asked for.
fn as_admin(http: &mut Http, method: &str, path: &str, body: Option<&Value>) -> Response {
    use base64::Engine as _;
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("postgres:{ADMIN}"));
    let headers = [("authorization", &*format!("Basic {basic}"))];
    let body = body.map(Value::to_string);
    http.request_with(method, path, &headers, body.as_deref())
}

#[test]
fn none_is_left_out() {
    let file = run_program(dormouse().arg("config")).done();
    let (mut section, mut is_live, mut live) = (String::new(), false, BTreeSet::new());
    for line in file.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.trim_end_matches(']'));
        } else if line.starts_with("# Variable: ") {
            is_live = line.ends_with("(live)");
        } else if let Some((name, _)) = line.trim_start_matches("# ").split_once(" = ") {
            let key = format!("{section}{name}");
            let _ = std::mem::take(&mut is_live) && live.insert(key);
        }
    }
    assert!(live.len() > 70, "{live:?}");
    let tables = [
        asked::CASES,
        databases::CASES,
        databases::SHORT_OF_PROCESSES,
        http::CASES,
        limits::CASES,
        limits::OF_A_RATE,
        told::CASES,
        told::OF_SLOW_QUERIES,
        told::OF_TRACES,
        websockets::CASES,
    ];
    let tables = tables.iter().flat_map(|table| table.iter());
    let tried = tables.map(|case| case.key.to_owned());
    let tried: BTreeSet<_> = tried.chain([told::DRAIN_KEY.to_owned()]).collect();
    let missing: Vec<_> = live.difference(&tried).collect();
    let gone: Vec<_> = tried.difference(&live).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "{missing:?} {gone:?}"
    );
}
