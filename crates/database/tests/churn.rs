//! Upkeep of tables that several sessions write.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use dormouse_database::Limits;

mod harness;

use harness::{open, run, session, until};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_further_process_has_written_is_vacuumed() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        idle: Duration::from_secs(300),
        ..Limits::default()
    };
    let databases = open(folder.path(), limits).await;
    let mut first = session(&databases, "a").await;
    run(&mut first, "CREATE TABLE t (n int, s text)").await;
    let mut other = session(&databases, "a").await;
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
    until("vacuumed", || databases.metrics().vacuums.count > 0).await;
    databases.close().await.unwrap();
}
