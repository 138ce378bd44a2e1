//! Limits on time, those of Postgres and those of the host, as a client meets them.

use std::time::{Duration, Instant};

use wire::pg::TransactionStatus;
use wire::{PgError, Severity};

use crate::harness::{Pg, Server, until};

/// The last thing that a client reads: the error, and the end of the connection.
#[track_caller]
fn ended(client: &mut Pg, code: &str) -> PgError {
    let error = client.last_word();
    assert_eq!((error.code(), error.severity()), (code, Severity::Fatal));
    error
}

/// Lets time pass in which the client does nothing: that is what is tested.
fn let_pass(time: Duration) {
    let begun = Instant::now();
    while let Some(left) = time
        .checked_sub(begun.elapsed())
        .filter(|left| !left.is_zero())
    {
        std::thread::park_timeout(left);
    }
}

/// A table with a row, and a client beside.
fn table(server: &Server) -> Pg {
    let mut client = server.connect("time");
    let sql = "create table t (n int primary key, s text); insert into t values (1, 'old')";
    client.query(sql).unwrap();
    client
}

/// Makes a lock of a row and two advisory ones of a client, in a transaction and for the session.
fn hold(client: &mut Pg) {
    client.query("begin").unwrap();
    client.query("update t set s = 'new' where n = 1").unwrap();
    client.query("select pg_advisory_xact_lock(1)").unwrap();
    client.query("select pg_advisory_lock(2)").unwrap();
}

/// All of them are free, and nothing of the transaction is left.
#[track_caller]
fn is_free(client: &mut Pg) {
    client.query("set lock_timeout = '30s'").unwrap();
    let rows = client.query("select s from t where n = 1 for update");
    assert_eq!(rows.unwrap(), [[Some("old".to_owned())]]);
    for lock in [1, 2] {
        let free = client.query(&format!("select pg_try_advisory_xact_lock({lock})"));
        assert_eq!(free.unwrap(), [[Some("t".to_owned())]], "lock {lock}");
    }
    client.query("reset lock_timeout").unwrap();
}

#[test]
fn idle_sessions_end_and_leave_nothing() {
    let server = Server::start();
    let mut other = table(&server);
    for (setting, code) in [
        ("idle_in_transaction_session_timeout", "25P03"),
        ("transaction_timeout", "25P04"),
    ] {
        let mut client = server.connect("time");
        client.query(&format!("set {setting} = '200ms'")).unwrap();
        let begun = Instant::now();
        hold(&mut client);
        let error = ended(&mut client, code);
        assert!(begun.elapsed() >= Duration::from_millis(200), "{error}");
        is_free(&mut other);
    }
    // Also of a transaction that has failed.
    let mut client = server.connect("time");
    let set = "set idle_in_transaction_session_timeout = '200ms'";
    client.query(set).unwrap();
    hold(&mut client);
    client.query("select 1/0").unwrap_err();
    ended(&mut client, "25P03");
    is_free(&mut other);

    let mut client = server.connect("time");
    client.query("select pg_advisory_lock(2)").unwrap();
    client.query("set idle_session_timeout = '200ms'").unwrap();
    ended(&mut client, "57P05");
    is_free(&mut other);
}

#[test]
fn limits_on_idleness_come_from_the_role_too_and_only_where_they_apply() {
    let server = Server::start();
    let mut other = table(&server);
    other
        .query("alter database time set idle_session_timeout = '200ms'")
        .unwrap();
    let mut client = server.connect("time");
    ended(&mut client, "57P05");
    // Not in a transaction, and not while a statement runs.
    let mut client = server.connect("time");
    client.send_query("select pg_sleep(0.5); begin");
    assert_eq!(client.answer().status, TransactionStatus::InTransaction);
    let_pass(Duration::from_millis(500));
    client.query("commit").unwrap();
    ended(&mut client, "57P05");
    // Whoever has none of it is not ended.
    other.query("select 1").unwrap();
}

#[test]
fn each_transaction_has_its_own_time() {
    let server = Server::start();
    let mut client = table(&server);
    client.query("set transaction_timeout = '2500ms'").unwrap();
    client.query("begin").unwrap();
    // Five of them, of which each begins as the one before ends, take longer together.
    let begun = Instant::now();
    for next in [
        "commit and chain",
        "rollback and chain",
        "commit; begin",
        "commit and chain",
    ] {
        let_pass(Duration::from_millis(700));
        client.query(next).unwrap();
    }
    assert!(begun.elapsed() > Duration::from_millis(2_500));
    client.query("select 1").unwrap();
    ended(&mut client, "25P04");
}

