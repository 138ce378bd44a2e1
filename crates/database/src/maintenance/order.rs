//! Quiet, awake databases are kept in order.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, watch};
use tokio::task::JoinSet;

use super::quiet::quiet;
use super::{ended, tick};
use crate::database::Database;
use crate::node::Node;
use crate::slot::Slot;
use crate::upkeep::{self, Ended};

/// How long a database is quiet before upkeep begins.
const UPKEEP_QUIET: Duration = Duration::from_millis(500);

/// Databases that are kept in order at the same time.
const UPKEEP_MAX: usize = 4;

pub(super) async fn keep_in_order(node: Weak<Node>, mut closing: watch::Receiver<bool>) {
    let mut running = JoinSet::new();
    while tick(&mut closing).await {
        let Some(node) = node.upgrade() else { return };
        while let Some(one) = running.try_join_next() {
            ended(Some(one));
        }
        for quiet in quiet(&node) {
            if node.is_closing() {
                return;
            }
            if quiet.since.elapsed() < UPKEEP_QUIET {
                continue;
            }
            let database = quiet.database;
            let Ok(mut slot) = Arc::clone(&database.slot).try_lock_owned() else {
                continue;
            };
            if !upkeep::is_due(&node, &database, &slot) {
                slot.release(&node.current.image);
                // There may be thousands.
                tokio::task::yield_now().await;
                continue;
            }
            // One that takes long is not in the way of the others.
            if running.len() >= UPKEEP_MAX {
                break;
            }
            let node = Arc::clone(&node);
            running.spawn(async move { keep_one_in_order(&node, &database, slot).await });
        }
    }
}

async fn keep_one_in_order(
    node: &Arc<Node>,
    database: &Arc<Database>,
    mut slot: OwnedMutexGuard<Slot>,
) {
    match upkeep::run(node, database, &mut slot).await {
        Ok(Ended::Done | Ended::Preempted) => {}
        Err(error) => {
            tracing::warn!(database = %database.name(), error = %error.for_log(), "upkeep failed");
            if slot.backend.is_none() {
                slot.lose(database);
            }
        }
    }
}
