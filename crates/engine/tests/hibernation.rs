//! Backends that are saved, dropped, and continued.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dormouse_engine::{BackendError, BackendLimits, EngineError, Image};
use tokio::sync::OnceCell;
use volume::Volume;

mod harness;

use harness::{Ground, boot, connect, query, run, value};

async fn ground() -> &'static Ground {
    static GROUND: OnceCell<Ground> = OnceCell::const_new();
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
    GROUND
        .get_or_init(|| async move { Ground::new(&cache).await })
        .await
}

/// Saves a forked backend after `sql`, as a database does before it sleeps.
async fn saved(ground: &Ground, volume: &Arc<Volume>, sql: &[&str]) -> Vec<u8> {
    let mut backend = ground.fork(volume).await;
    for statement in sql {
        run(&mut backend, statement).await;
    }
    for statement in ["DISCARD ALL", "CHECKPOINT"] {
        run(&mut backend, statement).await;
    }
    backend.trim(&ground.image).await.unwrap();
    ground.engine.save(&mut backend, &ground.image).unwrap()
}

#[tokio::test]
async fn a_saved_backend_goes_on_where_it_stood() {
    let ground = ground().await;
    let volume = ground.volume();
    let saved = saved(
        ground,
        &volume,
        &[
            "CREATE EXTENSION vector",
            "CREATE TABLE t (id serial PRIMARY KEY, v vector(3), note text)",
            "INSERT INTO t (v, note) SELECT '[1,2,3]', 'n' || g FROM generate_series(1, 1000) g",
            "CREATE FUNCTION twice(i int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 2 * i; END'",
            "SELECT twice(1), v <-> '[0,0,0]' FROM t WHERE id = 1",
        ],
    )
    .await;
    let mut backend = ground.resume(&saved, &volume).await.unwrap();
    assert_eq!(value(&mut backend, "SELECT sum(id) FROM t").await, "500500");
    assert_eq!(
        value(&mut backend, "SELECT v <-> '[1,2,5]' FROM t WHERE id = 7").await,
        "2"
    );
    // An error unwinds to the main loop.
    let error = query(&mut backend, "SELECT 1 / 0").await.unwrap_err();
    assert_eq!(error, "Mdivision by zero");
    let caught = "DO 'BEGIN PERFORM 1 / 0; EXCEPTION WHEN OTHERS THEN NULL; END'";
    run(&mut backend, caught).await;
    let id = "INSERT INTO t (note) VALUES ('next') RETURNING id";
    assert_eq!(value(&mut backend, id).await, "1001");
    run(&mut backend, "CREATE EXTENSION pg_trgm").await;
    run(
        &mut backend,
        "CREATE INDEX ON t USING gin (note gin_trgm_ops)",
    )
    .await;
    run(
        &mut backend,
        "CREATE INDEX ON t USING hnsw (v vector_l2_ops)",
    )
    .await;
    run(&mut backend, "ALTER TABLE t ADD COLUMN more int DEFAULT 7").await;
    run(&mut backend, "VACUUM t").await;
    assert_eq!(
        value(&mut backend, "SELECT sum(twice(more)) FROM t").await,
        "14014"
    );
    run(&mut backend, "CHECKPOINT").await;
    // What it has written is whole for a backend that knows nothing of it.
    drop(backend);
    let mut booted = boot(&ground.engine, &volume).await;
    connect(&mut booted).await;
    assert_eq!(
        value(&mut booted, "SELECT count(*) FROM t WHERE more = 7").await,
        "1001"
    );
    let like = "SELECT count(*) FROM t WHERE note LIKE '%n77%'";
    assert_eq!(value(&mut booted, like).await, "11");
}

#[tokio::test]
async fn a_backend_can_be_saved_again_and_again() {
    let ground = ground().await;
    let volume = ground.volume();
    let mut bytes = saved(ground, &volume, &["CREATE TABLE t (n int)"]).await;
    for round in 1..=5 {
        let mut backend = ground.resume(&bytes, &volume).await.unwrap();
        run(&mut backend, "INSERT INTO t SELECT generate_series(1, 100)").await;
        let count = value(&mut backend, "SELECT count(*) FROM t").await;
        assert_eq!(count, (100 * round).to_string());
        run(
            &mut backend,
            &format!("CREATE TABLE t{round} AS SELECT * FROM t"),
        )
        .await;
        run(&mut backend, "CHECKPOINT").await;
        // Trimmed or not.
        if round % 2 == 0 {
            backend.trim(&ground.image).await.unwrap();
        }
        bytes = ground.engine.save(&mut backend, &ground.image).unwrap();
        // Saving leaves the backend as it was.
        assert_eq!(value(&mut backend, "SELECT count(*) FROM t").await, count);
    }
}

