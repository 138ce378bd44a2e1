//! Several sessions of one database.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use dormouse_database::{
    DatabaseName, Databases, Limits, Options, PgError, Session, SessionOptions, State,
};

fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache")
}

fn name(text: &str) -> DatabaseName {
    DatabaseName::parse(text).unwrap()
}

async fn open(folder: &Path, limits: Limits) -> Databases {
    let options = Options {
        limits,
        ..Options::new(folder, cache())
    };
    Databases::open(options).await.unwrap()
}

/// A session, while others share the memory of theirs as a server's connections do when they are idle.
async fn beside(databases: &Databases, others: &mut [&mut Session]) -> Result<Session, PgError> {
    let opening = tokio::spawn({
        let databases = databases.clone();
        async move {
            let options = SessionOptions::default();
            databases.session(&name("a"), options).await
        }
    });
    while !opening.is_finished() {
        for other in &mut *others {
            other.share();
        }
        tokio::task::yield_now().await;
    }
    opening.await.unwrap()
}

async fn first(databases: &Databases) -> Session {
    let mut session = beside(databases, &mut []).await.unwrap();
    run(&mut session, "CREATE TABLE IF NOT EXISTS t (n int)").await;
    session
}

async fn run(session: &mut Session, sql: &str) {
    session.query(sql, &[]).await.unwrap();
}

async fn value(session: &mut Session, sql: &str) -> String {
    let result = session.query(sql, &[]).await.unwrap();
    result.rows[0][0].clone().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_of_several_sessions_are_open_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    let mut a = first(&databases).await;
    run(&mut a, "BEGIN").await;
    run(&mut a, "INSERT INTO t VALUES (1)").await;
    let mut b = beside(&databases, &mut [&mut a]).await.unwrap();
    let mut c = beside(&databases, &mut [&mut a]).await.unwrap();
    run(&mut b, "BEGIN").await;
    run(&mut b, "INSERT INTO t VALUES (2)").await;
    assert_eq!(value(&mut c, "SELECT count(*) FROM t").await, "0");
    run(&mut a, "COMMIT").await;
    assert_eq!(value(&mut c, "SELECT count(*) FROM t").await, "1");
    // One that goes away is rolled back; its process is another's then.
    b.close().await;
    let mut d = beside(&databases, &mut [&mut a]).await.unwrap();
    assert_eq!(value(&mut d, "SELECT count(*) FROM t").await, "1");
    for session in [a, c, d] {
        session.close().await;
    }
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn several_sessions_survive_sleep_and_crash() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        idle: Duration::ZERO,
        ..Limits::default()
    };
    let databases = open(folder.path(), limits).await;
    for round in 0..6 {
        let mut a = first(&databases).await;
        let mut b = beside(&databases, &mut [&mut a]).await.unwrap();
        run(&mut a, "INSERT INTO t VALUES (1)").await;
        run(&mut b, "INSERT INTO t VALUES (2)").await;
        let all = "SELECT count(*) FROM t";
        assert_eq!(value(&mut a, all).await, (2 * round + 2).to_string());
        if round % 2 == 0 {
            a.close().await;
            // Not while anybody is there.
            tokio::time::sleep(Duration::from_millis(250)).await;
            assert_eq!(databases.info(&name("a")).unwrap().state, State::Awake);
            b.close().await;
            while databases.count().unwrap().1 > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        } else {
            // A call that is dropped ends its process, and with it the others.
            let endless = a.query("SELECT pg_sleep(600)", &[]);
            let waited = tokio::time::timeout(Duration::from_millis(5), endless).await;
            assert!(waited.is_err());
            drop(a);
            let gone = b.query("SELECT 1", &[]).await;
            drop((gone, b));
        }
    }
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_so_many_processes_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        processes_max: 2,
        session_wait_max: Duration::from_millis(300),
        ..Limits::default()
    };
    let databases = open(folder.path(), limits).await;
    let mut a = first(&databases).await;
    let b = beside(&databases, &mut [&mut a]).await.unwrap();
    let error = beside(&databases, &mut [&mut a]).await.err().unwrap();
    assert_eq!(error.code(), "53300");
    assert!(error.to_string().contains("processes_max"), "{error}");
    b.close().await;
    let c = beside(&databases, &mut [&mut a]).await.unwrap();
    // Not dropped while anybody is in it, unless by force: then both are sent away.
    assert!(databases.delete(&name("a"), false).await.is_err());
    databases.delete(&name("a"), true).await.unwrap();
    assert!(a.query("SELECT 1", &[]).await.is_err());
    for session in [a, c] {
        session.close().await;
    }
    databases.close().await.unwrap();
}
