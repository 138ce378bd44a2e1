//! What clients count.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that many clients raise.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What was acknowledged and checked, over all databases.
#[derive(Debug, Default)]
pub struct Counters {
    /// Transactions whose commit was answered.
    pub commits: Counter,
    /// Transactions that were rolled back.
    pub rollbacks: Counter,
    /// Settings altered by ALTER SYSTEM.
    pub settings: Counter,
    /// VACUUMs, CHECKPOINTs and REINDEXes.
    pub upkeep: Counter,
    /// Databases made from the template.
    pub created: Counter,
    /// Databases forked from another.
    pub forked: Counter,
    /// Databases renamed.
    pub renamed: Counter,
    /// Databases dropped.
    pub dropped: Counter,
    /// Databases checked from end to end.
    pub checks: Counter,
    /// Databases whose number of transactions was checked after a kill.
    pub counted: Counter,
    /// Transactions, and statements about databases, that a kill left in doubt.
    pub in_doubt: Counter,
    /// Those of them that turned out to have happened.
    pub in_doubt_done: Counter,
}
