//! A journal that fills, empties, and meets a disk that is full or broken.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod memory;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dormouse_store::{ENTRY_BYTES_MAX, Journal, JournalError, JournalOptions, Position};
use memory::MemoryDisk;

const SEGMENT_BYTES: usize = 64 << 10;

fn options() -> JournalOptions {
    JournalOptions {
        segment_bytes: SEGMENT_BYTES as u64,
        sync_interval: Duration::from_millis(5),
        ..JournalOptions::default()
    }
}

fn open_with(disk: &MemoryDisk, generation: u64, options: JournalOptions) -> Journal {
    let directory = Path::new("journal");
    Journal::open(Arc::new(disk.clone()), directory, 99, generation, options).unwrap()
}

fn open(disk: &MemoryDisk, generation: u64) -> Journal {
    open_with(disk, generation, options())
}

fn write_all(journal: &Journal) {
    while journal.write_group().unwrap() {}
}

fn names(disk: &MemoryDisk) -> Vec<String> {
    let names = disk.files().into_iter();
    names
        .map(|(path, _)| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect()
}

#[test]
fn released_segments_are_recycled_and_not_more_than_one_is_kept() {
    let disk = MemoryDisk::default();
    let journal = open(&disk, 1);
    assert_eq!(names(&disk), ["0000000000000001.journal", "spare-0"]);
    assert_eq!(journal.oldest_owner(), None);
    for round in 0..50 {
        let mut last = None;
        for owner in 1..=4 {
            last = Some(journal.append(owner, &[owner as u8; 20_000], true).unwrap());
            write_all(&journal);
        }
        // One needs only the last entry, so all segments but the last two come back.
        assert!(journal.bytes() <= 4 * SEGMENT_BYTES as u64, "round {round}");
        if journal.bytes() > SEGMENT_BYTES as u64 {
            assert!(journal.oldest_owner().is_some());
        }
        for owner in 1..=4 {
            journal.release(owner, last.unwrap());
        }
        assert!(journal.write_group().unwrap(), "what is idle is recorded");
        assert!(!journal.write_group().unwrap());
        assert_eq!(journal.owners(), [4]);
        assert!(journal.bytes() <= 2 * SEGMENT_BYTES as u64);
        assert!(names(&disk).len() <= 3, "{:?}", names(&disk));
    }
    drop(journal);
    let journal = open(&disk, 2);
    let entries = journal.entries(4).unwrap();
    assert_eq!(entries.last().unwrap().payload, [4; 20_000]);
}

#[test]
fn the_owner_of_the_oldest_entry_is_named_until_it_releases() {
    let disk = MemoryDisk::default();
    let journal = open(&disk, 1);
    journal.append(5, b"old", true).unwrap();
    journal.append(6, b"also old", true).unwrap();
    write_all(&journal);
    assert_eq!(journal.oldest_owner(), None, "there is one segment");
    for _ in 0..20 {
        journal.append(7, &[7; 20_000], true).unwrap();
        write_all(&journal);
    }
    let full = journal.bytes();
    assert_eq!(journal.oldest_owner(), Some(5));
    journal.forget(5);
    assert_eq!(journal.oldest_owner(), Some(6));
    journal.release(6, journal.next());
    assert_eq!(journal.oldest_owner(), Some(7));
    write_all(&journal);
    // The first segment has entries of 7, too.
    assert_eq!(journal.bytes(), full);
    journal.forget(7);
    write_all(&journal);
    assert_eq!(journal.bytes(), SEGMENT_BYTES as u64);
    assert_eq!(journal.owners(), [0; 0]);
}

#[test]
fn what_is_released_before_it_is_written_is_not_kept() {
    let disk = MemoryDisk::default();
    let journal = open(&disk, 1);
    journal.append(1, b"a", false).unwrap();
    let second = journal.append(1, b"b", false).unwrap();
    journal.release(1, second);
    assert_eq!(journal.entries(1).unwrap().len(), 1);
    write_all(&journal);
    assert_eq!(journal.entries(1).unwrap()[0].position, second);
    journal.append(1, b"c", false).unwrap();
    journal.forget(1);
    assert_eq!(journal.owners(), [0; 0]);
    let third = journal.append(1, b"d", false).unwrap();
    write_all(&journal);
    let entries = journal.entries(1).unwrap();
    assert_eq!((entries.len(), entries[0].position), (1, third));
}

#[test]
fn an_entry_longer_than_a_segment_gets_a_longer_one() {
    let disk = MemoryDisk::default();
    let journal = open(&disk, 1);
    let long: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
    journal.append(1, b"before", true).unwrap();
    journal.append(2, &long, true).unwrap();
    journal.append(1, b"after", true).unwrap();
    write_all(&journal);
    assert_eq!(journal.entries(2).unwrap()[0].payload, long);
    drop(journal);
    // Twice: it is in the last group, or is not.
    for generation in 2..4 {
        let journal = open(&disk, generation);
        assert_eq!(journal.entries(2).unwrap()[0].payload, long);
        assert_eq!(journal.entries(1).unwrap().len(), 2);
    }
    let journal = open(&disk, 4);
    journal.forget(1);
    journal.forget(2);
    write_all(&journal);
    assert_eq!(journal.bytes(), SEGMENT_BYTES as u64);
    // A recycled long one is a usual one again.
    for _ in 0..10 {
        journal.append(1, &[1; 30_000], true).unwrap();
        write_all(&journal);
        journal.forget(1);
    }
    assert!(disk.used() <= 4 * SEGMENT_BYTES);
}

#[test]
fn an_entry_longer_than_the_limit_is_refused() {
    let disk = MemoryDisk::default();
    let journal = open(&disk, 1);
    let error = journal
        .append(1, &vec![0; ENTRY_BYTES_MAX + 1], true)
        .unwrap_err();
    assert!(
        matches!(error, JournalError::EntryTooLarge { bytes, limit } if bytes == limit + 1),
        "{error}"
    );
}

#[test]
fn more_than_the_buffer_takes_is_refused_until_the_writer_has_written() {
    let disk = MemoryDisk::default();
    let options = JournalOptions {
        buffer_bytes_max: 1000,
        ..options()
    };
    let journal = open_with(&disk, 1, options);
    journal.append(1, &[1; 5000], true).unwrap();
    let error = journal.append(1, b"x", true).unwrap_err();
    assert!(
        matches!(
            error,
            JournalError::BufferFull {
                bytes: 5016,
                limit: 1000
            }
        ),
        "{error}"
    );
    write_all(&journal);
    journal.append(1, b"x", true).unwrap();
}

#[test]
fn a_full_disk_takes_what_fits_into_the_allocated_segments() {
    let disk = MemoryDisk::default();
    let journal = open(&disk, 1);
    disk.set_capacity(Some(disk.used()));
    let mut accepted = 0;
    let error = loop {
        match journal.append(1, &[9; 1000], true) {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        journal.write_group().unwrap();
    };
    assert!(matches!(error, JournalError::Full { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("no room for the journal in journal"),
        "{error}"
    );
    // One group, one block: a segment has 16, two of them are not for entries, and a mark took one.
    assert_eq!(accepted, 13 + 14);
    assert!(journal.is_full());
    assert!(journal.is_durable(Position::from_number(accepted)));
    assert_eq!(journal.entries(1).unwrap().len(), accepted as usize);

    // What is released makes room without any from the disk.
    journal.release(1, Position::from_number(accepted));
    write_all(&journal);
    assert!(!journal.is_full());
    journal.append(1, &[9; 1000], true).unwrap();
    assert!(journal.write_group().unwrap());
    drop(journal);
    let journal = open(&disk, 2);
    assert_eq!(
        journal.entries(1).unwrap().last().unwrap().payload,
        [9; 1000]
    );
}

#[test]
fn what_is_buffered_when_the_disk_fills_waits_for_room() {
    let disk = MemoryDisk::default();
    let journal = open(&disk, 1);
    // More than the segment and its spare take, appended before the disk is known to be full.
    for n in 0..200u8 {
        journal.append(1, &[n; 1000], true).unwrap();
    }
    let last = Position::from_number(journal.next().get() - 1);
    disk.set_capacity(Some(disk.used()));
    let error = loop {
        if let Err(error) = journal.write_group() {
            break error;
        }
    };
    assert!(matches!(error, JournalError::Full { .. }), "{error}");
    assert!(!journal.is_durable(last));
    assert_eq!(journal.entries(1).unwrap().len(), 200, "all is still there");
    assert!(matches!(
        journal.append(1, b"more", true).unwrap_err(),
        JournalError::Full { .. }
    ));
    disk.set_capacity(None);
    write_all(&journal);
    assert!(journal.is_durable(last));
    assert!(!journal.is_full());
    drop(journal);
    let entries = open(&disk, 2).entries(1).unwrap();
    assert_eq!(entries.len(), 200);
    assert!(
        entries
            .iter()
            .zip(0u8..)
            .all(|(entry, n)| entry.payload == [n; 1000])
    );
}

#[test]
fn a_journal_opens_on_a_full_disk_and_takes_entries_when_it_is_not() {
    let disk = MemoryDisk::default();
    let journal = open(&disk, 1);
    let first = journal.append(1, b"kept", true).unwrap();
    write_all(&journal);
    drop(journal);
    disk.forget(Path::new("journal/spare-0"));
    disk.set_capacity(Some(disk.used()));
    let journal = open(&disk, 2);
    assert!(journal.is_full());
    assert_eq!(journal.entries(1).unwrap()[0].payload, b"kept");
    // It can be read, and nothing proves that it is on the medium.
    assert!(!journal.is_durable(first));
    assert!(matches!(
        journal.append(1, b"more", true).unwrap_err(),
        JournalError::Full { .. }
    ));
    disk.set_capacity(None);
    write_all(&journal);
    assert!(journal.is_durable(first));
    journal.append(1, b"more", true).unwrap();
    write_all(&journal);
    assert_eq!(journal.entries(1).unwrap().len(), 2);
}

#[test]
fn the_writer_thread_goes_on_when_there_is_room_again() {
    let disk = MemoryDisk::default();
    let journal = open(&disk, 1);
    let writer = journal.start().unwrap();
    disk.set_capacity(Some(disk.used()));
    let last = loop {
        match journal.append(1, &[1; 3000], true) {
            Ok(position) => journal.wait_durable(position).unwrap(),
            Err(JournalError::Full { .. }) => break journal.next(),
            Err(error) => panic!("{error}"),
        }
    };
    disk.set_capacity(None);
    while journal.is_full() {
        std::thread::yield_now();
    }
    let position = journal.append(1, b"again", true).unwrap();
    assert_eq!(position, last);
    journal.wait_durable(position).unwrap();
    drop(writer);
}

#[test]
fn a_failed_sync_breaks_the_journal_for_good() {
    let disk = MemoryDisk::default();
    let journal = open(&disk, 1);
    journal.append(1, b"durable", true).unwrap();
    write_all(&journal);
    let writer = journal.start().unwrap();
    disk.fail_next_sync();
    let position = journal.append(1, b"lost or not", true).unwrap();
    let later = Position::from_number(position.get() + 10);
    for position in [position, later] {
        let error = journal.wait_durable(position).unwrap_err();
        assert!(matches!(&error, JournalError::Broken { .. }), "{error}");
        assert!(
            error.to_string().contains("the file did not sync"),
            "{error}"
        );
    }
    assert!(!journal.is_durable(position));
    let error = journal.append(1, b"no", true).unwrap_err();
    assert!(matches!(error, JournalError::Broken { .. }), "{error}");
    drop(writer);
    let error = journal.write_group().unwrap_err();
    assert!(matches!(error, JournalError::Broken { .. }), "{error}");
    drop(journal);
    // Whether the group came to the medium or not, it is one of both from now on.
    let journal = open(&disk, 2);
    let entries = journal.entries(1).unwrap();
    assert_eq!(entries.len(), 2, "this disk shows what it did not sync");
    assert!(journal.is_durable(position));
    let disk = disk.crash(&mut memory::Random(3));
    assert_eq!(open(&disk, 3).entries(1).unwrap(), entries);
}

#[test]
fn a_failed_write_breaks_the_journal() {
    let disk = MemoryDisk::default();
    let journal = open(&disk, 1);
    disk.fail_next_write();
    journal.append(1, &[1; 9000], true).unwrap();
    let error = journal.write_group().unwrap_err();
    assert!(
        matches!(
            error,
            JournalError::Broken {
                action: "writing",
                ..
            }
        ),
        "{error}"
    );
    drop(journal);
    assert_eq!(open(&disk, 2).owners(), [0; 0]);
}

#[test]
fn one_sync_serves_all_that_gathered() {
    let disk = MemoryDisk::default();
    let journal = open(&disk, 1);
    let before = disk.syncs();
    for owner in 0..100 {
        journal.append(owner, b"together", true).unwrap();
    }
    assert!(journal.write_group().unwrap());
    assert_eq!(disk.syncs(), before + 1);
}

#[test]
fn the_idle_writer_writes_one_mark_and_then_nothing() {
    let disk = MemoryDisk::default();
    let journal = open(&disk, 1);
    let writer = journal.start().unwrap();
    let before = disk.syncs();
    let position = journal.append(1, b"x", true).unwrap();
    journal.wait_durable(position).unwrap();
    while disk.syncs() < before + 2 {
        std::thread::yield_now();
    }
    drop(writer);
    assert_eq!(
        disk.syncs(),
        before + 2,
        "the mark was there when it was closed"
    );
    assert!(matches!(
        journal.write_mark().unwrap_err(),
        JournalError::Closed
    ));
}

#[test]
fn reopening_again_and_again_takes_no_more_room() {
    let disk = MemoryDisk::default();
    let journal = open(&disk, 1);
    for _ in 0..10 {
        journal.append(1, &[1; 10_000], true).unwrap();
        write_all(&journal);
    }
    drop(journal);
    let mut bytes = Vec::new();
    for generation in 2..20 {
        let journal = open(&disk, generation);
        assert_eq!(journal.entries(1).unwrap().len(), 10);
        bytes.push(journal.bytes());
    }
    // The first segment after the last with entries, for each opening: a header and a group.
    let most = bytes
        .windows(2)
        .map(|pair| pair[1].saturating_sub(pair[0]))
        .max();
    assert!(most.unwrap() <= 5 * 4096, "{bytes:?}");
}

#[test]
fn shorter_segments_do_not_cut_the_last_group() {
    let disk = MemoryDisk::default();
    let journal = open(&disk, 1);
    for n in 0..10u8 {
        journal.append(1, &[n; 4000], true).unwrap();
    }
    let last = Position::from_number(journal.next().get() - 1);
    assert!(journal.write_group().unwrap());
    drop(journal);
    let shorter = JournalOptions {
        segment_bytes: 16 << 10,
        ..options()
    };
    let journal = open_with(&disk, 2, shorter);
    assert!(journal.is_durable(last), "opening wrote all of it at once");
    assert_eq!(journal.entries(1).unwrap().len(), 10);
    journal.append(1, &[10; 4000], true).unwrap();
    write_all(&journal);
    drop(journal);
    assert_eq!(open(&disk, 3).entries(1).unwrap().len(), 11);
}

#[test]
fn the_spare_lets_a_journal_open_on_a_full_disk() {
    let disk = MemoryDisk::default();
    let journal = open(&disk, 1);
    journal.append(1, b"kept", true).unwrap();
    write_all(&journal);
    drop(journal);
    disk.set_capacity(Some(disk.used()));
    let journal = open(&disk, 2);
    // What the first segment held was the last group, and is written again: that one is the next spare.
    assert!(!journal.is_full());
    assert_eq!(journal.bytes(), SEGMENT_BYTES as u64);
    let position = journal.append(1, b"more", true).unwrap();
    write_all(&journal);
    assert!(journal.is_durable(position));
    assert_eq!(journal.entries(1).unwrap().len(), 2);
}
