//! What can go wrong on a disk, how often, and how often it did.

use std::fmt;

use crate::disk::names::NameSurvival;
use crate::random::Random;

/// How often each call fails, in so many of a million, and how the disk is made. The default is a
/// disk on which nothing fails but the power.
#[derive(Debug, Clone)]
pub struct Faults {
    /// Syncs of a file's data that fail.
    pub sync_per_million: u32,
    /// Syncs of a directory that fail.
    pub sync_directory_per_million: u32,
    /// Writes that fail after some of their bytes were written.
    pub write_per_million: u32,
    /// Reads that fail.
    pub read_per_million: u32,
    /// Calls that make, move or remove a name, or open a file, and fail without doing it.
    pub name_per_million: u32,
    /// Whether a failed sync of a directory forgets what it was to sync, as that of a file does.
    /// File systems with a journal stop instead, so that no later sync succeeds: off in histories.
    pub directories_forget: bool,
    /// How unsynced names survive a power failure.
    pub names_survive: NameSurvival,
    /// Whether the file system reserves and gives back room ([`store::DiskFile::allocate`],
    /// [`store::DiskFile::punch`]), or ignores these calls.
    pub reserves_room: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            sync_per_million: 0,
            sync_directory_per_million: 0,
            write_per_million: 0,
            read_per_million: 0,
            name_per_million: 0,
            directories_forget: false,
            names_survive: NameSurvival::Prefix,
            reserves_room: true,
        }
    }
}

impl Faults {
    /// Faults of one history: a third of all disks never fail, the others seldom or often.
    pub fn of_history(random: &mut Random) -> Self {
        let level = *random.pick(&[0, 1_000, 20_000]);
        let mut some = || *random.pick(&[0, level]);
        Self {
            sync_per_million: some(),
            sync_directory_per_million: some(),
            write_per_million: some(),
            // A boot reads a lot, and is over at the first that fails.
            read_per_million: some() / 10,
            name_per_million: some(),
            directories_forget: false,
            names_survive: *random.pick(&[
                NameSurvival::Prefix,
                NameSurvival::Prefix,
                NameSurvival::Subset,
            ]),
            reserves_room: !random.one_in(4),
        }
    }
}

/// A kind of call that can be told to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A sync of a file's data.
    Sync,
    /// A sync of a directory.
    SyncDirectory,
    /// A write, after some of its bytes.
    Write,
    /// A read.
    Read,
    /// A call that opens a file, or makes, moves or removes a name.
    Name,
}

/// What happened to a disk so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskCounts {
    /// Power failures.
    pub crashes: u64,
    /// Processes that were killed.
    pub kills: u64,
    /// Syncs of files that failed.
    pub syncs_failed: u64,
    /// Syncs of directories that failed.
    pub directory_syncs_failed: u64,
    /// Writes that failed in their middle.
    pub writes_failed: u64,
    /// Reads that failed.
    pub reads_failed: u64,
    /// Calls about names that failed.
    pub names_failed: u64,
    /// Calls that found the disk full.
    pub full: u64,
    /// Bits flipped.
    pub bits_flipped: u64,
    /// Sectors that a power failure left in an older version.
    pub sectors_lost: u64,
    /// Sectors that a power failure left as zeros or garbage.
    pub sectors_torn: u64,
    /// Changes of names that a power failure lost.
    pub names_lost: u64,
}

impl DiskCounts {
    fn fields(&mut self) -> [(&'static str, &mut u64); 12] {
        [
            ("crashes", &mut self.crashes),
            ("kills", &mut self.kills),
            ("failed syncs", &mut self.syncs_failed),
            ("failed directory syncs", &mut self.directory_syncs_failed),
            ("failed writes", &mut self.writes_failed),
            ("failed reads", &mut self.reads_failed),
            ("failed name calls", &mut self.names_failed),
            ("disk full", &mut self.full),
            ("flipped bits", &mut self.bits_flipped),
            ("lost sectors", &mut self.sectors_lost),
            ("torn sectors", &mut self.sectors_torn),
            ("lost names", &mut self.names_lost),
        ]
    }

    /// Adds what happened to another disk.
    pub fn add(&mut self, mut other: Self) {
        for ((_, sum), (_, more)) in self.fields().into_iter().zip(other.fields()) {
            *sum += *more;
        }
    }
}

impl fmt::Display for DiskCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts = *self;
        for (at, (name, count)) in counts.fields().into_iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{count} {name}")?;
        }
        Ok(())
    }
}
