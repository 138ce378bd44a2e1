//! Limits on what is stored, and full disks, over the real engine: writes are refused with 53100 and
//! the limit's name, and nothing is lost.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod harness;

use std::process::Command;

use dormouse_database::{Limits, PgError, Session, Source};
use harness::{name, open, session, value};
use wire::pg::ErrorField;

async fn run(session: &mut Session, sql: &str) -> Result<(), PgError> {
    session.query(sql, &[]).await.map(drop)
}

#[track_caller]
fn names(error: &PgError, limit: &str) {
    assert_eq!(error.code(), "53100", "{error:?}");
    let detail = error.get(ErrorField::Detail).unwrap_or_default();
    assert!(detail.contains(limit), "{error:?}");
    assert!(error.get(ErrorField::Hint).is_some(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_database_takes_no_more_and_everything_else() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        volume_bytes_max: 8 << 20,
        ..Limits::default()
    };
    let databases = open(folder.path(), limits).await;
    let mut inside = session(&databases, "a").await;
    run(&mut inside, "CREATE TABLE t (n int PRIMARY KEY, s text)")
        .await
        .unwrap();
    let mut rows = 0;
    let error = loop {
        let insert = format!(
            "INSERT INTO t SELECT n, repeat('x', 500) FROM generate_series({}, {}) n",
            rows + 1,
            rows + 500
        );
        match run(&mut inside, &insert).await {
            Ok(()) => rows += 500,
            Err(error) => break error,
        }
        assert!(rows < 100_000, "the limit is never met");
    };
    names(&error, "volume.bytes_max");
    assert_eq!(
        value(&mut inside, "SELECT count(*) FROM t").await,
        rows.to_string()
    );
    // What needs no more room goes on, across sleep and a new start.
    run(&mut inside, "DELETE FROM t WHERE n = 1").await.unwrap();
    rows -= 1;
    run(&mut inside, "CHECKPOINT").await.unwrap();
    inside.close().await;
    databases.close().await.unwrap();
    drop(databases);
    let databases = open(folder.path(), limits).await;
    let mut inside = session(&databases, "a").await;
    assert_eq!(
        value(&mut inside, "SELECT count(*) FROM t").await,
        rows.to_string()
    );
    run(&mut inside, "DELETE FROM t WHERE n > 100")
        .await
        .unwrap();
    run(&mut inside, "VACUUM t").await.unwrap();
    let insert = "INSERT INTO t SELECT n, repeat('y', 500) FROM generate_series(1001, 1500) n";
    run(&mut inside, insert).await.unwrap();
    run(&mut inside, "TRUNCATE t").await.unwrap();
    run(&mut inside, insert).await.unwrap();
    inside.close().await;
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_writes_too_much_wal_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        wal_bytes_max: 16 << 20,
        checkpoint_wal_bytes: 8 << 20,
        ..Limits::default()
    };
    let databases = open(folder.path(), limits).await;
    let mut inside = session(&databases, "a").await;
    run(&mut inside, "CREATE TABLE t (s text)").await.unwrap();
    let much = "INSERT INTO t SELECT repeat(md5(n::text), 20) FROM generate_series(1, 10000000) n";
    let error = run(&mut inside, much).await.unwrap_err();
    names(&error, "volume.wal_bytes_max");
    // The same in pieces is fine: there are checkpoints between.
    for _ in 0..20 {
        let some = "INSERT INTO t SELECT repeat(md5(n::text), 20) FROM generate_series(1, 3000) n";
        run(&mut inside, some).await.unwrap();
    }
    assert_eq!(value(&mut inside, "SELECT count(*) FROM t").await, "60000");
    inside.close().await;
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn on_an_almost_full_disk_transactions_are_read_only() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    let mut inside = session(&databases, "a").await;
    run(&mut inside, "CREATE TABLE t (n int)").await.unwrap();
    run(&mut inside, "INSERT INTO t VALUES (1)").await.unwrap();
    inside.close().await;
    databases.close().await.unwrap();
    drop(databases);
    let limits = Limits {
        disk_reserve_bytes: 1 << 60,
        ..Limits::default()
    };
    let databases = open(folder.path(), limits).await;
    let mut inside = session(&databases, "a").await;
    assert_eq!(value(&mut inside, "SELECT n FROM t").await, "1");
    for sql in ["INSERT INTO t VALUES (2)", "CREATE TABLE u (n int)"] {
        let error = run(&mut inside, sql).await.unwrap_err();
        names(&error, "disk.reserve_bytes");
    }
    let error = databases
        .create(&name("b"), Source::Template)
        .await
        .unwrap_err();
    names(&error, "disk.reserve_bytes");
    inside.close().await;
    databases.close().await.unwrap();
    drop(databases);
    let databases = open(folder.path(), Limits::default()).await;
    let mut inside = session(&databases, "a").await;
    run(&mut inside, "INSERT INTO t VALUES (2)").await.unwrap();
    assert_eq!(value(&mut inside, "SELECT sum(n) FROM t").await, "3");
    inside.close().await;
    databases.close().await.unwrap();
}

