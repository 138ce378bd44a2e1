//! What a journal says of files that are not what it wrote.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod memory;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dormouse_store::{Journal, JournalError, JournalOptions, Position};
use memory::MemoryDisk;

const BLOCK: usize = 4096;
const SEGMENT_BYTES: usize = 4 * BLOCK;
const GROUPS: u64 = 5;

fn open_as(disk: &MemoryDisk, generation: u64) -> Result<Journal, JournalError> {
    let options = JournalOptions {
        segment_bytes: SEGMENT_BYTES as u64,
        ..JournalOptions::default()
    };
    let directory = Path::new("journal");
    Journal::open(Arc::new(disk.clone()), directory, 99, generation, options)
}

fn open(disk: &MemoryDisk) -> Result<Journal, JournalError> {
    open_as(disk, 2)
}

/// Three segments and a spare: a mark and a group, two groups, two groups. Each group is one block and
/// has an entry of owner 1 and one of owner 2.
fn written() -> MemoryDisk {
    let disk = MemoryDisk::default();
    let journal = open_as(&disk, 1).unwrap();
    for n in 0..GROUPS {
        journal.append(1, &n.to_le_bytes(), true).unwrap();
        journal.append(2, &[n as u8; 100], true).unwrap();
        assert!(journal.write_group().unwrap());
    }
    disk
}

/// How many whole groups the journal has; nothing else may be in it.
fn groups(journal: &Journal) -> u64 {
    let first = journal.entries(1).unwrap();
    let second = journal.entries(2).unwrap();
    assert_eq!(first.len(), second.len());
    for (n, (first, second)) in first.iter().zip(&second).enumerate() {
        assert_eq!(first.payload, (n as u64).to_le_bytes());
        assert_eq!(second.payload, [n as u8; 100]);
        assert_eq!(first.position, Position::from_number(2 * n as u64 + 1));
    }
    first.len() as u64
}

/// The segments' names and contents.
fn segments(disk: &MemoryDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = disk.files();
    files.retain(|(path, _)| path.extension().is_some_and(|suffix| suffix == "journal"));
    files
}

#[test]
fn every_flipped_bit_is_detected_or_ends_the_log_before_the_last_group() {
    let disk = written();
    let segments = segments(&disk);
    assert_eq!(segments.len(), 3);
    std::thread::scope(|scope| {
        for (n, (path, bytes)) in segments.iter().enumerate() {
            assert_eq!(bytes.len(), SEGMENT_BYTES);
            let disk = &disk;
            scope.spawn(move || flip_all(disk, n, path));
        }
    });
}

/// Flips each bit of segment `n`, one at a time.
fn flip_all(disk: &MemoryDisk, n: usize, path: &Path) {
    let mut damaged = disk.copy();
    for (at, bit) in (0..SEGMENT_BYTES).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        damaged.flip(path, at, bit);
        let block = at / BLOCK;
        match (n, block, open(&damaged)) {
            // The block that is kept for a mark holds nothing.
            (_, 3, Ok(journal)) => assert_eq!(groups(&journal), GROUPS),
            // The last group without a mark after it: taken for a torn write.
            (2, 2, Ok(journal)) => assert_eq!(groups(&journal), GROUPS - 1),
            (
                _,
                0..=2,
                Err(JournalError::Corrupt {
                    path: named,
                    offset,
                    ..
                }),
            ) => {
                assert_eq!((named.as_path(), offset), (path, (block * BLOCK) as u64));
                // Nothing was changed.
                damaged.flip(path, at, bit);
                continue;
            }
            (_, _, Ok(journal)) => panic!("{path:?} {at}: {} groups", groups(&journal)),
            (_, _, Err(error)) => panic!("{path:?} {at}: {error}"),
        }
        damaged = disk.copy();
    }
}

#[test]
fn with_a_mark_damage_of_the_last_group_is_detected() {
    let disk = written();
    // Reopened, the last group is the first of a new segment, and there is room for a mark.
    let journal = open(&disk).unwrap();
    assert!(journal.write_mark().unwrap());
    assert!(!journal.write_mark().unwrap());
    drop(journal);
    let (path, whole) = segments(&disk).pop().unwrap();
    for at in BLOCK..2 * BLOCK {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        disk.put(&path, bytes);
        let error = open(&disk).unwrap_err();
        let expected = matches!(&error, JournalError::Corrupt { path: named, offset: 4096, .. } if *named == path);
        assert!(expected, "{at}: {error}");
    }
}

#[test]
fn every_truncation_of_a_segment_is_detected() {
    let disk = written();
    for (path, bytes) in segments(&disk) {
        let damaged = disk.copy();
        for len in 0..bytes.len() {
            damaged.put(&path, bytes[..len].to_vec());
            let error = open(&damaged).unwrap_err();
            let expected =
                matches!(&error, JournalError::Corrupt { path: named, .. } if *named == path);
            assert!(expected, "{path:?} {len}: {error}");
        }
    }
}

