//! What is told of a database without waking it.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use volume::DatabaseId;

use crate::database::Database;
use crate::node::Node;
use crate::options::Durability;
use crate::record::Settings;

/// Where a database is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It has no backend, and costs no memory.
    Asleep = 0,
    /// A backend is being started, or waits for its turn.
    Waking = 1,
    /// It has a backend.
    Awake = 2,
    /// Its backend is being given up.
    Hibernating = 3,
    /// A later generation has written its volume: it cannot be used here.
    Fenced = 4,
}

impl State {
    pub(crate) fn from_number(number: u8) -> Self {
        let all = [
            Self::Asleep,
            Self::Waking,
            Self::Awake,
            Self::Hibernating,
            Self::Fenced,
        ];
        all.into_iter()
            .find(|state| *state as u8 == number)
            .unwrap_or(Self::Asleep)
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Asleep => "asleep",
            Self::Waking => "waking",
            Self::Awake => "awake",
            Self::Hibernating => "hibernating",
            Self::Fenced => "fenced",
        })
    }
}

/// What is known of a database without waking it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseInfo {
    /// Unique, and never reused.
    pub id: DatabaseId,
    /// Its name, which can change.
    pub name: String,
    /// When it was made.
    pub created_at: SystemTime,
    /// The database that it was forked from, by the name of that time.
    pub parent: Option<String>,
    /// Where it is in its life.
    pub state: State,
    /// Bytes that it stores beyond its template.
    pub own_bytes: u64,
    /// Bytes of its backend's address space; 0 when asleep or busy.
    pub memory_bytes: u64,
    /// What its acknowledged commits have reached.
    pub durability: Durability,
    /// Whether the host vacuums, analyzes and freezes it.
    pub maintenance: bool,
    /// What of that is set for this database alone.
    pub settings: Settings,
}

impl DatabaseInfo {
    /// With the size that is known without a look at the files.
    pub(crate) fn of(node: &Node, database: &Database) -> Self {
        let volume = database.open_volume();
        Self::new(
            node,
            database,
            volume.map_or(0, |volume| volume.own_bytes()),
        )
    }

    /// Looks at the files of one that sleeps. Blocks for the disk.
    pub(crate) fn with_size(node: &Node, database: &Database) -> Self {
        // One that cannot be read has an error for whoever uses it; here it only has no size.
        let volume = database.volume(node);
        Self::new(
            node,
            database,
            volume.map_or(0, |volume| volume.own_bytes()),
        )
    }

    fn new(node: &Node, database: &Database, own_bytes: u64) -> Self {
        let record = database.record();
        Self {
            id: database.id,
            name: database.name().as_str().to_owned(),
            created_at: UNIX_EPOCH + Duration::from_millis(record.created_ms),
            parent: record.parent,
            state: database.state(),
            own_bytes,
            memory_bytes: database.memory_bytes(),
            durability: database.durability(node),
            maintenance: database.is_maintained(node),
            settings: record.settings,
        }
    }
}
