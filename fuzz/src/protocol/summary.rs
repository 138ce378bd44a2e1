//! What a run did.

use std::fmt;

use super::play::Outcome;

/// Counts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Summary {
    /// Rounds.
    pub rounds: u64,
    /// Stories that came to their end.
    pub played: u64,
    /// Stories without a session.
    pub not_in: u64,
    /// Stories whose session was ended.
    pub ended: u64,
    /// Looks of well-behaved clients that were right.
    pub looks: u64,
    /// Looks that others kept from a process.
    pub busy: u64,
    /// The most memory of the server.
    pub memory_bytes: u64,
    /// What should not have happened.
    pub failures: usize,
}

impl Summary {
    /// One more story.
    pub fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Played => self.played += 1,
            Outcome::NotIn => self.not_in += 1,
            Outcome::Ended => self.ended += 1,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} rounds: stories {} played, {} without a session, {} ended; looks {} right, {} busy; \
             {} MiB at most; {} failures",
            self.rounds,
            self.played,
            self.not_in,
            self.ended,
            self.looks,
            self.busy,
            self.memory_bytes >> 20,
            self.failures
        )
    }
}