#[test]
fn a_group_that_is_torn_at_any_sector_ends_the_log() {
    let disk = written();
    let (path, bytes) = segments(&disk).pop().unwrap();
    let last = 2 * BLOCK;
    for sectors in 0..8 {
        let mut torn = bytes.clone();
        torn[last + sectors * 512..last + BLOCK].fill(0);
        let damaged = disk.copy();
        damaged.put(&path, torn);
        // Its first sector has all that is not zero.
        let expected = if sectors == 0 { GROUPS - 1 } else { GROUPS };
        // What is appended then takes its place, time after time.
        for generation in 2..6 {
            let journal = open_as(&damaged, generation).unwrap();
            assert_eq!(groups(&journal), expected);
        }
    }
}

#[test]
fn a_missing_segment_is_named() {
    let disk = written();
    let segments = segments(&disk);
    for (n, (path, _)) in segments.iter().enumerate() {
        let damaged = disk.copy();
        damaged.forget(path);
        match (n, open(&damaged)) {
            (0 | 1, Err(JournalError::MissingSegment { path: named })) => assert_eq!(&named, path),
            // Nothing tells that there was a newer one.
            (2, Ok(journal)) => assert_eq!(groups(&journal), 3),
            (_, result) => panic!("{n}: {result:?}"),
        }
    }
}

#[test]
fn another_journals_segment_is_refused() {
    let disk = written();
    let other = MemoryDisk::default();
    let options = JournalOptions {
        segment_bytes: SEGMENT_BYTES as u64,
        ..JournalOptions::default()
    };
    let directory = Path::new("journal");
    Journal::open(Arc::new(other.clone()), directory, 77, 1, options).unwrap();
    let (path, foreign) = segments(&other).pop().unwrap();
    disk.put(&path, foreign);
    let error = open(&disk).unwrap_err();
    assert!(
        matches!(
            error,
            JournalError::WrongJournal {
                expected: 99,
                found: 77,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_segment_under_another_name_is_refused() {
    let disk = written();
    let segments = segments(&disk);
    disk.put(&segments[1].0, segments[0].1.clone());
    let error = open(&disk).unwrap_err();
    assert!(
        matches!(error, JournalError::Corrupt { offset: 0, .. }),
        "{error}"
    );
}

#[test]
fn a_format_of_the_future_is_refused() {
    let disk = written();
    let (path, mut bytes) = segments(&disk).pop().unwrap();
    bytes[8] = 2;
    let crc = crc32c::crc32c(&bytes[..BLOCK - 4]).to_le_bytes();
    bytes[BLOCK - 4..BLOCK].copy_from_slice(&crc);
    disk.put(&path, bytes);
    let error = open(&disk).unwrap_err();
    assert!(
        matches!(
            error,
            JournalError::WrongVersion {
                expected: 1,
                found: 2,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn someone_with_a_greater_generation_fences_us() {
    let disk = written();
    drop(open_as(&disk, 7).unwrap());
    let error = open_as(&disk, 6).unwrap_err();
    assert!(
        matches!(
            error,
            JournalError::Fenced {
                ours: 6,
                found: 7,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(groups(&open_as(&disk, 7).unwrap()), GROUPS);
}

/// An owner who fills entries with copies of the journal's own groups, and a crash that tears the write
/// so that the blocks of it that look like groups are there and its own first block is not.
#[test]
fn groups_inside_a_payload_are_not_groups() {
    let disk = written();
    let old: Vec<u8> = segments(&disk)
        .into_iter()
        .flat_map(|(_, bytes)| bytes)
        .collect();
    for start in [0, 80 + 16] {
        let disk = disk.copy();
        let journal = open(&disk).unwrap();
        let before: Vec<_> = segments(&disk);
        // Behind 80 bytes of group header and 16 of entry header it is aligned like groups are.
        let mut payload = vec![0; BLOCK - 80 - 16];
        payload.extend_from_slice(&old[start..]);
        journal.append(3, &payload, true).unwrap();
        assert!(journal.write_group().unwrap());
        drop(journal);
        let after = segments(&disk);
        assert_eq!(
            after.len(),
            before.len() + 1,
            "a longer segment for a longer group"
        );
        eprintln!(
            "{:?} {:?}",
            before.iter().map(|x| (&x.0, x.1.len())).collect::<Vec<_>>(),
            after.iter().map(|x| (&x.0, x.1.len())).collect::<Vec<_>>()
        );
        let (path, mut bytes) = after.last().unwrap().clone();
        bytes[BLOCK..2 * BLOCK].fill(0);
        disk.put(&path, bytes);
        for generation in 3..6 {
            let journal = open_as(&disk, generation).unwrap();
            assert_eq!(groups(&journal), GROUPS);
            assert_eq!(journal.owners(), [1, 2]);
        }
    }
}

#[test]
fn an_entry_that_rots_while_the_journal_is_open_is_not_served() {
    let disk = written();
    let journal = open(&disk).unwrap();
    let (path, _) = segments(&disk).remove(0);
    // A byte of the first entry's payload.
    disk.flip(&path, 2 * BLOCK + 80 + 16, 0);
    let error = journal.entries(1).unwrap_err();
    assert!(
        matches!(&error, JournalError::Corrupt { path: named, .. } if *named == path),
        "{error}"
    );
    assert_eq!(journal.entries(2).unwrap().len(), GROUPS as usize);
}