#[test]
fn who_waits_for_a_lock_is_told_which_time_is_over() {
    let server = Server::start();
    let mut holder = table(&server);
    hold(&mut holder);
    let mut client = server.connect("time");
    for wait in [
        "update t set s = 'mine' where n = 1",
        "select * from t where n = 1 for share",
        "select pg_advisory_lock(1)",
        "select pg_advisory_xact_lock_shared(2)",
        "alter table t add m int",
    ] {
        for (setting, code, text) in [
            ("lock_timeout", "55P03", "lock timeout"),
            ("statement_timeout", "57014", "statement timeout"),
        ] {
            client.query(&format!("set {setting} = '100ms'")).unwrap();
            let error = client.query(wait).unwrap_err();
            assert_eq!(
                (error.code(), error.severity()),
                (code, Severity::Error),
                "{wait}"
            );
            assert!(error.message().contains(text), "{wait}: {error}");
            client.query(&format!("reset {setting}")).unwrap();
        }
    }
    let error = client.query("select * from t where n = 1 for update nowait");
    assert_eq!(error.unwrap_err().code(), "55P03");
    // In a transaction the session goes on after it, and the holder has noticed nothing.
    client
        .query("begin; set local lock_timeout = '100ms'; savepoint s")
        .unwrap();
    let error = client.query("update t set s = 'mine' where n = 1");
    assert_eq!(error.unwrap_err().code(), "55P03");
    client
        .query("rollback to s; insert into t values (2)")
        .unwrap();
    client.query("commit").unwrap();
    holder.query("rollback").unwrap();
    holder.query("select pg_advisory_unlock(2)").unwrap();
    is_free(&mut client);
}

#[test]
fn who_keeps_a_process_idle_is_told_so_and_nobody_else_is_ended() {
    let server = Server::start_with(&[
        ("DORMOUSE_SESSIONS__IDLE_HOLDER_MS_MAX", "50"),
        ("DORMOUSE_DATABASES__PROCESSES_MAX", "1"),
    ]);
    let mut other = table(&server);
    let mut holder = server.connect("time");
    hold(&mut holder);
    // Others are there, but want nothing: it keeps what it has for longer than it may.
    let_pass(Duration::from_millis(400));
    assert_eq!(holder.query("select 1").unwrap().len(), 1);
    other.send_query("select s from t where n = 1");
    let error = ended(&mut holder, "25P03");
    let said = String::from_utf8_lossy(&error.to_json()).into_owned();
    assert!(said.contains("sessions.idle_holder_ms_max"), "{said}");
    assert_eq!(other.answer().rows, [[Some("old".to_owned())]]);
    is_free(&mut other);
    server.until_sessions(1);
}

#[test]
fn upkeep_that_takes_too_long_names_its_limit() {
    let server = Server::start_with(&[("DORMOUSE_MAINTENANCE__STATEMENT_MS_MAX", "200")]);
    let mut client = server.connect("slow");
    // The statistics of an index on an expression evaluate it. Upkeep does not begin before all of it is there.
    for sql in [
        "begin",
        "create table switch (n int)",
        "create function slow(n int) returns int immutable language plpgsql as \
         'begin if exists (select from public.switch) then perform pg_sleep(600); end if; return n; end'",
        "create table t (n int)",
        "create index on t (slow(n))",
        "create table u (n int)",
        "insert into t select generate_series(1, 20000)",
        "insert into u select generate_series(1, 20000)",
        "insert into switch values (1)",
        "commit",
    ] {
        client.query(sql).unwrap();
    }
    drop(client);
    let log = until(
        || server.log(),
        |log| log.contains("could not be vacuumed or analyzed"),
    );
    let line = log
        .lines()
        .find(|line| line.contains("could not be"))
        .unwrap();
    assert!(line.contains("maintenance.statement_ms_max"), "{line}");
    // The other table does not suffer.
    let mut http = server.http();
    let tended = || {
        let text = http.get("/metrics").text();
        let count = |line: &str| {
            line.strip_prefix("dormouse_vacuums_total ")?
                .parse::<u64>()
                .ok()
        };
        text.lines().find_map(count)
    };
    until(tended, |count| *count > Some(0));
    let analyzed = "select count(*)::int as n from pg_stats where tablename = 'u'";
    assert_eq!(server.sql("slow", analyzed)["rows"][0]["n"], 1);
}
