//! The last stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use wire::PgError;

use super::versions::flush;
use crate::database::Database;
use crate::hibernate::hibernate;
use crate::node::Node;

/// How long a stop waits for a statement that it has cancelled.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// Puts a database to sleep for good. A backend that a session still has is left as it is, once its
/// statement has been cancelled: what it has committed is in the volume all the same, as after a crash.
async fn stop(node: &Arc<Node>, database: &Database) -> Result<(), PgError> {
    let running = database.running();
    for statement in &running {
        statement.cancel();
    }
    for statement in running {
        if tokio::time::timeout(STOP_WAIT, statement.ended())
            .await
            .is_err()
        {
            tracing::warn!(database = %database.name(), "a statement did not end in time");
        }
    }
    if let Ok(mut slot) = database.slot.try_lock()
        && database.further.drop_idle().await
    {
        if slot.backend.is_some() {
            return hibernate(node, database, &mut slot).await;
        }
        return flush(database).await;
    }
    database.further.end().await;
    flush(database).await
}

/// Ends everything. A session that still runs a statement is cancelled first.
pub(crate) async fn close(node: &Arc<Node>) -> Result<(), PgError> {
    let mut first = Ok(());
    let mut running = JoinSet::new();
    for database in node.live.all() {
        if running.len() >= node.options.limits.wakes() {
            first = first.and(stopped(running.join_next().await));
        }
        let node = Arc::clone(node);
        running.spawn(async move {
            let stopped = stop(&node, &database).await;
            stopped.inspect_err(|error| {
                tracing::error!(database = %database.name(), %error, "the last flush failed");
            })
        });
    }
    while let Some(one) = running.join_next().await {
        first = first.and(stopped(Some(one)));
    }
    node.close_journal();
    first
}

fn stopped(
    one: Option<Result<Result<(), PgError>, tokio::task::JoinError>>,
) -> Result<(), PgError> {
    match one {
        None => Ok(()),
        Some(Ok(outcome)) => outcome,
        Some(Err(error)) => Err(PgError::error(
            wire::sqlstate::INTERNAL_ERROR,
            error.to_string(),
        )),
    }
}
