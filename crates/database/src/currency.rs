//! As of which commit an answer is, and whether it still is the answer.

use volume::DatabaseId;

use crate::database::Database;
use crate::dependencies::{Dependencies, QueryKey, Uncacheable};
use crate::info::State;
use crate::node::Node;
use crate::versions::Tracker;

/// As of which commit the answer to a query is. As long as it is the same, so is the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ResultVersion {
    database: DatabaseId,
    epoch: u64,
    commit: u64,
}

impl ResultVersion {
    /// The answer as of a commit of a database, which is known by a number, under an epoch: what a number means
    /// is told by the epoch alone.
    pub const fn new(database: DatabaseId, epoch: u64, commit: u64) -> Self {
        Self {
            database,
            epoch,
            commit,
        }
    }

    /// The database.
    pub fn database(self) -> DatabaseId {
        self.database
    }

    pub(crate) fn commit(self) -> u64 {
        self.commit
    }

    /// It as bytes, to be hashed with the query.
    pub fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.database.get().to_le_bytes());
        bytes[8..16].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[16..].copy_from_slice(&self.commit.to_le_bytes());
        bytes
    }
}

/// What is known of the answer to a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Currency {
    /// It is as of this commit, at least if it is run after this was asked.
    Version(ResultVersion),
    /// Nothing, now.
    Unknown,
    /// It may be another one each time.
    Never(Uncacheable),
}

impl Database {
    /// As of which commit the answer to a query would be.
    pub(crate) fn currency(&self, node: &Node, query: &QueryKey) -> Currency {
        self.try_currency(node, query).unwrap_or(Currency::Unknown)
    }

    fn try_currency(&self, node: &Node, query: &QueryKey) -> Option<Currency> {
        let tracker = node.versions.get(self.id)?;
        match self.state() {
            State::Asleep => {}
            State::Awake => {
                // Whoever has told of a commit has done so before this is asked.
                let told = self.running.told()?;
                if tracker.read_to() < told {
                    return None;
                }
            }
            _ => return None,
        }
        let found = node
            .known
            .get(self.id, query, tracker.epoch(), tracker.catalog()?)?;
        self.version(&tracker, &found, query)
    }

    /// The version of an answer that depends on what was found; `None` if something has changed meanwhile.
    pub(crate) fn version(
        &self,
        tracker: &Tracker,
        dependencies: &Dependencies,
        query: &QueryKey,
    ) -> Option<Currency> {
        let tables = match &dependencies.found {
            Ok(tables) if tables.has_times && query.says_now() => {
                return Some(Currency::Never(Uncacheable::Time));
            }
            Ok(tables) => tables,
            Err(reason) => return Some(Currency::Never(reason.clone())),
        };
        let commit = tracker.last(&tables.files)?;
        if tracker.catalog()? != dependencies.catalog {
            return None;
        }
        let version = ResultVersion::new(self.id, tracker.epoch(), commit);
        Some(Currency::Version(version))
    }
}
