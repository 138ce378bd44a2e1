//! Who reads the log of a database along.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use volume::LogReader;

use super::changes::Changes;
use super::pages::LogPages;
use super::record::Record;

/// Where a tracker begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    /// Tells it from any other of the same database: random.
    pub(crate) epoch: u64,
    /// LSN of the end of the log.
    pub(crate) position: u64,
    /// The first transaction that had no number yet when the log ended there.
    pub(crate) transaction: u32,
}

/// Reads the log of a database along, and knows which commit has changed each file last.
#[derive(Debug)]
pub(crate) struct Tracker {
    epoch: u64,
    reading: Mutex<Reading>,
    is_alive: AtomicBool,
    /// LSN up to which the log was read.
    read_to: AtomicU64,
}

#[derive(Debug)]
struct Reading {
    pages: LogPages,
    changes: Changes,
    record: Vec<u8>,
}

impl Tracker {
    pub(crate) fn new(start: Start) -> Self {
        let reading = Reading {
            pages: LogPages::from(start.position),
            changes: Changes::new(start.transaction, start.position),
            record: Vec::new(),
        };
        Self {
            epoch: start.epoch,
            reading: Mutex::new(reading),
            is_alive: AtomicBool::new(true),
            read_to: AtomicU64::new(start.position),
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether it knows of all that was written.
    pub(crate) fn is_alive(&self) -> bool {
        self.is_alive.load(Ordering::Acquire)
    }

    /// It knows nothing from now on.
    pub(crate) fn end(&self) {
        self.is_alive.store(false, Ordering::Release);
    }

    /// LSN up to which the log was read.
    pub(crate) fn read_to(&self) -> u64 {
        self.read_to.load(Ordering::Acquire)
    }

    /// LSN of the last commit that may have changed the catalog.
    pub(crate) fn catalog(&self) -> Option<u64> {
        self.when_alive(|changes| changes.catalog())
    }

    /// LSN of the last commit that may have changed the catalog or one of `files`.
    pub(crate) fn last(&self, files: &[u32]) -> Option<u64> {
        self.when_alive(|changes| changes.last(files))
    }

    fn when_alive(&self, ask: impl FnOnce(&Changes) -> u64) -> Option<u64> {
        let reading = self.reading.lock();
        self.is_alive().then(|| ask(&reading.changes))
    }

    /// The database sleeps: what can be had again is given back.
    pub(crate) fn rest(&self) {
        let mut reading = self.reading.lock();
        reading.pages.forget_pages();
        reading.record = Vec::new();
    }

    /// Whether it goes on where a backend does that was resumed: the log ends at `position`.
    pub(crate) fn goes_on(&self, position: u64) -> bool {
        self.is_alive() && self.read_to() == position
    }
}

impl LogReader for Tracker {
    fn wrote(&self, lsn: u64, bytes: &[u8], segment_bytes: u64) {
        let mut reading = self.reading.lock();
        if !self.is_alive() {
            return;
        }
        match reading.wrote(lsn, bytes, segment_bytes) {
            Ok(()) => self.read_to.store(reading.pages.next(), Ordering::Release),
            Err(reason) => {
                tracing::debug!(%reason, "the log is read along no more");
                self.end();
            }
        }
    }

    fn named_in_root(&self) {
        // Settings may hold from any moment on.
        self.end();
    }
}

impl Reading {
    fn wrote(&mut self, lsn: u64, bytes: &[u8], segment_bytes: u64) -> Result<(), String> {
        let Self {
            pages,
            changes,
            record,
        } = self;
        let lost = |lost| format!("{lost:?}");
        pages.wrote(lsn, bytes, segment_bytes).map_err(lost)?;
        while let Some(end) = pages.next_record(record).map_err(lost)? {
            let Some(found) = Record::decode(record) else {
                return Err(format!("a record that ends at {end:x} is of no known form"));
            };
            changes
                .read(&found, end)
                .map_err(|_| "too many open transactions".to_owned())?;
        }
        pages.release();
        record.shrink_to(64 << 10);
        Ok(())
    }
}
