//! Versions are written, and the journal shrinks.

use std::sync::{Arc, Weak};
use std::time::Instant;

use tokio::sync::watch;
use wire::PgError;

use super::{TICK, tick};
use crate::database::{Database, volume_error};
use crate::gate;
use crate::node::{Node, blocking};
use crate::refusal::Refused;

pub(super) async fn write_versions(node: Weak<Node>, mut closing: watch::Receiver<bool>) {
    while tick(&mut closing).await {
        let Some(node) = node.upgrade() else { return };
        for database in node.live.all() {
            stop_if_too_much_wal(&node, &database);
            if let Err(error) = flush_if_due(&node, &database).await
                && !database.is_dropped()
            {
                tracing::error!(database = %database.name(), %error, "a flush failed");
            }
        }
        shrink_journal(&node).await;
        node.live.retire();
    }
}

/// Writes a version after a checkpoint, and when much was written since the last one.
async fn flush_if_due(node: &Node, database: &Database) -> Result<(), PgError> {
    let Some(volume) = database.volume_now() else {
        return Ok(());
    };
    let much = volume.dirty_bytes() > node.adjustable.dirty_bytes_max.get();
    if database.is_dropped() || !(much || volume.version_is_due()) {
        return Ok(());
    }
    let started = Instant::now();
    gate::flush(&volume).await?;
    node.counters.versions.took(started.elapsed());
    warn_of_size(database, volume.own_bytes());
    Ok(())
}

/// Says that a database is larger than somebody wants to hear of.
fn warn_of_size(database: &Database, own_bytes: u64) {
    if let Some(bytes_warn) = database.settings().bytes_warn
        && own_bytes > bytes_warn
    {
        let database = database.name();
        tracing::warn!(%database, own_bytes, bytes_warn, "a database is larger than its bytesWarn");
    }
}

/// Cancels a statement that writes more WAL than may be kept: no checkpoint can be made beside it.
fn stop_if_too_much_wal(node: &Node, database: &Database) {
    let max = node.adjustable.wal_bytes_max.get();
    let Some(volume) = database.volume_now() else {
        return;
    };
    if database.wal_since_checkpoint(&volume) <= max {
        return;
    }
    for running in database.running() {
        database.refuse(Refused::Wal { max });
        running.cancel();
    }
}

/// Flushes databases that the journal's oldest entries are kept for, while the journal is large.
async fn shrink_journal(node: &Arc<Node>) {
    let Some(journal) = node.volumes.journal() else {
        return;
    };
    let started = Instant::now();
    let mut before = None;
    while journal.bytes() > node.adjustable.journal_bytes_max.get() && started.elapsed() < TICK {
        let owner = journal.oldest_owner();
        let Some(number) = owner.filter(|_| owner != before) else {
            return;
        };
        before = owner;
        if let Err(error) = flush_owner(node, number).await {
            tracing::error!(owner, %error, "the journal cannot shrink");
            return;
        }
    }
}

/// Makes a version of the database with this id, so that the journal need not keep its entries.
async fn flush_owner(node: &Arc<Node>, owner: u64) -> Result<(), PgError> {
    let node = Arc::clone(node);
    blocking(move || {
        let Some(name) = node.directory.name_of(owner)? else {
            // Deleted; what came after that is nobody's.
            if let Some(journal) = node.volumes.journal() {
                journal.forget(owner);
            }
            return Ok(());
        };
        let database = node.find(&name)?;
        // Opening it is enough if its version has all that the journal has.
        let failed = match database.volume(&node) {
            Ok(volume) => match volume.flush() {
                Ok(_version) => return Ok(()),
                Err(error) => volume_error(&error),
            },
            Err(error) => error,
        };
        // Others are not to wait until somebody has repaired it.
        if !database.carry_log(&node, node.adjustable.journal_bytes_max.get() / 2)? {
            return Err(failed);
        }
        tracing::warn!(
            database = %name, error = %failed,
            "what the journal holds of a database that cannot be opened was written anew"
        );
        Ok(())
    })
    .await
}

/// Makes a database's state of this moment durable as a version.
pub(super) async fn flush(database: &Database) -> Result<(), PgError> {
    let Some(volume) = database.open_volume() else {
        return Ok(());
    };
    if volume.is_pristine() || !volume.dirty() || database.is_dropped() {
        return Ok(());
    }
    gate::flush(&volume).await
}
