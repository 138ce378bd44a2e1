//! Whether what was read of a database is still so: the commit by which each table was last changed.
//!
//! Every commit is in the log, which Postgres hands to the volume before anyone is told of the commit. A
//! [`Tracker`] reads along: which transaction changed which files, and which of them committed. It begins when
//! somebody first asks, and has nothing to say of what was before.
//!
//! Invariants
//! 1. A version that was read before a query's snapshot was taken, and that no exchange under way can have made
//!    ([`Running::may_have_made`]), is one that the query saw in full: if nothing was committed since, another run
//!    gives the same.
//! 2. A tracker that is in doubt ends. The next one has another epoch, which is part of every version.

mod changes;
mod commit;
mod pages;
mod record;
mod running;
mod tracker;

pub(crate) use running::{Exchange, Running};
pub(crate) use tracker::{Start, Tracker};

use std::num::NonZeroUsize;
use std::sync::{Arc, Weak};

use lru::LruCache;
use parking_lot::Mutex;
use volume::{DatabaseId, LogReader, Volume};

use crate::database::Database;

/// The trackers of a node, those of databases that sleep too, as many as the limit allows.
#[derive(Debug)]
pub(crate) struct Versions {
    trackers: Option<Mutex<LruCache<DatabaseId, Arc<Tracker>>>>,
}

impl Versions {
    /// With room for `databases_max`; 0: there are none.
    pub(crate) fn new(databases_max: usize) -> Self {
        let room = NonZeroUsize::new(databases_max);
        Self {
            trackers: room.map(|room| Mutex::new(LruCache::new(room))),
        }
    }

    /// Whether there can be any.
    pub(crate) fn are_kept(&self) -> bool {
        self.trackers.is_some()
    }

    /// The tracker of a database, if it has one that goes on.
    pub(crate) fn get(&self, id: DatabaseId) -> Option<Arc<Tracker>> {
        let mut trackers = self.trackers.as_ref()?.lock();
        let found = trackers.get(&id)?;
        if found.is_alive() {
            return Some(Arc::clone(found));
        }
        trackers.pop(&id);
        None
    }

    /// Puts one in the place of another, which ends, as does the one that nobody has asked for the longest if there
    /// is no room.
    pub(crate) fn insert(&self, id: DatabaseId, tracker: &Arc<Tracker>) {
        let Some(trackers) = &self.trackers else {
            return;
        };
        let replaced = trackers.lock().push(id, Arc::clone(tracker));
        if let Some((_, replaced)) = replaced
            && !Arc::ptr_eq(&replaced, tracker)
        {
            replaced.end();
        }
    }

    /// Lets a tracker read the log of a volume along, which ends where it does.
    pub(crate) fn begin(&self, database: &Database, volume: &Volume, tracker: &Arc<Tracker>) {
        self.insert(database.id, tracker);
        attach(database, volume, tracker);
    }

    /// Lets the tracker of a database that slept go on, if the log ends at `position`, up to which it has read.
    pub(crate) fn go_on(&self, database: &Database, volume: &Volume, position: u64) {
        let Some(tracker) = self.get(database.id) else {
            return;
        };
        match tracker.goes_on(position) {
            true => attach(database, volume, &tracker),
            false => self.remove(database.id),
        }
    }

    /// Ends the tracker of a database.
    pub(crate) fn remove(&self, id: DatabaseId) {
        let Some(trackers) = &self.trackers else {
            return;
        };
        if let Some(removed) = trackers.lock().pop(&id) {
            removed.end();
        }
    }
}

fn attach(database: &Database, volume: &Volume, tracker: &Arc<Tracker>) {
    let reader: Weak<dyn LogReader> = Arc::<Tracker>::downgrade(tracker);
    volume.read_log(reader);
    database.running.watch(tracker);
}
