//! Sessions that commit and read at the same time: a version means one answer, and no answer is older than what
//! was acknowledged.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod harness;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use dormouse_database::{Currency, Databases, Limits, QueryKey, ResultVersion};
use harness::{name, open, run_all, session, value};

const SQL: &str = "SELECT sum(n) FROM t";

#[derive(Default)]
struct Seen {
    /// Some commits do not wait for the log: they are seen before it has them.
    asynchronous: bool,
    answers: Mutex<HashMap<ResultVersion, u64>>,
    acknowledged: AtomicU64,
    promised: AtomicU64,
}

async fn write(databases: Databases, seen: Arc<Seen>, row: usize, rounds: u64) {
    let mut session = session(&databases, "a").await;
    if seen.asynchronous && row.is_multiple_of(2) {
        session
            .query("SET synchronous_commit = off", &[])
            .await
            .unwrap();
    }
    for _ in 0..rounds {
        let update = format!("UPDATE t SET n = n + 1 WHERE id = {row}");
        session.query(&update, &[]).await.unwrap();
        seen.acknowledged.fetch_add(1, Ordering::SeqCst);
    }
    session.close().await;
}

async fn read(databases: Databases, seen: Arc<Seen>, rounds: u64) {
    let key = QueryKey::new("", [], SQL, []);
    let mut session = session(&databases, "a").await;
    while seen.acknowledged.load(Ordering::SeqCst) < rounds {
        let acknowledged = seen.acknowledged.load(Ordering::SeqCst);
        if let Currency::Version(version) = databases.currency(&name("a"), &key).unwrap()
            && let Some(answer) = seen.answers.lock().unwrap().get(&version)
        {
            assert!(*answer >= acknowledged, "{answer} after {acknowledged}");
            seen.promised.fetch_add(1, Ordering::Relaxed);
        }
        let currency = session.currency(&key, SQL).await.unwrap();
        let answer: u64 = value(&mut session, SQL).await.parse().unwrap();
        assert!(answer >= acknowledged);
        if let Currency::Version(version) = currency {
            let before = seen.answers.lock().unwrap().insert(version, answer);
            if let Some(before) = before {
                // Who reads later may see more, but then the version has changed by now.
                let least = before.min(answer);
                seen.answers.lock().unwrap().insert(version, least);
                let now = databases.currency(&name("a"), &key).unwrap();
                let is_past = seen.asynchronous || now != Currency::Version(version);
                assert!(before == answer || is_past, "{before} {answer}");
            }
        }
        tokio::task::yield_now().await;
    }
    session.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_answer_is_older_than_what_was_acknowledged() {
    race(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nor_if_commits_do_not_wait_for_the_log() {
    race(true).await;
}

async fn race(asynchronous: bool) {
    const WRITERS: usize = 3;
    const ROUNDS: u64 = 300;
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    let mut first = session(&databases, "a").await;
    run_all(
        &mut first,
        &[
            "CREATE TABLE t (id int PRIMARY KEY, n int)",
            "INSERT INTO t SELECT i, 0 FROM generate_series(0, 9) i",
        ],
    )
    .await;
    let seen = Arc::new(Seen {
        asynchronous,
        ..Seen::default()
    });
    let mut tasks = Vec::new();
    for row in 0..WRITERS {
        tasks.push(tokio::spawn(write(
            databases.clone(),
            Arc::clone(&seen),
            row,
            ROUNDS,
        )));
    }
    for _ in 0..3 {
        let rounds = ROUNDS * WRITERS as u64;
        tasks.push(tokio::spawn(read(
            databases.clone(),
            Arc::clone(&seen),
            rounds,
        )));
    }
    for task in tasks {
        task.await.unwrap();
    }
    // Once nobody writes, the same is promised.
    let key = QueryKey::new("", [], SQL, []);
    for _ in 0..3 {
        first.currency(&key, SQL).await.unwrap();
        value(&mut first, SQL).await;
    }
    let currency = first.currency(&key, SQL).await.unwrap();
    assert!(matches!(currency, Currency::Version(_)), "{currency:?}");
    assert_eq!(databases.currency(&name("a"), &key).unwrap(), currency);
    first.close().await;
    databases.close().await.unwrap();
}
