//! Configurations of bindings: what is tried, what may be in them, and changes of those that are in use.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread::JoinHandle;

use bytes::BytesMut;
use serde_json::{Value, json};
use wire::PgError;
use wire::pg::startup::FirstPacket;
use wire::pg::{Frame, TransactionStatus, backend, frontend};

use crate::harness::{Origin, PATIENCE, Response, Server, User, until};

/// Whoever speaks PostgreSQL's protocol only as far as a test wants.
struct Pretender {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Pretender {
    /// Lets one client in when it is told to, and answers its statements with this error, or with nothing.
    fn start(may_go_on: mpsc::Receiver<()>, error: Option<PgError>) -> (Self, mpsc::Receiver<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, is_here) = mpsc::channel();
        let serving = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            tell.send(()).unwrap();
            // Whoever has hung up wants nothing.
            if may_go_on.recv().is_ok() {
                serve(stream, error.as_ref());
            }
        });
        (Self { address, serving }, is_here)
    }
}

fn serve(mut stream: TcpStream, error: Option<&PgError>) {
    let mut inbox = BytesMut::new();
    let fill = |inbox: &mut BytesMut, stream: &mut TcpStream| {
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).unwrap_or(0);
        inbox.extend_from_slice(&chunk[..read]);
        read > 0
    };
    while FirstPacket::split(&mut inbox).unwrap().is_none() {
        assert!(fill(&mut inbox, &mut stream));
    }
    let mut out = BytesMut::new();
    backend::authentication_ok(&mut out);
    backend::parameter_status(&mut out, "server_version", "18.0");
    backend::ready_for_query(&mut out, TransactionStatus::Idle);
    stream.write_all(&out.split()).unwrap();
    loop {
        while let Some(frame) = Frame::split(&mut inbox, usize::MAX).unwrap() {
            if frame.kind() != frontend::kind::QUERY {
                return;
            }
            match error {
                Some(error) => error.encode(&mut out),
                None => out.extend_from_slice(b"I\0\0\0\x04"),
            }
            backend::ready_for_query(&mut out, TransactionStatus::Idle);
            stream.write_all(&out.split()).unwrap();
        }
        if !fill(&mut inbox, &mut stream) {
            return;
        }
    }
}

fn change(server: &Server, binding: &str, change: &Value) -> Response {
    let path = format!("/v1/bindings/{binding}");
    server
        .http()
        .request("PATCH", &path, Some(&change.to_string()))
}

/// It is not enough that an origin lets us in.
#[test]
fn behaviour_01_an_origin_that_answers_nothing_or_with_an_error() {
    let server = Server::start();
    let create = |address: SocketAddr| {
        let url = format!("postgres://a:secret-of-a@{address}/b");
        let new = json!({
            "name": "shop", "connectionString": url, "limits": { "connectTimeoutMs": 500 },
        });
        let answer = server.http().post("/v1/bindings", &new);
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(!answer.text().contains("secret-of-a"), "{}", answer.text());
        answer.problem()["failure"].clone()
    };
    let error = PgError::error("XX000", "not today");
    let (go_on, may_go_on) = mpsc::channel();
    let (origin, _is_here) = Pretender::start(may_go_on, Some(error));
    go_on.send(()).unwrap();
    let failure = create(origin.address);
    assert_eq!(failure, json!({ "kind": "query_failed", "code": 2016 }));
    origin.serving.join().unwrap();

    let (silent, may_go_on) = mpsc::channel();
    let (origin, _is_here) = Pretender::start(may_go_on, None);
    let failure = create(origin.address);
    assert_eq!(failure, json!({ "kind": "timeout", "code": 2010 }));
    drop(silent);
    origin.serving.join().unwrap();
    let list = server.http().get("/v1/bindings").json();
    assert_eq!(list["bindings"], json!([]));
}

#[test]
fn behaviour_03_defaults_and_ranges() {
    let server = Server::start();
    let new = json!({ "name": "shop", "connectionString": "postgres://a:b@localhost/c", "skipCheck": true });
    let made = server.http().post("/v1/bindings", &new).json();
    let defaults = json!({
        "connectionsMax": 20, "pinnedMax": 10, "connectTimeoutMs": 15_000, "waitMsMax": 15_000,
        "idleMs": 600_000, "statementTimeoutMs": 60_000,
    });
    assert_eq!(made["limits"], defaults);
    for (field, value) in [
        ("disabled", json!(false)),
        ("maxAge", json!(60)),
        ("staleWhileRevalidate", json!(15)),
        ("mode", json!("fresh")),
        ("replication", json!(false)),
    ] {
        assert_eq!(made["caching"][field], value, "{field}");
    }
    for (field, least, most) in [
        ("connectionsMax", 1_u64, 10_000_u64),
        ("pinnedMax", 0, 10_000),
        ("connectTimeoutMs", 100, 600_000),
        ("waitMsMax", 1, 3_600_000),
        ("idleMs", 1_000, 86_400_000),
        ("statementTimeoutMs", 0, 86_400_000),
    ] {
        for value in [least, most] {
            let changed = change(&server, "shop", &json!({ "limits": { field: value } }));
            assert_eq!(changed.status, 200, "{field} {value}: {}", changed.text());
            assert_eq!(changed.json()["limits"][field], value);
        }
        let below = least.checked_sub(1);
        for value in below.into_iter().chain([most + 1]) {
            let refused = change(&server, "shop", &json!({ "limits": { field: value } }));
            assert_eq!(refused.status, 400, "{field} {value}: {}", refused.text());
            assert_eq!(refused.problem()["field"], field);
            let words = format!("must be from {least} to {most}, and is {value}");
            assert!(refused.text().contains(&words), "{}", refused.text());
        }
    }
    for field in ["maxAge", "staleWhileRevalidate"] {
        let changed = change(&server, "shop", &json!({ "caching": { field: 3_600 } }));
        assert_eq!(changed.status, 200, "{}", changed.text());
        let refused = change(&server, "shop", &json!({ "caching": { field: 3_601 } }));
        assert_eq!(refused.status, 400);
        assert!(
            refused.text().contains("must be at most 3600 seconds"),
            "{}",
            refused.text()
        );
    }
}

