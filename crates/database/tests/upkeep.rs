//! Upkeep over the real engine: vacuum, freezing, checkpoints, compaction.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod harness;

use std::fs;
use std::time::{Duration, Instant};

use dormouse_database::{Limits, Settings, Source};
use harness::{name, open, run_alone, session, until, value};

#[tokio::test(flavor = "multi_thread")]
async fn churn_is_vacuumed_and_analyzed() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        idle: Duration::from_secs(60),
        ..Limits::default()
    };
    let databases = open(folder.path(), limits).await;
    let churn = [
        "CREATE TABLE t (n int PRIMARY KEY, s text)",
        "INSERT INTO t SELECT n, repeat('x', 50) FROM generate_series(1, 5000) n",
        "UPDATE t SET s = s || 'y'",
        "CREATE TABLE own (n int) WITH (autovacuum_enabled = off)",
        "INSERT INTO own SELECT generate_series(1, 5000)",
    ];
    databases
        .create(&name("off"), Source::Template)
        .await
        .unwrap();
    let off = Settings {
        maintenance: Some(false),
        ..Settings::default()
    };
    let info = databases.configure(&name("off"), off).await.unwrap();
    assert!(!info.maintenance);
    run_alone(&databases, "off", &churn).await;
    run_alone(&databases, "on", &churn).await;
    until("maintained", || databases.metrics().vacuums.count > 0).await;
    let mut on = session(&databases, "on").await;
    let sql = "SELECT n_dead_tup || ' ' || (last_analyze IS NOT NULL) FROM pg_stat_user_tables \
               WHERE relname = 't'";
    assert_eq!(value(&mut on, sql).await, "0 true");
    let sql = "SELECT (last_analyze IS NULL)::text FROM pg_stat_user_tables WHERE relname = 'own'";
    assert_eq!(value(&mut on, sql).await, "true");
    on.close().await;
    let mut off = session(&databases, "off").await;
    value(&mut off, "SELECT pg_stat_force_next_flush()::text").await;
    let sql = "SELECT n_dead_tup || ' ' || (last_analyze IS NOT NULL) FROM pg_stat_user_tables \
               WHERE relname = 't'";
    assert_eq!(value(&mut off, sql).await, "5000 false");
    off.close().await;
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn old_transactions_are_frozen() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        idle: Duration::from_secs(60),
        freeze_age: 300,
        ..Limits::default()
    };
    let databases = open(folder.path(), limits).await;
    databases
        .create(&name("other"), Source::Template)
        .await
        .unwrap();
    let mut busy = session(&databases, "a").await;
    busy.query("CREATE TABLE t (n int)", &[]).await.unwrap();
    // The rows of other databases must not hold the oldest transaction back.
    assert_eq!(
        value(
            &mut busy,
            "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database"
        )
        .await,
        "a other template0 template1"
    );
    for n in 0..400 {
        let sql = format!("INSERT INTO t VALUES ({n})");
        busy.query(&sql, &[]).await.unwrap();
    }
    let age = "SELECT age(datfrozenxid)::text FROM pg_database WHERE oid = 5";
    let before: u32 = value(&mut busy, age).await.parse().unwrap();
    assert!(before > 300, "{before}");
    busy.close().await;
    until("frozen", || databases.metrics().freezes.count > 0).await;
    let mut session = session(&databases, "a").await;
    let after: u32 = value(&mut session, age).await.parse().unwrap();
    assert!(after < 100, "{after}");
    session.close().await;
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn long_wal_is_checkpointed_without_a_trace_in_the_session() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        checkpoint_wal_bytes: 1 << 20,
        ..Limits::default()
    };
    let databases = open(folder.path(), limits).await;
    let mut session = session(&databases, "a").await;
    for sql in [
        "CREATE ROLE plain",
        "CREATE TABLE t (s text)",
        "GRANT ALL ON t TO plain",
        "SET ROLE plain",
        "SET statement_timeout = '30s'",
    ] {
        session.query(sql, &[]).await.unwrap();
    }
    for _ in 0..40 {
        let sql = "INSERT INTO t SELECT repeat(md5(n::text), 10) FROM generate_series(1, 500) n";
        session.query(sql, &[]).await.unwrap();
        assert_eq!(value(&mut session, "SELECT current_user").await, "plain");
        let sql = "SELECT count(*) FROM pg_prepared_statements WHERE name <> ''";
        assert_eq!(value(&mut session, sql).await, "0");
    }
    let metrics = databases.metrics();
    assert!(metrics.checkpoints.count >= 3, "{metrics:?}");
    session.close().await;
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn upkeep_gives_way_to_a_session() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        idle: Duration::from_secs(60),
        ..Limits::default()
    };
    let databases = open(folder.path(), limits).await;
    // The statistics of an index on an expression evaluate it, which takes ten minutes here.
    let slow = "CREATE FUNCTION slow(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS \
                'BEGIN IF EXISTS (SELECT FROM public.switch) THEN PERFORM pg_sleep(600); END IF; \
                 RETURN n; END'";
    let fill = [
        "CREATE TABLE switch (n int)",
        slow,
        "CREATE TABLE t (n int)",
        "CREATE INDEX ON t (slow(n))",
        "INSERT INTO t SELECT generate_series(1, 5000)",
        "INSERT INTO switch VALUES (1)",
    ];
    run_alone(&databases, "a", &fill).await;
    // Upkeep begins half a second after the session has left; sessions that come later than that
    // interrupt it.
    let start = Instant::now();
    while databases.metrics().preemptions == 0 {
        assert!(start.elapsed() < Duration::from_secs(60), "no preemption");
        tokio::time::sleep(Duration::from_millis(700)).await;
        let begun = Instant::now();
        let mut session = session(&databases, "a").await;
        assert_eq!(value(&mut session, "SELECT 1").await, "1");
        session.close().await;
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_one_database_alone_is_over_are_compacted() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        idle: Duration::from_secs(60),
        ..Limits::default()
    };
    let databases = open(folder.path(), limits).await;
    let fill = [
        "CREATE TABLE t (n int, s text)",
        "INSERT INTO t SELECT n, repeat('x', 500) FROM generate_series(1, 20000) n",
        "CHECKPOINT",
    ];
    run_alone(&databases, "a", &fill).await;
    let source = || Source::Database(name("a"));
    databases.create(&name("b"), source()).await.unwrap();
    // The parent rewrites the table, so of the layer it needs little when the fork is gone.
    let rewrite = [
        "UPDATE t SET s = repeat('y', 500)",
        "VACUUM FULL t",
        "CHECKPOINT",
    ];
    run_alone(&databases, "a", &rewrite).await;
    let mut fork = session(&databases, "b").await;
    let same = "SELECT count(*) FROM t WHERE s = repeat('x', 500)";
    assert_eq!(value(&mut fork, same).await, "20000");
    fork.close().await;
    let layers = || {
        let entries = fs::read_dir(folder.path().join("volumes")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let layer = |name: &String| name.ends_with(".manifest") && name.matches('.').count() == 2;
        names.filter(layer).count()
    };
    assert!(layers() > 0);
    databases.delete(&name("b"), false).await.unwrap();
    run_alone(&databases, "a", &["SELECT 1"]).await;
    until("compacted", || layers() == 0).await;
    assert!(databases.metrics().compactions.count > 0);
    let mut session = session(&databases, "a").await;
    let new = "SELECT count(*) FROM t WHERE s = repeat('y', 500)";
    assert_eq!(value(&mut session, new).await, "20000");
    session.close().await;
    databases.close().await.unwrap();
}
