//! What the host asks of a backend without SQL.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;

use dormouse_engine::Backend;

mod harness;

use harness::{Ground, boot, connect, run, value};

async fn ground() -> Ground {
    Ground::new(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache")).await
}

/// A position in Postgres' text, as a number.
fn position(text: &str) -> u64 {
    let (high, low) = text.split_once('/').unwrap();
    u64::from_str_radix(high, 16).unwrap() << 32 | u64::from_str_radix(low, 16).unwrap()
}

async fn flushed(backend: &mut Backend) -> u64 {
    position(&value(backend, "SELECT pg_current_wal_flush_lsn()").await)
}

#[tokio::test]
async fn commits_that_did_not_wait_are_flushed_by_the_host() {
    let ground = ground().await;
    let volume = ground.volume();
    let mut backend = ground.fork(&volume).await;
    run(&mut backend, "CREATE TABLE t (n int)").await;
    assert!(!backend.flush_wal().await.unwrap());
    run(&mut backend, "SET synchronous_commit = off").await;
    let before = flushed(&mut backend).await;
    run(&mut backend, "INSERT INTO t VALUES (1)").await;
    assert_eq!(flushed(&mut backend).await, before);
    assert_eq!(backend.wal_flushed().await.unwrap(), before);
    let end = backend.wal_position().await.unwrap();
    assert!(end > before);
    assert!(backend.flush_wal().await.unwrap());
    assert_eq!(backend.wal_flushed().await.unwrap(), end);
    assert!(!backend.flush_wal().await.unwrap());
    // As after a crash: what was flushed is there.
    drop(backend);
    let mut booted = boot(&ground.engine, &volume).await;
    connect(&mut booted).await;
    assert_eq!(value(&mut booted, "SELECT n FROM t").await, "1");
}

#[tokio::test]
async fn the_position_moves_only_when_something_is_changed() {
    let ground = ground().await;
    let mut backend = ground.fork(&ground.volume()).await;
    run(&mut backend, "CREATE TABLE t (n int)").await;
    let before = backend.wal_position().await.unwrap();
    run(&mut backend, "SELECT * FROM t").await;
    assert_eq!(backend.wal_position().await.unwrap(), before);
    run(&mut backend, "INSERT INTO t VALUES (1)").await;
    let after = backend.wal_position().await.unwrap();
    assert!(after > before);
    let said = value(&mut backend, "SELECT pg_current_wal_insert_lsn()").await;
    assert_eq!(after, position(&said));
}

#[tokio::test]
async fn wal_that_ends_with_its_page_or_segment_can_be_flushed() {
    let ground = ground().await;
    let mut backend = ground.fork(&ground.volume()).await;
    run(&mut backend, "SET synchronous_commit = off").await;
    // A new segment: the next record is to begin behind a header that is not written yet.
    run(&mut backend, "SELECT pg_switch_wal()").await;
    let position = backend.wal_position().await.unwrap();
    assert_eq!(position % (1 << 20), 0, "{position:x}");
    backend.flush_wal().await.unwrap();
    assert_eq!(backend.wal_flushed().await.unwrap(), position);
    // Messages of many lengths end at many places of a page.
    for bytes in (1..9000).step_by(8) {
        let emit = format!("SELECT pg_logical_emit_message(false, '', repeat('x', {bytes}))");
        run(&mut backend, &emit).await;
        backend.flush_wal().await.unwrap();
        let position = backend.wal_position().await.unwrap();
        assert_eq!(backend.wal_flushed().await.unwrap(), position);
    }
}

#[tokio::test]
async fn the_age_is_that_of_the_catalog() {
    let ground = ground().await;
    let mut backend = ground.fork(&ground.volume()).await;
    for _ in 0..3 {
        run(&mut backend, "CREATE TABLE t (n int)").await;
        run(&mut backend, "DROP TABLE t").await;
        let age = value(
            &mut backend,
            "SELECT max(age(datfrozenxid)) FROM pg_database",
        )
        .await;
        assert_eq!(backend.transaction_age().to_string(), age);
    }
}
