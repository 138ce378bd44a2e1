//! Answers that are kept, and given again as long as they are right.
//!
//! **Right by default**: an answer from here is never older than the last commit that was made through the pool. What
//! changes a table elsewhere is seen after `max_age` at the latest.

mod analysis;
mod body;
mod catalog;
mod doubt;
mod flight;
mod inquiry;
mod knowledge;
mod ledger;
mod question;
mod reading;
mod recording;
mod refresh;
mod space;
mod status;
mod text;
mod track;
mod types;
mod writing;

use std::collections::hash_map::RandomState;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use lru::LruCache;
use parking_lot::{Mutex, RwLock};
use tokio::time::Duration;

use crate::binding::{Caching, CachingMode};
use crate::facts::Facts;
use crate::pool::Pool;

pub(crate) use body::is_harmless as body_is_harmless;
pub(crate) use flight::{Boarding, Flight};
pub(crate) use ledger::{Oid, Stamp, Writes};
pub(crate) use question::{Asked, Question};
pub(crate) use reading::Reading;
pub(crate) use recording::Recording;
pub(crate) use refresh::Again;
pub use space::{CacheFilling, CacheOptions, CacheSpace};
pub use status::{CacheFigures, CacheStatus};
pub(crate) use text::Text;
pub(crate) use track::{Ends, Track};

pub(crate) use analysis::Depends;

use analysis::Analysis;
use catalog::{Catalog, Functions};
use flight::Flights;
use ledger::Ledger;
use question::Shape;
use status::{Counters, add};

/// Texts that are remembered.
const TEXTS_MAX: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// Analyses that are remembered.
const ANALYSES_MAX: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Texts longer than this are read each time.
const TEXT_BYTES_MAX: usize = 8 << 10;

/// What the catalog says is asked again no sooner than after this time.
const CATALOG_AGE_MIN: Duration = Duration::from_secs(1);

/// How long a query waits for another's answer before it goes to the origin itself.
pub(crate) const SHARED_WAIT_MAX: Duration = Duration::from_secs(2);

/// What a session's program is called: clients of one pool differ in it, and few answers do.
const NAME_SETTING: &str = "application_name";

/// The function that asks a setting.
const ASKS_SETTING: &str = "current_setting";

/// Settings by which a session speaks to the cache begin with this.
const OWN_SETTINGS: &str = "dormouse.";

/// The cache of a pool.
#[derive(Debug)]
pub(crate) struct Cache {
    number: u64,
    space: Arc<CacheSpace>,
    pool: Weak<Pool>,
    caching: RwLock<Caching>,
    /// Answers of another generation are found by nobody.
    generation: AtomicU64,
    ledger: Mutex<Ledger>,
    catalog: RwLock<Option<Arc<Catalog>>>,
    /// Postgres' own functions at this origin.
    builtin: RwLock<Option<Arc<Functions>>>,
    /// One at a time reads the catalog.
    reads_catalog: Arc<tokio::sync::Mutex<()>>,
    texts: Mutex<LruCache<Bytes, Arc<Text>>>,
    analyses: Mutex<LruCache<Shape, Arc<Analysis>>>,
    /// Of shapes; nobody outside knows their keys.
    hashers: [RandomState; 2],
    flights: Arc<Flights>,
    pub(crate) counters: Counters,
}

/// What the cache has.
pub(crate) enum Looked {
    Fresh(Bytes),
    /// Older than `max_age`: whoever gets it has it asked again.
    Stale(Bytes),
    /// It was too long to be kept.
    Oversized,
    Nothing,
}

impl Cache {
    pub(crate) fn new(space: Arc<CacheSpace>, caching: Caching, pool: Weak<Pool>) -> Self {
        Self {
            number: space.new_cache(),
            space,
            pool,
            caching: RwLock::new(caching),
            generation: AtomicU64::new(1),
            ledger: Mutex::new(Ledger::default()),
            catalog: RwLock::new(None),
            builtin: RwLock::new(None),
            reads_catalog: Arc::default(),
            texts: Mutex::new(LruCache::new(TEXTS_MAX)),
            analyses: Mutex::new(LruCache::new(ANALYSES_MAX)),
            hashers: Default::default(),
            flights: Arc::default(),
            counters: Counters::default(),
        }
    }

    pub(crate) fn caching(&self) -> Caching {
        *self.caching.read()
    }

    pub(crate) fn set_caching(&self, caching: Caching) {
        *self.caching.write() = caching;
        self.purge();
    }

    /// Whether any query may be answered here.
    pub(crate) fn is_on(&self) -> bool {
        let caching = self.caching.read();
        !caching.is_disabled && caching.max_age + caching.stale_while_revalidate > 0
    }

