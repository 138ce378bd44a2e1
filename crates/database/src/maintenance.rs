//! What happens to databases when nobody asks for anything: flushes, sleep, and the last stop.

use std::sync::{Arc, Weak};
use std::time::Duration;

use wire::PgError;

use crate::database::Database;
use crate::databases::Node;
use crate::gate;
use crate::session::Canceller;

/// Time between two looks.
const TICK: Duration = Duration::from_millis(100);
/// How long a stop waits for a statement that it has cancelled.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// Writes versions where they are due, and puts quiet databases to sleep, until the node is gone.
pub(crate) async fn run(node: Weak<Node>) {
    loop {
        let Some(strong) = node.upgrade() else { return };
        for database in strong.databases() {
            if let Err(error) = flush_if_due(&strong, &database).await {
                tracing::error!(database = %database.name(), %error, "a flush failed");
            }
            sleep_if_quiet(&strong, &database).await;
        }
        shrink_journal(&strong).await;
        drop(strong);
        tokio::time::sleep(TICK).await;
    }
}

/// Writes a version after a checkpoint, and when much was written since the last one.
async fn flush_if_due(node: &Node, database: &Database) -> Result<(), PgError> {
    let Some(volume) = database.open_volume() else {
        return Ok(());
    };
    let much = volume.dirty_bytes() > node.options.limits.dirty_bytes_max;
    if database.is_dropped() || !(much || volume.owed().version) {
        return Ok(());
    }
    gate::flush(&volume).await
}

/// Flushes the database that the journal's oldest entry is kept for, when the journal is large.
async fn shrink_journal(node: &Node) {
    let Some(journal) = node.volumes.journal() else {
        return;
    };
    if journal.bytes() <= node.options.limits.journal_bytes_max {
        return;
    }
    let owner = journal.oldest_owner();
    let oldest = node
        .databases()
        .into_iter()
        .find(|database| Some(database.id.get()) == owner);
    let Some(database) = oldest else { return };
    let flushed = match database.volume(node) {
        Ok(volume) => gate::flush(&volume).await,
        Err(error) => Err(error),
    };
    if let Err(error) = flushed {
        tracing::error!(database = %database.name(), %error, "the journal cannot shrink");
    }
}

/// Makes a database's state of this moment durable as a version.
async fn flush(database: &Database) -> Result<(), PgError> {
    let Some(volume) = database.open_volume() else {
        return Ok(());
    };
    if volume.is_pristine() || !volume.dirty() || database.is_dropped() {
        return Ok(());
    }
    gate::flush(&volume).await
}

async fn sleep_if_quiet(node: &Node, database: &Arc<Database>) {
    let Ok(mut slot) = database.slot.try_lock() else {
        return;
    };
    let quiet = slot
        .quiet_since
        .is_some_and(|since| since.elapsed() >= node.options.limits.idle);
    if slot.backend.is_some() && quiet {
        slot.shut_down(database).await;
        if let Err(error) = flush(database).await {
            tracing::error!(database = %database.name(), %error, "a flush failed");
        }
    }
    if slot.backend.is_none() {
        database.close_volume();
    }
}

/// Shuts a backend down. One that a session still has is left as it is, once its statement has
/// been cancelled: what it has committed is in the volume all the same, as after a crash.
async fn stop(database: &Database) {
    if let Ok(mut slot) = database.slot.try_lock() {
        slot.shut_down(database).await;
        return;
    }
    let current = database.current.lock().clone();
    if let Some(current) = current.filter(Canceller::is_running) {
        current.cancel();
        if tokio::time::timeout(STOP_WAIT, current.ended())
            .await
            .is_err()
        {
            tracing::warn!(database = %database.name(), "a statement did not end in time");
        }
    }
}

/// Ends everything. A session that still runs a statement is cancelled first.
pub(crate) async fn close(node: &Arc<Node>) -> Result<(), PgError> {
    node.set_closing();
    let mut first = Ok(());
    for database in node.databases() {
        stop(&database).await;
        if let Err(error) = flush(&database).await {
            tracing::error!(database = %database.name(), %error, "the last flush failed");
            first = first.and(Err(error));
        }
    }
    node.close_journal();
    first
}
