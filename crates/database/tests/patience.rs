//! How long others are waited for, and what is said then.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use dormouse_database::{Databases, Limits, Session, SessionOptions};

mod harness;

use harness::{name, open, run_all as run, value};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn session(databases: &Databases) -> Session {
    harness::session(databases, "a").await
}

/// Limits by which idle holders are ended at once if anybody waits.
fn impatient() -> Limits {
    Limits {
        processes_max: 1,
        idle_holder: Duration::from_millis(20),
        session_wait_max: PATIENCE,
        ..Limits::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_keeps_a_process_idle_is_ended_for_those_who_wait() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), impatient()).await;
    let mut other = session(&databases).await;
    run(&mut other, &["CREATE TABLE t (n int)"]).await;
    for keep in [
        "BEGIN",
        "CREATE TEMP TABLE mine (n int)",
        "SELECT pg_advisory_lock(7)",
        "LISTEN news",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    ] {
        let mut holder = session(&databases).await;
        run(&mut holder, &[keep, "INSERT INTO t VALUES (1)"]).await;
        let waiting = tokio::spawn(async move {
            let count = value(&mut other, "SELECT count(*) FROM t").await;
            (other, count)
        });
        let error = tokio::time::timeout(PATIENCE, holder.idle_too_long()).await;
        let error = error.expect("nobody ended it");
        assert_eq!(error.code(), "25P03");
        assert_eq!(error.severity().as_str(), "FATAL");
        assert!(
            error.to_string().contains("sessions.idle_holder_ms_max"),
            "{error}"
        );
        assert!(
            !waiting.is_finished(),
            "{keep}: it did not keep its process"
        );
        holder.close().await;
        let (back, count) = waiting.await.unwrap();
        other = back;
        // What was committed is; what was not is not, and holds nothing up.
        let committed = keep != "BEGIN";
        assert_eq!(count, if committed { "1" } else { "0" }, "{keep}");
        run(
            &mut other,
            &["DELETE FROM t", "SELECT pg_advisory_xact_lock(7)"],
        )
        .await;
    }
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_ended_while_nobody_waits() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        processes_max: 2,
        ..impatient()
    };
    let databases = open(folder.path(), limits).await;
    let mut holder = session(&databases).await;
    let mut other = session(&databases).await;
    run(&mut other, &["CREATE TABLE t (n int)"]).await;
    run(&mut holder, &["BEGIN", "INSERT INTO t VALUES (1)"]).await;
    // The other one has a process of its own, and never waits.
    run(&mut other, &["SELECT 1"]).await;
    let ended = tokio::time::timeout(Duration::from_millis(500), holder.idle_too_long()).await;
    assert!(ended.is_err(), "{ended:?}");
    // One without anything keeps no process, and so is not ended, though others wait.
    let rest = session(&databases).await;
    run(&mut other, &["BEGIN"]).await;
    let third = session(&databases);
    let mut third = std::pin::pin!(third);
    let ended = tokio::select! {
        error = rest.idle_too_long() => Err(error),
        _ = &mut third => panic!("there is a third process"),
        error = holder.idle_too_long() => Ok(error),
    };
    assert_eq!(ended.unwrap().code(), "25P03");
    holder.close().await;
    let mut third = third.await;
    assert_eq!(value(&mut third, "SELECT count(*) FROM t").await, "0");
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_takes_too_long_names_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    // Without an image it has to boot.
    let usual = Limits {
        images_bytes_max: 0,
        ..Limits::default()
    };
    let databases = open(folder.path(), usual).await;
    let mut first = session(&databases).await;
    run(
        &mut first,
        &["CREATE TABLE t AS SELECT generate_series(1, 1000) AS n"],
    )
    .await;
    first.close().await;
    databases.close().await.unwrap();
    drop(databases);

    let short = Limits {
        wake_max: Duration::from_millis(1),
        ..usual
    };
    let databases = open(folder.path(), short).await;
    for _ in 0..3 {
        let options = SessionOptions::default();
        let error = databases.session(&name("a"), options).await.unwrap_err();
        assert_eq!(error.code(), "57P03");
        assert_eq!(error.severity().as_str(), "FATAL");
        let said = error.message();
        assert!(
            said.contains("within 1 ms (limit databases.wake_ms_max)"),
            "{said}"
        );
    }
    databases.close().await.unwrap();
    drop(databases);

    let databases = open(folder.path(), usual).await;
    let mut session = session(&databases).await;
    assert_eq!(value(&mut session, "SELECT count(*) FROM t").await, "1000");
    session.close().await;
    databases.close().await.unwrap();
}
