//! What is counted of each database: in its [`Figures`] as long as something in this process has to do with
//! it, in the [`Ledger`] for a while after, and in the sum of those that are gone.

mod histogram;
mod ledger;
mod packed;
mod page;

pub use histogram::{Durations, Histogram};
pub(crate) use ledger::{Ledger, Since};
pub use page::{DatabaseFigures, NodeFigures};

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use wire::pg::Tally;

/// What has been counted of a database, or of all, since the data directory was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Messages that ran statements, each by how long it took from its arrival until its answer was durable:
    /// the wait for a process, a wake and the wait for the disk included.
    pub durations: Durations,
    /// Statements that came to their end; several may come in one message.
    pub statements: u64,
    /// Those that ended with an error.
    pub errors: u64,
    /// Rows returned or changed.
    pub rows: u64,
    /// Bytes of clients' messages.
    pub bytes_in: u64,
    /// Bytes of the answers.
    pub bytes_out: u64,
    /// Bytes of WAL, as far as was seen after statements.
    pub wal_bytes: u64,
    /// Messages that waited because other sessions had all processes.
    pub waits: u64,
    /// How long these waited in all, in microseconds.
    pub wait_micros: u64,
    /// How often it woke.
    pub wakes: u32,
    /// How often it fell asleep.
    pub sleeps: u32,
    /// Answers that were taken from the cache.
    pub cache_hits: u64,
    /// Those that were not in it.
    pub cache_misses: u64,
    /// Answers that the client had already.
    pub not_modified: u64,
}

/// What became of a question for an answer that was made before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// The cache had it.
    Hit,
    /// It had not.
    Miss,
    /// The client has it.
    NotModified,
}

impl Counts {
    /// Adds those of another database.
    pub(crate) fn add(&mut self, other: &Self) {
        self.durations.add(&other.durations);
        self.statements += other.statements;
        self.errors += other.errors;
        self.rows += other.rows;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.wal_bytes += other.wal_bytes;
        self.waits += other.waits;
        self.wait_micros += other.wait_micros;
        self.wakes = self.wakes.saturating_add(other.wakes);
        self.sleeps = self.sleeps.saturating_add(other.sleeps);
        self.cache_hits += other.cache_hits;
        self.cache_misses += other.cache_misses;
        self.not_modified += other.not_modified;
    }
}

/// The same, counted from many threads.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    durations: Histogram,
    statements: AtomicU64,
    errors: AtomicU64,
    rows: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    wal_bytes: AtomicU64,
    waits: AtomicU64,
    wait_micros: AtomicU64,
    wakes: AtomicU32,
    sleeps: AtomicU32,
    cache_hits: AtomicU64,
    cache_misses: AtomicU64,
    not_modified: AtomicU64,
    /// When it was last used, as [`Since`] tells it.
    used_at: AtomicU32,
    /// LSN up to which its WAL is counted; 0 for not known.
    wal_seen: AtomicU64,
}

/// An exchange of messages, as it is counted.
#[derive(Debug)]
pub(crate) struct Exchanged<'a> {
    /// What was answered.
    pub(crate) tally: &'a Tally,
    /// Bytes of the client's messages.
    pub(crate) bytes_in: u64,
    /// From the arrival of the messages to the end of the wait for the disk.
    pub(crate) elapsed: Duration,
    /// How long it waited for other sessions, if it did.
    pub(crate) waited: Option<Duration>,
    /// LSN after the last byte of WAL, if a volume is open.
    pub(crate) wal_end: Option<u64>,
    /// When it ended.
    pub(crate) at: u32,
}

impl Figures {
    pub(crate) fn of(counts: &Counts, used_at: u32) -> Self {
        Self {
            durations: Histogram::of(&counts.durations),
            statements: counts.statements.into(),
            errors: counts.errors.into(),
            rows: counts.rows.into(),
            bytes_in: counts.bytes_in.into(),
            bytes_out: counts.bytes_out.into(),
            wal_bytes: counts.wal_bytes.into(),
            waits: counts.waits.into(),
            wait_micros: counts.wait_micros.into(),
            wakes: counts.wakes.into(),
            sleeps: counts.sleeps.into(),
            cache_hits: counts.cache_hits.into(),
            cache_misses: counts.cache_misses.into(),
            not_modified: counts.not_modified.into(),
            used_at: used_at.into(),
            wal_seen: AtomicU64::new(0),
        }
    }

