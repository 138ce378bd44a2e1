//! What a client waits for before the server hears of what it has asked, and how that ends.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use wire::pg::frontend::kind;
use wire::pg::{Frame, TransactionStatus, backend};
use wire::{PgError, sqlstate};

use super::{Client, as_error};
use crate::cancel::Waiting;
use crate::pool::Lease;

/// What is said of a statement that is cancelled, as Postgres does.
pub(crate) fn cancelled() -> PgError {
    PgError::error(
        sqlstate::QUERY_CANCELED,
        "canceling statement due to user request",
    )
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// It has waited for a server, and has one now, unless it was cancelled meanwhile.
    pub(super) async fn has(&mut self, lease: Lease, waiting: Waiting, frame: &Frame) {
        self.identity.canceller.has(Arc::clone(&lease.key));
        // From here on a cancellation goes to the server: there is no moment in which it is lost.
        if !waiting.ends() {
            self.lease = Some(lease);
            return;
        }
        self.identity.canceller.has_none().await;
        lease.give_back();
        let error = self.pool.cancelled_unsent();
        self.refuse(error, frame);
    }

    /// What was asked while there is no server fails; of an extended query the rest is left out.
    pub(super) fn refuse(&mut self, error: PgError, frame: &Frame) {
        as_error(error).encode(&mut self.side.outbox);
        match frame.kind() {
            kind::QUERY | kind::FUNCTION_CALL => {
                backend::ready_for_query(&mut self.side.outbox, TransactionStatus::Idle);
            }
            _ => self.skips = true,
        }
    }

    /// The pool has asked the server something for what the client has asked, and was to be cancelled: nothing else of it is
    /// on its way to the server then.
    pub(super) async fn expect_wanted(&mut self, waiting: Waiting) -> Result<(), PgError> {
        if !waiting.ends() {
            return Ok(());
        }
        let canceller = self.identity.canceller.clone();
        canceller.has_none().await;
        if let Some(lease) = &self.lease {
            canceller.has(Arc::clone(&lease.key));
        }
        Err(cancelled())
    }
}
