//! What a run is to do.

use std::path::PathBuf;
use std::time::Duration;

/// A run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server's program.
    pub dormouse: PathBuf,
    /// The folder with `postgres` and `initdb` of the same major version.
    pub postgres: PathBuf,
    /// Where data, logs and differences go.
    pub folder: PathBuf,
    /// The first program's seed; those after it have the next ones.
    pub seed: u64,
    /// End after so long.
    pub time: Duration,
    /// End after so many programs.
    pub programs: u64,
    /// Processes of each database.
    pub processes_max: usize,
    /// Most runs to make a program smaller.
    pub shrink_runs: usize,
    /// End after so many differences.
    pub differences_max: usize,
}
