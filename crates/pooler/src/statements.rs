//! Prepared statements: one of the pool for all clients that prepare the same text.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::time::Instant;
use wire::PgError;
use wire::pg::frontend::Parse;

use crate::awaited::StatementId;
use crate::cache::{Cache, Stamp, Text};
use crate::facts::Facts;
use crate::literals::Literals;
use crate::settings::Settings;
use crate::weighed::Weighed;

/// Statements that are known to a pool (`shared_statements_max`).
const SHARED_MAX: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Bytes of their texts, of which the cache has another copy each, and of the settings that they are for
/// (`shared_bytes_max`).
const SHARED_BYTES_MAX: usize = 16 << 20;

/// Longer texts are not shared: they would stay in memory for nobody.
const TEXT_BYTES_MAX: usize = 64 << 10;

/// Nor are longer ones without a name, which come with each use: their values may be written in them.
const UNNAMED_BYTES_MAX: usize = 4 << 10;

/// A statement as servers of a pool know it: of one text, with these types of parameters, in sessions with these
/// settings, for what a text means depends on them.
#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) id: StatementId,
    /// What it is called on its servers.
    pub(crate) name: String,
    pub(crate) sql: Bytes,
    pub(crate) oids: Vec<u32>,
    pub(crate) settings: Settings,
    /// One client's alone: servers may read its text otherwise in other sessions, or at another time.
    pub(crate) is_alone: bool,
    pub(crate) facts: Arc<Facts>,
    pub(crate) literals: Literals,
    /// A server has taken it once.
    is_valid: AtomicBool,
    text: OnceLock<Arc<Text>>,
    described: Mutex<Option<Described>>,
}

/// What a server has answered to `Describe` of a statement.
#[derive(Debug, Clone)]
struct Described {
    answer: Bytes,
    stamp: Stamp,
    asked: Instant,
}

/// The statements of a pool.
#[derive(Debug)]
pub(crate) struct Registry {
    hasher: RandomState,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    /// By a hash of all that makes statements different.
    statements: Weighed<u64, Arc<Statement>>,
    next: StatementId,
}

impl Registry {
    /// Forgets the least used of too many; who uses them keeps them.
    pub(crate) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            known: Mutex::new(Known {
                statements: Weighed::new(SHARED_MAX, SHARED_BYTES_MAX),
                next: 1,
            }),
        }
    }

    /// The statement of this text.
    pub(crate) fn get(
        &self,
        parse: &Parse<'_>,
        settings: &Settings,
        facts: impl FnOnce() -> Arc<Facts>,
    ) -> Arc<Statement> {
        let (sql, oids) = (parse.sql, &*parse.param_oids);
        let hash = self.hash(sql, oids, settings);
        if let Some(known) = self.known.lock().statements.get(&hash)
            && known.is(sql, oids, settings)
        {
            return Arc::clone(known);
        }
        // Outside of the lock: the parser takes its time.
        let read = (facts(), Literals::of(sql));
        let mut known = self.known.lock();
        let statement = Arc::new(known.new_statement(sql, oids, settings, read));
        let longest = match parse.statement.is_empty() {
            true => UNNAMED_BYTES_MAX,
            false => TEXT_BYTES_MAX,
        };
        if sql.len() <= longest {
            let bytes = 2 * sql.len() + size_of_val(oids) + settings.bytes();
            known.statements.put(hash, Arc::clone(&statement), bytes);
        }
        statement
    }

    /// A statement of this text that nobody else gets.
    pub(crate) fn alone(
        &self,
        sql: &[u8],
        oids: &[u32],
        settings: &Settings,
        facts: Arc<Facts>,
    ) -> Arc<Statement> {
        let read = (facts, Literals::of(sql));
        let mut known = self.known.lock();
        Arc::new(Statement {
            is_alone: true,
            ..known.new_statement(sql, oids, settings, read)
        })
    }

    /// Whoever prepares its text from now on gets another statement.
    pub(crate) fn retire(&self, statement: &Arc<Statement>) {
        let hash = self.hash(&statement.sql, &statement.oids, &statement.settings);
        let mut known = self.known.lock();
        if known
            .statements
            .peek(&hash)
            .is_some_and(|known| Arc::ptr_eq(known, statement))
        {
            known.statements.pop(&hash);
        }
    }

    fn hash(&self, sql: &[u8], oids: &[u32], settings: &Settings) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        sql.hash(&mut hasher);
        oids.hash(&mut hasher);
        meaningful(settings).for_each(|setting| setting.hash(&mut hasher));
        hasher.finish()
    }
}

impl Known {
    fn new_statement(
        &mut self,
        sql: &[u8],
        oids: &[u32],
        settings: &Settings,
        (facts, literals): (Arc<Facts>, Literals),
    ) -> Statement {
        let id = self.next;
        self.next += 1;
        Statement {
            id,
            name: name(id),
            sql: Bytes::copy_from_slice(sql),
            oids: oids.to_vec(),
            settings: settings.clone(),
            is_alone: false,
            facts,
            literals,
            is_valid: AtomicBool::new(false),
            text: OnceLock::new(),
            described: Mutex::new(None),
        }
    }
}

/// Settings on which it may depend what a text means.
fn meaningful(settings: &Settings) -> impl Iterator<Item = (&str, Option<&str>)> {
    let names = settings.names().filter(|name| *name != "application_name");
    names.map(|name| (name, settings.get(name)))
}

/// What the names of statements on servers begin with.
pub(crate) const PREFIX: &str = "dormouse_";

