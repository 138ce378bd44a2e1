//! What Postgres does in a volume that is full: it refuses what grows, clearly, and goes on with the rest.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::sync::Arc;

use volume::{Refusal, Volume};

mod harness;

use harness::{Ground, boot, connect, query, run, value};

const FULL: &str = "No space left on device";

/// Inserts until there is no room; how many rows there are.
async fn fill(backend: &mut dormouse_engine::Backend, volume: &Volume) -> String {
    let insert = "INSERT INTO t (pad) SELECT repeat('x', 500) FROM generate_series(1, 1000)";
    let error = loop {
        assert_eq!(
            volume.take_refusal(),
            None,
            "nothing was refused, or it was an error"
        );
        if let Err(error) = query(backend, insert).await {
            break error;
        }
    };
    assert!(
        error.contains("could not extend file") && error.contains(FULL),
        "{error}"
    );
    let Some(Refusal::Limit { limit, max, used }) = volume.take_refusal() else {
        panic!("nobody knows why");
    };
    assert_eq!(limit, "volume.bytes_max");
    assert!(used <= max && max - used < 1 << 20, "{used} of {max}");
    value(backend, "SELECT count(*) FROM t").await
}

#[tokio::test]
async fn a_full_volume_refuses_growth_with_an_error_and_does_the_rest() {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
    let ground = Ground::new(&cache).await;
    let volume = ground.volume();
    let mut backend = ground.fork(&volume).await;
    run(
        &mut backend,
        "CREATE TABLE t (id serial PRIMARY KEY, pad text)",
    )
    .await;
    volume.set_bytes_max(volume.data_bytes() + (8 << 20));
    let rows = fill(&mut backend, &volume).await;
    assert!(volume.wal_bytes() > 0);

    // What was refused was rolled back; the session goes on, and commits what needs no room.
    run(
        &mut backend,
        "CHECKPOINT; UPDATE t SET pad = 'short' WHERE id = 1",
    )
    .await;
    let error = query(&mut backend, "CREATE TABLE copy AS SELECT * FROM t").await;
    assert!(error.unwrap_err().contains(FULL));

    // A crash, with much to do again, into a volume that has even less room by now.
    run(&mut backend, "DELETE FROM t WHERE id BETWEEN 2 AND 100").await;
    drop(backend);
    volume.set_bytes_max(0);
    let mut backend = boot(&ground.engine, &volume).await;
    connect(&mut backend).await;
    let found = "SELECT count(*) + 99, count(*) FILTER (WHERE pad = 'short') FROM t";
    assert_eq!(run(&mut backend, found).await, [[rows, "1".to_owned()]]);
    volume.flush().unwrap();

    // What makes room needs none.
    let before = volume.data_bytes();
    run(&mut backend, "DELETE FROM t WHERE id <= 5000").await;
    // Twice, for index pages are used again by what begins after the first.
    for _ in 0..2 {
        run(&mut backend, "VACUUM t").await;
    }
    run(&mut backend, "CHECKPOINT").await;
    run(
        &mut backend,
        "INSERT INTO t (pad) SELECT repeat('y', 500) FROM generate_series(1, 100)",
    )
    .await;
    for _ in 0..20 {
        run(&mut backend, "TRUNCATE t").await;
    }
    assert!(volume.data_bytes() + (4 << 20) < before);
    run(&mut backend, "DROP TABLE t; CHECKPOINT").await;
    backend.shut_down().await.unwrap();
    volume.flush().unwrap();

    let mut backend = boot(&ground.engine, &Arc::clone(&volume)).await;
    connect(&mut backend).await;
    volume.set_bytes_max(1 << 30);
    run(
        &mut backend,
        "CREATE TABLE t AS SELECT generate_series(1, 100000)",
    )
    .await;
}
