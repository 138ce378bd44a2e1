//! Volumes of several databases, with the node's journal, on a faulty disk.
//!
//! Checked: an opened volume shows exactly one state that is possible, which is the last acknowledged
//! version, or one whose flush did not end, and over it a prefix of the log that was synced since, with
//! everything acknowledged in it; forks and parents go their own ways; a flipped bit is refused by the
//! name of its file, never served; a failed flush leaves the version before; a full disk or volume
//! refuses, and with room again all goes on; removed databases leave nothing; free room is bounded;
//! nothing fails without a cause.

mod check;
mod damage;
mod database;
mod files;
mod log;
mod model;
mod names;
mod process;
mod removal;
mod sharing;
mod template;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::volume::{LayerId, VolumeError};
use store::{Disk, Journal, JournalError, JournalOptions, Position};

use crate::disk::{DiskCounts, Faults, FaultyDisk};
use crate::history::Notes;
use crate::random::Random;
use crate::workload::{Broken, Workload};
use database::Database;
use process::Process;

const JOURNAL: &str = "/data/journal";
const VOLUMES: &str = "/data/volumes";
const TEMPLATE: &str = "/data/template";
/// Few, so that they are shared often.
const DATABASES_MAX: usize = 5;
/// A disk that is sometimes too small, in blocks of 4,096 bytes.
const BLOCKS_MAX: u64 = 4_000;

pub(crate) struct VolumeWorkload {
    disk: Arc<FaultyDisk>,
    random: Random,
    faults: Faults,
    options: JournalOptions,
    generation: u64,
    process: Option<Process>,
    /// The directory of databases, which forgets nothing.
    databases: BTreeMap<u64, Database>,
    /// Databases that were removed, whose files are gone for good.
    gone: BTreeSet<u64>,
    /// Layers that nothing is over any more and whose files are to be removed.
    unused: BTreeSet<LayerId>,
    /// There may be files of databases that are not in the directory.
    unswept: bool,
    next_id: u64,
    starts_failed: u32,
    /// Databases are shared again and again, until layers are merged for want of depth.
    shares_often: bool,
    /// The power and the process stay mostly on.
    is_calm: bool,
}

