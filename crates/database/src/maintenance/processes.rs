//! The processes of databases: a first one that has ended is replaced, those that nobody needs any more go.

use std::sync::Arc;

use crate::info::State;
use crate::node::Node;
use crate::wake;

/// Replaces first processes that have ended, without which their databases would never sleep, and lets others
/// go.
pub(super) async fn look_after(node: &Arc<Node>) {
    for database in node.live.all() {
        if database.further.is_one_to_retire() {
            let database = Arc::clone(&database);
            // Its end may wait for locks.
            drop(tokio::spawn(async move { database.further.retire().await }));
        }
        let Ok(slot) = Arc::clone(&database.slot).try_lock_owned() else {
            continue;
        };
        if slot.backend.is_some() || database.state() != State::Awake {
            continue;
        }
        let node = Arc::clone(node);
        // It may have to wait.
        drop(tokio::spawn(async move {
            wake::replace_first(slot, &node, &database).await;
        }));
    }
}
