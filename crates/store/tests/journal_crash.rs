//! Random histories of a journal on a bad disk, against a list of what was appended.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod memory;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use dormouse_store::{Journal, JournalError, JournalOptions, Position};
use memory::{MemoryDisk, Random};
use proptest::prelude::*;

const OWNERS: u64 = 4;
const SEGMENT_BYTES: u64 = 24 << 10;

#[derive(Debug, Clone)]
enum Step {
    Append {
        owner: u64,
        bytes: usize,
    },
    WriteGroup,
    WriteMark,
    Release {
        owner: u64,
        share: f64,
    },
    Forget {
        owner: u64,
    },
    /// The process dies; what it wrote is still in the system's memory.
    Kill,
    /// The machine dies.
    Crash {
        seed: u64,
    },
    /// The machine dies after so many more changes of the disk.
    CrashIn {
        changes: u64,
        seed: u64,
    },
    /// The machine dies, and the journal's opening after so many changes.
    CrashTwice {
        changes: u64,
        seed: u64,
    },
    FailSync,
    FailWrite,
    /// No more room than is used now, and so many bytes.
    Fill {
        left: usize,
    },
    Free,
}

fn step() -> impl Strategy<Value = Step> {
    let owner = 0..OWNERS;
    prop_oneof![
        12 => (owner.clone(), 0..3000usize).prop_map(|(owner, bytes)| Step::Append { owner, bytes }),
        1 => (owner.clone(), 10_000..40_000usize)
            .prop_map(|(owner, bytes)| Step::Append { owner, bytes }),
        8 => Just(Step::WriteGroup),
        1 => Just(Step::WriteMark),
        3 => (owner.clone(), 0.0..1.2).prop_map(|(owner, share)| Step::Release { owner, share }),
        1 => owner.prop_map(|owner| Step::Forget { owner }),
        1 => Just(Step::Kill),
        2 => any::<u64>().prop_map(|seed| Step::Crash { seed }),
        2 => (0..30u64, any::<u64>())
            .prop_map(|(changes, seed)| Step::CrashIn { changes, seed }),
        1 => (0..30u64, any::<u64>())
            .prop_map(|(changes, seed)| Step::CrashTwice { changes, seed }),
        1 => Just(Step::FailSync),
        1 => Just(Step::FailWrite),
        1 => (0..100_000usize).prop_map(|left| Step::Fill { left }),
        2 => Just(Step::Free),
    ]
}

#[derive(Debug, Clone)]
struct Appended {
    owner: u64,
    generation: u64,
    payload: Vec<u8>,
}

/// The journal and what is to be in it.
struct World {
    disk: MemoryDisk,
    journal: Journal,
    generation: u64,
    /// What was appended and is not known to be lost.
    entries: BTreeMap<u64, Appended>,
    /// Of each owner: entries below may be gone.
    released: BTreeMap<u64, u64>,
    /// The highest position known to be durable.
    durable: u64,
    next: u64,
    /// The highest position ever given.
    given: u64,
    /// How the disk is to look when it has stopped.
    stop_seed: u64,
    /// A write or sync failed, or was told to: the journal may be broken.
    may_break: bool,
}

fn options() -> JournalOptions {
    JournalOptions {
        segment_bytes: SEGMENT_BYTES,
        buffer_bytes_max: 60_000,
        ..JournalOptions::default()
    }
}

fn open(disk: &MemoryDisk, generation: u64) -> Result<Journal, JournalError> {
    let directory = Path::new("journal");
    Journal::open(Arc::new(disk.clone()), directory, 99, generation, options())
}

impl World {
    fn new() -> Self {
        let disk = MemoryDisk::default();
        let journal = open(&disk, 1).unwrap();
        let next = journal.next().get();
        Self {
            disk,
            journal,
            generation: 1,
            entries: BTreeMap::new(),
            released: BTreeMap::new(),
            durable: 0,
            next,
            given: 0,
            stop_seed: 0,
            may_break: false,
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Append { owner, bytes } => self.append(owner, bytes),
            Step::WriteGroup => self.written(Journal::write_group),
            Step::WriteMark => self.written(Journal::write_mark),
            Step::Release { owner, share } => {
                let before = (self.next as f64 * share) as u64;
                // Only what is durable is released by who wants to keep it.
                let before = before.min(self.durable + 1);
                self.journal.release(owner, Position::from_number(before));
                self.note_release(owner, before);
            }
            Step::Forget { owner } => {
                self.journal.forget(owner);
                self.note_release(owner, self.given + 1);
            }
            Step::Kill => {
                let disk = self.disk.clone();
                self.reopen(disk);
            }
            Step::Crash { seed } => {
                let disk = self.disk.crash(&mut Random(seed));
                self.reopen(disk);
            }
            Step::CrashIn { changes, seed } => {
                self.disk.stop_in(changes);
                self.stop_seed = seed;
                self.may_break = true;
            }
            Step::CrashTwice { changes, seed } => {
                let disk = self.disk.crash(&mut Random(seed));
                disk.stop_in(changes);
                // Whether it gets that far or not.
                let _ = open(&disk, self.generation + 1);
                self.generation += 1;
                // And then the machine once more, or only the process.
                let is_machine = seed.is_multiple_of(2);
                self.reopen(if is_machine {
                    disk.crash(&mut Random(!seed))
                } else {
                    disk
                });
            }
            Step::FailSync => {
                self.disk.fail_next_sync();
                self.may_break = true;
            }
            Step::FailWrite => {
                self.disk.fail_next_write();
                self.may_break = true;
            }
            Step::Fill { left } => {
                let used = self.disk.used();
                self.disk.set_capacity(Some(used + left));
            }
            Step::Free => self.disk.set_capacity(None),
        }
        if self.disk.has_stopped() {
            let disk = self.disk.crash(&mut Random(self.stop_seed));
            self.reopen(disk);
        }
        self.check();
    }

