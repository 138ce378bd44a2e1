//! What a run is asked for.

use std::path::PathBuf;
use std::time::Duration;

use crate::window::Durability;

/// A run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server's program.
    pub dormouse: PathBuf,
    /// Where the data directory and the logs go; empty, or made.
    pub folder: PathBuf,
    /// When it ends.
    pub until: Until,
    /// Most databases at once, the hall not counted; at least 2.
    pub databases: usize,
    /// Decides everything that the machine's timing does not.
    pub seed: u64,
    /// What the databases promise.
    pub durability: Durability,
    /// After so many restarts every database is checked, not only some.
    pub check_all_every: u64,
    /// How long a database without a session stays awake.
    pub idle: Duration,
    /// Whether the data directory is copied after each kill, so that what a restart found can be
    /// looked at.
    pub evidence: bool,
    /// More variables of the server's environment.
    pub settings: Vec<(String, String)>,
}

/// When a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// After so many kills.
    Kills(u64),
    /// After this time, and the kill that is under way then.
    Elapsed(Duration),
}