#[tokio::test]
async fn trimming_makes_a_saved_backend_small_and_leaves_its_data() {
    let ground = ground().await;
    let volume = ground.volume();
    let mut backend = ground.fork(&volume).await;
    for statement in [
        "CREATE TABLE t (id int PRIMARY KEY, hash text)",
        "INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 10000) g",
    ] {
        run(&mut backend, statement).await;
    }
    let digest = "SELECT md5(string_agg(id || hash, ',' ORDER BY id)) FROM t";
    let before = value(&mut backend, digest).await;
    // Dirty buffers stay, and so does everything inside a transaction.
    run(&mut backend, "UPDATE t SET hash = md5(hash)").await;
    let changed = value(&mut backend, digest).await;
    assert_ne!(before, changed);
    backend.trim(&ground.image).await.unwrap();
    assert_eq!(value(&mut backend, digest).await, changed);
    run(&mut backend, "CHECKPOINT; BEGIN; SELECT count(*) FROM t").await;
    assert_eq!(backend.trim(&ground.image).await.unwrap(), 0);
    run(&mut backend, "COMMIT").await;
    let large = ground.engine.save(&mut backend, &ground.image).unwrap();
    let evicted = backend.trim(&ground.image).await.unwrap();
    assert!(evicted > 100, "{evicted}");
    let small = ground.engine.save(&mut backend, &ground.image).unwrap();
    assert!(small.len() < 250_000, "{}", small.len());
    assert!(
        small.len() < large.len() / 2,
        "{} {}",
        small.len(),
        large.len()
    );
    assert_eq!(value(&mut backend, digest).await, changed);
    drop(backend);
    let mut backend = ground.resume(&small, &volume).await.unwrap();
    assert_eq!(value(&mut backend, digest).await, changed);
    assert!(backend.trim(&ground.image).await.unwrap() > 0);
}

#[tokio::test]
async fn each_fork_draws_its_own_random_numbers() {
    let ground = ground().await;
    let mut drawn = Vec::new();
    for _ in 0..3 {
        let mut backend = ground.fork(&ground.volume()).await;
        let row = run(
            &mut backend,
            "SELECT random(), random_normal(), gen_random_uuid(), uuidv7(), \
             (SELECT n FROM generate_series(1, 100000) n ORDER BY random() LIMIT 1)",
        )
        .await;
        drawn.extend(row.into_iter().flatten());
    }
    let count = drawn.len();
    drawn.sort();
    drawn.dedup();
    assert_eq!((drawn.len(), count), (15, 15));
}

#[tokio::test]
async fn each_resume_draws_its_own_random_numbers() {
    let ground = ground().await;
    let volume = ground.volume();
    // All that could draw in advance has drawn before.
    let first = "SELECT random(), random_normal(), gen_random_uuid(), uuidv7()";
    let bytes = saved(ground, &volume, &[first]).await;
    let draw = "SELECT random()::text || gen_random_uuid()";
    let mut drawn = Vec::new();
    for _ in 0..3 {
        let copy = ground.copy(&volume);
        let mut backend = ground.resume(&bytes, &copy).await.unwrap();
        drawn.extend(run(&mut backend, first).await.into_iter().flatten());
        drawn.push(value(&mut backend, draw).await);
    }
    let count = drawn.len();
    drawn.sort();
    drawn.dedup();
    assert_eq!((drawn.len(), count), (15, 15));
}

