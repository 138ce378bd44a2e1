//! Upkeep of tables that several sessions write.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dormouse_database::{DatabaseName, Databases, Limits, Options, Session, SessionOptions};

fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache")
}

async fn session(databases: &Databases) -> Session {
    let name = DatabaseName::parse("a").unwrap();
    let options = SessionOptions::default();
    databases.session(&name, options).await.unwrap()
}

async fn run(session: &mut Session, sql: &str) {
    session.query(sql, &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_further_process_has_written_is_vacuumed() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        idle: Duration::from_secs(300),
        ..Limits::default()
    };
    let options = Options {
        limits,
        ..Options::new(folder.path(), cache())
    };
    let databases = Databases::open(options).await.unwrap();
    let mut first = session(&databases).await;
    run(&mut first, "CREATE TABLE t (n int, s text)").await;
    let mut other = session(&databases).await;
    // As long as the first process is in a transaction, the other session has another one.
    run(&mut first, "BEGIN").await;
    let writing = tokio::spawn(async move {
        for sql in [
            "INSERT INTO t SELECT n, repeat('x', 500) FROM generate_series(1, 10000) n",
            "DELETE FROM t",
        ] {
            run(&mut other, sql).await;
        }
        other.close().await;
    });
    while !writing.is_finished() {
        first.share();
        tokio::task::yield_now().await;
    }
    writing.await.unwrap();
    run(&mut first, "COMMIT").await;
    first.close().await;
    let start = Instant::now();
    while databases.metrics().vacuums.count == 0 {
        assert!(start.elapsed() < Duration::from_secs(60), "never vacuumed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    databases.close().await.unwrap();
}
