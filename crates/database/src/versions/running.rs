//! The exchanges that are under way in a database, and how far what they have told of reaches.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Tracker;
use crate::database::Database;

/// The exchanges of a database.
#[derive(Debug, Default)]
pub(crate) struct Running {
    exchanges: Mutex<Vec<Entry>>,
    next: AtomicU64,
    /// LSN that no commit that was told of lies behind, as far as there was a tracker.
    told: AtomicU64,
    /// Who reads the log along, if somebody does.
    tracker: Mutex<Weak<Tracker>>,
    /// Of the settings files that the backend started with.
    settings_hash: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    /// Up to where the log was read when it began; 0 if nobody read it.
    began: u64,
    /// Something of its answer has left before its end.
    has_told: Arc<AtomicBool>,
}

/// An exchange that is under way. If it is dropped before its end, nobody knows what it has told.
pub(crate) struct Exchange {
    database: Arc<Database>,
    id: u64,
    has_told: Arc<AtomicBool>,
    is_done: bool,
}

impl Running {
    /// Whether an exchange that is under way may have made the commit at `commit`, which is in the log before
    /// others see it.
    pub(crate) fn may_have_made(&self, commit: u64) -> bool {
        let exchanges = self.exchanges.lock();
        exchanges.iter().any(|exchange| exchange.began < commit)
    }

    /// LSN that no commit that was told of lies behind; `None` if an exchange that is under way has told of some.
    pub(crate) fn told(&self) -> Option<u64> {
        let exchanges = self.exchanges.lock();
        let telling = exchanges
            .iter()
            .any(|exchange| exchange.has_told.load(Ordering::Acquire));
        (!telling).then(|| self.told.load(Ordering::Acquire))
    }

    /// No commit lies behind the end of the log, which is at `position`.
    pub(crate) fn tell(&self, position: u64) {
        self.told.fetch_max(position, Ordering::AcqRel);
    }

    /// Who reads the log along, if somebody does.
    pub(crate) fn tracker(&self) -> Option<Arc<Tracker>> {
        let tracker = self.tracker.lock().upgrade();
        tracker.filter(|tracker| tracker.is_alive())
    }

    /// From now on this one reads the log along.
    pub(crate) fn watch(&self, tracker: &Arc<Tracker>) {
        *self.tracker.lock() = Arc::downgrade(tracker);
    }

    /// Nobody reads the log along any more, as the backend goes in good order: who did.
    pub(crate) fn unwatch(&self) -> Option<Arc<Tracker>> {
        let tracker = std::mem::take(&mut *self.tracker.lock()).upgrade();
        // The next backend begins with all of the log told.
        self.told.store(0, Ordering::Release);
        tracker.filter(|tracker| tracker.is_alive())
    }

    /// Nobody knows any more what was changed.
    pub(crate) fn end_tracker(&self) {
        if let Some(tracker) = self.unwatch() {
            tracker.end();
        }
    }

    /// A backend started with these settings files.
    pub(crate) fn set_settings_hash(&self, hash: u64) {
        self.settings_hash.store(hash, Ordering::Release);
    }

    pub(crate) fn settings_hash(&self) -> u64 {
        self.settings_hash.load(Ordering::Acquire)
    }
}

impl Exchange {
    pub(crate) fn begin(database: &Arc<Database>) -> Self {
        let running = &database.running;
        let exchange = Self {
            database: Arc::clone(database),
            id: running.next.fetch_add(1, Ordering::Relaxed),
            has_told: Arc::default(),
            is_done: false,
        };
        let mut exchanges = running.exchanges.lock();
        exchanges.push(Entry {
            id: exchange.id,
            began: running.tracker().map_or(0, |tracker| tracker.read_to()),
            has_told: Arc::clone(&exchange.has_told),
        });
        drop(exchanges);
        exchange
    }

    /// What is to be set before something of its answer leaves.
    pub(crate) fn has_told(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.has_told)
    }

    /// Who is to be told of it; `None` if nobody reads the log along.
    pub(crate) fn tracker(&self) -> Option<Arc<Tracker>> {
        self.database.running.tracker()
    }

    /// It is over: no commit of it lies behind `position`.
    pub(crate) fn end(mut self, position: u64) {
        self.database.running.tell(position);
        self.is_done = true;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.is_done {
            self.database.running.end_tracker();
        }
        let mut exchanges = self.database.running.exchanges.lock();
        exchanges.retain(|exchange| exchange.id != self.id);
    }
}
