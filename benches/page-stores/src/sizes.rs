//! How much of everything.

use std::time::Duration;

/// Pages of each of the many databases.
pub(crate) const SMALL_PAGES: u32 = 50;

/// Pages in one batch, in the steady turns.
pub(crate) const BATCHES: [usize; 3] = [1, 32, 512];

/// Pages that are overwritten again and again, and how many of them at once.
pub(crate) const HOT_PAGES: u32 = 2_000;
pub(crate) const HOT_BATCH: usize = 100;

/// The sizes of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Rounds of reading and writing in steady state, at most.
    pub(crate) steady_rounds: usize,
    /// Rounds of making, starting, touching and removing many databases, at most.
    pub(crate) many_rounds: usize,
    /// Rounds of overwriting, at most.
    pub(crate) hot_rounds: usize,
    /// No round of a kind begins later than this after the first of that kind; disks differ.
    pub(crate) rounds_limit: Duration,
    /// How often the hot pages are overwritten in a round.
    pub(crate) hot_passes: usize,
    /// Time for each kind of batch, and for reads, in a steady turn.
    pub(crate) slice: Duration,
    /// Pages of the one large database.
    pub(crate) large_pages: u32,
    /// How many databases are many.
    pub(crate) databases: u64,
    /// Processes killed while they write, for each store.
    pub(crate) kills: usize,
    /// Bits flipped, for each store.
    pub(crate) flips: usize,
}

impl Sizes {
    pub(crate) const FULL: Self = Self {
        steady_rounds: 5,
        many_rounds: 3,
        hot_rounds: 2,
        rounds_limit: Duration::from_secs(140),
        hot_passes: 50,
        slice: Duration::from_millis(250),
        large_pages: 32_768,
        databases: 1_000,
        kills: 30,
        flips: 24,
    };

    /// For a look, not for figures to repeat.
    pub(crate) const QUICK: Self = Self {
        steady_rounds: 2,
        many_rounds: 1,
        hot_rounds: 1,
        rounds_limit: Duration::from_secs(20),
        hot_passes: 10,
        slice: Duration::from_millis(80),
        large_pages: 4_096,
        databases: 100,
        kills: 5,
        flips: 8,
    };
}
