//! `pg_terminate_backend` of sessions that do nothing.

use bytes::BytesMut;
use wire::Severity;
use wire::pg::frontend;

use crate::harness::extended::parse;
use crate::harness::{Pg, Server, until};

#[track_caller]
fn terminate(client: &mut Pg, pid: u32) {
    let sql = format!("select pg_terminate_backend({pid})");
    assert_eq!(client.query(&sql).unwrap(), [[Some("t".to_owned())]]);
}

#[track_caller]
fn is_terminated(victim: &mut Pg) {
    let error = victim.last_word();
    assert_eq!((error.code(), error.severity()), ("57P01", Severity::Fatal));
    let text = "terminating connection due to administrator command";
    assert_eq!(error.message(), text);
}

/// Sessions of one database, each with a process of its own and something to be known by.
fn sessions<const COUNT: usize>(server: &Server) -> [Pg; COUNT] {
    // Each is in a transaction when the next one comes: the first of them has the first process.
    let mut all = std::array::from_fn(|_| {
        let mut client = server.connect("end");
        client.query("begin").unwrap();
        client
    });
    for (number, client) in all.iter_mut().enumerate() {
        client.query("commit").unwrap();
        let set = format!("set my.number = {number}");
        client.query(&set).unwrap();
    }
    all
}

#[track_caller]
fn is_itself(client: &mut Pg, number: usize) {
    let shown = client.query("show my.number").unwrap();
    assert_eq!(shown, [[Some(number.to_string())]]);
}

#[test]
fn a_session_at_rest_in_a_further_process_is_terminated_alone() {
    let server = Server::start();
    let [mut first, mut victim, mut third] = sessions(&server);
    terminate(&mut first, victim.pid);
    is_terminated(&mut victim);
    is_itself(&mut first, 0);
    is_itself(&mut third, 2);
    let mut next = server.connect("end");
    next.query("select 1").unwrap();
    is_itself(&mut third, 2);
}

#[test]
fn a_session_that_keeps_a_further_process_is_terminated_alone() {
    let server = Server::start();
    let [mut first, mut victim, mut third] = sessions(&server);
    first.query("create table t (n int)").unwrap();
    for keep in [
        "begin; insert into t values (1)",
        "create temp table mine (n int)",
        "listen news",
        "select pg_advisory_lock(1)",
    ] {
        victim.query(keep).unwrap();
        terminate(&mut first, victim.pid);
        is_terminated(&mut victim);
        is_itself(&mut first, 0);
        is_itself(&mut third, 2);
        let free = "select count(*), pg_try_advisory_xact_lock(1) from t";
        let free = until(
            || first.query(free).unwrap(),
            |rows| rows[0][1].as_deref() == Some("t"),
        );
        assert_eq!(free[0][0].as_deref(), Some("0"), "{keep}");
        // A new one, in a further process too.
        third.query("begin").unwrap();
        first.query("begin").unwrap();
        victim = server.connect("end");
        victim.query("begin; rollback").unwrap();
        first.query("rollback").unwrap();
        third.query("rollback").unwrap();
    }
}

#[test]
fn whoever_does_nothing_is_not_cancelled() {
    let server = Server::start();
    let [mut first, mut idle, mut third] = sessions(&server);
    first.query("create table t (n int)").unwrap();
    for (begin, end) in [
        ("begin; insert into t values (1)", "commit"),
        ("select 1", "select 2"),
    ] {
        idle.query(begin).unwrap();
        for other in [&mut first, &mut third] {
            let cancel = format!("select pg_cancel_backend({})", idle.pid);
            assert_eq!(other.query(&cancel).unwrap(), [[Some("t".to_owned())]]);
        }
        idle.query("select 3").unwrap();
        idle.query(end).unwrap();
        is_itself(&mut idle, 1);
    }
    let rows = third.query("select n from t").unwrap();
    assert_eq!(rows, [[Some("1".to_owned())]]);
}

/// A connection that is closed with bytes unread is reset, and then what the client has not taken yet is lost.
#[test]
fn who_is_ended_by_postgres_amid_its_messages_hears_why() {
    let server = Server::start();
    let mut victim = server.connect("end");
    let mut messages = BytesMut::new();
    frontend::query(&mut messages, b"select repeat('x', 600000)").unwrap();
    // PostgreSQL 18 loses its way when a statement prepared by messages ends a transaction of its own.
    parse(&mut messages, b"leave", b"commit");
    frontend::sync(&mut messages);
    frontend::query(&mut messages, b"execute leave; rollback to nowhere").unwrap();
    victim.send(&messages);
    let mut more = BytesMut::new();
    for _ in 0..20_000 {
        frontend::query(&mut more, b"select 'this one is never come to'").unwrap();
    }
    let sending = victim.send_what_is_taken(more.to_vec());
    sending.join().unwrap();
    server.until_sessions(0);
    let error = victim.last_word();
    assert_eq!((error.code(), error.severity()), ("XX000", Severity::Fatal));
}