#[tokio::test]
async fn what_is_released_was_nobodys() {
    let ground = ground().await;
    let volume = ground.volume();
    let mut backend = ground.fork(&volume).await;
    let sum = "SELECT sum(n) FROM (SELECT n, count(*) OVER (ORDER BY md5(n::text)) FROM t) AS x";
    for statement in [
        "CREATE TABLE t AS SELECT generate_series(1, 20000) AS n",
        "BEGIN; DECLARE c CURSOR FOR SELECT n FROM t ORDER BY n; FETCH 10 FROM c",
        sum,
    ] {
        run(&mut backend, statement).await;
    }
    // In the middle of a transaction, with a portal open and a heap that was used and freed.
    assert!(backend.release(&ground.image).unwrap() > 100_000);
    assert_eq!(value(&mut backend, "FETCH c").await, "11");
    run(&mut backend, "COMMIT").await;
    assert_eq!(value(&mut backend, sum).await, "200010000");
    run(&mut backend, "DISCARD ALL").await;
    run(&mut backend, "CHECKPOINT").await;
    backend.trim(&ground.image).await.unwrap();
    let before = ground.engine.save(&mut backend, &ground.image).unwrap();
    assert!(backend.release(&ground.image).unwrap() > 100_000);
    let after = ground.engine.save(&mut backend, &ground.image).unwrap();
    assert!(
        before == after,
        "a saved backend is another once memory was released"
    );
    assert_eq!(backend.release(&ground.image).unwrap(), 0);
    assert_eq!(value(&mut backend, sum).await, "200010000");
    // A backend that shares no memory with the image has nothing to fall back on.
    let mut booted = boot(&ground.engine, &ground.volume()).await;
    connect(&mut booted).await;
    assert_eq!(booted.release(&ground.image).unwrap(), 0);
}

#[tokio::test]
async fn spares_become_forks_and_resumed_backends_like_any() {
    // Of its own: other tests would take the spares.
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
    let ground = Ground::new(&cache).await;
    let volume = ground.volume();
    let statements = [
        "CREATE EXTENSION vector",
        "CREATE TABLE t AS SELECT g AS n, '[1,2,3]'::vector AS v FROM generate_series(1, 5000) g",
        "SELECT count(*) FROM t WHERE v <-> '[1,2,3]' = 0",
    ];
    let bytes = saved(&ground, &volume, &statements).await;
    ground.engine.stock(&ground.image, 3).await.unwrap();
    let mut drawn = Vec::new();
    for _ in 0..2 {
        let mut backend = ground.resume(&bytes, &ground.copy(&volume)).await.unwrap();
        let near = "SELECT sum(n) FROM t WHERE v <-> '[1,2,3]' = 0";
        assert_eq!(value(&mut backend, near).await, "12502500");
        run(&mut backend, "INSERT INTO t SELECT * FROM t; CHECKPOINT").await;
        let bytes = ground.engine.save(&mut backend, &ground.image).unwrap();
        let volume = backend.volume();
        drop(backend);
        let mut backend = ground.resume(&bytes, &volume).await.unwrap();
        assert_eq!(value(&mut backend, near).await, "25005000");
        drawn.push(value(&mut backend, "SELECT random()").await);
        assert_eq!(ground.image.spares(), 1);
        ground.engine.stock(&ground.image, 3).await.unwrap();
    }
    // One that was forked from a spare has nothing of those before, and limits of its own.
    let limits = BackendLimits {
        memory_bytes_max: 160 << 20,
    };
    let fork = ground.engine.fork(&ground.image, ground.volume(), limits);
    let mut backend = fork.await.unwrap();
    let error = query(&mut backend, "TABLE t").await.unwrap_err();
    assert_eq!(error, "Mrelation \"t\" does not exist");
    drawn.push(value(&mut backend, "SELECT random()").await);
    run(&mut backend, "CREATE EXTENSION vector").await;
    let error = query(&mut backend, "SELECT length(repeat('x', 200000000))").await;
    assert_eq!(error.unwrap_err(), "Mout of memory");
    drawn.sort();
    drawn.dedup();
    assert_eq!(drawn.len(), 3);
    assert_eq!(ground.image.spares(), 2);
    ground.engine.stock(&ground.image, 0).await.unwrap();
    assert_eq!(ground.image.spares(), 0);
}

