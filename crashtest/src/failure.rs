//! How a run fails.

use std::fmt;
use std::path::PathBuf;

use crate::phase::Phase;

/// Why a run did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The server broke a promise.
    #[error(transparent)]
    Broken(Box<Broken>),
    /// The test itself could not go on.
    #[error("{0}")]
    Environment(String),
}

/// A broken promise.
#[derive(Debug, thiserror::Error)]
pub struct Broken {
    /// The run's seed.
    pub seed: u64,
    /// How many kills there had been.
    pub kills: u64,
    /// The phase of the last of them.
    pub phase: Option<Phase>,
    /// The database, if it is about one.
    pub database: Option<String>,
    /// What is missing, or wrong.
    pub what: String,
    /// Where the data directory and the logs are.
    pub folder: PathBuf,
}

impl fmt::Display for Broken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "a promise is broken")?;
        write!(
            formatter,
            "seed:     {}\nkill:     {}",
            self.seed, self.kills
        )?;
        if let Some(phase) = self.phase {
            write!(formatter, " (phase: {phase})")?;
        }
        if let Some(database) = &self.database {
            write!(formatter, "\ndatabase: {database}")?;
        }
        write!(
            formatter,
            "\nwhat:     {}\nkept:     {}",
            self.what,
            self.folder.display()
        )
    }
}