impl VolumeWorkload {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let disk = Arc::new(FaultyDisk::new(random.bits(), Faults::default()));
        for path in [VOLUMES, TEMPLATE] {
            disk.create_directory(Path::new(path))
                .expect("BUG: a disk without faults fails");
        }
        template::put(&disk).expect("BUG: a disk without faults fails");
        for path in ["/", "/data"] {
            disk.sync_directory(Path::new(path))
                .expect("BUG: a disk without faults fails");
        }
        let faults = Faults::of_history(&mut random);
        disk.set_faults(faults.clone());
        let (shares_often, is_calm) = (random.one_in(4), random.one_in(2));
        let options = JournalOptions {
            segment_bytes: *random.pick(&[64 << 10, 256 << 10, 1 << 20]),
            reserve_segments: random.index(3),
            unsynced_entries_max: 1_000,
            sync_interval: Duration::from_secs(1),
            ..JournalOptions::default()
        };
        Self {
            disk,
            random,
            faults,
            options,
            generation: 0,
            process: None,
            databases: BTreeMap::new(),
            gone: BTreeSet::new(),
            unused: BTreeSet::new(),
            unswept: true,
            next_id: 1,
            starts_failed: 0,
            shares_often,
            is_calm,
        }
    }

    /// Does something with one database, which is open then.
    fn with_open(
        &mut self,
        notes: &mut Notes,
        act: impl FnOnce(&mut Self, &mut Database, &mut Notes) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        let ids: Vec<u64> = self.databases.keys().copied().collect();
        let Some(id) = ids.get(self.random.index(ids.len())) else {
            return self.create(notes);
        };
        let Some(mut database) = self.databases.remove(id) else {
            return Ok(());
        };
        let mut result = Ok(());
        if database.open.is_none() {
            result = self.open(&mut database, notes);
        }
        if result.is_ok() && database.open.is_some() {
            result = act(self, &mut database, notes);
        }
        self.databases.insert(*id, database);
        result
    }

    /// One group of the journal is written: what is durable now is acknowledged.
    fn write_group(&mut self, notes: &mut Notes) -> Result<(), Broken> {
        let Some(journal) = self.journal() else {
            return Ok(());
        };
        let before = self.disk.counts();
        let result = match self.random.one_in(8) {
            true => journal.write_mark(),
            false => journal.write_group(),
        };
        notes.done("groups", format_args!("{result:?}"));
        self.acknowledge(&journal);
        match result {
            Ok(_) => Ok(()),
            Err(error @ JournalError::Full { .. }) => self.expect_cause(before, &error),
            Err(error) => {
                self.expect_cause(before, &error)?;
                // It is broken for good: whoever would commit cannot, and the process ends.
                let crash = self.random.one_in(2);
                self.boot(crash, notes)
            }
        }
    }

    /// What a backend would answer now is known outside.
    fn acknowledge(&mut self, journal: &Journal) {
        for database in self.databases.values_mut().filter(|one| one.was_opened) {
            let durable = database
                .model
                .unacknowledged()
                .rev()
                .find(|position| journal.is_durable(Position::from_number(*position)));
            if let Some(position) = durable {
                database.model.acknowledge(position);
            }
        }
    }

    fn journal(&self) -> Option<Journal> {
        Some(self.process.as_ref()?.journal.clone())
    }

    /// Whether something may be refused with this error. `before` is from before it was asked for.
    fn refused(
        &self,
        database: &mut Database,
        before: DiskCounts,
        error: &VolumeError,
    ) -> Result<(), Broken> {
        if self.disk.is_stopped() {
            return Ok(());
        }
        let id = database.id;
        let without_cause = || Err(Broken(format!("database {id}, without a cause: {error}")));
        match error {
            VolumeError::Io { .. } | VolumeError::Journal(JournalError::Io { .. }) => {
                self.expect_cause(before, error)
            }
            VolumeError::DiskFull { .. } => {
                let is_full = self.journal().is_some_and(|journal| journal.is_full());
                match is_full || self.disk.counts().full > before.full {
                    true => Ok(()),
                    false => without_cause(),
                }
            }
            VolumeError::FlushFailed {
                must_reopen,
                source,
                ..
            } => {
                database.broken |= must_reopen;
                self.refused(database, before, source)
            }
            VolumeError::Broken(_) if database.torn || database.broken => Ok(()),
            // What a failed write or sync left, of which no version tells.
            VolumeError::Corrupt { path, .. }
                if (database.torn || database.broken) && database.owns(path) =>
            {
                Ok(())
            }
            VolumeError::NoSpace {
                limit: "volume.bytes_max",
                max,
            } if database.bytes_max == Some(*max) => Ok(()),
            _ => without_cause(),
        }
    }

    fn expect_cause(
        &self,
        before: DiskCounts,
        error: &dyn std::error::Error,
    ) -> Result<(), Broken> {
        self.expect(
            self.disk.counts() != before || self.disk.is_stopped(),
            || format!("without a cause: {error}"),
        )
    }

    fn expect(&self, holds: bool, what: impl FnOnce() -> String) -> Result<(), Broken> {
        match holds {
            true => Ok(()),
            false => Err(Broken(what())),
        }
    }

    fn change_capacity(&mut self, notes: &mut Notes) {
        let blocks = self.random.below(BLOCKS_MAX);
        let limited = self.random.one_in(3).then_some(blocks * 4096);
        notes.done("changes of capacity", format_args!("{limited:?}"));
        self.disk.set_capacity(limited);
    }
}

impl Workload for VolumeWorkload {
    fn step(&mut self, notes: &mut Notes) -> Result<(), Broken> {
        if self.disk.is_stopped() {
            let crash = self.random.one_in(2);
            return self.boot(crash, notes);
        }
        if self.process.is_none() {
            // A process that could not start may end, or try again.
            return match self.random.below(8) {
                0 => self.boot(true, notes),
                1 => self.boot(false, notes),
                2 => {
                    self.disk.stop_after(self.random.below(16));
                    self.start(notes)
                }
                _ => self.start(notes),
            };
        }
        self.tidy(notes)?;
        let ends_max = if self.is_calm && !self.random.one_in(6) {
            172
        } else {
            200
        };
        match self.random.below(ends_max) {
            0..60 => self.with_open(notes, Self::change_file),
            60..106 => self.with_open(notes, Self::append_log),
            106..126 => self.write_group(notes),
            126..149 if self.shares_often => self.fork(notes),
            126..142 => self.with_open(notes, Self::flush),
            142..147 => self.fork(notes),
            147..149 => self.with_open(notes, Self::merge),
            149..152 => self.remove_one(notes),
            152..159 => self.with_open(notes, Self::close),
            159..166 => self.with_open(notes, Self::read_back),
            166..170 => self.with_open(notes, Self::limit),
            170..172 => self.create(notes),
            172..178 => self.damage(notes),
            178..182 => {
                self.change_capacity(notes);
                Ok(())
            }
            182..184 => self.open_fenced(notes),
            184 => self.remove_all(notes),
            185..188 => self.boot(true, notes),
            188..191 => self.boot(false, notes),
            _ => {
                self.disk.stop_after(self.random.below(30));
                Ok(())
            }
        }
    }

    fn disk_counts(&self) -> DiskCounts {
        self.disk.counts()
    }
}
