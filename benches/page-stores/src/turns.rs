//! What one store does in one turn, in a process of its own: so that memory, descriptors, threads and
//! bytes written are its own, and nothing it does in the background outlives its turn.

mod hot;
mod many;
mod steady;

pub(crate) use steady::Set;

use crate::{
    crash,
    figures::Figures,
    itself, rot,
    sizes::Sizes,
    stores::{Candidate, Result},
};
use std::{fmt, path::Path};

/// A kind of turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Turn {
    /// Fills the one large database.
    FillLarge,
    /// Makes many small databases.
    Make,
    /// Opens the store with many databases and reads one page of one.
    Start,
    /// Reads a page of every database, then lets all of them sleep.
    Touch,
    /// Removes half of the databases.
    Remove,
    /// Runs what the engine has for giving space back.
    Tidy,
    /// Reads and writes one large database.
    Large,
    /// Reads and writes many small databases, one after the other.
    Many,
    /// Overwrites the same pages again and again.
    Hot,
    /// Forks the large database.
    Fork,
    /// Writes until it is killed.
    CrashWrite,
    /// Looks at what a killed writer left.
    CrashCheck,
    /// Writes what then rots.
    RotFill,
    /// Reads what has rotted.
    RotCheck,
}

impl Turn {
    const ALL: [Self; 14] = [
        Self::FillLarge,
        Self::Make,
        Self::Start,
        Self::Touch,
        Self::Remove,
        Self::Tidy,
        Self::Large,
        Self::Many,
        Self::Hot,
        Self::Fork,
        Self::CrashWrite,
        Self::CrashCheck,
        Self::RotFill,
        Self::RotCheck,
    ];

    pub(crate) fn named(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|turn| turn.to_string() == name);
        found.ok_or_else(|| format!("no turn is called {name}").into())
    }

    /// Takes the turn. `number` is what it needs to be told: a running number, or a sequence.
    pub(crate) fn take(
        self,
        candidate: Candidate,
        directory: &Path,
        sizes: &Sizes,
        number: u64,
    ) -> Result<Figures> {
        itself::raise_descriptors()?;
        match self {
            Self::FillLarge => steady::fill_large(candidate, directory, sizes),
            Self::Make => many::make(candidate, directory, sizes),
            Self::Start => many::start(candidate, directory, sizes),
            Self::Touch => many::touch(candidate, directory, sizes),
            Self::Remove => many::remove(candidate, directory, sizes),
            Self::Tidy => many::tidy(candidate, directory),
            Self::Large => steady::steady(candidate, directory, sizes, Set::Large, number),
            Self::Many => steady::steady(candidate, directory, sizes, Set::Many, number),
            Self::Hot => hot::hot(candidate, directory, sizes),
            Self::Fork => steady::fork(candidate, directory, number),
            Self::CrashWrite => crash::write(candidate, directory, number),
            Self::CrashCheck => crash::check(candidate, directory, number),
            Self::RotFill => rot::write(candidate, directory),
            Self::RotCheck => rot::check(candidate, directory),
        }
    }
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
