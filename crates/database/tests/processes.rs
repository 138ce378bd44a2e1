//! The processes of one database: how many there are, and what becomes of the others when one ends.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use dormouse_database::{Databases, Limits, Session};

mod harness;

use harness::{all_asleep, open, run, value};

async fn session(databases: &Databases) -> Session {
    harness::session(databases, "a").await
}

/// A session beside one that has its process for itself, and shares its memory as a server's connections do
/// when they are idle.
async fn beside(databases: &Databases, other: &mut Session) -> Session {
    let opening = tokio::spawn({
        let databases = databases.clone();
        async move { session(&databases).await }
    });
    while !opening.is_finished() {
        other.share();
        tokio::task::yield_now().await;
    }
    opening.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn open_transactions_are_not_limited_by_the_turns() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        processes_shared: 2,
        processes_max: 7,
        session_wait_max: Duration::from_secs(2),
        idle: Duration::ZERO,
        ..Limits::default()
    };
    let databases = open(folder.path(), limits).await;
    let mut first = session(&databases).await;
    run(&mut first, "CREATE TABLE t (n int)").await;
    for _ in 0..2 {
        run(&mut first, "BEGIN").await;
        run(&mut first, "INSERT INTO t VALUES (0)").await;
        let mut open = Vec::new();
        for _ in 1..7 {
            // As one thread does that waits for each answer.
            let mut session = beside(&databases, &mut first).await;
            run(&mut session, "BEGIN").await;
            run(&mut session, "INSERT INTO t VALUES (1)").await;
            open.push(session);
        }
        // The last of all.
        let mut one_more = session_without_process(&databases, &mut open).await;
        run(&mut open[0], "BEGIN").await;
        let error = one_more.query("SELECT 1", &[]).await.unwrap_err();
        assert_eq!(error.code(), "53300");
        assert!(error.to_string().contains("processes_max"), "{error}");
        for session in &mut open {
            run(session, "COMMIT").await;
        }
        run(&mut first, "COMMIT").await;
        assert_eq!(
            value(&mut one_more, "SELECT count(*) % 7 FROM t").await,
            "0"
        );
        all_asleep(&databases).await;
    }
    databases.close().await.unwrap();
}

