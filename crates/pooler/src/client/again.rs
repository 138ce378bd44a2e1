//! Statements whose result has another type than when they were prepared, or that a server has lost.
//!
//! After DDL Postgres refuses to run them: "cached plan must not change result type". Who asks in the same breath what the
//! result looks like is not to know: the statement is prepared again and asked again. Others would take the new columns for
//! the old ones, so they are told as by a server of their own; then it is prepared again.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use wire::PgError;
use wire::pg::{ErrorField, Frame, Target, frontend};

use super::Client;
use crate::awaited::Whose;
use crate::statements::{self, Statement};

/// What is kept of messages until their first answer. Longer ones are not sent again.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// The function of Postgres that refuses; drivers go by it too.
const ROUTINE: &str = "RevalidateCachedQuery";

/// The messages from a `Bind`, the first that runs something outside of a transaction, to its `Sync`.
#[derive(Debug)]
pub(super) struct Kept {
    statement: Arc<Statement>,
    messages: BytesMut,
    /// The client asks what the result looks like.
    describes: bool,
    is_ended: bool,
}

impl Kept {
    pub(super) fn new(statement: &Arc<Statement>, bind: &[u8]) -> Option<Self> {
        (bind.len() <= KEPT_BYTES_MAX).then(|| Self {
            statement: Arc::clone(statement),
            messages: BytesMut::from(bind),
            describes: false,
            is_ended: false,
        })
    }

    /// Takes another message along: whether it could be sent again with it.
    pub(super) fn takes(&mut self, frame: &Frame) -> bool {
        let is_portal = |frame: &Frame| {
            matches!(
                frontend::decode_target(frame.body()),
                Ok((Target::Portal, _))
            )
        };
        match frame.kind() {
            _ if self.is_ended => return false,
            frontend::kind::DESCRIBE if is_portal(frame) => self.describes = true,
            frontend::kind::EXECUTE | frontend::kind::FLUSH => {}
            frontend::kind::SYNC => self.is_ended = true,
            _ => return false,
        }
        self.messages.extend_from_slice(frame.bytes());
        self.messages.len() <= KEPT_BYTES_MAX
    }
}

/// Whether Postgres refuses a statement for its result has changed.
fn is_of_change(error: &PgError) -> bool {
    error.code() == wire::sqlstate::FEATURE_NOT_SUPPORTED
        && error.get(ErrorField::Routine) == Some(ROUTINE)
}

/// Whether a server does not know a statement of the pool's any more: something that nobody can see into has deallocated it.
fn is_of_loss(error: &PgError) -> bool {
    error.code() == "26000" && error.message().contains(statements::PREFIX)
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// After an error of the server: whether the statement is asked again, and nobody is told.
    ///
    /// # Errors
    ///
    /// If a message cannot be made.
    pub(super) fn asks_again(&mut self, error: &PgError) -> Result<bool, PgError> {
        let kept = self.kept.take();
        let is_changed = is_of_change(error);
        if !is_changed && !is_of_loss(error) {
            return Ok(false);
        }
        let Some(lease) = self.lease.as_deref_mut() else {
            return Ok(false);
        };
        let Some(kept) = kept else {
            // Whichever it was: all are prepared again when they are wanted.
            lease.forgets_statements();
            self.unnamed_there = None;
            return Ok(false);
        };
        lease.forgets(kept.statement.id);
        if is_changed {
            // Whoever prepares the text anew gets another statement, on every server.
            self.pool.statements.retire(&kept.statement);
            kept.statement.forget_description();
            if !kept.describes {
                return Ok(false);
            }
        }
        let Some(messages) = lease.account.takes_back() else {
            return Ok(false);
        };
        if !kept.is_ended {
            frontend::sync(&mut lease.side.outbox);
        }
        self.is_asked_again = true;
        lease.prepares(&kept.statement, Whose::Pool)?;
        lease.side.outbox.extend_from_slice(&kept.messages);
        for message in messages {
            lease.account.sent(message);
        }
        if kept.statement.facts.takes_data && !kept.is_ended {
            lease.account.expects_copy();
            frontend::flush(&mut lease.side.outbox);
        }
        Ok(true)
    }
}