    pub(crate) fn get(&self) -> Counts {
        let number = |of: &AtomicU64| of.load(Ordering::Relaxed);
        Counts {
            durations: self.durations.get(),
            statements: number(&self.statements),
            errors: number(&self.errors),
            rows: number(&self.rows),
            bytes_in: number(&self.bytes_in),
            bytes_out: number(&self.bytes_out),
            wal_bytes: number(&self.wal_bytes),
            waits: number(&self.waits),
            wait_micros: number(&self.wait_micros),
            wakes: self.wakes.load(Ordering::Relaxed),
            sleeps: self.sleeps.load(Ordering::Relaxed),
            cache_hits: number(&self.cache_hits),
            cache_misses: number(&self.cache_misses),
            not_modified: number(&self.not_modified),
        }
    }

    pub(crate) fn used_at(&self) -> u32 {
        self.used_at.load(Ordering::Relaxed)
    }

    /// Counts an exchange. What is zero touches no memory that threads share.
    pub(crate) fn exchanged(&self, done: &Exchanged<'_>) {
        let add = |to: &AtomicU64, number: u64| {
            if number > 0 {
                to.fetch_add(number, Ordering::Relaxed);
            }
        };
        if done.tally.statements > 0 {
            self.durations.took(done.elapsed);
        }
        add(&self.statements, done.tally.statements);
        add(&self.errors, done.tally.errors);
        add(&self.rows, done.tally.rows);
        add(&self.bytes_in, done.bytes_in);
        add(&self.bytes_out, done.tally.bytes);
        if let Some(waited) = done.waited {
            add(&self.waits, 1);
            add(&self.wait_micros, waited.as_micros() as u64);
        }
        if let Some(end) = done.wal_end {
            self.wal_at(end);
        }
        if self.used_at() != done.at {
            self.used_at.store(done.at, Ordering::Relaxed);
        }
    }

    /// Somebody asked for an answer that was made before.
    pub(crate) fn reused(&self, reuse: Reuse, at: u32) {
        let count = match reuse {
            Reuse::Hit => &self.cache_hits,
            Reuse::Miss => &self.cache_misses,
            Reuse::NotModified => &self.not_modified,
        };
        count.fetch_add(1, Ordering::Relaxed);
        if self.used_at() != at {
            self.used_at.store(at, Ordering::Relaxed);
        }
    }

    /// The database woke, with its WAL up to here.
    pub(crate) fn woke(&self, wal_end: u64, at: u32) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
        self.wal_seen.fetch_max(wal_end, Ordering::Relaxed);
        self.used_at.store(at, Ordering::Relaxed);
    }

    /// The database fell asleep, with its WAL up to here.
    pub(crate) fn slept(&self, wal_end: u64) {
        self.sleeps.fetch_add(1, Ordering::Relaxed);
        self.wal_at(wal_end);
    }

    /// Counts the WAL up to here, once.
    fn wal_at(&self, end: u64) {
        if self.wal_seen.load(Ordering::Relaxed) >= end {
            return;
        }
        let seen = self.wal_seen.fetch_max(end, Ordering::Relaxed);
        if seen > 0 && end > seen {
            self.wal_bytes.fetch_add(end - seen, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wal_is_counted_once() {
        let figures = Figures::default();
        figures.woke(1_000, 1);
        for end in [1_000, 1_500, 1_200, 1_500, 1_600] {
            figures.wal_at(end);
        }
        assert_eq!(figures.get().wal_bytes, 600);
        // As it was, it goes on.
        let again = Figures::of(&figures.get(), figures.used_at());
        again.woke(9_000, 2);
        again.slept(9_100);
        let counts = again.get();
        assert_eq!((counts.wal_bytes, counts.wakes, counts.sleeps), (700, 2, 1));
    }
}
