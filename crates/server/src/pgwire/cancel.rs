//! Cancelling a statement from another connection, by process id and key.

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::Mutex;
use wire::{PgError, sqlstate};

/// The key of clients before protocol 3.2.
const SHORT_KEY_BYTES: usize = 4;

/// The key of the others, as PostgreSQL's.
const KEY_BYTES: usize = 32;

/// What ends what a session runs.
#[derive(Clone)]
pub(super) enum Cancels {
    /// In a database of ours.
    Session(database::Canceller),
    /// At the origin of a binding.
    Pooled(pooler::Canceller),
}

/// The sessions that can be cancelled.
#[derive(Default)]
pub(super) struct CancelKeys(Mutex<HashMap<(u32, Bytes), Cancels>>);

/// One of them, as long as it lives.
pub(super) struct CancelKey<'a> {
    keys: &'a CancelKeys,
    entry: (u32, Bytes),
}

impl CancelKeys {
    /// Draws a key for a session.
    pub(super) fn register(
        &self,
        pid: u32,
        minor: u16,
        cancels: Cancels,
    ) -> Result<CancelKey<'_>, PgError> {
        let mut key = [0; KEY_BYTES];
        let key = if minor >= 2 {
            &mut key[..]
        } else {
            &mut key[..SHORT_KEY_BYTES]
        };
        getrandom::fill(key).map_err(|error| {
            PgError::fatal(
                sqlstate::INTERNAL_ERROR,
                format!("the system gave no random bytes for a cancel key: {error}"),
            )
        })?;
        let entry = (pid, Bytes::copy_from_slice(key));
        self.0.lock().insert(entry.clone(), cancels);
        Ok(CancelKey { keys: self, entry })
    }

    /// Cancels what the session runs. As in PostgreSQL a wrong key is answered by silence.
    pub(super) async fn cancel(&self, pid: u32, key: &Bytes) {
        let cancels = self.0.lock().get(&(pid, key.clone())).cloned();
        match cancels {
            Some(Cancels::Session(canceller)) => canceller.cancel(),
            // Clients take the end of their request for the word that it was passed on.
            Some(Cancels::Pooled(canceller)) => canceller.cancel().await,
            None => tracing::info!(pid, "a cancel request names no session, or has a wrong key"),
        }
    }
}

impl CancelKey<'_> {
    pub(super) fn key(&self) -> &[u8] {
        &self.entry.1
    }
}

impl Drop for CancelKey<'_> {
    fn drop(&mut self) {
        self.keys.0.lock().remove(&self.entry);
    }
}