    fn append(&mut self, owner: u64, bytes: usize) {
        let mut random = Random(self.next);
        let payload: Vec<u8> = (0..bytes).map(|_| random.next() as u8).collect();
        match self.journal.append(owner, &payload, true) {
            Ok(position) => {
                assert_eq!(position.get(), self.next, "positions are dense");
                let generation = self.generation;
                let entry = Appended {
                    owner,
                    generation,
                    payload,
                };
                self.entries.insert(self.next, entry);
                self.given = self.next;
                self.next += 1;
            }
            Err(JournalError::Full { .. }) => assert!(self.journal.is_full()),
            Err(JournalError::BufferFull { .. }) => {}
            Err(JournalError::Broken { .. }) => assert!(self.may_break),
            Err(error) => panic!("{error}"),
        }
    }

    fn written(&mut self, write: impl Fn(&Journal) -> Result<bool, JournalError>) {
        match write(&self.journal) {
            Ok(_) => {}
            Err(JournalError::Full { .. }) => assert!(self.journal.is_full()),
            Err(JournalError::Broken { .. }) => assert!(self.may_break),
            Err(error) => panic!("{error}"),
        }
        self.note_durable();
    }

    fn note_durable(&mut self) {
        let durable = self.entries.range(self.durable + 1..);
        let durable =
            durable.take_while(|(n, _)| self.journal.is_durable(Position::from_number(**n)));
        self.durable = durable.last().map_or(self.durable, |(n, _)| *n);
    }

    fn note_release(&mut self, owner: u64, before: u64) {
        let known = self.released.entry(owner).or_default();
        *known = before.max(*known);
    }

    fn is_released(&self, position: u64) -> bool {
        let owner = self.entries[&position].owner;
        self.released
            .get(&owner)
            .is_some_and(|before| position < *before)
    }

    fn reopen(&mut self, disk: MemoryDisk) {
        disk.clear_faults();
        self.may_break = false;
        self.disk = disk;
        self.generation += 1;
        self.journal = open(&self.disk, self.generation).unwrap();
        assert_eq!(self.journal.id(), 99);
        let next = self.journal.next().get();
        assert!(next > self.given, "no position is given twice");
        self.next = self.journal.next().get();

        // What is there: a prefix of what was appended, at least all that was durable.
        let found = self.found();
        let last = found.keys().last().copied().unwrap_or(0).max(self.durable);
        self.entries.retain(|position, _| *position <= last);
        for position in self.entries.keys() {
            assert!(
                found.contains_key(position) || self.is_released(*position),
                "{position} is missing, up to {last} there should be all"
            );
        }
        // A release is not recorded: the owner has to repeat it.
        for (position, entry) in &found {
            if self.is_released(*position) {
                let before = self.released[&entry.owner];
                self.journal
                    .release(entry.owner, Position::from_number(before));
            }
        }
        self.note_durable();
    }

    /// All entries in the journal; each is as it was appended.
    fn found(&self) -> BTreeMap<u64, Appended> {
        let mut found = BTreeMap::new();
        for owner in 0..OWNERS {
            let entries = self.journal.entries(owner).unwrap();
            assert!(entries.is_sorted_by_key(|entry| entry.position));
            assert_eq!(self.journal.owners().contains(&owner), !entries.is_empty());
            for entry in entries {
                let appended = &self.entries[&entry.position.get()];
                assert_eq!(appended.owner, owner);
                assert_eq!(appended.payload, entry.payload);
                assert_eq!(appended.generation, entry.generation);
                found.insert(entry.position.get(), appended.clone());
            }
        }
        found
    }

    fn check(&self) {
        let found = self.found();
        for position in self.entries.keys() {
            assert_eq!(
                found.contains_key(position),
                !self.is_released(*position),
                "{position}"
            );
        }
        if let Some(owner) = self.journal.oldest_owner() {
            let oldest = found.values().next().unwrap();
            assert_eq!(oldest.owner, owner);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_acknowledged_is_lost(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
        }
        // At last without faults: all that was appended becomes durable, and stays.
        world.disk.set_capacity(None);
        let disk = world.disk.clone();
        world.reopen(disk);
        world.append(0, 10);
        while world.journal.write_group().unwrap() {}
        world.note_durable();
        prop_assert_eq!(world.durable + 1, world.next);
        let disk = world.disk.crash(&mut Random(1));
        world.reopen(disk);
        world.check();
    }
}
