//! Moments at which a server is killed.

use std::fmt;

/// What the server is doing when it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It starts: it has not said yet where it listens.
    Startup,
    /// It listens, and its databases are being opened after the last kill.
    Recovery,
    /// The first database has just answered.
    FirstWake,
    /// Every kind of work is under way.
    Load,
    /// Many rows, an index, a checkpoint or a VACUUM has just been asked for.
    Bulk,
    /// A database's creation, fork, renaming or dropping has just been asked for.
    Directory,
    /// Nobody asks for anything, and the first databases go to sleep.
    Hibernating,
    /// Every database sleeps.
    Asleep,
    /// It was asked to stop.
    Stop,
}

impl Phase {
    /// Every one.
    pub const ALL: [Self; 9] = [
        Self::Startup,
        Self::Recovery,
        Self::FirstWake,
        Self::Load,
        Self::Bulk,
        Self::Directory,
        Self::Hibernating,
        Self::Asleep,
        Self::Stop,
    ];

    /// Whether the checks of a restart come first.
    pub fn is_after_checks(self) -> bool {
        !matches!(self, Self::Startup | Self::Recovery | Self::FirstWake)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Startup => "startup",
            Self::Recovery => "recovery",
            Self::FirstWake => "first wake",
            Self::Load => "load",
            Self::Bulk => "bulk",
            Self::Directory => "directory",
            Self::Hibernating => "hibernating",
            Self::Asleep => "asleep",
            Self::Stop => "stop",
        })
    }
}
