//! What happens to databases when nobody asks for anything: flushes, sleep, and the last stop.

use std::sync::{Arc, Weak};
use std::time::Duration;

use wire::PgError;

use crate::database::{Database, volume_error};
use crate::databases::Node;
use crate::session::Canceller;

/// Shortest time between two looks.
const TICK_MIN: Duration = Duration::from_millis(10);
/// How long a stop waits for a statement that it has cancelled.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// Flushes what changed, and puts quiet databases to sleep, until the node is gone.
pub(crate) async fn run(node: Weak<Node>) {
    loop {
        let Some(strong) = node.upgrade() else { return };
        let interval = strong.options.limits.flush_interval.max(TICK_MIN);
        for database in strong.databases() {
            if let Err(error) = flush(&database).await {
                tracing::error!(database = %database.name(), %error, "a flush failed");
            }
            sleep_if_quiet(&strong, &database).await;
        }
        drop(strong);
        tokio::time::sleep(interval).await;
    }
}

/// Makes a database's state of this moment durable. It is as after a crash at this moment: all
/// that was committed is in it.
async fn flush(database: &Database) -> Result<(), PgError> {
    let Some(volume) = database.open_volume() else {
        return Ok(());
    };
    if volume.is_pristine() || !volume.dirty() || database.is_dropped() {
        return Ok(());
    }
    let flushed = tokio::task::spawn_blocking(move || volume.flush()).await;
    match flushed {
        Ok(Ok(_version)) => Ok(()),
        Ok(Err(error)) => Err(volume_error(&error)),
        Err(error) => Err(PgError::error(
            wire::sqlstate::INTERNAL_ERROR,
            error.to_string(),
        )),
    }
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
    first
}
