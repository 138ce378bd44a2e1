//! Sleep, wake and admission over the real engine.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod harness;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dormouse_database::{
    Databases, Durability, Limits, Metrics, PgError, SessionOptions, Settings, Source, State,
};
use harness::{all_asleep, name, open, run_alone, session, until, value};

/// Limits by which a database sleeps soon, but not between two statements of one test.
fn drowsy() -> Limits {
    Limits {
        idle: Duration::from_millis(300),
        ..Limits::default()
    }
}

/// Why there is no session.
async fn refused(databases: &Databases, database: &str) -> PgError {
    let database = name(database);
    let refused = databases.session(&database, SessionOptions::default());
    refused.await.unwrap_err()
}

fn wakes(metrics: &Metrics) -> [u64; 3] {
    [
        metrics.wakes_forked.count,
        metrics.wakes_resumed.count,
        metrics.wakes_booted.count,
    ]
}

fn images(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join("images")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_wakes_from_its_image() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), drowsy()).await;
    run_alone(
        &databases,
        "a",
        &[
            "CREATE TABLE t (n int PRIMARY KEY, s text)",
            "INSERT INTO t SELECT n, 'row ' || n FROM generate_series(1, 1000) n",
            "CREATE SEQUENCE s",
        ],
    )
    .await;
    for round in 1..=5_u64 {
        all_asleep(&databases).await;
        let mut session = session(&databases, "a").await;
        assert_eq!(value(&mut session, "SELECT current_database()").await, "a");
        assert_eq!(
            value(&mut session, "SELECT count(*) FROM t").await,
            (999 + round).to_string()
        );
        assert_eq!(
            value(&mut session, "SELECT nextval('s')").await,
            round.to_string()
        );
        let insert = format!("INSERT INTO t VALUES ({}, 'new')", 1000 + round);
        session.query(&insert, &[]).await.unwrap();
        session.close().await;
        assert_eq!(wakes(&databases.metrics()), [1, round, 0]);
    }
    // After a restart, too.
    databases.close().await.unwrap();
    drop(databases);
    let databases = open(folder.path(), drowsy()).await;
    let mut session = session(&databases, "a").await;
    assert_eq!(value(&mut session, "SELECT count(*) FROM t").await, "1005");
    assert_eq!(wakes(&databases.metrics()), [0, 1, 0]);
    session.close().await;
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_good_image_it_boots() {
    let folder = tempfile::tempdir().unwrap();
    // Not between two statements.
    let limits = Limits {
        idle: Duration::from_millis(300),
        ..Limits::default()
    };
    let databases = open(folder.path(), limits).await;
    let fill = ["CREATE TABLE t (n int)", "INSERT INTO t VALUES (7)"];
    run_alone(&databases, "a", &fill).await;
    let flip = |path: &PathBuf| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        fs::write(path, bytes).unwrap();
    };
    let cut = |path: &PathBuf| fs::write(path, [0; 100]).unwrap();
    let remove = |path: &PathBuf| fs::remove_file(path).unwrap();
    let spoils: [&dyn Fn(&PathBuf); 3] = [&flip, &cut, &remove];
    for (round, spoil) in spoils.iter().enumerate() {
        all_asleep(&databases).await;
        let there = images(folder.path());
        assert_eq!(there.len(), 1);
        spoil(&there[0]);
        let mut session = session(&databases, "a").await;
        assert_eq!(value(&mut session, "SELECT sum(n) FROM t").await, "7");
        // The next image must be another one.
        session.query("ANALYZE t", &[]).await.unwrap();
        session.close().await;
        assert_eq!(wakes(&databases.metrics()), [1, 0, round as u64 + 1]);
    }
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_does_not_outlive_a_change() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), drowsy()).await;
    let fill = ["CREATE TABLE t (n int)", "INSERT INTO t VALUES (1)"];
    run_alone(&databases, "a", &fill).await;
    all_asleep(&databases).await;
    let old = images(folder.path()).remove(0);
    let kept = fs::read(&old).unwrap();
    run_alone(&databases, "a", &["INSERT INTO t VALUES (2)"]).await;
    all_asleep(&databases).await;
    databases.close().await.unwrap();
    drop(databases);
    // An image of the state before, whole, in the place of the new one.
    fs::write(&old, kept).unwrap();
    let databases = open(folder.path(), drowsy()).await;
    let mut session = session(&databases, "a").await;
    assert_eq!(value(&mut session, "SELECT sum(n) FROM t").await, "3");
    assert_eq!(wakes(&databases.metrics()), [0, 0, 1]);
    session.close().await;
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_only_reads_leaves_the_image_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), drowsy()).await;
    let fill = ["CREATE TABLE t (n int)", "INSERT INTO t VALUES (1)"];
    run_alone(&databases, "a", &fill).await;
    all_asleep(&databases).await;
    // Once more: reading sets hint bits.
    run_alone(&databases, "a", &["SELECT * FROM t"]).await;
    all_asleep(&databases).await;
    let written = |path: &PathBuf| fs::metadata(path).unwrap().modified().unwrap();
    let image = images(folder.path()).remove(0);
    let before = written(&image);
    for _ in 0..3 {
        run_alone(&databases, "a", &["SELECT * FROM t"]).await;
        all_asleep(&databases).await;
    }
    assert_eq!(written(&image), before);
    assert_eq!(wakes(&databases.metrics()), [1, 4, 0]);
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_name_and_changed_settings_hold_after_sleep() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), drowsy()).await;
    run_alone(&databases, "old", &["ALTER SYSTEM SET work_mem = '7MB'"]).await;
    all_asleep(&databases).await;
    databases.rename(&name("old"), &name("new")).await.unwrap();
    for _ in 0..2 {
        let mut session = session(&databases, "new").await;
        let database = value(&mut session, "SELECT current_database()").await;
        assert_eq!(database, "new");
        assert_eq!(value(&mut session, "SHOW work_mem").await, "7MB");
        session.close().await;
        all_asleep(&databases).await;
    }
    databases.close().await.unwrap();
}

