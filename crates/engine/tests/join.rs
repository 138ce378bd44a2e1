//! Several backends of one running database.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use dormouse_engine::{Backend, BackendError, BackendLimits, ClientIo, ClientIoError};
use tokio::sync::{Notify, OnceCell};
use tokio::task::JoinHandle;

mod harness;

use harness::{Ground, boot, connect, query, run, value};

async fn ground() -> &'static Ground {
    static GROUND: OnceCell<Ground> = OnceCell::const_new();
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
    GROUND
        .get_or_init(|| async move { Ground::new(&cache).await })
        .await
}

/// A database with a table of two rows, and two processes of it.
async fn two(ground: &Ground) -> (Backend, Backend) {
    let volume = ground.volume();
    let mut a = ground.fork(&volume).await;
    run(&mut a, "CREATE TABLE t (id int PRIMARY KEY, n int)").await;
    run(&mut a, "INSERT INTO t VALUES (1, 0), (2, 0)").await;
    let shared = a.share_memory().unwrap();
    let limits = BackendLimits::default();
    let joining = ground.engine.join(&ground.image, &shared, volume, limits);
    let b = joining.await.unwrap();
    (a, b)
}

/// Runs a statement in the background: it must still wait after a while.
fn waits(mut backend: Backend, sql: &'static str) -> JoinHandle<(Backend, Answer)> {
    tokio::spawn(async move {
        let answer = query(&mut backend, sql).await;
        (backend, answer)
    })
}

type Answer = Result<Vec<Vec<String>>, String>;

