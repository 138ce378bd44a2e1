//! The node's journal on a faulty disk.
//!
//! Checked: what was acknowledged as durable is there after any crash, with its bytes, owner and
//! generation, in order; beyond that there is a prefix of what was appended; what was lost never
//! comes back; no position is given twice; damage is refused and never served; an older generation is
//! refused; nothing fails without a cause.

mod model;
mod opening;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use store::{Journal, JournalError, JournalOptions, Position};

use crate::disk::{DiskCounts, Faults, FaultyDisk};
use crate::history::Notes;
use crate::random::Random;
use crate::workload::{Broken, Workload};
use model::Model;
use opening::Flip;

const DIRECTORY: &str = "/data/journal";
/// A disk that is sometimes too small, in blocks of 4,096 bytes.
const BLOCKS_MAX: u64 = 120;

pub(crate) struct JournalWorkload {
    disk: Arc<FaultyDisk>,
    random: Random,
    options: JournalOptions,
    faults: Faults,
    generation: u64,
    journal: Option<Journal>,
    model: Model,
    /// The last bit that was flipped, and not flipped back.
    flipped: Option<Flip>,
    openings_failed: u32,
    counts_at_opening: DiskCounts,
}

impl JournalWorkload {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let disk = Arc::new(FaultyDisk::new(random.bits(), Faults::default()));
        let made = store::Disk::create_directory(&*disk, Path::new("/data"));
        made.and_then(|()| store::Disk::sync_directory(&*disk, Path::new("/")))
            .expect("BUG: a disk without faults fails");
        let faults = Faults::of_history(&mut random);
        disk.set_faults(faults.clone());
        let options = JournalOptions {
            segment_bytes: *random.pick(&[1, 32 << 10, 64 << 10, 256 << 10]),
            buffer_bytes_max: *random.pick(&[2_000, 100_000, 64 << 20]),
            reserve_segments: random.index(3),
            unsynced_entries_max: 1_000,
            sync_interval: Duration::from_secs(1),
        };
        Self {
            disk,
            options,
            faults,
            generation: 1,
            journal: None,
            model: Model::new(random.bits()),
            random,
            flipped: None,
            openings_failed: 0,
            counts_at_opening: DiskCounts::default(),
        }
    }

    fn append(&mut self, notes: &mut Notes) -> Result<(), Broken> {
        let Some(journal) = &self.journal else {
            return Ok(());
        };
        for _ in 0..self.random.within(1..=8) {
            let position = journal.next().get();
            let owner = self.model.owner_of(position);
            let payload = self.model.payload_of(position);
            let urgent = self.random.one_in(2);
            let result = journal.append(owner, &payload, urgent);
            let bytes = payload.len();
            notes.done(
                "appends",
                format_args!("{bytes} bytes of {owner:x}: {result:?}"),
            );
            match result {
                Ok(given) if given.get() == position => self.model.append(position),
                Ok(given) => {
                    let what = format!("the position {given} was given instead of {position}");
                    return Err(Broken(what));
                }
                Err(JournalError::BufferFull { .. }) => return Ok(()),
                Err(error @ JournalError::Full { .. }) => {
                    return self.expect_cause(self.counts_at_opening, &error);
                }
                Err(error) => return Err(Broken(format!("an append says: {error}"))),
            }
        }
        Ok(())
    }

    fn write(&mut self, mark: bool, notes: &mut Notes) -> Result<(), Broken> {
        let Some(journal) = &self.journal else {
            return Ok(());
        };
        let before = self.disk.counts();
        let result = match mark {
            true => journal.write_mark(),
            false => journal.write_group(),
        };
        let is_durable = |&position: &u64| journal.is_durable(Position::from_number(position));
        if is_durable(&(self.model.first() - 1)) {
            self.model.found_is_durable();
        } else if matches!(result, Ok(true)) {
            let what = "a group was written before what was found".to_owned();
            return Err(Broken(what));
        }
        let (was, end) = (self.model.durable(), self.model.last_appended());
        let durable = (self.model.first()..=end).rev().find(is_durable);
        notes.done(
            "groups",
            format_args!("durable to {durable:?} of {end}: {result:?}"),
        );
        match (durable, &result) {
            (Some(durable), _) if durable > was => self.model.group_is_durable(durable),
            (_, Ok(true)) => self.model.mark_is_durable(),
            (_, Ok(false)) if was < end && self.model.first() <= end => {
                return Err(Broken(
                    "nothing to write, and not all is durable".to_owned(),
                ));
            }
            _ => {}
        }
        if matches!(result, Ok(true)) {
            self.model.decide();
            self.flipped = None;
        }
        match result {
            Ok(_) => Ok(()),
            Err(error) => {
                if !matches!(error, JournalError::Full { .. }) {
                    self.journal = None;
                }
                self.expect_cause(before, &error)
            }
        }
    }

    fn check(&mut self, notes: &mut Notes) -> Result<(), Broken> {
        let Some(journal) = &self.journal else {
            return Ok(());
        };
        let before = self.disk.counts();
        let owners = self.model.owners();
        if journal.owners() != owners {
            let found = journal.owners();
            return Err(Broken(format!(
                "the owners are {found:x?}, not {owners:x?}"
            )));
        }
        let Some(&owner) = owners.get(self.random.index(owners.len())) else {
            return Ok(());
        };
        notes.done("checks", format_args!("of {owner:x}"));
        match journal.entries(owner) {
            Ok(entries) => self.model.check(owner, &entries),
            Err(error @ JournalError::Io { .. }) => self.expect_cause(before, &error),
            Err(error) => Err(Broken(format!("nothing is damaged, but: {error}"))),
        }
    }

    fn release(&mut self, notes: &mut Notes) {
        let Some(journal) = &self.journal else {
            return;
        };
        let owners = self.model.owners();
        let Some(&owner) = owners.get(self.random.index(owners.len())) else {
            return;
        };
        if self.random.one_in(8) {
            notes.done("forgotten owners", format_args!("{owner:x}"));
            self.model.release(owner, journal.next().get());
            journal.forget(owner);
            return;
        }
        let live: Vec<u64> = self.model.live(owner).collect();
        let before = match live.get(self.random.index(live.len() + 1)) {
            Some(&position) => position,
            None => journal.next().get(),
        };
        notes.done("releases", format_args!("of {owner:x} before {before}"));
        self.model.release(owner, before);
        journal.release(owner, Position::from_number(before));
    }

    fn expect_cause(&self, before: DiskCounts, error: &JournalError) -> Result<(), Broken> {
        if self.disk.counts() == before && !self.disk.is_stopped() {
            return Err(Broken(format!("without a cause: {error}")));
        }
        Ok(())
    }
}

