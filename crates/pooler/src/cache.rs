//! Answers that are kept, and given again as long as they are right.
//!
//! **Right by default**: an answer from here is never older than the last commit that was made through the pool. What
//! changes a table elsewhere is seen after `max_age` at the latest.

mod analysis;
mod body;
mod catalog;
mod doubt;
mod flight;
mod ledger;
mod reading;
mod recording;
mod refresh;
mod space;
mod status;
mod text;
mod track;
mod types;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use lru::LruCache;
use parking_lot::{Mutex, RwLock};
use tokio::time::{Duration, Instant};
use wire::pg::frontend::Bind;

use crate::binding::{Caching, CachingMode};
use crate::facts::Facts;
use crate::failure::Failure;
use crate::pool::Pool;
use crate::server::Server;
use crate::settings::Settings;

pub(crate) use flight::{Boarding, Flight};
pub(crate) use ledger::{Oid, Stamp, Writes};
pub(crate) use reading::Reading;
pub(crate) use recording::Recording;
pub(crate) use refresh::Again;
pub use space::{CacheFilling, CacheOptions, CacheSpace};
pub use status::{CacheFigures, CacheStatus};
pub(crate) use text::Text;
pub(crate) use track::{Ends, Track};

use analysis::{Analysis, Outcome};
use catalog::{Catalog, Functions};
use flight::Flights;
use ledger::Ledger;
use space::Key;
use status::{Counters, add};

/// Texts and analyses that are remembered.
const KNOWN_MAX: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Texts longer than this are read each time.
const KNOWN_BYTES_MAX: usize = 16 << 10;

/// What the catalog says is asked again no sooner than after this time.
const CATALOG_AGE_MIN: Duration = Duration::from_secs(1);

/// How long a query waits for another's answer before it goes to the origin itself.
pub(crate) const SHARED_WAIT_MAX: Duration = Duration::from_secs(2);

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
    reads_catalog: tokio::sync::Mutex<()>,
    texts: Mutex<LruCache<Bytes, Arc<Text>>>,
    analyses: Mutex<LruCache<Arc<[u8]>, Arc<Analysis>>>,
    flights: Arc<Flights>,
    pub(crate) counters: Counters,
}

/// A query whose answer may be kept.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    key: Key,
    /// All that its analysis depends on.
    shape: Arc<[u8]>,
    pub(crate) facts: Arc<Facts>,
    max_age: Duration,
    stale: Duration,
}

