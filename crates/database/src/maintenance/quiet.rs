//! Databases that no session has.

use std::sync::Arc;
use std::time::Instant;

use crate::database::Database;
use crate::node::Node;

/// A quiet, awake database, and its slot.
pub(super) struct Quiet {
    pub(super) database: Arc<Database>,
    pub(super) since: Instant,
}

/// Awake databases without a session, the one that is quiet for the longest time first.
pub(super) fn quiet(node: &Node) -> Vec<Quiet> {
    let mut quiet = Vec::new();
    for database in node.live.all() {
        let since = match database.slot.try_lock() {
            Ok(slot) if slot.backend.is_some() && database.further.is_idle() => slot.quiet_since,
            _ => continue,
        };
        if let Some(since) = since {
            quiet.push(Quiet { database, since });
        }
    }
    quiet.sort_unstable_by_key(|quiet| quiet.since);
    quiet
}
