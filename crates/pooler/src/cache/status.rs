//! What became of a query as far as the cache goes, and how often.

use std::sync::atomic::{AtomicU64, Ordering};

/// What became of a query. The names are Hyperdrive's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheStatus {
    /// Nothing is to come from the cache: of the binding, the session or this query.
    Disabled,
    /// It was answered by the cache.
    Hit,
    /// It was asked, and its answer is kept if it can be.
    Miss,
    /// Its answer cannot be kept, for a reason that has no name of its own.
    Uncacheable,
    /// More than one statement in one text.
    MultipleStatements,
    /// It does something else than to read.
    NotAQuery,
    /// Text and parameters are longer than `query_bytes_max`.
    OversizedQuery,
    /// Its answer is longer than `result_bytes_max`.
    OversizedResult,
    /// The parser does not understand it.
    ParseError,
    /// It is part of a transaction.
    Transaction,
    /// Its answer depends on the clock, on chance, or on something that nobody can know.
    Volatile,
}

impl CacheStatus {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Disabled,
        Self::Hit,
        Self::Miss,
        Self::Uncacheable,
        Self::MultipleStatements,
        Self::NotAQuery,
        Self::OversizedQuery,
        Self::OversizedResult,
        Self::ParseError,
        Self::Transaction,
        Self::Volatile,
    ];

    /// As metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Uncacheable => "uncacheable",
            Self::MultipleStatements => "multiplestatements",
            Self::NotAQuery => "notaquery",
            Self::OversizedQuery => "oversizedquery",
            Self::OversizedResult => "oversizedresult",
            Self::ParseError => "parseerror",
            Self::Transaction => "transaction",
            Self::Volatile => "volatile",
        }
    }
}

/// What a pool's cache has counted since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheFigures {
    by_status: [u64; 11],
    /// Bytes of texts and parameters.
    pub query_bytes: u64,
    /// Bytes of answers that the cache gave.
    pub hit_bytes: u64,
    /// Answers that were asked anew while an older one was given.
    pub revalidated: u64,
    /// Queries that another's answer has spared the origin.
    pub shared: u64,
    /// Times that everything was dropped, because nobody could tell what was written.
    pub dropped_all: u64,
}

impl CacheFigures {
    /// Queries with this status.
    pub fn with(&self, status: CacheStatus) -> u64 {
        self.by_status[status as usize]
    }

    /// All queries.
    pub fn queries(&self) -> u64 {
        self.by_status.iter().sum()
    }
}

/// Counts as many threads at once do.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    by_status: [AtomicU64; 11],
    pub(crate) query_bytes: AtomicU64,
    pub(crate) hit_bytes: AtomicU64,
    pub(crate) revalidated: AtomicU64,
    pub(crate) shared: AtomicU64,
    pub(crate) dropped_all: AtomicU64,
}

impl Counters {
    pub(crate) fn count(&self, status: CacheStatus) {
        add(&self.by_status[status as usize], 1);
    }

    pub(crate) fn figures(&self) -> CacheFigures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheFigures {
            by_status: std::array::from_fn(|at| read(&self.by_status[at])),
            query_bytes: read(&self.query_bytes),
            hit_bytes: read(&self.hit_bytes),
            revalidated: read(&self.revalidated),
            shared: read(&self.shared),
            dropped_all: read(&self.dropped_all),
        }
    }
}

pub(crate) fn add(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}
