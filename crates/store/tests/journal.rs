//! A journal on the operating system's disk.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dormouse_store::{Journal, JournalError, JournalOptions, Position, RealDisk};

fn open(directory: &Path, generation: u64, segment_bytes: u64) -> Journal {
    let options = JournalOptions {
        segment_bytes,
        ..JournalOptions::default()
    };
    Journal::open(Arc::new(RealDisk), directory, 7, generation, options).unwrap()
}

/// The owner's payloads.
fn payloads(journal: &Journal, owner: u64) -> Vec<Vec<u8>> {
    let entries = journal.entries(owner).unwrap();
    entries.into_iter().map(|entry| entry.payload).collect()
}

#[test]
fn what_was_written_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path(), 1, 1 << 20);
    assert_eq!(journal.next().get(), 1);
    let first = journal.append(1, b"one", true).unwrap();
    let second = journal.append(2, b"two", true).unwrap();
    assert!(!journal.is_durable(first));
    assert!(journal.write_group().unwrap());
    assert!(journal.is_durable(second));
    journal.append(1, b"three", false).unwrap();
    assert_eq!(payloads(&journal, 1), [&b"one"[..], b"three"]);
    assert!(journal.write_group().unwrap());
    assert!(!journal.write_group().unwrap());
    journal.append(1, b"never written", false).unwrap();
    drop(journal);

    for generation in 2..6 {
        let journal = open(dir.path(), generation, 1 << 20);
        assert_eq!(journal.id(), 7);
        assert_eq!(journal.owners(), [1, 2]);
        assert_eq!(payloads(&journal, 1), [&b"one"[..], b"three"]);
        assert_eq!(journal.entries(2).unwrap()[0].position, second);
        assert_eq!(journal.entries(2).unwrap()[0].generation, 1);
        assert!(journal.is_durable(Position::from_number(3)));
        assert!(journal.next() > Position::from_number(4));
    }
    let journal = open(dir.path(), 6, 1 << 20);
    journal.forget(1);
    journal.release(2, Position::from_number(second.get() + 1));
    assert!(journal.write_group().unwrap());
    drop(journal);
    let journal = open(dir.path(), 6, 1 << 20);
    // A release is not recorded, only which segments are needed: the last group's is.
    assert_eq!(payloads(&journal, 1), [b"three"]);
    assert_eq!(journal.owners(), [1]);
    let options = JournalOptions::default();
    let error = Journal::open(Arc::new(RealDisk), dir.path(), 7, 5, options).unwrap_err();
    assert!(
        matches!(
            error,
            JournalError::Fenced {
                ours: 5,
                found: 6,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn many_threads_append_and_all_is_in_order() {
    const THREADS: u64 = 16;
    const ENTRIES: u64 = 300;
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path(), 1, 64 << 10);
    let writer = journal.start().unwrap();
    std::thread::scope(|scope| {
        for owner in 0..THREADS {
            let journal = &journal;
            scope.spawn(move || {
                for n in 0..ENTRIES {
                    let position = journal.append(owner, &n.to_le_bytes(), true).unwrap();
                    if n.is_multiple_of(3) {
                        journal.wait_durable(position).unwrap();
                        assert!(journal.is_durable(position));
                    }
                }
            });
        }
    });
    drop(writer);
    let error = journal.append(1, b"late", true).unwrap_err();
    assert!(matches!(error, JournalError::Closed), "{error}");
    drop(journal);
    let journal = open(dir.path(), 2, 64 << 10);
    for owner in 0..THREADS {
        let entries = journal.entries(owner).unwrap();
        assert!(entries.is_sorted_by_key(|entry| entry.position));
        let expected: Vec<_> = (0..ENTRIES).map(|n| n.to_le_bytes().to_vec()).collect();
        let found: Vec<_> = entries.into_iter().map(|entry| entry.payload).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn an_entry_that_nobody_waits_for_is_synced_within_the_interval() {
    let dir = tempfile::tempdir().unwrap();
    let options = JournalOptions {
        sync_interval: Duration::from_millis(20),
        ..JournalOptions::default()
    };
    let journal = Journal::open(Arc::new(RealDisk), dir.path(), 7, 1, options).unwrap();
    let _writer = journal.start().unwrap();
    let position = journal.append(1, b"relaxed", false).unwrap();
    while !journal.is_durable(position) {
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn tasks_wait() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path(), 1, 1 << 20);
    let writer = journal.start().unwrap();
    let mut tasks = Vec::new();
    for owner in 0..20 {
        let journal = journal.clone();
        tasks.push(tokio::spawn(async move {
            for _ in 0..10 {
                let position = journal.append(owner, b"task", false).unwrap();
                journal.durable(position).await.unwrap();
                assert!(journal.is_durable(position));
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    drop(writer);
    let error = journal.durable(journal.next()).await.unwrap_err();
    assert!(matches!(error, JournalError::Closed), "{error}");
}
