//! Workloads: what is done on the disk, a small model of what must be there, and the checks.

mod disk_names;
mod journal;
mod volume;

use std::fmt;

use clap::ValueEnum;

use crate::disk::DiskCounts;
use crate::history::Notes;
use disk_names::DiskNames;
use journal::JournalWorkload;
use volume::VolumeWorkload;

/// A broken promise, in words.
#[derive(Debug)]
pub(crate) struct Broken(pub(crate) String);

/// Something that goes on step by step and checks itself.
pub(crate) trait Workload {
    /// Does the next thing.
    ///
    /// # Errors
    /// The promise that was found broken.
    fn step(&mut self, notes: &mut Notes) -> Result<(), Broken>;

    /// What happened to the disk so far.
    fn disk_counts(&self) -> DiskCounts;
}

/// Which workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WorkloadKind {
    /// Sealed files are written, read and removed.
    DiskNames,
    /// Databases append to the node's journal.
    Journal,
    /// Volumes are written, flushed, shared and removed, with the journal.
    Volume,
}

impl WorkloadKind {
    /// Every workload.
    pub const ALL: [Self; 3] = [Self::DiskNames, Self::Journal, Self::Volume];

    pub(crate) fn start(self, seed: u64) -> Box<dyn Workload> {
        match self {
            Self::DiskNames => Box::new(DiskNames::new(seed)),
            Self::Journal => Box::new(JournalWorkload::new(seed)),
            Self::Volume => Box::new(VolumeWorkload::new(seed)),
        }
    }
}

impl fmt::Display for WorkloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DiskNames => "disk-names",
            Self::Journal => "journal",
            Self::Volume => "volume",
        })
    }
}