/// What a statement is called on its servers.
pub(crate) fn name(id: StatementId) -> String {
    format!("{PREFIX}{id}")
}

/// Which statement of the pool's a server speaks of, if it names one.
pub(crate) fn named_in(message: &str) -> Option<StatementId> {
    let (_, id) = message.split_once(PREFIX)?;
    let end = id.find(|character: char| !character.is_ascii_digit());
    id[..end.unwrap_or(id.len())].parse().ok()
}

impl Statement {
    fn is(&self, sql: &[u8], oids: &[u32], settings: &Settings) -> bool {
        self.sql == sql && self.oids == oids && meaningful(&self.settings).eq(meaningful(settings))
    }

    /// Bytes of its text and the types of its parameters.
    pub(crate) fn bytes(&self) -> usize {
        self.sql.len() + size_of_val(&*self.oids)
    }

    /// Its text as the cache sees it.
    pub(crate) fn text(&self, cache: &Cache) -> Arc<Text> {
        let read = || cache.text(&self.sql, || Arc::clone(&self.facts));
        Arc::clone(self.text.get_or_init(read))
    }

    /// What servers answer to `Describe`, as long as the catalog is what it was.
    pub(crate) fn described(&self, cache: &Cache) -> Option<Bytes> {
        let described = self.described.lock().clone()?;
        cache
            .is_catalog_of(described.stamp, described.asked)
            .then_some(described.answer)
    }

    /// What servers answer to `Describe` is something else now.
    pub(crate) fn forget_description(&self) {
        *self.described.lock() = None;
    }

    /// A server has answered `Describe`.
    pub(crate) fn was_described(&self, answer: Bytes, stamp: Stamp, asked: Instant) {
        *self.described.lock() = Some(Described {
            answer,
            stamp,
            asked,
        });
    }

    /// Whether a server has taken it once. Another is then asked no sooner than when the statement is to run.
    pub(crate) fn is_valid(&self) -> bool {
        self.is_valid.load(Ordering::Relaxed)
    }

    /// A server has taken it.
    pub(crate) fn was_taken(&self) {
        self.is_valid.store(true, Ordering::Relaxed);
    }

    /// Writes the message that makes it known to a server, by its name or as the unnamed one.
    ///
    /// # Errors
    ///
    /// If it is longer than a message can be.
    pub(crate) fn parse(&self, is_named: bool, out: &mut BytesMut) -> Result<(), PgError> {
        let name = match is_named {
            true => self.name.as_str(),
            false => "",
        };
        let parse = Parse {
            statement: name.as_bytes(),
            sql: &self.sql,
            param_oids: self.oids.clone(),
        };
        parse.encode(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(registry: &Registry, name: &str, sql: &str) -> StatementId {
        let parse = Parse {
            statement: name.as_bytes(),
            sql: sql.as_bytes(),
            param_oids: vec![23],
        };
        let facts = || Arc::new(Facts::unknown());
        registry.get(&parse, &Settings::default(), facts).id
    }

    /// `select`, and so many bytes.
    fn text(bytes: usize) -> String {
        format!("select '{}'", "x".repeat(bytes - 9))
    }

    #[test]
    fn a_server_speaks_of_a_statement() {
        let named = |message: &str| named_in(message);
        assert_eq!(
            named("prepared statement \"dormouse_17\" already exists"),
            Some(17)
        );
        assert_eq!(named("prepared statement \"mine\" already exists"), None);
        assert_eq!(
            named("prepared statement \"dormouse_x\" already exists"),
            None
        );
    }

    #[test]
    fn long_texts_without_a_name_are_not_shared() {
        let registry = Registry::new();
        let is_shared = |name: &str, bytes: usize| {
            let sql = text(bytes);
            get(&registry, name, &sql) == get(&registry, name, &sql)
        };
        assert!(is_shared("", UNNAMED_BYTES_MAX));
        assert!(!is_shared("", UNNAMED_BYTES_MAX + 1));
        assert!(is_shared("a", UNNAMED_BYTES_MAX + 1));
        assert!(is_shared("a", TEXT_BYTES_MAX));
        assert!(!is_shared("a", TEXT_BYTES_MAX + 1));
    }

    #[test]
    fn settings_have_a_weight() {
        let registry = Registry::new();
        let id = |n: usize| {
            let mut settings = Settings::default();
            settings.put("a.b", Some(format!("{n:05}{}", "x".repeat(100 << 10))));
            let parse = Parse {
                statement: b"s",
                sql: b"select 1",
                param_oids: Vec::new(),
            };
            let facts = || Arc::new(Facts::unknown());
            registry.get(&parse, &settings, facts).id
        };
        let first: Vec<_> = (0..200).map(id).collect();
        assert_eq!(id(199), first[199]);
        assert_ne!(id(0), first[0]);
    }

    #[test]
    fn what_is_shared_has_a_weight() {
        let registry = Registry::new();
        let long = |n: usize| format!("select {n:05}, '{}'", "x".repeat(TEXT_BYTES_MAX - 100));
        let count = SHARED_BYTES_MAX / TEXT_BYTES_MAX;
        let first: Vec<_> = (0..count).map(|n| get(&registry, "a", &long(n))).collect();
        // Each is there twice.
        let last = count - 1;
        assert_eq!(get(&registry, "a", &long(last)), first[last]);
        assert_eq!(
            get(&registry, "a", &long(count / 2 + 2)),
            first[count / 2 + 2]
        );
        assert_ne!(get(&registry, "a", &long(count / 4)), first[count / 4]);
    }
}
