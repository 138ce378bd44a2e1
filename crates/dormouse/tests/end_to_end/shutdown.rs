//! How a server stops.

use std::io::Read as _;

use rustix::process::Signal;
use wire::pg::backend;

use crate::harness::http2::{DATA, END_STREAM, Http2};
use crate::harness::{Server, serve};

#[test]
fn idle_sessions_are_told_and_the_exit_code_is_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start();
        let mut idle = server.connect("idle");
        let mut open = server.connect("open");
        open.query("begin").unwrap();
        let mut http = server.http();
        assert_eq!(http.get("/ping").status, 200);
        server.signal(signal);
        for client in [&mut idle, &mut open] {
            assert_eq!(client.last_word().code(), "57P01");
        }
        assert_eq!(server.wait().code(), Some(0));
    }
}

#[test]
fn running_statements_get_time_to_end() {
    let mut server = Server::start();
    let mut client = server.connect("busy");
    client.query("create table t (n int)").unwrap();
    let mut idle = server.connect("busy");
    idle.query("select pg_advisory_lock(1)").unwrap();
    client.send_query("insert into t select 1 from pg_advisory_lock(1)");
    server.until_running("busy", "insert into t%", 1);
    server.signal(Signal::TERM);
    // Whoever it waits for does nothing, and so leaves at once.
    assert_eq!(idle.last_word().code(), "57P01");
    let answer = client.answer();
    assert_eq!(answer.tags, ["INSERT 0 1"], "{:?}", answer.error);
    assert_eq!(client.last_word().code(), "57P01");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn statements_that_do_not_end_are_cancelled() {
    for sql in [
        "select pg_sleep(3600)",
        "select count(*) from generate_series(1, 1000000000000)",
    ] {
        let mut server = Server::start_with(&[("DORMOUSE_SERVER__DRAIN_MS_MAX", "200")]);
        let mut client = server.connect("endless");
        client.send_query(sql);
        let mut watch = server.watch("other");
        let mut requests = [&[][..], &[("accept", "application/x-ndjson")]].map(|headers| {
            let mut http = server.http();
            let body = serde_json::json!({ "sql": sql });
            http.send_post("/v1/databases/other/query", headers, &body);
            http
        });
        watch.until_running("select%", 2);
        server.signal(Signal::TERM);
        assert_eq!(client.answer().error.unwrap().code(), "57014");
        assert_eq!(client.last_word().code(), "57P01");
        for http in &mut requests {
            assert_eq!(http.response().error(503).0, "57P01");
            // The server has closed it.
            http.read_to_end(&mut String::new());
        }
        assert_eq!(server.wait().code(), Some(0));
    }
}

/// Neon's driver reads the fields of an error of this status alone.
#[test]
fn neons_driver_is_told_of_a_stop() {
    let mut server = Server::start_with(&[("DORMOUSE_SERVER__DRAIN_MS_MAX", "200")]);
    let mut watch = server.watch("endless");
    let mut http = server.http();
    let neon = [(
        "neon-connection-string",
        "postgres://postgres@localhost/endless",
    )];
    let body = serde_json::json!({"query": "select pg_sleep(3600)"});
    http.send_post("/sql", &neon, &body);
    watch.until_running("select pg_sleep%", 1);
    server.signal(Signal::TERM);
    let answer = http.response();
    assert_eq!((answer.status, answer.header("retry-after")), (400, None));
    assert_eq!(answer.json()["code"], "57P01");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_body_that_does_not_come_is_no_longer_waited_for_at_a_stop() {
    let mut server = Server::start_with(&[("DORMOUSE_SERVER__DRAIN_MS_MAX", "200")]);
    let mut http = server.http();
    http.send(
        "POST /v1/databases/shop/query HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         expect: 100-continue\r\ncontent-length: 100\r\n\r\n",
    );
    // The server says so when it begins to read.
    http.read_until("100 Continue");
    server.signal(Signal::TERM);
    assert_eq!(http.response().error(503).0, "57P01");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn who_asks_nothing_whole_and_reads_nothing_is_not_waited_for_at_a_stop() {
    let mut server = Server::start_with(&[("DORMOUSE_SERVER__DRAIN_MS_MAX", "200")]);
    let mut begun = server.http();
    begun.send("POST /v1/databases/shop/query HTTP/1.1\r\nhost: loc");
    // More than sockets take.
    let mut unread = server.http();
    let body = serde_json::json!({"sql": "select repeat('x', 40000000)"});
    unread.send_post("/v1/databases/shop/query", &[], &body);
    assert_eq!(unread.head().status, 200);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    let log = server.log();
    assert!(log.contains("server.drain_ms_max"), "{log}");
    assert!(!log.contains("dropping connections"), "{log}");
}

#[test]
fn a_copy_that_waits_for_data_is_ended() {
    let mut server = Server::start_with(&[("DORMOUSE_SERVER__DRAIN_MS_MAX", "200")]);
    let mut client = server.connect("copy");
    client.query("create table t (n int)").unwrap();
    client.send_query("copy t from stdin");
    client.until_kind(backend::kind::COPY_IN_RESPONSE);
    server.signal(Signal::TERM);
    assert_eq!(client.last_word().code(), "57P01");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn while_it_waits_for_statements_it_says_that_it_is_not_ready() {
    let mut server = Server::start_with(&[("DORMOUSE_SERVER__DRAIN_MS_MAX", "3600000")]);
    assert_eq!(server.http().get("/readiness").status, 200);
    let mut client = server.connect("endless");
    let mut idle = server.connect("idle");
    client.query("create table t (n int)").unwrap();
    client.send_query("copy t from stdin");
    client.until_kind(backend::kind::COPY_IN_RESPONSE);
    server.signal(Signal::TERM);
    // Now it has been seen.
    assert_eq!(idle.last_word().code(), "57P01");
    let answer = server.http().get("/readiness");
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.json()["reason"], "draining");
    assert_eq!(server.http().get("/ping").status, 200);
    let (code, message) = server.http().query("endless", "select 1").error(503);
    assert_eq!(code, "57P03");
    assert!(message.contains("shutting down"), "{message}");
    // Those who have been answered, and stay, are in nobody's way.
    let staying = (0..100).map(|_| {
        let mut connection = Http2::open(&server);
        connection.post(1, "/readiness");
        connection.send(DATA, END_STREAM, 1, b"{}");
        connection.until_let_go();
        connection
    });
    let _staying: Vec<_> = staying.collect();
    assert_eq!(server.http().get("/readiness").status, 503);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(128 + 15));
}

#[test]
fn a_second_signal_stops_at_once() {
    let mut server = Server::start_with(&[("DORMOUSE_SERVER__DRAIN_MS_MAX", "3600000")]);
    let mut client = server.connect("endless");
    let mut idle = server.connect("idle");
    client.send_query("select pg_sleep(3600)");
    server.until_awake(2);
    server.signal(Signal::TERM);
    // Now the first one has been seen.
    assert_eq!(idle.last_word().code(), "57P01");
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(128 + 15));
}

#[test]
fn a_data_directory_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = Server::start_in(folder.path(), &[]);
    let mut second = serve(folder.path(), &[]);
    let mut second = second.stderr(std::process::Stdio::piped()).spawn().unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(3));
    let mut text = String::new();
    second
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert!(
        text.contains("data") && text.contains(&format!("process {}", first.pid())),
        "{text}"
    );
    first.still_answers();
}
