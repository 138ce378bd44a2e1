//! PostgreSQL's protocol, as drivers speak it.

use bytes::BytesMut;
use wire::Severity;
use wire::pg::startup::Replication;
use wire::pg::{Target, TransactionStatus, backend, frontend};

use crate::harness::{self, Answer, Pg, Server, startup};

/// Not encrypted: what libpq asks first.
const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
const GSS_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x30";

#[test]
fn encryption_is_declined_and_the_session_goes_on() {
    let server = Server::start();
    let mut client = Pg::open(server.pg);
    for request in [GSS_REQUEST, SSL_REQUEST] {
        client.send(request);
        assert_eq!(client.byte(), b'N');
    }
    client.start(&startup("plain")).unwrap();
    client.query("select 1").unwrap();

    let mut client = Pg::open(server.pg);
    client.send(SSL_REQUEST);
    assert_eq!(client.byte(), b'N');
    client.send(SSL_REQUEST);
    assert_eq!(client.last_word().code(), "08P01");
}

#[test]
fn the_greeting_has_what_drivers_look_at() {
    let server = Server::start();
    let mut wish = startup("greeting");
    wish.settings = vec![
        ("application_name".to_owned(), "tester".to_owned()),
        ("DateStyle".to_owned(), "German".to_owned()),
        ("search_path".to_owned(), "pg_catalog".to_owned()),
    ];
    let mut client = Pg::connect(server.pg, &wish).unwrap();
    let parameter = |name: &str| {
        let found = client.parameters.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    assert!(parameter("server_version").starts_with("18."));
    for (name, value) in [
        ("client_encoding", "UTF8"),
        ("standard_conforming_strings", "on"),
        ("integer_datetimes", "on"),
        ("application_name", "tester"),
        ("DateStyle", "German, DMY"),
    ] {
        assert_eq!(parameter(name), value, "{name}");
    }
    assert_ne!(client.pid, 0);
    assert!(client.negotiated.is_none());
    let shown = client.query("show search_path").unwrap();
    assert_eq!(shown, [[Some("pg_catalog".to_owned())]]);
}

#[test]
fn newer_protocols_are_negotiated() {
    let server = Server::start();
    let mut wish = startup("newer");
    wish.minor = 9;
    wish.unknown_protocol_options = vec!["_pq_.whatever".to_owned()];
    let client = Pg::connect(server.pg, &wish).unwrap();
    let negotiated = client.negotiated.unwrap();
    assert_eq!(negotiated[..8], *b"\0\x03\0\x02\0\0\0\x01");
    assert_eq!(client.key.len(), 32);

    let mut client = Pg::open(server.pg);
    client.send(b"\0\0\0\x08\0\x02\0\0");
    assert_eq!(client.last_word().code(), "0A000");
}

#[test]
fn replication_is_refused() {
    let server = Server::start();
    let mut wish = startup("replica");
    wish.replication = Replication::Database;
    let error = Pg::connect(server.pg, &wish).err().unwrap();
    assert_eq!((error.code(), error.severity()), ("0A000", Severity::Fatal));
}

#[test]
fn messages_may_come_in_any_pieces() {
    let server = Server::start();
    let mut client = server.connect("pieces");
    let mut out = BytesMut::new();
    for n in 0..5 {
        frontend::query(&mut out, format!("select {n}").as_bytes()).unwrap();
    }
    client.send(&out);
    for n in 0..5 {
        assert_eq!(client.answer().rows, [[Some(n.to_string())]]);
    }
    for byte in &out {
        client.send(&[*byte]);
    }
    for n in 0..5 {
        assert_eq!(client.answer().rows, [[Some(n.to_string())]]);
    }
    let long = format!("select length('{}')", "x".repeat(3_000_000));
    assert_eq!(client.query(&long).unwrap(), [[Some("3000000".to_owned())]]);
}

#[test]
fn statements_sent_before_goodbye_are_done() {
    let server = Server::start();
    let mut client = server.connect("bye");
    let mut out = BytesMut::new();
    frontend::query(
        &mut out,
        b"create table t as select 1 as n from pg_sleep(0.1)",
    )
    .unwrap();
    frontend::terminate(&mut out);
    client.send(&out);
    drop(client);
    server.until_sessions(0);
    assert_eq!(server.sql("bye", "table t")["rowCount"], 1);
}

fn extended(client: &mut Pg, name: &[u8], sql: &[u8], params: &[&[u8]]) -> Answer {
    let mut out = BytesMut::new();
    harness::extended::parse(&mut out, name, sql);
    harness::extended::bind(&mut out, name, params);
    frontend::describe(&mut out, Target::Portal, b"").unwrap();
    harness::extended::execute(&mut out);
    frontend::sync(&mut out);
    client.send(&out);
    client.answer()
}

#[test]
fn prepared_statements_and_portals() {
    let server = Server::start();
    let mut client = server.connect("prepared");
    let sql = b"select $1::int + n from generate_series(1, 3) n";
    let answer = extended(&mut client, b"add", sql, &[b"10"]);
    assert_eq!(answer.rows.len(), 3);
    assert_eq!(answer.tags, ["SELECT 3"]);

    // Prepared once, run in pieces, with an answer wanted before the end.
    let mut out = BytesMut::new();
    client.query("begin").unwrap();
    let params = vec![frontend::Param::text(Some(b"20"))];
    let bind = frontend::Bind {
        portal: b"p",
        statement: b"add",
        params,
        result_formats: vec![],
    };
    bind.encode(&mut out).unwrap();
    frontend::Execute {
        portal: b"p",
        rows_max: 2,
    }
    .encode(&mut out)
    .unwrap();
    frontend::flush(&mut out);
    client.send(&out);
    client.until_kind(backend::kind::PORTAL_SUSPENDED);
    out.clear();
    frontend::Execute {
        portal: b"p",
        rows_max: 2,
    }
    .encode(&mut out)
    .unwrap();
    frontend::sync(&mut out);
    client.send(&out);
    let answer = client.answer();
    assert_eq!(answer.rows, [[Some("23".to_owned())]]);
    assert_eq!(answer.status, TransactionStatus::InTransaction);
    client.query("commit").unwrap();

    // After an error everything up to Sync is passed over.
    let wrong = extended(&mut client, b"", b"select 1/$1::int", &[b"0"]);
    assert_eq!(wrong.error.unwrap().code(), "22012");
    assert_eq!(
        extended(&mut client, b"", b"select 1", &[]).tags,
        ["SELECT 1"]
    );
}

#[test]
fn copy_both_ways() {
    let server = Server::start();
    let mut client = server.connect("copy");
    client.query("create table t (n int, s text)").unwrap();
    // Data in pieces that are no lines, with a statement right behind.
    client.send_query("copy t from stdin");
    client.until_kind(backend::kind::COPY_IN_RESPONSE);
    let data: String = (0..50_000).map(|n| format!("{n}\trow {n}\n")).collect();
    let mut out = BytesMut::new();
    for piece in data.as_bytes().chunks(7_777) {
        frontend::copy_data(&mut out, piece).unwrap();
        client.send(&out.split());
    }
    frontend::copy_done(&mut out);
    frontend::query(&mut out, b"create database behind_copy").unwrap();
    client.send(&out);
    assert_eq!(client.answer().tags, ["COPY 50000"]);
    assert_eq!(client.answer().tags, ["CREATE DATABASE"]);

    client.send_query("copy (select * from t order by n) to stdout");
    client.until_kind(backend::kind::COPY_OUT_RESPONSE);
    let mut copied = Vec::new();
    loop {
        let frame = client.frame().unwrap();
        match frame.kind() {
            backend::kind::COPY_DATA => copied.extend_from_slice(frame.body()),
            backend::kind::READY_FOR_QUERY => break,
            _ => {}
        }
    }
    assert!(
        copied == data.as_bytes(),
        "what came back is not what was sent"
    );

    client.send_query("copy t from stdin");
    client.until_kind(backend::kind::COPY_IN_RESPONSE);
    out.clear();
    frontend::copy_data(&mut out, b"1\tone\n").unwrap();
    frontend::copy_fail(&mut out, b"changed my mind").unwrap();
    client.send(&out);
    assert_eq!(client.answer().error.unwrap().code(), "57014");
    let count = client.query("select count(*) from t").unwrap();
    assert_eq!(count, [[Some("50000".to_owned())]]);
}

#[test]
fn large_results_arrive_whole() {
    let server = Server::start();
    let mut client = server.connect("large");
    client.send_query("select n, repeat('x', 1000) from generate_series(1, 30000) n");
    // The server has more than fits into the socket before we begin to read.
    let answer = client.answer();
    assert_eq!(answer.rows.len(), 30_000);
    assert_eq!(answer.rows[29_999][0].as_deref(), Some("30000"));
    client.query("select 1").unwrap();
}

#[test]
fn database_statements_make_and_drop_databases() {
    let server = Server::start();
    let mut client = server.connect("admin");
    client.query("create database shop").unwrap();
    server
        .connect("shop")
        .query("create table t as select 1 as n")
        .unwrap();
    assert_eq!(
        client.query("create database shop").unwrap_err().code(),
        "42P04"
    );
    client.query("create database copy template shop").unwrap();
    assert_eq!(server.sql("copy", "table t")["rowCount"], 1);
    let names = client
        .query("select datname from pg_database order by 1")
        .unwrap();
    for name in ["admin", "copy", "shop"] {
        assert!(names.contains(&vec![Some(name.to_owned())]), "{names:?}");
    }
    client.query("drop database copy").unwrap();
    assert_eq!(
        client.query("drop database copy").unwrap_err().code(),
        "3D000"
    );
    client.query("drop database if exists copy").unwrap();
    assert_eq!(
        client.query("drop database admin").unwrap_err().code(),
        "55006"
    );
    let mut http = server.http();
    assert_eq!(http.get("/v1/databases/copy").status, 404);
    let answer = extended(&mut client, b"", b"create database extended", &[]);
    assert_eq!(answer.tags, ["CREATE DATABASE"]);
    assert_eq!(http.get("/v1/databases/extended").status, 200);
}

#[test]
fn a_fatal_error_ends_its_connection_only() {
    let server = Server::start();
    let mut victim = server.connect("victim");
    let mut other = server.connect("other");
    victim.query("create table t (n int)").unwrap();
    victim.query("set transaction_timeout = 100").unwrap();
    victim.send_query("begin; select pg_sleep(3600)");
    let error = victim.last_word();
    assert_eq!((error.code(), error.severity()), ("25P04", Severity::Fatal));
    other.query("select 1").unwrap();
    server.connect("victim").query("table t").unwrap();
}

#[test]
fn sessions_beyond_the_limit_are_told_so() {
    let server = Server::start_with(&[("DORMOUSE_PGWIRE__CONNECTIONS_MAX", "2")]);
    let mut first = server.connect("one");
    let second = server.connect("two");
    let error = server.refused("three");
    assert_eq!((error.code(), error.severity()), ("53300", Severity::Fatal));
    assert!(
        error.message().contains("pgwire.connections_max is 2"),
        "{error}"
    );
    // Cancelling still works.
    Pg::cancel(server.pg, second.pid, &second.key);
    drop(second);
    server.until_sessions(1);
    server.connect("three").query("select 1").unwrap();
    first.query("select 1").unwrap();
}

#[test]
fn who_waits_too_long_for_a_database_is_told_who_has_it() {
    let server = Server::start_with(&[
        ("DORMOUSE_SESSIONS__WAIT_MS_MAX", "200"),
        ("DORMOUSE_DATABASES__PROCESSES_MAX", "1"),
    ]);
    let mut wish = startup("taken");
    wish.settings = vec![("application_name".to_owned(), "holder".to_owned())];
    let mut holder = Pg::connect(server.pg, &wish).unwrap();
    holder.query("begin").unwrap();
    let error = server.refused("taken");
    assert_eq!((error.code(), error.severity()), ("53300", Severity::Fatal));
    let mut text = error.to_string();
    text.push_str(&String::from_utf8_lossy(&error.to_json()));
    assert!(text.contains("holder 127.0.0.1:"), "{text}");
    assert!(text.contains("sessions.wait_ms_max"), "{text}");
    drop(holder);
    server.connect("taken").query("select 1").unwrap();
}

#[test]
fn who_goes_while_waiting_is_forgotten() {
    let server = Server::start();
    let holder = server.connect("queue");
    let mut waiting = Pg::open(server.pg);
    let mut out = BytesMut::new();
    startup("queue").encode(&mut out).unwrap();
    waiting.send(&out);
    server.until_sessions(2);
    waiting.shut_down();
    server.until_sessions(1);
    drop(holder);
    server.connect("queue").query("select 1").unwrap();
}