impl Workload for JournalWorkload {
    fn step(&mut self, notes: &mut Notes) -> Result<(), Broken> {
        if self.disk.is_stopped() {
            let crash = self.random.one_in(2);
            return self.boot(crash, notes);
        }
        if self.journal.is_none() {
            // A process that could not open may end, or try again.
            return match self.random.below(6) {
                0 => self.boot(true, notes),
                1 => self.boot(false, notes),
                2 => {
                    self.disk.stop_after(self.random.below(12));
                    self.open(notes)
                }
                _ => self.open(notes),
            };
        }
        match self.random.below(100) {
            0..40 => self.append(notes),
            40..65 => self.write(false, notes),
            65..68 => self.write(true, notes),
            68..74 => self.check(notes),
            74..86 => {
                self.release(notes);
                Ok(())
            }
            86..88 => self.boot(true, notes),
            88..90 => self.boot(false, notes),
            90..94 => {
                self.disk.stop_after(self.random.below(20));
                Ok(())
            }
            94..96 => {
                let blocks = self.random.below(BLOCKS_MAX);
                let limited = self.random.one_in(3);
                self.disk.set_capacity(limited.then_some(blocks * 4096));
                Ok(())
            }
            96..98 => self.damage_open(notes),
            98 => self.open_fenced(notes),
            // It is closed and opened again by the same process.
            _ => {
                self.journal = None;
                self.open(notes)
            }
        }
    }

    fn disk_counts(&self) -> DiskCounts {
        self.disk.counts()
    }
}