/// Descriptors, threads and mappings of this process.
fn held() -> [usize; 3] {
    let count = |path: &str| fs::read_dir(path).unwrap().count();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    [
        count("/proc/self/fd"),
        count("/proc/self/task"),
        maps.lines().count(),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sleeping_database_holds_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), drowsy()).await;
    let fill = [
        "CREATE TABLE IF NOT EXISTS t (n int)",
        "INSERT INTO t VALUES (1)",
    ];
    // What is opened once stays: the template, threads for blocking work.
    for n in 0..4 {
        run_alone(&databases, &format!("first{n}"), &fill).await;
    }
    all_asleep(&databases).await;
    let before = held();
    for n in 0..40 {
        run_alone(&databases, &format!("d{n}"), &fill).await;
    }
    all_asleep(&databases).await;
    // Threads and their mappings come and go, but not with the number of databases: awake, these have
    // four mappings each. Idle threads end by themselves.
    until("few descriptors, threads and mappings", || {
        let after = held();
        after[0] <= before[0] + 2 && after[1] <= before[1] + 12 && after[2] <= before[2] + 80
    })
    .await;
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_keeps_it_awake() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), drowsy()).await;
    let mut open = session(&databases, "a").await;
    open.query("BEGIN", &[]).await.unwrap();
    open.query("CREATE TABLE t (n int)", &[]).await.unwrap();
    // Others fall asleep meanwhile, so there was time.
    for n in 0..3 {
        run_alone(&databases, &format!("b{n}"), &["SELECT 1"]).await;
        until("asleep", || {
            databases.info(&name(&format!("b{n}"))).unwrap().state == State::Asleep
        })
        .await;
    }
    assert_eq!(databases.info(&name("a")).unwrap().state, State::Awake);
    open.query("COMMIT", &[]).await.unwrap();
    assert_eq!(value(&mut open, "SELECT count(*) FROM t").await, "0");
    open.close().await;
    all_asleep(&databases).await;
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_may_be_awake_take_turns() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        awake_max: 3,
        ..Limits::default()
    };
    let databases = Arc::new(open(folder.path(), limits).await);
    let fill = ["CREATE TABLE t (n int)", "INSERT INTO t VALUES (1)"];
    let mut tasks = Vec::new();
    for n in 0..24 {
        let databases = Arc::clone(&databases);
        tasks.push(tokio::spawn(async move {
            let database = format!("d{n}");
            run_alone(&databases, &database, &fill).await;
            run_alone(&databases, &database, &["UPDATE t SET n = n + 1"]).await;
            assert!(databases.count().unwrap().1 <= 3 + 24);
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    for n in 0..24 {
        let mut session = session(&databases, &format!("d{n}")).await;
        assert_eq!(value(&mut session, "SELECT n FROM t").await, "2");
        session.close().await;
    }
    // Idle time is ten seconds: only want of room has put any to sleep.
    assert!(databases.metrics().hibernations_early >= 21);
    let awake = databases.list(None, 100).unwrap();
    let awake = awake.iter().filter(|info| info.state == State::Awake);
    assert!(awake.count() <= 3);
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_the_error_names_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        awake_max: 1,
        wake_wait_max: Duration::from_millis(100),
        ..Limits::default()
    };
    let databases = open(folder.path(), limits).await;
    let mut first = session(&databases, "a").await;
    // One that only is there would let its database sleep.
    first.query("BEGIN", &[]).await.unwrap();
    let error = refused(&databases, "b").await;
    assert_eq!(error.code(), "53300");
    assert!(error.message().contains("databases.awake_max = 1"));
    assert_eq!(databases.info(&name("b")).unwrap().state, State::Asleep);
    first.close().await;
    session(&databases, "b").await.close().await;
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn short_of_memory_the_quiet_go_to_sleep_and_none_wakes() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        node_memory_bytes_max: 1,
        wake_wait_max: Duration::from_millis(300),
        ..Limits::default()
    };
    let databases = open(folder.path(), limits).await;
    // Before the first look at memory it may wake, or not.
    let first = name("a");
    if let Ok(session) = databases.session(&first, SessionOptions::default()).await {
        session.close().await;
    }
    all_asleep(&databases).await;
    let error = refused(&databases, "b").await;
    assert_eq!(error.code(), "53200");
    assert!(error.message().contains("node.memory_bytes_max"), "{error}");
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_database_can_be_relaxed_and_flushed() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        flush_interval: Duration::from_secs(3600),
        flush_entries_max: 1_000_000,
        ..Limits::default()
    };
    let databases = open(folder.path(), limits).await;
    databases
        .create(&name("a"), Source::Template)
        .await
        .unwrap();
    let relaxed = Settings {
        durability: Some(Durability::Relaxed),
        ..Settings::default()
    };
    databases.configure(&name("a"), relaxed).await.unwrap();
    let info = databases.info(&name("a")).unwrap();
    assert_eq!(info.durability, Durability::Relaxed);
    run_alone(&databases, "a", &["CREATE TABLE t (n int)"]).await;
    databases.flush(&name("a")).await.unwrap();
    assert!(databases.flush(&name("nobody")).await.is_err());
    databases.close().await.unwrap();
}