/// A small file system of its own, if this process may mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(bytes: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(folder.path())
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then(|| Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // After a failed test the databases are still open.
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.0.path().display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_really_full_loses_nothing() {
    let Some(disk) = SmallDisk::mount(256 << 20) else {
        eprintln!("SKIPPED: this process may not mount a file system");
        return;
    };
    let folder = disk.0.path().join("data");
    // Once with the reserve, which refuses in time, and once without, where the disk itself does.
    for (round, reserve) in [(1, 64 << 20), (2, 0)] {
        let limits = Limits {
            disk_reserve_bytes: reserve,
            ..Limits::default()
        };
        let databases = open(&folder, limits).await;
        let mut inside = session(&databases, "a").await;
        let create = "CREATE TABLE IF NOT EXISTS t (round int, n int, s text)";
        run(&mut inside, create).await.unwrap();
        let mut acknowledged = 0;
        let error = loop {
            let insert = format!(
                "INSERT INTO t SELECT {round}, {acknowledged}, repeat(md5(n::text), 30) \
                 FROM generate_series(1, 500) n"
            );
            match run(&mut inside, &insert).await {
                Ok(()) => acknowledged += 1,
                Err(error) => break error,
            }
            assert!(acknowledged < 10_000, "the disk is never full");
        };
        assert_eq!(error.code(), "53100", "{error:?}");
        inside.close().await;
        // Somebody makes room: a session finds everything that was acknowledged.
        let count = format!("SELECT count(*) FROM t WHERE round = {round}");
        let expected = (acknowledged * 500).to_string();
        if reserve > 0 {
            let mut after = session(&databases, "a").await;
            assert_eq!(value(&mut after, &count).await, expected);
            after.close().await;
        }
        // What cannot be flushed now is in the journal.
        let closed = databases.close().await;
        eprintln!("round {round}: {acknowledged} inserts, closed: {closed:?}");
        drop(databases);
        let grown = Command::new("mount")
            .args(["-o", "remount,size=1g"])
            .arg(disk.0.path())
            .status();
        assert!(grown.unwrap().success());
        let databases = open(&folder, Limits::default()).await;
        let mut after = session(&databases, "a").await;
        assert_eq!(value(&mut after, &count).await, expected);
        run(&mut after, "DELETE FROM t").await.unwrap();
        run(&mut after, "VACUUM FULL t").await.unwrap();
        after.close().await;
        databases.close().await.unwrap();
        drop(databases);
        let shrunk = Command::new("mount")
            .args(["-o", "remount,size=256m"])
            .arg(disk.0.path())
            .status();
        assert!(shrunk.unwrap().success(), "the database gave no room back");
    }
}