#[tokio::test]
async fn a_booted_backend_can_be_saved_too() {
    let ground = ground().await;
    let volume = ground.volume();
    let mut booted = boot(&ground.engine, &volume).await;
    connect(&mut booted).await;
    run(&mut booted, "CREATE TABLE t AS SELECT 42 AS n; CHECKPOINT").await;
    let bytes = ground.engine.save(&mut booted, &ground.image).unwrap();
    drop(booted);
    let mut backend = ground.resume(&bytes, &volume).await.unwrap();
    assert_eq!(value(&mut backend, "SELECT n FROM t").await, "42");
}

#[tokio::test]
async fn a_timer_that_ran_does_not_keep_later_ones_from_running() {
    let ground = ground().await;
    let volume = ground.volume();
    // Postgres leaves the timer running for whoever needs it next.
    let statements = [
        "SET statement_timeout = '500ms'",
        "SELECT 1",
        "SET statement_timeout = 0",
    ];
    let bytes = saved(ground, &volume, &statements).await;
    let mut backend = ground.resume(&bytes, &volume).await.unwrap();
    run(&mut backend, "SET statement_timeout = '600ms'").await;
    let endless = query(&mut backend, "SELECT pg_sleep(600)");
    let ended = tokio::time::timeout(Duration::from_secs(30), endless).await;
    let error = ended.expect("it was cancelled").unwrap_err();
    assert_eq!(error, "Mcanceling statement due to statement timeout");
}

#[tokio::test]
async fn a_backend_in_the_middle_of_something_is_not_saved() {
    let ground = ground().await;
    let volume = ground.volume();
    let mut backend = ground.fork(&volume).await;
    run(
        &mut backend,
        "CREATE TABLE t (n int); INSERT INTO t VALUES (1)",
    )
    .await;
    backend.input().extend_from_slice(b"S\0\0\0\x04");
    let error = ground.engine.save(&mut backend, &ground.image).unwrap_err();
    assert!(matches!(error, EngineError::Image(_)), "{error}");
    backend.exchange().await.unwrap();
    backend.output().clear();
    ground.engine.save(&mut backend, &ground.image).unwrap();
}

#[tokio::test]
async fn foreign_and_damaged_bytes_are_refused() {
    let ground = ground().await;
    let volume = ground.volume();
    let bytes = saved(ground, &volume, &["CREATE TABLE t (n int)"]).await;
    // The same template, but another image of it.
    let other = {
        let mut booted = boot(&ground.engine, &ground.volume()).await;
        connect(&mut booted).await;
        ground.engine.image(&mut booted).unwrap()
    };
    let resume = |image: &'static Image, bytes: Vec<u8>| {
        let volume = ground.copy(&volume);
        async move {
            let limits = BackendLimits::default();
            ground.engine.resume(image, &bytes, volume, limits).await
        }
    };
    let other: &'static Image = Box::leak(Box::new(other));
    let refused = resume(other, bytes.clone()).await.unwrap_err();
    assert!(matches!(refused, BackendError::Start(_)), "{refused}");
    // Whatever the bytes, it is an error or a backend, never a panic.
    let mut refused = 0;
    for at in (0..bytes.len().min(6000))
        .step_by(7)
        .chain([bytes.len() - 1])
    {
        let cut = resume(&ground.image, bytes[..at].to_vec()).await;
        assert!(matches!(cut, Err(BackendError::Start(_))), "cut at {at}");
        let mut flipped = bytes.clone();
        flipped[at] ^= 0xFF;
        refused += usize::from(resume(&ground.image, flipped).await.is_err());
    }
    assert!(refused > 10, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_was_ended_anywhere_does_not_keep_the_next_from_starting() {
    let ground = ground().await;
    let volume = ground.volume();
    for content in ["", "4", "not a number\n", "42\n/data\n"] {
        let mtime = ::volume::Mtime::default();
        let file = match volume.resolve("/postmaster.pid") {
            Ok(file) => file,
            Err(_) => volume
                .create_file(::volume::Ino::ROOT, "postmaster.pid", 0o600, mtime)
                .unwrap(),
        };
        volume.set_len(file, 0, mtime).unwrap();
        volume.write(file, 0, content.as_bytes(), mtime).unwrap();
        let mut booted = boot(&ground.engine, &volume).await;
        connect(&mut booted).await;
        assert_eq!(value(&mut booted, "SELECT 1").await, "1");
        // As in a crash.
        drop(booted);
    }
}