/// A session that let go of its process while one of the others was between two transactions.
async fn session_without_process(databases: &Databases, others: &mut [Session]) -> Session {
    run(&mut others[0], "COMMIT").await;
    session(databases).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_comes_between_two_statements_is_of_none() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    let mut idle = session(&databases).await;
    run(&mut idle, "BEGIN").await;
    let mut other = beside(&databases, &mut idle).await;
    let cancel = format!("SELECT pg_cancel_backend({})", idle.process_id());
    assert_eq!(value(&mut other, &cancel).await, "t");
    assert_eq!(value(&mut idle, "SELECT 1").await, "1");
    run(&mut idle, "COMMIT").await;
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_terminated_leaves_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        idle: Duration::from_millis(100),
        ..Limits::default()
    };
    let databases = open(folder.path(), limits).await;
    let mut a = session(&databases).await;
    run(&mut a, "CREATE TABLE t (n int)").await;
    for round in 0..4 {
        let mut rows = 0;
        run(&mut a, "BEGIN").await;
        let mut b = beside(&databases, &mut a).await;
        let mut c = session(&databases).await;
        run(&mut b, "SET my.own = 'kept'").await;
        run(&mut b, "BEGIN").await;
        run(&mut b, "INSERT INTO t VALUES (1)").await;
        rows += 1;
        // The first process ends by a FATAL error of its own, or another's word, in a statement.
        let ending = match round % 2 {
            0 => "SELECT set_config('transaction_timeout', '50ms', false), pg_sleep(600)",
            _ => "SELECT pg_sleep(600)",
        };
        run(&mut a, "INSERT INTO t VALUES (1000)").await;
        if round % 2 == 0 {
            run(&mut a, "ROLLBACK").await;
            run(&mut a, "SET transaction_timeout = '50ms'").await;
        }
        let pid = value(&mut a, "SELECT pg_backend_pid()").await;
        let ended = tokio::spawn(async move {
            let error = a.query(ending, &[]).await.unwrap_err();
            (a, error)
        });
        if round % 2 == 1 {
            let sleeps = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND query LIKE '%pg_sleep%'"
            );
            while value(&mut c, &sleeps).await == "0" {
                tokio::task::yield_now().await;
            }
            let sql = format!("SELECT pg_terminate_backend({pid})");
            assert_eq!(value(&mut c, &sql).await, "t");
        }
        let (ended, error) = ended.await.unwrap();
        let code = if round % 2 == 0 { "25P04" } else { "57P01" };
        assert_eq!(error.code(), code, "{error}");
        ended.close().await;
        // Nothing of it is left, and the others go on where they were.
        run(&mut b, "INSERT INTO t VALUES (1)").await;
        rows += 1;
        run(&mut b, "COMMIT").await;
        run(&mut c, "INSERT INTO t VALUES (1)").await;
        rows += 1;
        run(&mut b, "ALTER TABLE t ADD COLUMN x int").await;
        run(&mut b, "ALTER TABLE t DROP COLUMN x").await;
        assert_eq!(value(&mut b, "SHOW my.own").await, "kept");
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
        assert_eq!(value(&mut c, &sql).await, "0");
        let mut d = session(&databases).await;
        assert_eq!(
            value(&mut d, "SELECT sum(n) FROM t").await,
            rows.to_string()
        );
        if round < 2 {
            // They fall asleep, and wake from an image.
            all_asleep(&databases).await;
            assert_eq!(value(&mut b, "SHOW my.own").await, "kept");
        }
        run(&mut d, "TRUNCATE t").await;
        b.close().await;
        c.close().await;
        a = d;
    }
    a.close().await;
    databases.close().await.unwrap();
    drop(databases);
    // A clean shutdown: what a boot finds is whole.
    let databases = open(folder.path(), limits).await;
    let mut a = session(&databases).await;
    assert_eq!(value(&mut a, "SELECT count(*) FROM t").await, "0");
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_end_their_processes_do_not_stop_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        processes_shared: 3,
        processes_max: 3,
        session_wait_max: Duration::from_secs(30),
        ..Limits::default()
    };
    let databases = open(folder.path(), limits).await;
    let mut first = session(&databases).await;
    run(&mut first, "CREATE TABLE t (n int)").await;
    for _ in 0..3 {
        run(&mut first, "BEGIN").await;
        let mut others = Vec::new();
        for _ in 0..2 {
            let mut other = beside(&databases, &mut first).await;
            run(&mut other, "BEGIN").await;
            others.push(other);
        }
        for mut other in others {
            let sql = "SELECT pg_terminate_backend(pg_backend_pid())";
            let error = other.query(sql, &[]).await.unwrap_err();
            assert_eq!(error.code(), "57P01", "{error}");
            other.close().await;
        }
        // The slots of those two are empty now; several look at them at once.
        let coming: Vec<_> = (0..4)
            .map(|_| {
                let databases = databases.clone();
                tokio::spawn(async move {
                    let mut own = session(&databases).await;
                    value(&mut own, "SELECT 1").await
                })
            })
            .collect();
        for one in coming {
            assert_eq!(one.await.unwrap(), "1");
        }
        run(&mut first, "COMMIT").await;
    }
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_told_to_those_who_wait_and_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        session_wait_max: Duration::from_secs(30),
        ..Limits::default()
    };
    let databases = open(folder.path(), limits).await;
    let mut first = session(&databases).await;
    run(&mut first, "CREATE TABLE t (n int)").await;
    run(&mut first, "BEGIN").await;
    let mut other = beside(&databases, &mut first).await;
    run(&mut other, "SELECT pg_advisory_lock(1)").await;
    let mut idle = beside(&databases, &mut first).await;
    run(&mut idle, "BEGIN").await;
    let waiting = tokio::spawn(async move {
        let error = first.query("SELECT pg_advisory_lock(1)", &[]).await;
        error.unwrap_err()
    });
    let sql = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    while value(&mut other, sql).await == "0" {
        tokio::task::yield_now().await;
    }
    // A call that is dropped leaves the shared memory in the middle of something.
    let endless = other.query("SELECT pg_sleep(600)", &[]);
    let waited = tokio::time::timeout(Duration::from_millis(50), endless).await;
    assert!(waited.is_err());
    drop(other);
    let told = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    assert_eq!(told.unwrap().unwrap().code(), "57P02");
    // Who says nothing is told too.
    let told = tokio::time::timeout(Duration::from_secs(20), idle.signalled()).await;
    told.unwrap();
    let ended = idle.take_signals().await.unwrap_err();
    assert_eq!(ended.error.code(), "57P02");
    drop(idle);
    let mut again = session(&databases).await;
    assert_eq!(value(&mut again, "SELECT count(*) FROM t").await, "0");
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_nobody_needs_go() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        processes_shared: 2,
        processes_max: 7,
        ..Limits::default()
    };
    let databases = open(folder.path(), limits).await;
    let mut first = session(&databases).await;
    run(&mut first, "BEGIN").await;
    let mut open = Vec::new();
    for _ in 1..6 {
        let mut session = beside(&databases, &mut first).await;
        run(&mut session, "BEGIN").await;
        open.push(session);
    }
    let sql = "SELECT count(*) FROM pg_stat_activity";
    assert_eq!(value(&mut first, sql).await, "6");
    for session in &mut open {
        run(session, "COMMIT").await;
    }
    run(&mut first, "COMMIT").await;
    let started = std::time::Instant::now();
    // One session keeps it awake.
    while value(&mut first, sql).await != "2" {
        assert!(started.elapsed() < Duration::from_secs(60), "they stay");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for session in &mut open {
        run(session, "SELECT 1").await;
    }
    databases.close().await.unwrap();
}
