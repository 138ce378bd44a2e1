//! What is known of texts that clients send, and of the functions that they call.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use super::lore::{self, Lore};
use crate::facts::Facts;
use crate::weighed::Weighed;

/// Texts whose facts are remembered (`facts_max`).
const FACTS_MAX: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Bytes of them (`facts_bytes_max`).
const FACTS_BYTES_ALL_MAX: usize = 8 << 20;

/// Texts longer than this are read each time.
const FACTS_BYTES_MAX: usize = 16 << 10;

/// Texts longer than this are not read at all, and taken for what may do anything.
const READ_BYTES_MAX: usize = 1 << 20;

/// Texts of clients.
#[derive(Debug)]
pub(super) struct Texts {
    facts: Mutex<Weighed<Vec<u8>, Arc<Facts>>>,
    lore: RwLock<Option<Arc<Lore>>>,
    changes: Arc<Changes>,
    /// One at a time asks what the catalog says, and not before this.
    pub(super) reading: Arc<tokio::sync::Mutex<Instant>>,
}

/// Changes of the catalog that go through the pool.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Those whose transaction may still be open.
    open: AtomicUsize,
    version: AtomicU64,
}

/// A change of the catalog, as long as its transaction may be open.
#[derive(Debug)]
pub(crate) struct Change(Arc<Changes>);

impl Change {
    fn new(changes: &Arc<Changes>) -> Self {
        changes.open.fetch_add(1, Ordering::SeqCst);
        changes.version.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(changes))
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        self.0.version.fetch_add(1, Ordering::SeqCst);
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What is known of a text beside its facts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Judged {
    /// It calls nothing but Postgres' own by name.
    pub(crate) is_known: bool,
    /// It may leave something in its session that is not known.
    pub(crate) may_leave: bool,
    /// The origin is to be asked anew.
    pub(crate) by_old_lore: bool,
}

impl Texts {
    pub(super) fn new() -> Self {
        Self {
            facts: Mutex::new(Weighed::new(FACTS_MAX, FACTS_BYTES_ALL_MAX)),
            lore: RwLock::new(None),
            changes: Arc::default(),
            reading: Arc::new(tokio::sync::Mutex::new(Instant::now())),
        }
    }

    pub(super) fn has_lore(&self) -> bool {
        self.lore.read().is_some()
    }

    pub(super) fn set_lore(&self, lore: Lore) {
        *self.lore.write() = Some(Arc::new(lore));
    }

    /// Of an origin that is another now.
    pub(super) fn forget_lore(&self) {
        *self.lore.write() = None;
    }

    /// Which version of the catalog is asked now; nothing while somebody changes it.
    pub(super) fn version(&self) -> Option<u64> {
        let version = self.changes.version.load(Ordering::SeqCst);
        (self.changes.open.load(Ordering::SeqCst) == 0).then_some(version)
    }

    /// The catalog is about to be changed.
    pub(super) fn changes(&self) -> Change {
        Change::new(&self.changes)
    }

    /// What a text does to its session.
    pub(super) fn facts(&self, sql: &[u8]) -> Arc<Facts> {
        let read = |sql: &[u8]| match std::str::from_utf8(sql) {
            Ok(sql) if sql.len() <= READ_BYTES_MAX => Facts::of(sql),
            // The parser's tree of a long one takes many times its length.
            Ok(_) | Err(_) => Facts::unknown(),
        };
        if sql.len() > FACTS_BYTES_MAX {
            return Arc::new(read(sql));
        }
        let shape = Facts::shape(sql);
        if let Some(known) = self.facts.lock().get(&shape) {
            return Arc::clone(known);
        }
        let facts = Arc::new(read(sql));
        if facts.are_of_the_shape() {
            let bytes = 2 * shape.len();
            self.facts.lock().put(shape, Arc::clone(&facts), bytes);
        }
        facts
    }

    /// What a text may leave in its session.
    pub(super) fn judge(&self, facts: &Facts) -> Judged {
        let lore = self.lore.read().clone();
        let Some(lore) = lore else {
            return Judged {
                is_known: false,
                may_leave: true,
                by_old_lore: true,
            };
        };
        let is_known = lore.knows_functions(facts);
        let is_right = self.version() == Some(lore.version) && lore.is_young();
        let leaves_nothing = match is_right {
            true => lore.leaves_nothing(facts),
            false => lore::is_plain(facts),
        };
        Judged {
            is_known,
            // The catalog's own changes run what depends on it, and triggers of events.
            may_leave: !is_known || !leaves_nothing || facts.reading.writes.catalog,
            by_old_lore: !is_right || lore.is_to_be_renewed(),
        }
    }
}
