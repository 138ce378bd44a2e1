//! Databases and sessions over the real engine.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod harness;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dormouse_database::{Databases, Limits, Options, PgError, Session, SessionOptions, Source};
use harness::{cache, name, open, session};
use wire::pg::{TransactionStatus, backend, frames, frontend};

/// The values of a query's rows, NULL as `-`, joined by spaces.
async fn rows(session: &mut Session, sql: &str) -> Vec<String> {
    let result = session.query(sql, &[]).await.unwrap();
    let row = |row: &Vec<Option<String>>| {
        let values: Vec<&str> = row
            .iter()
            .map(|value| value.as_deref().unwrap_or("-"))
            .collect();
        values.join(" ")
    };
    result.rows.iter().map(row).collect()
}

/// Runs SQL by the simple protocol: the tags and error codes of the answers.
async fn simple(session: &mut Session, sql: &str) -> Vec<String> {
    let mut messages = BytesMut::new();
    frontend::query(&mut messages, sql.as_bytes()).unwrap();
    let (output, _) = session.exchange(messages.freeze(), None).await.unwrap();
    tags(&output)
}

fn tags(output: &Bytes) -> Vec<String> {
    let mut tags = Vec::new();
    for (kind, body) in frames(output) {
        match kind {
            backend::kind::COMMAND_COMPLETE => {
                tags.push(String::from_utf8_lossy(&body[..body.len() - 1]).into_owned());
            }
            backend::kind::ERROR_RESPONSE => {
                tags.push(PgError::decode(body).unwrap().code().to_owned());
            }
            _ => {}
        }
    }
    tags
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_is_there_after_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let databases = open(folder.path(), Limits::default()).await;
        let mut session = session(&databases, "kept").await;
        assert_eq!(
            rows(&mut session, "SELECT current_database()").await,
            ["kept"]
        );
        simple(&mut session, "CREATE TABLE IF NOT EXISTS t (n int)").await;
        let expected: Vec<String> = (0..round).map(|n: i32| n.to_string()).collect();
        assert_eq!(
            rows(&mut session, "SELECT n FROM t ORDER BY n").await,
            expected
        );
        simple(&mut session, &format!("INSERT INTO t VALUES ({round})")).await;
        session.close().await;
        databases.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_opening_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    let error = Databases::open(Options::new(folder.path(), cache()))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("process"), "{error}");
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_databases_do_not_see_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    for n in 0..100 {
        let mut session = session(&databases, &format!("d{n}")).await;
        simple(
            &mut session,
            &format!("CREATE TABLE own (n int); INSERT INTO own VALUES ({n})"),
        )
        .await;
    }
    for n in 0..100 {
        let mut session = session(&databases, &format!("d{n}")).await;
        assert_eq!(
            rows(&mut session, "SELECT * FROM own").await,
            [n.to_string()]
        );
    }
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn forks_share_no_random_state() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    let mut drawn = std::collections::HashSet::new();
    for n in 0..20 {
        let mut session = session(&databases, &format!("r{n}")).await;
        simple(&mut session, "CREATE EXTENSION pgcrypto").await;
        let sql = "SELECT random(), gen_random_uuid(), gen_random_bytes(8), \
                   (SELECT string_agg(g::text, '') FROM generate_series(1, 100) g \
                    WHERE random() < 0.5)";
        for value in session.query(sql, &[]).await.unwrap().rows.remove(0) {
            assert!(drawn.insert(value.clone()), "{value:?} was drawn twice");
        }
    }
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_is_independent_of_its_parent() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    let mut parent = session(&databases, "parent").await;
    simple(
        &mut parent,
        "CREATE TABLE t (n int); INSERT INTO t VALUES (1)",
    )
    .await;
    // While the parent is in use, and awake.
    databases
        .create(&name("child"), Source::Database(name("parent")))
        .await
        .unwrap();
    simple(&mut parent, "INSERT INTO t VALUES (2)").await;
    let mut child = session(&databases, "child").await;
    assert_eq!(rows(&mut child, "SELECT * FROM t").await, ["1"]);
    simple(&mut child, "INSERT INTO t VALUES (3)").await;
    assert_eq!(rows(&mut parent, "SELECT * FROM t").await, ["1", "2"]);
    assert_eq!(
        rows(&mut child, "SELECT current_database()").await,
        ["child"]
    );
    assert_eq!(
        databases.info(&name("child")).unwrap().parent.as_deref(),
        Some("parent")
    );
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn database_statements_work_over_both_protocols() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    let mut session = session(&databases, "postgres").await;
    assert_eq!(
        simple(&mut session, "CREATE DATABASE a").await,
        ["CREATE DATABASE"]
    );
    assert_eq!(simple(&mut session, "create database A").await, ["42P04"]);
    let result = session
        .query("CREATE DATABASE b TEMPLATE a", &[])
        .await
        .unwrap();
    assert_eq!(result.command, "CREATE DATABASE");
    let listed = rows(&mut session, "SELECT datname FROM pg_database ORDER BY 1").await;
    assert_eq!(listed, ["a", "b", "postgres", "template0", "template1"]);
    assert_eq!(
        simple(&mut session, "DROP DATABASE a").await,
        ["DROP DATABASE"]
    );
    assert_eq!(simple(&mut session, "DROP DATABASE a").await, ["3D000"]);
    assert_eq!(
        simple(&mut session, "DROP DATABASE IF EXISTS a").await,
        ["DROP DATABASE"]
    );
    let error = session.query("DROP DATABASE a", &[]).await.unwrap_err();
    assert_eq!(error.code(), "3D000");
    let error = session
        .query("DROP DATABASE postgres", &[])
        .await
        .unwrap_err();
    assert_eq!(error.code(), "55006");
    let listed = rows(&mut session, "SELECT datname FROM pg_database ORDER BY 1").await;
    assert_eq!(listed, ["b", "postgres", "template0", "template1"]);
    // In a transaction they are refused by Postgres itself, and nothing is made.
    assert_eq!(simple(&mut session, "BEGIN").await, ["BEGIN"]);
    assert_eq!(simple(&mut session, "CREATE DATABASE c").await, ["25001"]);
    assert_eq!(session.transaction_status(), TransactionStatus::Failed);
    assert_eq!(simple(&mut session, "ROLLBACK").await, ["ROLLBACK"]);
    assert_eq!(databases.info(&name("c")).unwrap_err().code(), "3D000");
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    let mut first = session(&databases, "x").await;
    simple(&mut first, "CREATE ROLE limited; CREATE TABLE t (n int)").await;
    simple(
        &mut first,
        "SET work_mem = '1MB'; CREATE TEMP TABLE tmp (n int)",
    )
    .await;
    simple(
        &mut first,
        "PREPARE p AS SELECT 1; SELECT pg_advisory_lock(1)",
    )
    .await;
    simple(&mut first, "SET SESSION AUTHORIZATION limited").await;
    simple(&mut first, "BEGIN; INSERT INTO t VALUES (1)").await;
    drop(first);
    let mut second = session(&databases, "x").await;
    assert_eq!(rows(&mut second, "SELECT current_user").await, ["postgres"]);
    assert_eq!(rows(&mut second, "SHOW work_mem").await, ["4MB"]);
    assert_eq!(rows(&mut second, "SELECT to_regclass('tmp')").await, ["-"]);
    assert_eq!(
        rows(&mut second, "SELECT count(*) FROM pg_prepared_statements").await,
        ["0"]
    );
    assert_eq!(
        rows(
            &mut second,
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        )
        .await,
        ["0"]
    );
    assert_eq!(rows(&mut second, "SELECT count(*) FROM t").await, ["0"]);
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_session_has_a_limit_that_says_who_holds_it() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        session_wait_max: Duration::from_millis(50),
        processes_max: 1,
        ..Limits::default()
    };
    let options = Options {
        limits,
        ..Options::new(folder.path(), cache())
    };
    let databases = Databases::open(options).await.unwrap();
    let mut holder = session(&databases, "x").await;
    simple(&mut holder, "BEGIN").await;
    let waiter = databases
        .session(&name("x"), SessionOptions::default())
        .await;
    let error = waiter.unwrap_err();
    assert_eq!(error.code(), "53300");
    assert!(error.message().contains("a test"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_future_costs_the_backend_but_no_commit() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    let mut first = session(&databases, "x").await;
    simple(
        &mut first,
        "CREATE TABLE t (n int); INSERT INTO t VALUES (1)",
    )
    .await;
    let endless = first.query("SELECT pg_sleep(600)", &[]);
    assert!(
        tokio::time::timeout(Duration::from_millis(50), endless)
            .await
            .is_err()
    );
    drop(first);
    let mut second = session(&databases, "x").await;
    assert_eq!(rows(&mut second, "SELECT * FROM t").await, ["1"]);
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_can_be_cancelled_and_time_out() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    let mut session = session(&databases, "x").await;
    for sql in [
        "SELECT pg_sleep(600)",
        "SELECT count(*) FROM generate_series(1, 10000000000)",
    ] {
        let canceller = session.canceller();
        let cancel = tokio::spawn(async move {
            // Until the statement is under way there is nothing to cancel.
            loop {
                tokio::time::sleep(Duration::from_millis(20)).await;
                canceller.cancel();
            }
        });
        let error = session.query(sql, &[]).await.unwrap_err();
        cancel.abort();
        assert_eq!(error.code(), "57014");
        assert!(error.message().contains("user request"), "{error}");
        simple(&mut session, "SET statement_timeout = 50").await;
        let error = session.query(sql, &[]).await.unwrap_err();
        assert_eq!(error.code(), "57014");
        assert!(error.message().contains("statement timeout"), "{error}");
        simple(&mut session, "SET statement_timeout = 0").await;
        assert_eq!(rows(&mut session, "SELECT 1").await, ["1"]);
    }
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_and_stack_end_in_postgres_own_errors() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    let mut session = session(&databases, "x").await;
    let error = session
        .query(
            "SELECT length(repeat('x', 400000000) || repeat('y', 400000000))",
            &[],
        )
        .await
        .unwrap_err();
    assert_eq!(error.code(), "53200");
    simple(
        &mut session,
        "CREATE FUNCTION deep(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN deep($1 + 1); END'",
    )
    .await;
    let error = session.query("SELECT deep(1)", &[]).await.unwrap_err();
    assert_eq!(error.code(), "54001");
    let json = format!(
        "SELECT '{}{}'::json",
        "[".repeat(200_000),
        "]".repeat(200_000)
    );
    let error = session.query(&json, &[]).await.unwrap_err();
    assert_eq!(error.code(), "54001");
    assert_eq!(rows(&mut session, "SELECT 1").await, ["1"]);
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_database_goes_to_sleep_and_wakes_with_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        idle: Duration::ZERO,
        flush_interval: Duration::from_millis(10),
        ..Limits::default()
    };
    let options = Options {
        limits,
        ..Options::new(folder.path(), cache())
    };
    let databases = Databases::open(options).await.unwrap();
    for expected in 1..4 {
        let mut session = session(&databases, "x").await;
        simple(
            &mut session,
            "CREATE TABLE IF NOT EXISTS t (n int); INSERT INTO t VALUES (1)",
        )
        .await;
        assert_eq!(
            rows(&mut session, "SELECT count(*) FROM t").await,
            [expected.to_string()]
        );
        session.close().await;
        while databases.count().unwrap().1 > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_with_force_ends_the_session_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    let mut inside = session(&databases, "x").await;
    simple(&mut inside, "CREATE TABLE t (n int)").await;
    assert_eq!(
        databases
            .delete(&name("x"), false)
            .await
            .unwrap_err()
            .code(),
        "55006"
    );
    databases.delete(&name("x"), true).await.unwrap();
    let error = inside.query("SELECT 1", &[]).await.unwrap_err();
    assert_eq!(error.code(), "57P01");
    drop(inside);
    let mut anew = session(&databases, "x").await;
    assert_eq!(rows(&mut anew, "SELECT to_regclass('t')").await, ["-"]);
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_ends_takes_its_session_only() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    let mut other = session(&databases, "other").await;
    let mut first = session(&databases, "x").await;
    simple(
        &mut first,
        "CREATE TABLE t (n int); INSERT INTO t VALUES (1)",
    )
    .await;
    let canceller = first.canceller();
    let stop = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        canceller.stop();
    });
    let error = first
        .query("SELECT count(*) FROM generate_series(1, 10000000000)", &[])
        .await
        .unwrap_err();
    stop.await.unwrap();
    assert_eq!(error.code(), "57P02");
    drop(first);
    assert_eq!(rows(&mut other, "SELECT 1").await, ["1"]);
    let mut second = session(&databases, "x").await;
    assert_eq!(rows(&mut second, "SELECT * FROM t").await, ["1"]);
    databases.close().await.unwrap();
}
