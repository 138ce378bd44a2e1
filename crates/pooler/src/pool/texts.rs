//! What is known of texts that clients send, and of the functions that they call.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::{Mutex, RwLock};

use crate::facts::Facts;

/// Names of functions that are Postgres' own in every schema.
pub(super) const BUILTIN: &str = "SELECT p.proname FROM pg_catalog.pg_proc p GROUP BY p.proname HAVING \
    pg_catalog.bool_and(p.pronamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace)";

/// Texts whose facts are remembered.
const FACTS_MAX: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Texts longer than this are read each time.
const FACTS_BYTES_MAX: usize = 16 << 10;

/// Texts longer than this are not read at all, and taken for what may do anything.
const READ_BYTES_MAX: usize = 1 << 20;

/// Texts of clients.
#[derive(Debug)]
pub(super) struct Texts {
    facts: Mutex<LruCache<String, Arc<Facts>>>,
    /// Functions of which there are none but those that Postgres has brought along.
    builtin: RwLock<Option<HashSet<String>>>,
}

impl Texts {
    pub(super) fn new() -> Self {
        Self {
            facts: Mutex::new(LruCache::new(FACTS_MAX)),
            builtin: RwLock::new(None),
        }
    }

    pub(super) fn knows_builtin(&self) -> bool {
        self.builtin.read().is_some()
    }

    pub(super) fn set_builtin(&self, names: Vec<String>) {
        *self.builtin.write() = Some(names.into_iter().collect());
    }

    /// Of an origin that is another now.
    pub(super) fn forget_builtin(&self) {
        *self.builtin.write() = None;
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
            self.facts.lock().put(shape, Arc::clone(&facts));
        }
        facts
    }

    /// Whether nothing that a text calls can leave something behind in its session that is not known.
    pub(super) fn is_known(&self, facts: &Facts) -> bool {
        let builtin = self.builtin.read();
        let is_builtin = |name: &String| builtin.as_ref().is_some_and(|known| known.contains(name));
        !facts.is_opaque && facts.functions.iter().all(is_builtin)
    }
}
