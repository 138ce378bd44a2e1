//! What a run is to do.

use std::path::PathBuf;
use std::time::Duration;

/// When it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// After so many rounds.
    Rounds(u64),
    /// With the first round that ends after so long.
    Elapsed(Duration),
}

/// A run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server's program.
    pub dormouse: PathBuf,
    /// Where data, logs and failures go.
    pub folder: PathBuf,
    /// Decides everything but the machine's timing.
    pub seed: u64,
    /// The first round, counted from 0: a round is the same whatever was before it.
    pub first_round: u64,
    /// When it ends.
    pub until: Until,
    /// Play this one story alone in place of rounds.
    pub story: Option<u64>,
    /// Connections at once.
    pub connections: usize,
    /// Databases.
    pub databases: usize,
    /// Processes of each.
    pub processes_max: usize,
    /// Stories of a connection in a round.
    pub stories: usize,
    /// The longest silence before an answer.
    pub patience: Duration,
    /// The most memory that the server may have.
    pub memory_bytes_max: u64,
    /// A simple query may come amid an extended one, without a `Sync` before it: PostgreSQL 18 itself leaves its
    /// transaction open then.
    pub mixed_queries: bool,
    /// More variables of the server's environment.
    pub settings: Vec<(String, String)>,
    /// End after so many failures.
    pub failures_max: usize,
}