/// Whoever waits for a wake may go away: what was begun ends, and the next one does not begin beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_wake_that_nobody_waits_for_goes_on_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    let mut first = session(&databases, "a").await;
    first.query("CREATE TABLE t (n int)", &[]).await.unwrap();
    for round in 0..30 {
        let insert = format!("INSERT INTO t SELECT {round} FROM generate_series(1, 50)");
        first.query(&insert, &[]).await.unwrap();
        // As a crash: the next wake boots and replays.
        let endless = first.query("SELECT pg_sleep(600)", &[]);
        let waited = tokio::time::timeout(Duration::from_millis(1), endless).await;
        assert!(waited.is_err());
        drop(first);
        let options = SessionOptions::default;
        let name = name("a");
        let asked = databases.session(&name, options());
        let abandoned = tokio::time::timeout(Duration::from_millis(round % 15), asked).await;
        drop(abandoned);
        first = session(&databases, "a").await;
        let rows = value(&mut first, "SELECT count(*) FROM t").await;
        assert_eq!(rows, ((round + 1) * 50).to_string());
    }
    let booted = databases.metrics().wakes_booted.count;
    assert_eq!(booted, 30, "each crash is followed by one boot");
    first.close().await;
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_setting_locks_a_database() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    for (database, setting, still) in [
        ("a", "default_transaction_read_only = on", "on"),
        ("b", "statement_timeout = 1", "1ms"),
        ("c", "session_preload_libraries = 'nothing'", ""),
        ("d", "shared_buffers = '16GB'", ""),
    ] {
        let mut inside = session(&databases, database).await;
        inside.query("CREATE TABLE t (n int)", &[]).await.unwrap();
        let alter = format!("ALTER SYSTEM SET {setting}");
        inside.query(&alter, &[]).await.unwrap();
        let endless = inside.query("SELECT pg_sleep(600)", &[]);
        let waited = tokio::time::timeout(Duration::from_millis(1), endless).await;
        assert!(waited.is_err());
        drop(inside);
        let mut inside = session(&databases, database).await;
        assert_eq!(
            value(&mut inside, "SELECT current_database()").await,
            database
        );
        if !still.is_empty() {
            let name = setting.split(' ').next().unwrap();
            assert_eq!(value(&mut inside, &format!("SHOW {name}")).await, still);
        }
        inside.close().await;
    }
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_drop_leaves_nothing_though_a_transaction_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    let mut inside = session(&databases, "a").await;
    for sql in [
        "CREATE TABLE t (s text)",
        "BEGIN",
        "INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 20000)",
    ] {
        inside.query(sql, &[]).await.unwrap();
    }
    databases.delete(&name("a"), true).await.unwrap();
    assert!(inside.query("COMMIT", &[]).await.is_err());
    inside.close().await;
    let mut left: Vec<_> = std::fs::read_dir(folder.path().join("volumes"))
        .unwrap()
        .chain(std::fs::read_dir(folder.path().join("images")).unwrap())
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.retain(|name| name != "LOCK");
    assert!(left.is_empty(), "{left:?}");
    databases.close().await.unwrap();
}
