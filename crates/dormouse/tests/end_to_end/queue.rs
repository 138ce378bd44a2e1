//! Sessions that wait for a process of their database.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use bytes::BytesMut;
use wire::pg::{TransactionStatus, frontend};

use crate::harness::{Pg, Server, extended};

/// One process, and nobody is ended for keeping it.
fn server() -> Server {
    Server::start_with(&[("DORMOUSE_DATABASES__PROCESSES_MAX", "1")])
}

/// Asks again and again for an end of what a session waits for, until something has come of it: a request may
/// come before it waits.
fn cancelled<T>(server: &Server, pid: u32, key: &[u8], wait: impl FnOnce() -> T) -> T {
    let address = server.pg;
    std::thread::scope(|scope| {
        let (done, ended) = channel::<()>();
        scope.spawn(move || {
            let pause = Duration::from_millis(50);
            while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                Pg::cancel(address, pid, key);
            }
        });
        let outcome = wait();
        drop(done);
        outcome
    })
}

#[test]
fn who_waits_for_a_process_can_be_cancelled() {
    let server = server();
    let mut holder = server.connect("queue");
    let mut waiting = server.connect("queue");
    let mut behind = server.connect("queue");
    holder.query("create table t (n int)").unwrap();
    waiting.query("set my.own = 'mine'").unwrap();
    holder.query("begin; insert into t values (1)").unwrap();
    waiting.send_query("insert into t values (2)");
    behind.send_query("insert into t values (3)");
    let key = waiting.key.clone();
    let answer = cancelled(&server, waiting.pid, &key, || waiting.answer());
    let error = answer.error.unwrap();
    assert_eq!(error.code(), "57014");
    assert_eq!(error.message(), "canceling statement due to user request");
    assert_eq!(answer.status, TransactionStatus::Idle);

    // An extended query is passed over up to its Sync, and what follows is asked anew.
    let mut out = BytesMut::new();
    for sql in ["insert into t values (4)", "insert into t values (5)"] {
        extended::parse(&mut out, b"", sql.as_bytes());
        extended::bind(&mut out, b"", &[]);
        extended::execute(&mut out);
    }
    frontend::sync(&mut out);
    waiting.send(&out);
    let answer = cancelled(&server, waiting.pid, &key, || waiting.answer());
    assert_eq!(answer.error.unwrap().code(), "57014");
    assert!(answer.tags.is_empty(), "{:?}", answer.tags);

    // Nobody else was meant: neither who has the process, nor who waits behind.
    assert_eq!(holder.query("select n from t").unwrap().len(), 1);
    holder.query("commit").unwrap();
    assert_eq!(behind.answer().tags, ["INSERT 0 1"]);
    let rows = waiting.query("select n from t order by n").unwrap();
    assert_eq!(rows, [[Some("1".to_owned())], [Some("3".to_owned())]]);
    let own = waiting.query("show my.own").unwrap();
    assert_eq!(own, [[Some("mine".to_owned())]]);
}

#[test]
fn a_cancelled_wait_is_not_that_of_the_next_statement() {
    let server = server();
    let mut holder = server.connect("queue");
    let mut waiting = server.connect("queue");
    // It does nothing now: there is nothing to be cancelled.
    Pg::cancel(server.pg, waiting.pid, &waiting.key.clone());
    for _ in 0..20 {
        assert_eq!(waiting.query("select 1").unwrap().len(), 1);
        Pg::cancel(server.pg, waiting.pid, &waiting.key.clone());
        assert_eq!(holder.query("select 2").unwrap().len(), 1);
    }
}

#[test]
fn who_goes_away_while_waiting_leaves_the_queue() {
    let server = server();
    let mut holder = server.connect("queue");
    let mut waiting = server.connect("queue");
    let mut behind = server.connect("queue");
    holder.query("create table t (n int); begin").unwrap();
    waiting.send_query("insert into t values (1)");
    behind.send_query("insert into t values (2)");
    waiting.shut_down();
    drop(waiting);
    server.until_sessions(2);
    holder.query("commit").unwrap();
    assert_eq!(behind.answer().tags, ["INSERT 0 1"]);
    let rows = behind.query("select n from t").unwrap();
    assert_eq!(rows, [[Some("2".to_owned())]]);
}