/// What is open goes when it is free, and not before.
#[test]
fn behaviour_06_a_restart_drains() {
    let Some(origin) = Origin::start() else {
        return;
    };
    let server = Server::start();
    origin.bind(&server, "shop", &json!({ "connectionsMax": 2 }));
    let user = User::of(&server, "shop");
    let (mut busy, mut idle) = (user.session(&server), user.session(&server));
    let pid = "select pg_backend_pid()";
    busy.query("begin").unwrap();
    let (of_busy, of_idle) = (busy.gives(pid), idle.gives(pid));
    assert_ne!(of_busy, of_idle);
    let restarted = server
        .http()
        .request("POST", "/v1/bindings/shop/restart", None);
    assert_eq!(restarted.status, 204);
    assert_eq!(busy.gives(pid), of_busy, "its transaction goes on");
    assert_ne!(idle.gives(pid), of_idle);
    busy.query("commit").unwrap();
    let mut beside = origin.session();
    let old = format!("select count(*) from pg_stat_activity where pid in ({of_busy}, {of_idle})");
    until(|| beside.gives(&old), |count| count == "0");
    assert_ne!(busy.gives(pid), of_busy);
}

/// A password that was told for one place is sent to no other.
#[test]
fn a_password_is_told_again_for_another_place() {
    let Some(origin) = Origin::start() else {
        return;
    };
    let server = Server::start();
    origin.bind(&server, "shop", &json!({}));
    // Whoever listens there must hear nothing of it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let elsewhere = listener.local_addr().unwrap();
    let own = origin.native.address;
    let at =
        |address: SocketAddr| json!({ "host": address.ip().to_string(), "port": address.port() });
    let authorities = json!({ "sslrootcert": "-----BEGIN CERTIFICATE-----" });
    for fields in [at(elsewhere), json!({ "user": "other" }), authorities] {
        for skips in [false, true] {
            let body = json!({ "origin": fields.clone(), "skipCheck": skips });
            let refused = change(&server, "shop", &body);
            assert_eq!(refused.status, 400, "{}", refused.text());
            assert_eq!(refused.problem()["field"], "password", "{}", refused.text());
            assert!(
                refused.text().contains("must be told again"),
                "{}",
                refused.text()
            );
        }
    }
    assert!(listener.accept().is_err(), "somebody came");
    // The same place, and another database there, are where it was told for.
    for fields in [at(own), json!({ "database": "template1" })] {
        let changed = change(&server, "shop", &json!({ "origin": fields }));
        assert_eq!(changed.status, 200, "{}", changed.text());
    }
    // Less TLS would show it to others on the way.
    let tls = json!({ "origin": { "sslmode": "verify-full" }, "skipCheck": true });
    assert_eq!(change(&server, "shop", &tls).status, 200);
    let less = json!({ "origin": { "sslmode": "disable" } });
    assert_eq!(
        change(&server, "shop", &less).problem()["field"],
        "password"
    );
    let told = json!({ "origin": { "sslmode": "disable", "password": crate::harness::SECRET } });
    assert_eq!(change(&server, "shop", &told).status, 200);
    assert_eq!(
        User::of(&server, "shop").session(&server).gives("select 1"),
        "1"
    );
}

/// Of two changes at once the later is told that it has not seen the other.
#[test]
fn a_change_that_somebody_else_overtook_changes_nothing() {
    let server = Server::start();
    let new = json!({ "name": "shop", "connectionString": "postgres://a:b@localhost/c", "skipCheck": true });
    assert_eq!(server.http().post("/v1/bindings", &new).status, 201);
    let (go_on, may_go_on) = mpsc::channel();
    let (origin, is_here) = Pretender::start(may_go_on, None);
    let url = format!("postgres://a:b@{}/c", origin.address);
    let slow = std::thread::scope(|scope| {
        let slow = scope.spawn(|| {
            let body = json!({ "connectionString": url, "limits": { "idleMs": 5_000 } });
            change(&server, "shop", &body)
        });
        // It is about to try where the binding would lead.
        is_here.recv_timeout(PATIENCE).unwrap();
        let quick = change(
            &server,
            "shop",
            &json!({ "limits": { "connectionsMax": 3 } }),
        );
        assert_eq!(quick.status, 200, "{}", quick.text());
        go_on.send(()).unwrap();
        slow.join().unwrap()
    });
    assert_eq!(slow.status, 409, "{}", slow.text());
    assert!(
        slow.text()
            .contains("was changed by somebody else meanwhile"),
        "{}",
        slow.text()
    );
    let shown = server.http().get("/v1/bindings/shop").json();
    assert_eq!(shown["limits"]["connectionsMax"], 3);
    assert_eq!(shown["limits"]["idleMs"], 600_000);
    assert_eq!(shown["origin"]["hosts"], json!(["localhost:5432"]));
    origin.serving.join().unwrap();
}
