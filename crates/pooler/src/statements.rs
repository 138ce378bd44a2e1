//! Prepared statements: one of the pool for all clients that prepare the same text.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use lru::LruCache;
use parking_lot::Mutex;
use wire::PgError;
use wire::pg::frontend::Parse;

use crate::awaited::StatementId;
use crate::facts::Facts;
use crate::settings::Settings;

/// A statement as servers of a pool know it.
#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) id: StatementId,
    pub(crate) sql: Bytes,
    pub(crate) oids: Vec<u32>,
    pub(crate) facts: Arc<Facts>,
    /// A server has taken it once.
    is_valid: AtomicBool,
}

/// Statements are the same whose text, types of parameters and session are: what a text means depends on settings.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    sql: Bytes,
    oids: Vec<u32>,
    settings: Vec<(String, String)>,
}

/// The statements of a pool.
#[derive(Debug)]
pub(crate) struct Registry {
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    statements: LruCache<Key, Arc<Statement>>,
    next: StatementId,
}

impl Registry {
    /// Forgets the least used of more than `max`; who uses them keeps them.
    pub(crate) fn new(max: NonZeroUsize) -> Self {
        Self {
            known: Mutex::new(Known {
                statements: LruCache::new(max),
                next: 1,
            }),
        }
    }

    /// The statement of this text.
    pub(crate) fn get(
        &self,
        sql: &[u8],
        oids: &[u32],
        settings: &Settings,
        facts: impl FnOnce() -> Arc<Facts>,
    ) -> Arc<Statement> {
        let key = Key {
            sql: Bytes::copy_from_slice(sql),
            oids: oids.to_vec(),
            settings: settings
                .names()
                .filter(|name| *name != "application_name")
                .filter_map(|name| Some((name.to_owned(), settings.get(name)?.to_owned())))
                .collect(),
        };
        if let Some(known) = self.known.lock().statements.get(&key) {
            return Arc::clone(known);
        }
        // Outside of the lock: the parser takes its time.
        let facts = facts();
        let mut known = self.known.lock();
        let id = known.next;
        known.next += 1;
        let statement = Arc::new(Statement {
            id,
            sql: key.sql.clone(),
            oids: key.oids.clone(),
            facts,
            is_valid: AtomicBool::new(false),
        });
        known.statements.put(key, Arc::clone(&statement));
        statement
    }
}

/// What a statement is called on its servers.
pub(crate) fn name(id: StatementId) -> String {
    format!("dormouse_{id}")
}

impl Statement {
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
            true => name(self.id),
            false => String::new(),
        };
        let parse = Parse {
            statement: name.as_bytes(),
            sql: &self.sql,
            param_oids: self.oids.clone(),
        };
        parse.encode(out)
    }
}
