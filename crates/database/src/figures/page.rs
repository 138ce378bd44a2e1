//! Figures as they are told.

use std::time::Instant;

use super::Counts;
use crate::database::Database;
use crate::info::State;
use crate::node::Node;
use volume::DatabaseId;
use wire::{DatabaseName, PgError};

/// What is known of a database's use since the data directory was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseFigures {
    /// Its name.
    pub name: String,
    /// Where it is in its life.
    pub state: State,
    /// Sessions in it now.
    pub sessions: u64,
    /// Bytes of its backend's address space; 0 when asleep or busy.
    pub memory_bytes: u64,
    /// Bytes that it stores beyond its template; `None` where its files would have to be looked at.
    pub own_bytes: Option<u64>,
    /// Seconds since it was last used; `None` if it was not.
    pub idle_seconds: Option<u32>,
    /// What was counted.
    pub counts: Counts,
}

/// What is known of all databases together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeFigures {
    /// Of all databases that there are or were.
    pub total: Counts,
    /// Times that the figures of one were added to those of all others, past `telemetry.figures_databases_max`.
    pub forgotten: u64,
    /// Databases with figures of their own.
    pub known: u64,
    /// The first of them, in the order that was asked for.
    pub databases: Vec<DatabaseFigures>,
}

/// A database and its counts, before more is looked up.
struct Found {
    id: DatabaseId,
    counts: Counts,
    used_at: u32,
}

impl NodeFigures {
    /// The sum, and those of the `top` databases whose `key` is the greatest.
    pub(crate) fn of(node: &Node, top: usize, key: impl Fn(&Counts) -> u64) -> Self {
        let mut found = Vec::new();
        let (gone, forgotten) = node.live.figures(|id, counts, used_at| {
            found.push(Found {
                id,
                counts: *counts,
                used_at,
            });
        });
        let mut total = gone;
        for one in &found {
            total.add(&one.counts);
        }
        let known = found.len() as u64;
        if top < found.len() && top > 0 {
            found.select_nth_unstable_by_key(top - 1, |one| std::cmp::Reverse(key(&one.counts)));
        }
        found.truncate(top);
        found.sort_by_key(|one| std::cmp::Reverse(key(&one.counts)));
        // One that was deleted meanwhile is left out.
        let databases = found.into_iter().filter_map(|one| {
            let name = node.directory.name_of(one.id.get()).ok()??;
            let live = node.live.get(&name);
            Some(tell(node, name.as_str(), live.as_deref(), one))
        });
        Self {
            total,
            forgotten,
            known,
            databases: databases.collect(),
        }
    }
}

impl DatabaseFigures {
    /// Those of one database, its size included. Blocks for the disk.
    ///
    /// # Errors
    /// 3D000 if it is not there.
    pub(crate) fn find(node: &Node, name: &DatabaseName) -> Result<Self, PgError> {
        let database = node.find(name)?;
        let found = Found {
            id: database.id,
            counts: database.figures.get(),
            used_at: database.figures.used_at(),
        };
        let mut told = tell(node, name.as_str(), Some(&database), found);
        // One that cannot be read has an error for whoever uses it; here it only has no size.
        let volume = database.volume(node);
        told.own_bytes = volume.ok().map(|volume| volume.own_bytes());
        Ok(told)
    }
}

fn tell(node: &Node, name: &str, live: Option<&Database>, found: Found) -> DatabaseFigures {
    let now = node.live.since.at(Instant::now());
    let was_used = found.counts != Counts::default();
    DatabaseFigures {
        name: name.to_owned(),
        state: live.map_or(State::Asleep, Database::state),
        sessions: live.map_or(0, |live| live.sessions.lock().len() as u64),
        memory_bytes: live.map_or(0, Database::memory_bytes),
        own_bytes: live.and_then(|live| Some(live.volume_now()?.own_bytes())),
        idle_seconds: was_used.then(|| now.saturating_sub(found.used_at)),
        counts: found.counts,
    }
}
