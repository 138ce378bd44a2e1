//! What waits for the disk, on a thread for that.

use wire::{PgError, sqlstate};

/// Runs it there.
///
/// # Errors
/// Its own; XX000 if it panicked.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PgError> + Send + 'static,
) -> Result<T, PgError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| PgError::error(sqlstate::INTERNAL_ERROR, error.to_string()))
        .flatten()
}
