//! Compaction in the background: volumes that were shared come to use little room in their layers.

use std::sync::{Arc, Weak};
use std::time::Instant;

use tokio::sync::watch;
use wire::PgError;

use crate::database::{Database, volume_error};
use crate::disk_watch::Room;
use crate::gate;
use crate::info::State;
use crate::maintenance::tick;
use crate::node::{Node, blocking};

/// Compacts awake databases that are over layers, one after the other, a step at a time.
pub(crate) async fn run(node: Weak<Node>, mut closing: watch::Receiver<bool>) {
    while tick(&mut closing).await {
        let Some(node) = node.upgrade() else { return };
        for database in node.live.all() {
            if let Err(error) = compact(&node, &database).await {
                tracing::error!(database = %database.name(), %error, "compaction failed");
            }
            if let Some(volume) = database.volume_now()
                && let Err(error) = gate::give_back(&volume).await
            {
                tracing::warn!(database = %database.name(), %error, "room is not given back");
            }
        }
    }
}

/// Compacts one database, for as long as it is awake.
async fn compact(node: &Arc<Node>, database: &Arc<Database>) -> Result<(), PgError> {
    loop {
        let Some(volume) = database.volume_now() else {
            return Ok(());
        };
        // It writes before it gives anything back.
        if node.disk.room() != Room::Enough {
            return Ok(());
        }
        let awake = database.state() == State::Awake && !database.is_dropped();
        if !awake || node.is_closing() || volume.layers().is_empty() {
            return Ok(());
        }
        // Whoever forks or deletes changes what the directory counts.
        let _changing = node.changing.read().await;
        if database.is_dropped() {
            return Ok(());
        }
        let started = Instant::now();
        let (on, in_database) = (Arc::clone(node), Arc::clone(database));
        let step = blocking(move || {
            // Not to know is no reason to copy.
            let referents = |layer| on.directory.referents(layer).unwrap_or(u64::MAX);
            let step = volume
                .compact(&referents)
                .map_err(|error| volume_error(&error))?;
            // Also what an earlier step could not finish, and somebody else's flush has.
            in_database.settle_base(&on, &volume)?;
            Ok(step)
        });
        let step = step.await?;
        if step.pages_copied > 0 || step.rebased {
            node.counters.compactions.took(started.elapsed());
        }
        if !step.more {
            return Ok(());
        }
    }
}