    /// Whether it is to hear of what others write.
    pub(crate) fn wants_replication(&self) -> bool {
        let caching = self.caching();
        caching.replication && caching.mode == CachingMode::Fresh && self.is_on()
    }

    /// Forgets everything.
    pub(crate) fn purge(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        *self.builtin.write() = None;
        self.drop_all();
        self.space.remove_all(self.number);
    }

    /// Nobody knows what has become of the origin: nothing that was asked before is given again.
    pub(crate) fn drop_all(&self) {
        add(&self.counters.dropped_all, 1);
        self.ledger.lock().change(&Writes::unknown());
    }

    /// A text, with what is known of it.
    pub(crate) fn text(&self, sql: &[u8], facts: impl FnOnce() -> Arc<Facts>) -> Arc<Text> {
        if sql.len() > TEXT_BYTES_MAX {
            return Arc::new(Text::of(sql, facts()));
        }
        if let Some(known) = self.texts.lock().get(sql) {
            return Arc::clone(known);
        }
        let text = Arc::new(Text::of(sql, facts()));
        let sql = Bytes::copy_from_slice(sql);
        self.texts.lock().put(sql, Arc::clone(&text));
        text
    }

    /// Looks for an answer: of anybody, then, if it is known to depend on what the program is called, of one that is
    /// called the same.
    pub(crate) fn look(&self, question: &mut Question) -> Looked {
        let found = self.space.get(question.key());
        let found = match found {
            None if !question.is_of_name() && self.may_depend_on_name(question) => {
                question.turn_to_name(true);
                self.space.get(question.key())
            }
            found => found,
        };
        let Some(entry) = found else {
            return Looked::Nothing;
        };
        if !self.is_right(&entry.tables, entry.stamp) {
            self.space.remove(question.key());
            return Looked::Nothing;
        }
        let age = entry.asked.elapsed();
        match entry.answer {
            None if age < question.max_age => Looked::Oversized,
            Some(answer) if age < question.max_age => Looked::Fresh(answer),
            Some(answer) if age < question.max_age + question.stale => Looked::Stale(answer),
            _ => Looked::Nothing,
        }
    }

    /// Whether what was asked of these tables then is still so, as far as this cache cares.
    fn is_right(&self, tables: &[Oid], stamp: Stamp) -> bool {
        // No lock is held while another is waited for.
        let mode = self.caching().mode;
        match mode {
            CachingMode::Fresh => self.ledger.lock().is_right(tables, stamp),
            CachingMode::Ttl => true,
        }
    }

    /// Asks with others, or alone.
    pub(crate) fn board(&self, question: &Question) -> Boarding {
        self.flights.board(question.key())
    }

    /// Whether somebody asks this already.
    pub(crate) fn is_under_way(&self, question: &Question) -> bool {
        self.flights.is_under_way(question.key())
    }

    /// For what is asked now of these tables; nothing if one is in doubt.
    pub(crate) fn stamp(&self, tables: &[Oid]) -> Option<Stamp> {
        let mode = self.caching().mode;
        let ledger = self.ledger.lock();
        match mode {
            CachingMode::Fresh => ledger.stamp(tables),
            CachingMode::Ttl => Some(ledger.now()),
        }
    }

    pub(crate) fn figures(&self) -> CacheFigures {
        self.counters.figures()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc;

    use super::*;

    /// Who looks, who asks and who configures wait for each other in no circle.
    #[test]
    fn locks_are_taken_in_one_order() {
        let space = CacheSpace::new(CacheOptions::default());
        let caching = Caching::default();
        let cache = Arc::new(Cache::new(space, caching, Weak::new()));
        let stamp = cache.stamp(&[1]).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        for _ in 0..2 {
            let steps: [fn(&Cache, Stamp); 2] = [
                |cache, stamp| {
                    let _ = cache.is_right(&[1], stamp);
                },
                |cache, _| {
                    let _ = cache.stamp(&[1]);
                },
            ];
            for step in steps {
                let (cache, is_over) = (Arc::clone(&cache), Arc::clone(&is_over));
                std::thread::spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        step(&cache, stamp);
                    }
                });
            }
        }
        let (done, is_done) = mpsc::channel();
        std::thread::spawn(move || {
            for _ in 0..1_000 {
                cache.set_caching(caching);
                std::thread::yield_now();
            }
            is_over.store(true, Ordering::Relaxed);
            let _ = done.send(());
        });
        let waited = is_done.recv_timeout(Duration::from_secs(60));
        assert!(waited.is_ok(), "they wait for each other");
    }
}
