//! Ending statements early.

use crate::harness::{Pg, Server, startup};

/// Never ends by itself, and waits for nothing.
const BUSY: &str = "select count(*) from generate_series(1, 1000000000000)";

/// Never ends by itself, and does nothing.
const SLEEPING: &str = "select pg_sleep(3600)";

/// Cancels until the statement has ended: a request may come before the statement has begun.
fn cancelled(server: &Server, client: &mut Pg, key: &[u8]) -> wire::PgError {
    let (address, pid) = (server.pg, client.pid);
    std::thread::scope(|scope| {
        let (done, ended) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            use std::sync::mpsc::RecvTimeoutError::Timeout;
            let pause = std::time::Duration::from_millis(50);
            while ended.recv_timeout(pause) == Err(Timeout) {
                Pg::cancel(address, pid, key);
            }
        });
        let error = client
            .answer()
            .error
            .expect("the statement ended by itself");
        drop(done);
        error
    })
}

#[test]
fn a_cancel_request_ends_the_statement_and_not_the_session() {
    let server = Server::start();
    let mut client = server.connect("cancel");
    let key = client.key.clone();
    assert_eq!(key.len(), 4);
    for sql in [SLEEPING, BUSY] {
        client.send_query(sql);
        assert_eq!(cancelled(&server, &mut client, &key).code(), "57014");
        assert_eq!(client.query("select 1").unwrap().len(), 1);
    }
}

#[test]
fn protocol_3_2_has_long_keys() {
    let server = Server::start();
    let mut wish = startup("cancel");
    wish.minor = 2;
    let mut client = Pg::connect(server.pg, &wish).unwrap();
    let key = client.key.clone();
    assert_eq!(key.len(), 32);
    client.send_query(SLEEPING);
    assert_eq!(cancelled(&server, &mut client, &key).code(), "57014");
}

#[test]
fn a_wrong_key_cancels_nothing() {
    let server = Server::start();
    let mut client = server.connect("cancel");
    let mut holder = server.connect("cancel");
    holder.query("select pg_advisory_lock(1)").unwrap();
    client.send_query("select pg_advisory_lock(1)");
    server.until_running("cancel", "select pg_advisory_lock%", 1);
    let mut wrong = client.key.to_vec();
    wrong[0] ^= 1;
    Pg::cancel(server.pg, client.pid, &wrong);
    Pg::cancel(server.pg, client.pid.wrapping_add(1), &client.key.clone());
    // By now they were heard, and it still waits.
    server.until_running("cancel", "select pg_advisory_lock%", 1);
    holder.query("select pg_advisory_unlock(1)").unwrap();
    assert!(client.answer().error.is_none());
    server.still_answers();
}

#[test]
fn statement_timeout_ends_both_kinds_of_statement() {
    let server = Server::start();
    let mut client = server.connect("timeout");
    client.query("set statement_timeout = 100").unwrap();
    for sql in [SLEEPING, BUSY] {
        let error = client.query(sql).unwrap_err();
        assert_eq!(error.code(), "57014");
        assert!(error.message().contains("statement timeout"), "{error}");
    }
    client.query("select 1").unwrap();
}
