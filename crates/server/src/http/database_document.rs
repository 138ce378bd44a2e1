//! A database as a JSON document.

use database::{DatabaseInfo, Durability, Settings};
use serde::{Deserialize, Serialize};

use crate::timestamp::rfc3339;

/// What is said of a database, here and by the command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseDocument {
    /// Never reused, though the name may be.
    pub id: String,
    /// Its name now.
    pub name: String,
    /// When it was created: RFC 3339, UTC.
    pub created_at: String,
    /// The database it was forked from.
    pub parent: Option<String>,
    /// `asleep`, `waking`, `awake`, `hibernating` or `fenced`.
    pub state: String,
    /// Bytes on disk that it shares with no other database.
    pub own_bytes: u64,
    /// Bytes of memory; 0 when asleep.
    pub memory_bytes: u64,
    /// What its acknowledged commits have reached: `relaxed` or `local`.
    pub durability: Durability,
    /// Whether it is vacuumed, analyzed and frozen by the host.
    pub maintenance: bool,
    /// What of these is set for this database alone.
    pub settings: Settings,
}

impl From<DatabaseInfo> for DatabaseDocument {
    fn from(info: DatabaseInfo) -> Self {
        Self {
            id: info.id.to_string(),
            name: info.name,
            created_at: rfc3339(info.created_at),
            parent: info.parent,
            state: info.state.to_string(),
            own_bytes: info.own_bytes,
            memory_bytes: info.memory_bytes,
            durability: info.durability,
            maintenance: info.maintenance,
            settings: info.settings,
        }
    }
}
