//! How a server stops.

use std::io::Read as _;

use rustix::process::Signal;
use wire::pg::backend;

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
    client.send_query("insert into t select 1 from pg_sleep(0.5)");
    server.until_sessions(1);
    server.signal(Signal::TERM);
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
        let mut http = server.http();
        let body = serde_json::json!({ "sql": sql }).to_string();
        http.send(&format!(
            "POST /v1/databases/other/query HTTP/1.1\r\nhost: localhost\r\ncontent-type: \
             application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
        server.until_awake(2);
        server.signal(Signal::TERM);
        assert_eq!(client.answer().error.unwrap().code(), "57014");
        assert_eq!(client.last_word().code(), "57P01");
        assert_eq!(server.wait().code(), Some(0));
    }
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