/// How a query is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asked<'a> {
    /// By `Query`.
    Simple,
    /// By `Bind` of a statement with these types, its body behind the names; with `Describe` of the portal or not.
    Extended {
        oids: &'a [u32],
        bind: &'a [u8],
        describes: bool,
    },
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
            reads_catalog: tokio::sync::Mutex::new(()),
            texts: Mutex::new(LruCache::new(KNOWN_MAX)),
            analyses: Mutex::new(LruCache::new(KNOWN_MAX)),
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
        if sql.len() > KNOWN_BYTES_MAX {
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

    /// What a query is, as far as its text, its session and its parameters tell.
    ///
    /// # Errors
    ///
    /// What it is instead of one whose answer may be kept.
    pub(crate) fn judge(
        &self,
        text: &Text,
        settings: &Settings,
        conforms: bool,
        asked: Asked<'_>,
    ) -> Result<Question, CacheStatus> {
        let caching = self.caching();
        self.judge_text(&text.facts, settings)?;
        if text.control.is_off {
            return Err(CacheStatus::Disabled);
        }
        let bind = match asked {
            Asked::Simple => &[][..],
            Asked::Extended { bind, .. } => bind,
        };
        if text.content.len() + bind.len() > self.space.options.query_bytes_max {
            return Err(CacheStatus::OversizedQuery);
        }
        if text.asks_clock || asks_clock(bind) {
            return Err(CacheStatus::Volatile);
        }
        if text.has_backslash && !conforms {
            return Err(CacheStatus::Uncacheable);
        }
        let settings = meaning(settings);
        let max_age = Duration::from_secs(caching.max_age.into());
        let stale = Duration::from_secs(caching.stale_while_revalidate.into());
        Ok(Question {
            key: self.key(text, &settings, asked),
            shape: shape(text, &settings),
            facts: Arc::clone(&text.facts),
            max_age: text.control.max_age.unwrap_or(max_age),
            stale: text.control.stale.unwrap_or(stale),
        })
    }

    /// As [`judge`](Self::judge), of the text alone.
    pub(crate) fn judge_text(&self, facts: &Facts, settings: &Settings) -> Result<(), CacheStatus> {
        if !self.is_on() || settings.get("dormouse.cache") == Some("off") {
            return Err(CacheStatus::Disabled);
        }
        if facts.is_unreadable {
            return Err(CacheStatus::ParseError);
        }
        if facts.statements > 1 {
            return Err(CacheStatus::MultipleStatements);
        }
        match facts.reading.obstacle {
            Some(reading::Obstacle::NotAQuery) => Err(CacheStatus::NotAQuery),
            Some(reading::Obstacle::Volatile) => Err(CacheStatus::Volatile),
            Some(reading::Obstacle::Uncacheable) => Err(CacheStatus::Uncacheable),
            None if facts.reading.asks_session => Err(CacheStatus::Volatile),
            None => Ok(()),
        }
    }

    fn key(&self, text: &Text, settings: &[u8], asked: Asked<'_>) -> Key {
        let mut content = Vec::with_capacity(text.content.len() + settings.len() + 64);
        content.extend_from_slice(&self.generation.load(Ordering::SeqCst).to_be_bytes());
        put(&mut content, settings);
        match asked {
            Asked::Simple => content.push(0),
            Asked::Extended {
                oids,
                bind,
                describes,
            } => {
                content.push(1 + u8::from(describes));
                content.extend_from_slice(&(oids.len() as u64).to_be_bytes());
                for oid in oids {
                    content.extend_from_slice(&oid.to_be_bytes());
                }
                put(&mut content, bind);
            }
        }
        content.extend_from_slice(&text.content);
        Key {
            cache: self.number,
            content: content.into(),
        }
    }

    /// Looks for an answer.
    pub(crate) fn look(&self, question: &Question) -> Looked {
        let Some(entry) = self.space.get(&question.key) else {
            return Looked::Nothing;
        };
        if !self.is_right(&entry.tables, entry.stamp) {
            self.space.remove(&question.key);
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
        match self.caching.read().mode {
            CachingMode::Fresh => self.ledger.lock().is_right(tables, stamp),
            CachingMode::Ttl => true,
        }
    }

    /// Asks with others, or alone.
    pub(crate) fn board(&self, question: &Question) -> Boarding {
        self.flights.board(&question.key)
    }

    /// Whether somebody asks this already.
    pub(crate) fn is_under_way(&self, question: &Question) -> bool {
        self.flights.is_under_way(&question.key)
    }

    /// For what is asked now of these tables; nothing if one is in doubt.
    pub(crate) fn stamp(&self, tables: &[Oid]) -> Option<Stamp> {
        let ledger = self.ledger.lock();
        match self.caching.read().mode {
            CachingMode::Fresh => ledger.stamp(tables),
            CachingMode::Ttl => Some(ledger.now()),
        }
    }

    /// For a question about the catalog that is sent now; nothing if it is in doubt.
    pub(crate) fn catalog_stamp(&self) -> Option<Stamp> {
        self.ledger.lock().catalog_stamp()
    }

    /// Whether what the origin has told of its catalog then still holds.
    pub(crate) fn is_catalog_of(&self, stamp: Stamp, asked: Instant) -> bool {
        asked.elapsed() < self.catalog_age_max() && self.ledger.lock().is_catalog_right(stamp)
    }

    fn catalog_age_max(&self) -> Duration {
        let max_age = Duration::from_secs(self.caching.read().max_age.into());
        max_age.max(CATALOG_AGE_MIN)
    }

    fn known_catalog(&self) -> Option<Arc<Catalog>> {
        let catalog = self.catalog.read().clone()?;
        self.is_catalog_of(catalog.stamp, catalog.read)
            .then_some(catalog)
    }

    /// On which tables an answer depends: asked of the origin on a connection that is idle and the session's own.
    ///
    /// # Errors
    ///
    /// If the origin does not answer.
    pub(crate) async fn tables(
        &self,
        server: &mut Server,
        question: &Question,
    ) -> Result<Result<Arc<[Oid]>, CacheStatus>, Failure> {
        if let Some(known) = self.known_tables(question) {
            return Ok(known);
        }
        for _ in 0..2 {
            let Some(catalog) = self.catalog(server).await? else {
                break;
            };
            let outcome = analysis::analyse(server, &catalog, &question.facts.reading).await?;
            let verdict = match outcome {
                Outcome::Tables(tables) => Ok(tables),
                Outcome::Not(status) => Err(status),
                Outcome::CatalogIsOld => {
                    self.catalog.write().take();
                    continue;
                }
            };
            let analysis = Analysis {
                verdict: verdict.clone(),
                stamp: catalog.stamp,
                made: catalog.read,
            };
            let shape = Arc::clone(&question.shape);
            self.analyses.lock().put(shape, Arc::new(analysis));
            return Ok(verdict);
        }
        // Somebody changes the catalog at this moment, or another reads it.
        Ok(Err(CacheStatus::Miss))
    }

    /// As [`tables`](Self::tables), if it is known.
    pub(crate) fn known_tables(
        &self,
        question: &Question,
    ) -> Option<Result<Arc<[Oid]>, CacheStatus>> {
        let known = self.analyses.lock().get(&question.shape).cloned()?;
        self.is_catalog_of(known.stamp, known.made)
            .then(|| known.verdict.clone())
    }

    /// What the origin did not tell is not asked again soon.
    pub(crate) fn give_up(&self, question: &Question) {
        if let Some(stamp) = self.catalog_stamp() {
            let analysis = Analysis {
                verdict: Err(CacheStatus::Uncacheable),
                stamp,
                made: Instant::now(),
            };
            let shape = Arc::clone(&question.shape);
            self.analyses.lock().put(shape, Arc::new(analysis));
        }
    }

    /// The catalog as it is now; nothing while somebody changes it, or another reads it.
    async fn catalog(&self, server: &mut Server) -> Result<Option<Arc<Catalog>>, Failure> {
        if let Some(known) = self.known_catalog() {
            return Ok(Some(known));
        }
        let Ok(_alone) = self.reads_catalog.try_lock() else {
            return Ok(None);
        };
        let Some(stamp) = self.catalog_stamp() else {
            return Ok(None);
        };
        let read = Instant::now();
        let known = self.builtin.read().clone();
        let builtin = match known {
            Some(known) => known,
            None => {
                let rows = server.ask(catalog::BUILTIN).await?;
                Arc::new(catalog::functions_of(&rows, true).unwrap_or_default())
            }
        };
        let mut answers = Vec::new();
        for sql in catalog::QUESTIONS {
            answers.push(server.ask(sql).await?);
        }
        let catalog = Catalog::of(answers, Arc::clone(&builtin), stamp, read).map(Arc::new);
        if self.ledger.lock().is_catalog_right(stamp) {
            *self.builtin.write() = Some(builtin);
        }
        self.catalog.write().clone_from(&catalog);
        Ok(catalog)
    }

    /// What a text writes; `is_known` if it calls nothing but Postgres' own.
    pub(crate) fn writes(
        &self,
        facts: &Facts,
        is_known: bool,
        temporary: &std::collections::BTreeSet<String>,
    ) -> Writes {
        let writing = &facts.reading.writes;
        if let Some(catalog) = self.known_catalog() {
            return catalog.writes(facts, temporary);
        }
        let is_reading = is_known && !writing.everything && writing.tables.is_empty();
        match (is_reading, facts.reading.relations.is_empty()) {
            (true, true) => Writes::default(),
            // A view or a policy may call what writes.
            (true, false) => Writes::any_table(),
            (false, _) => Writes::unknown(),
        }
    }

    pub(crate) fn figures(&self) -> CacheFigures {
        self.counters.figures()
    }
}

/// Whether a parameter asks the clock where it is read as a date.
fn asks_clock(bind: &[u8]) -> bool {
    if bind.is_empty() {
        return false;
    }
    let mut body = Vec::with_capacity(bind.len() + 2);
    // Without the names.
    body.extend_from_slice(&[0, 0]);
    body.extend_from_slice(bind);
    let Ok(bind) = Bind::decode(&body) else {
        return true;
    };
    let mut values = bind.params.iter().filter_map(|param| param.value);
    values.any(text::has_clock_word)
}

/// All settings of a session on which an answer may depend.
fn meaning(settings: &Settings) -> Vec<u8> {
    let mut bytes = Vec::new();
    for name in settings.names() {
        if name != "application_name" && !name.starts_with(OWN_SETTINGS) {
            put(&mut bytes, name.as_bytes());
            put(
                &mut bytes,
                settings.get(name).unwrap_or_default().as_bytes(),
            );
        }
    }
    bytes
}

fn shape(text: &Text, settings: &[u8]) -> Arc<[u8]> {
    let mut bytes = Vec::with_capacity(settings.len() + text.content.len() + 8);
    put(&mut bytes, settings);
    bytes.extend_from_slice(Facts::shape(&text.content).as_bytes());
    bytes.into()
}

fn put(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
    bytes.extend_from_slice(part);
}