async fn until_somebody_waits(observer: &mut Backend) {
    let sql = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    while value(observer, sql).await == "0" {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_isolated() {
    let ground = ground().await;
    let (mut a, mut b) = two(ground).await;
    run(&mut a, "BEGIN; UPDATE t SET n = 1 WHERE id = 1").await;
    assert_eq!(value(&mut b, "SELECT n FROM t WHERE id = 1").await, "0");
    run(&mut b, "UPDATE t SET n = 2 WHERE id = 2").await;
    assert_eq!(value(&mut a, "SELECT n FROM t WHERE id = 2").await, "2");
    run(&mut a, "COMMIT").await;
    assert_eq!(value(&mut b, "SELECT sum(n) FROM t").await, "3");
    run(&mut b, "BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    assert_eq!(value(&mut b, "SELECT sum(n) FROM t").await, "3");
    run(&mut a, "UPDATE t SET n = n + 10").await;
    assert_eq!(value(&mut b, "SELECT sum(n) FROM t").await, "3");
    let error = query(&mut b, "UPDATE t SET n = 0").await.unwrap_err();
    assert!(error.contains("could not serialize access"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_has_a_world_of_its_own() {
    let ground = ground().await;
    let (mut a, mut b) = two(ground).await;
    run(&mut a, "CREATE TEMP TABLE mine (n int)").await;
    run(&mut b, "CREATE TEMP TABLE mine (n text)").await;
    run(&mut b, "INSERT INTO mine VALUES ('b')").await;
    run(&mut a, "INSERT INTO mine VALUES (1)").await;
    assert_eq!(value(&mut a, "SELECT n FROM mine").await, "1");
    assert_eq!(value(&mut b, "SELECT n FROM mine").await, "b");
    run(&mut a, "SET search_path = pg_catalog").await;
    assert_ne!(value(&mut b, "SHOW search_path").await, "pg_catalog");
    run(&mut a, "PREPARE p AS SELECT 1").await;
    run(&mut b, "PREPARE p AS SELECT 2").await;
    assert_eq!(value(&mut a, "EXECUTE p").await, "1");
    assert_eq!(value(&mut b, "EXECUTE p").await, "2");
    assert_eq!(value(&mut a, "SELECT pg_backend_pid()").await, "42");
    assert_eq!(value(&mut b, "SELECT pg_backend_pid()").await, "43");
    let sql = "SELECT string_agg(pid::text, ',' ORDER BY pid) FROM pg_stat_activity";
    assert_eq!(value(&mut b, sql).await, "42,43");
    // What one defines the other knows.
    run(
        &mut a,
        "SET search_path = public; ALTER TABLE t ADD COLUMN s text DEFAULT 'x'",
    )
    .await;
    assert_eq!(value(&mut b, "SELECT s FROM t LIMIT 1").await, "x");
    run(&mut b, "DROP TABLE t").await;
    assert!(query(&mut a, "SELECT FROM t").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_a_locked_row_waits_for_it() {
    let ground = ground().await;
    let (mut a, b) = two(ground).await;
    run(&mut a, "BEGIN; UPDATE t SET n = 5 WHERE id = 1").await;
    let b = waits(b, "UPDATE t SET n = n + 1 WHERE id = 1 RETURNING n");
    until_somebody_waits(&mut a).await;
    run(&mut a, "COMMIT").await;
    let (_b, answer) = b.await.unwrap();
    assert_eq!(answer.unwrap(), [["6"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn advisory_locks_block() {
    let ground = ground().await;
    let (mut a, mut b) = two(ground).await;
    run(&mut a, "SELECT pg_advisory_lock(7)").await;
    assert_eq!(value(&mut b, "SELECT pg_try_advisory_lock(7)").await, "f");
    let b = waits(b, "SELECT pg_advisory_lock(7)");
    until_somebody_waits(&mut a).await;
    run(&mut a, "SELECT pg_advisory_unlock(7)").await;
    let (_b, answer) = b.await.unwrap();
    answer.unwrap();
    assert_eq!(value(&mut a, "SELECT pg_try_advisory_lock(7)").await, "f");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_is_found() {
    let ground = ground().await;
    let (mut a, mut b) = two(ground).await;
    run(
        &mut a,
        "SET deadlock_timeout = '50ms'; BEGIN; UPDATE t SET n = 1 WHERE id = 1",
    )
    .await;
    run(
        &mut b,
        "SET deadlock_timeout = '50ms'; BEGIN; UPDATE t SET n = 2 WHERE id = 2",
    )
    .await;
    let a = waits(a, "UPDATE t SET n = 1 WHERE id = 2");
    let b = waits(b, "UPDATE t SET n = 2 WHERE id = 1");
    let ((_a, first), (_b, second)) = (a.await.unwrap(), b.await.unwrap());
    let errors: Vec<String> = [first, second]
        .into_iter()
        .filter_map(Result::err)
        .collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("deadlock detected"), "{errors:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_and_signals_arrive() {
    let ground = ground().await;
    let (mut a, mut b) = two(ground).await;
    run(&mut b, "LISTEN news").await;
    run(&mut a, "NOTIFY news, 'hello'").await;
    b.input().extend_from_slice(b"S\0\0\0\x04");
    b.exchange().await.unwrap();
    let output = b.output().split();
    assert_eq!(output[0], b'A', "{output:?}");
    let text = String::from_utf8_lossy(&output);
    assert!(text.contains("news") && text.contains("hello"));
    let b = waits(b, "SELECT pg_sleep(600)");
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE pid = 43 AND state = 'active'";
    while value(&mut a, sleeps).await == "0" {
        tokio::task::yield_now().await;
    }
    assert_eq!(value(&mut a, "SELECT pg_cancel_backend(43)").await, "t");
    let (_b, answer) = b.await.unwrap();
    assert!(
        answer
            .unwrap_err()
            .contains("canceling statement due to user request")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_nothing_is_not_cancelled() {
    let ground = ground().await;
    let (mut a, mut b) = two(ground).await;
    let id = value(&mut b, "SELECT pg_backend_pid()").await;
    run(&mut b, "BEGIN; UPDATE t SET n = 1 WHERE id = 1").await;
    let cancels = format!(
        "DO $$ BEGIN FOR i IN 1..20000 LOOP PERFORM pg_cancel_backend({id}); END LOOP; END $$"
    );
    // More of them come while it waits for its turn to take one.
    let cancelling = tokio::spawn(async move {
        run(&mut a, &cancels).await;
        a
    });
    while !cancelling.is_finished() {
        b.take_signals().await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut a = cancelling.await.unwrap();
    // Nor is it cancelled by one that it has not even heard of.
    run(&mut a, &format!("SELECT pg_cancel_backend({id})")).await;
    assert!(b.is_signalled());
    b.clear_cancel();
    run(&mut b, "COMMIT").await;
    assert_eq!(value(&mut a, "SELECT n FROM t WHERE id = 1").await, "1");
}

/// Postgres' lightweight locks cannot be waited for: who sleeps with one, as a commit that waits for others to join it
/// does, keeps its turn.
#[tokio::test(flavor = "multi_thread")]
async fn who_sleeps_with_a_lock_lets_nobody_run() {
    let ground = ground().await;
    let (mut a, mut b) = two(ground).await;
    run(&mut a, "SET commit_siblings = 0; SET commit_delay = 20000").await;
    let committing = tokio::spawn(async move {
        for _ in 0..20 {
            run(&mut a, "INSERT INTO t SELECT max(id) + 1 FROM t").await;
        }
        a
    });
    let others = async {
        while !committing.is_finished() {
            run(&mut b, "UPDATE t SET n = n + 1 WHERE id = 1").await;
        }
    };
    let patience = std::time::Duration::from_secs(60);
    tokio::time::timeout(patience, others).await.unwrap();
    let _a = committing.await.unwrap();
    assert_eq!(value(&mut b, "SELECT count(*) FROM t").await, "22");
}

/// Nor does it wait for its client with one.
#[tokio::test(flavor = "multi_thread")]
async fn who_writes_with_a_lock_does_not_wait_for_its_client() {
    const OUTPUT_BYTES_HIGH: usize = 256 * 1024;
    const ENDS: usize = b"C....DO.Z....I".len();
    let ground = ground().await;
    let (mut a, mut b) = two(ground).await;
    let message = |bytes: usize, then: &str| {
        let sql = format!("DO $$ BEGIN RAISE NOTICE '%', repeat('x', {bytes}); {then} END $$\0");
        let length = (sql.len() as u32 + 4).to_be_bytes();
        [&b"Q"[..], &length, sql.as_bytes()].concat()
    };
    a.input().extend_from_slice(&message(1000, ""));
    a.exchange().await.unwrap();
    let beside = a.output().split().len() - ENDS - 1000;
    let writes = Arc::new(Notify::new());
    a.attach(Some(Box::new(Stalled(Arc::clone(&writes)))));
    // What comes next is too much, and is said while a file for WAL is made, which is one at a time.
    let wal = "PERFORM set_config('client_min_messages', 'debug2', false); \
        INSERT INTO t SELECT n, n FROM generate_series(10, 100000) AS n;";
    let writing = message(OUTPUT_BYTES_HIGH - 20 - beside, wal);
    a.input().extend_from_slice(&writing);
    let writing = tokio::spawn(async move { a.exchange().await });
    let others = async {
        writes.notified().await;
        for _ in 0..20 {
            run(&mut b, "UPDATE t SET n = n + 1 WHERE id = 1").await;
        }
    };
    let patience = std::time::Duration::from_secs(60);
    tokio::time::timeout(patience, others).await.unwrap();
    writing.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_statement_lets_others_run() {
    let ground = ground().await;
    let (mut a, b) = two(ground).await;
    let b = waits(b, "SELECT count(*) FROM generate_series(1, 3000000) n");
    let mut answers = 0;
    while !b.is_finished() {
        value(&mut a, "SELECT n FROM t WHERE id = 1").await;
        answers += 1;
    }
    assert!(answers > 5, "{answers}");
    let (_b, answer) = b.await.unwrap();
    assert_eq!(answer.unwrap(), [["3000000"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_booted_is_joined_too() {
    let ground = ground().await;
    let volume = ground.volume();
    let mut first = ground.fork(&volume).await;
    run(&mut first, "CREATE TABLE t AS SELECT 1 AS n").await;
    run(&mut first, "ALTER SYSTEM SET work_mem = '9MB'").await;
    drop(first);
    let mut booted = boot(&ground.engine, &volume).await;
    connect(&mut booted).await;
    let shared = booted.share_memory().unwrap();
    let limits = BackendLimits::default();
    let joining = ground
        .engine
        .join(&ground.image, &shared, volume.clone(), limits);
    let mut joined = joining.await.unwrap();
    run(&mut booted, "BEGIN; INSERT INTO t VALUES (2)").await;
    assert_eq!(value(&mut joined, "SELECT count(*) FROM t").await, "1");
    run(&mut booted, "COMMIT").await;
    assert_eq!(value(&mut joined, "SELECT count(*) FROM t").await, "2");
    assert_eq!(value(&mut joined, "SHOW work_mem").await, "9MB");
    drop((booted, joined));
    let mut other = ground.fork(&ground.volume()).await;
    run(&mut other, "ALTER SYSTEM SET shared_buffers = '2MB'").await;
    let volume = other.volume();
    drop(other);
    let mut booted = boot(&ground.engine, &volume).await;
    connect(&mut booted).await;
    let shared = booted.share_memory().unwrap();
    let joining = ground.engine.join(&ground.image, &shared, volume, limits);
    assert!(joining.await.is_err());
    assert_eq!(value(&mut booted, "SHOW shared_buffers").await, "2MB");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_in_the_middle_takes_the_others_with_it() {
    let ground = ground().await;
    let (mut a, mut b) = two(ground).await;
    let endless = query(
        &mut b,
        "SELECT count(*) FROM generate_series(1, 1000000000000)",
    );
    let waited = tokio::time::timeout(std::time::Duration::from_millis(50), endless).await;
    assert!(waited.is_err());
    drop(b);
    let input = a.input();
    input.extend_from_slice(b"S\0\0\0\x04");
    let error = a.exchange().await.unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
}

/// A client that takes nothing and gives nothing.
struct Stalled(Arc<Notify>);

impl ClientIo for Stalled {
    fn poll_fill(
        &mut self,
        _context: &mut Context<'_>,
        _input: &mut BytesMut,
    ) -> Poll<Result<(), ClientIoError>> {
        Poll::Pending
    }

    fn poll_drain(
        &mut self,
        _context: &mut Context<'_>,
        _output: &mut BytesMut,
    ) -> Poll<Result<(), ClientIoError>> {
        self.0.notify_one();
        Poll::Pending
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_reaches_who_writes_to_a_client_that_does_not_read() {
    let ground = ground().await;
    let (mut a, mut b) = two(ground).await;
    let writes = Arc::new(Notify::new());
    a.attach(Some(Box::new(Stalled(Arc::clone(&writes)))));
    let writing = tokio::spawn(async move {
        let sql = b"SELECT repeat('x', 1000) FROM generate_series(1, 100000)\0";
        let length = (sql.len() as u32 + 4).to_be_bytes();
        a.input()
            .extend_from_slice(&[&b"Q"[..], &length, sql].concat());
        a.exchange().await
    });
    writes.notified().await;
    let endless = query(&mut b, "SELECT pg_sleep(600)");
    let waited = tokio::time::timeout(std::time::Duration::from_millis(50), endless).await;
    assert!(waited.is_err());
    drop(b);
    let told = tokio::time::timeout(std::time::Duration::from_secs(60), writing).await;
    assert!(told.unwrap().unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_terminated_as_it_leaves_does_no_harm() {
    let ground = ground().await;
    let (mut a, mut b) = two(ground).await;
    run(&mut a, "BEGIN; UPDATE t SET n = 1 WHERE id = 1").await;
    let id = value(&mut b, "SELECT pg_backend_pid()").await;
    run(&mut a, &format!("SELECT pg_terminate_backend({id})")).await;
    assert!(b.is_signalled());
    b.leave().await.unwrap();
    run(&mut a, "COMMIT").await;
    assert_eq!(value(&mut a, "SELECT sum(n) FROM t").await, "1");
    a.shut_down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_terminated_leaves_the_others() {
    let ground = ground().await;
    let (mut a, mut b) = two(ground).await;
    run(
        &mut b,
        "BEGIN; UPDATE t SET n = 7; SELECT pg_advisory_lock(1)",
    )
    .await;
    let id = value(&mut b, "SELECT pg_backend_pid()").await;
    run(&mut a, &format!("SELECT pg_terminate_backend({id})")).await;
    assert!(b.is_signalled());
    let ended = b.take_signals().await.unwrap_err();
    assert!(matches!(ended, BackendError::Exited(1)), "{ended}");
    drop(b);
    run(&mut a, "UPDATE t SET n = n + 1; SELECT pg_advisory_lock(1)").await;
    assert_eq!(value(&mut a, "SELECT sum(n) FROM t").await, "2");
    let sql = "SELECT count(*) FROM pg_stat_activity";
    assert_eq!(value(&mut a, sql).await, "1");
    run(&mut a, "CHECKPOINT").await;
    a.shut_down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_can_be_terminated_and_another_shuts_the_server_down() {
    let ground = ground().await;
    for (booted, saves) in [(false, true), (true, false), (false, false)] {
        let volume = ground.volume();
        let mut a = match booted {
            true => {
                let mut backend = boot(&ground.engine, &volume).await;
                connect(&mut backend).await;
                backend
            }
            false => ground.fork(&volume).await,
        };
        run(&mut a, "CREATE TABLE t (id int PRIMARY KEY, n int)").await;
        run(&mut a, "INSERT INTO t VALUES (1, 0), (2, 0)").await;
        let shared = a.share_memory().unwrap();
        let join = async || {
            let (volume, limits) = (Arc::clone(&volume), BackendLimits::default());
            let joining = ground.engine.join(&ground.image, &shared, volume, limits);
            joining.await.unwrap()
        };
        let mut b = join().await;
        run(&mut a, "BEGIN; UPDATE t SET n = 7; CREATE TEMP TABLE x ()").await;
        run(&mut a, "LISTEN c; SELECT pg_advisory_lock(1)").await;
        run(&mut b, "BEGIN; INSERT INTO t VALUES (3, 3)").await;
        let id = value(&mut a, "SELECT pg_backend_pid()").await;
        run(&mut b, &format!("SELECT pg_terminate_backend({id})")).await;
        assert!(!a.has_left());
        a.take_signals().await.unwrap_err();
        assert!(a.has_left());
        drop(a);
        assert!(!shared.is_stopped());
        run(&mut b, "COMMIT; UPDATE t SET n = n + 1").await;
        run(&mut b, "SELECT pg_advisory_lock(1)").await;
        assert_eq!(value(&mut b, "SELECT sum(n) FROM t").await, "6");
        let mut c = join().await;
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'";
        assert_eq!(value(&mut c, sql).await, value(&mut b, sql).await);
        run(
            &mut c,
            "CREATE TABLE u AS SELECT 8 n; UPDATE t SET n = n + 1",
        )
        .await;
        b.leave().await.unwrap();
        if saves {
            run(&mut c, "CHECKPOINT").await;
            let saved = ground.engine.save(&mut c, &ground.image).unwrap();
            drop(c);
            let again = ground.resume(&saved, &volume).await.unwrap();
            c = again;
            assert_eq!(value(&mut c, "SELECT sum(n) FROM t").await, "9");
        }
        // Once more from the beginning, by one that was not there then.
        let shared = c.share_memory().unwrap();
        let (on, limits) = (Arc::clone(&volume), BackendLimits::default());
        let mut d = ground
            .engine
            .join(&ground.image, &shared, on, limits)
            .await
            .unwrap();
        run(&mut d, "INSERT INTO u VALUES (1)").await;
        d.leave().await.unwrap();
        c.shut_down().await.unwrap();
        let control = control_state(&volume);
        assert_eq!(control, SHUT_DOWN);
        let mut again = boot(&ground.engine, &volume).await;
        connect(&mut again).await;
        assert_eq!(value(&mut again, "SELECT sum(n) FROM t").await, "9");
        assert_eq!(value(&mut again, "SELECT sum(n) FROM u").await, "9");
        again.shut_down().await.unwrap();
    }
}

/// `DB_SHUTDOWNED` of Postgres' `pg_control.h`.
const SHUT_DOWN: u32 = 1;

/// The `state` of `ControlFileData`.
fn control_state(volume: &volume::Volume) -> u32 {
    let ino = volume.resolve("/global/pg_control").unwrap();
    let mut word = [0; 4];
    volume.read(ino, 16, &mut word).unwrap();
    u32::from_le_bytes(word)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_too_many_is_refused_and_does_no_harm() {
    let ground = ground().await;
    let volume = ground.volume();
    let mut first = ground.fork(&volume).await;
    run(&mut first, "CREATE TABLE t AS SELECT 1 AS n").await;
    let most: usize = value(&mut first, "SHOW max_connections")
        .await
        .parse()
        .unwrap();
    let shared = first.share_memory().unwrap();
    let mut others = Vec::new();
    let limits = BackendLimits::default();
    let refused = loop {
        let on = Arc::clone(&volume);
        let joining = ground.engine.join(&ground.image, &shared, on, limits);
        match joining.await {
            Ok(backend) => others.push(backend),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, BackendError::Exited(1)), "{refused}");
    assert_eq!(others.len() + 1, most);
    for other in &mut others {
        run(other, "BEGIN; INSERT INTO t VALUES (1)").await;
    }
    run(&mut first, "INSERT INTO t VALUES (1)").await;
    for mut other in others {
        run(&mut other, "COMMIT").await;
        other.leave().await.unwrap();
    }
    let sum = value(&mut first, "SELECT sum(n) FROM t").await;
    assert_eq!(sum, (most + 1).to_string());
    let on = Arc::clone(&volume);
    let mut again = ground
        .engine
        .join(&ground.image, &shared, on, limits)
        .await
        .unwrap();
    assert_eq!(value(&mut again, "SELECT sum(n) FROM t").await, sum);
    again.leave().await.unwrap();
    first.shut_down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_removes_rows_that_another_process_still_sees() {
    let ground = ground().await;
    let (mut a, mut b) = two(ground).await;
    run(&mut b, "BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    let seen = "SELECT count(*) || ' ' || sum(n) FROM t";
    assert_eq!(value(&mut b, seen).await, "2 0");
    run(&mut a, "DELETE FROM t WHERE id = 1").await;
    run(&mut a, "UPDATE t SET n = 1").await;
    run(&mut a, "VACUUM t").await;
    assert_eq!(value(&mut b, seen).await, "2 0");
    run(&mut b, "COMMIT").await;
    assert_eq!(value(&mut b, seen).await, "1 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_another_process_uses_is_not_taken_away() {
    let ground = ground().await;
    let (mut a, mut b) = two(ground).await;
    // Locks this weak are kept where each process keeps its own.
    for weak in ["SELECT FROM t", "INSERT INTO t VALUES (3)"] {
        for first_uses in [true, false] {
            let (user, other) = if first_uses {
                (&mut a, &mut b)
            } else {
                (&mut b, &mut a)
            };
            run(user, &format!("BEGIN; {weak}")).await;
            let sql = "BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE NOWAIT";
            let error = query(other, sql).await.unwrap_err();
            assert!(error.contains("could not obtain lock"), "{error}");
            run(other, "ROLLBACK").await;
            run(user, "ROLLBACK").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_does_not_miss_files_that_another_process_has_dropped() {
    let ground = ground().await;
    let (mut a, mut b) = two(ground).await;
    let sql = "CREATE TABLE gone AS SELECT generate_series(1, 100000) n";
    run(&mut a, sql).await;
    run(&mut a, "VACUUM gone").await;
    run(&mut b, "DROP TABLE gone").await;
    run(&mut a, "CHECKPOINT").await;
    assert_eq!(value(&mut b, "SELECT count(*) FROM t").await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_alone_again_can_be_saved() {
    let ground = ground().await;
    let (mut a, mut b) = two(ground).await;
    run(
        &mut b,
        "UPDATE t SET n = 5 WHERE id = 1; CREATE TABLE u AS SELECT 7 n",
    )
    .await;
    run(&mut a, "UPDATE t SET n = 6 WHERE id = 2").await;
    run(&mut a, "CHECKPOINT").await;
    assert!(ground.engine.save(&mut a, &ground.image).is_err());
    b.leave().await.unwrap();
    assert_eq!(
        value(&mut a, "SELECT count(*) FROM pg_stat_activity").await,
        "1"
    );
    let saved = ground.engine.save(&mut a, &ground.image).unwrap();
    let volume = a.volume();
    drop(a);
    let mut again = ground.resume(&saved, &volume).await.unwrap();
    assert_eq!(value(&mut again, "SELECT sum(n) FROM t").await, "11");
    assert_eq!(value(&mut again, "SELECT n FROM u").await, "7");
    run(&mut again, "INSERT INTO t VALUES (3, 9)").await;
    // And from then on as ever.
    let shared = again.share_memory().unwrap();
    let limits = BackendLimits::default();
    let joining = ground.engine.join(&ground.image, &shared, volume, limits);
    let mut other = joining.await.unwrap();
    assert_eq!(value(&mut other, "SELECT sum(n) FROM t").await, "20");
}
