//! From the server to the client.

use std::sync::Arc;

use bytes::Buf as _;
use tokio::io::{AsyncRead, AsyncWrite};
use wire::pg::Severity;
use wire::pg::backend::{self, kind};
use wire::{PgError, sqlstate};

use super::Client;
use super::unconfirmed::By;
use crate::awaited::Fate;
use crate::statements;

const HEADER_BYTES: usize = 5;

/// Messages that are looked at are no longer, or are taken for broken.
const LOOKED_AT_BYTES_MAX: usize = 16 << 20;

/// A message of the server of which a part has come.
#[derive(Debug, Default)]
pub(super) struct Relay {
    /// Bytes that are still to come.
    rest: usize,
    is_swallowed: bool,
}

impl Relay {
    /// Bytes of a message that are still to come.
    pub(super) fn rest(&self) -> usize {
        self.rest
    }

    /// Whether no message is half through.
    pub(super) fn is_done(&self) -> bool {
        self.rest == 0
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Passes on what the server has sent.
    pub(super) fn relay_all(&mut self) -> Result<(), PgError> {
        loop {
            self.tell_own();
            let Some(lease) = &mut self.lease else {
                return Ok(());
            };
            if self.relay.rest > 0 {
                let inbox = &mut lease.side.inbox;
                let now = self.relay.rest.min(inbox.len());
                if now == 0 {
                    return Ok(());
                }
                match self.relay.is_swallowed {
                    true => inbox.advance(now),
                    false => {
                        if let Some(recording) = &mut self.cached.recording {
                            recording.bytes(&inbox[..now]);
                        }
                        move_front(inbox, now, &mut self.side.outbox);
                    }
                }
                self.relay.rest -= now;
                continue;
            }
            let Some((kind, length)) = header(&lease.side.inbox)? else {
                return Ok(());
            };
            let total = length + 1;
            let is_completed = kind == kind::COMMAND_COMPLETE && !self.due.unpins.is_empty();
            if is_looked_at(kind)
                || is_completed
                || (self.cached.describing.is_some() && is_description(kind))
            {
                if total > LOOKED_AT_BYTES_MAX {
                    return Err(broken("the origin sent a message that is far too long"));
                }
                if lease.side.inbox.len() < total {
                    return Ok(());
                }
            }
            self.one(kind, total)?;
        }
    }

    /// Answers of ours whose turn it is.
    fn tell_own(&mut self) {
        if let Some(lease) = &mut self.lease
            && self.relay.rest == 0
        {
            while let Some(answer) = lease.account.told() {
                match answer.first() {
                    Some(&kind::PARSE_COMPLETE) => drop(self.unconfirmed.prepared()),
                    Some(&kind::CLOSE_COMPLETE) => self.unconfirmed.closed(),
                    _ => {}
                }
                self.side.outbox.extend_from_slice(&answer);
            }
        }
    }

    fn one(&mut self, kind: u8, total: usize) -> Result<(), PgError> {
        let by = match &self.lease {
            Some(lease) if lease.account.is_at_query() => By::Query,
            _ => By::Sync,
        };
        let is_refused_at_bind = kind == kind::ERROR_RESPONSE
            && (self.lease.as_ref()).is_some_and(|lease| lease.account.is_at_bind());
        if is_refused_at_bind && self.asks_again(&PgError::decode(&self.error(total))?)? {
            self.pass_on(total, true);
            return Ok(());
        }
        let Some(lease) = self.lease.as_deref_mut() else {
            return Ok(());
        };
        let status = match kind {
            kind::READY_FOR_QUERY => {
                let body = &lease.side.inbox[HEADER_BYTES..total];
                Some(backend::decode_ready_for_query(body)?)
            }
            _ => None,
        };
        if kind == kind::ERROR_RESPONSE && lease.account.is_at_own_query() {
            // What is behind it has seen what others have left: nobody is told of it.
            lease.is_broken = true;
            return Err(PgError::fatal(
                sqlstate::CONNECTION_FAILURE,
                "the connection to the origin could not be made ready for another session",
            )
            .detail(error_text(&lease.side.inbox[HEADER_BYTES..total])));
        }
        let fate = lease.received(kind, status);
        let body = match is_looked_at(kind) {
            true => &lease.side.inbox[HEADER_BYTES..total],
            false => &[],
        };
        match kind {
            kind::BIND_COMPLETE => self.kept = None,
            kind::COMMAND_COMPLETE if !self.due.unpins.is_empty() => {
                self.due.completed(&lease.side.inbox[HEADER_BYTES..total]);
            }
            kind::PARAMETER_STATUS => {
                let (name, value) = backend::decode_parameter_status(body)?;
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                let (name, value) = (text(name), text(value));
                Arc::make_mut(&mut lease.parameters).insert(name.clone(), value.clone());
                if fate == Fate::Forward {
                    Arc::make_mut(&mut self.told).insert(name, value);
                }
            }
            kind::PARSE_COMPLETE => {
                if fate == Fate::Forward
                    && let Some(statement) = self.unconfirmed.prepared()
                {
                    statement.was_taken();
                }
            }
            kind::ERROR_RESPONSE => {
                self.due.has_failed = true;
                self.cached.describing = None;
                if self.unconfirmed.failed(by, &mut self.statements) {
                    self.unnamed = None;
                }
                // It may have been prepared behind what has failed.
                self.unnamed_there = None;
                if let Ok(error) = PgError::decode(body) {
                    lease.is_broken |= error.severity() != Severity::Error;
                    if error.code() == "42P05"
                        && let Some(id) = statements::named_in(error.message())
                    {
                        lease.has_still(id);
                    }
                    if error.code() == sqlstate::READ_ONLY_SQL_TRANSACTION
                        && self.settings.get("default_transaction_read_only").is_none()
                        && self.pool.doubt()
                    {
                        lease.has_refused_to_write = true;
                    }
                }
            }
            _ => {}
        }
        if let Some(describing) = &mut self.cached.describing
            && describing.message(kind, &lease.side.inbox[..total.min(lease.side.inbox.len())])
            && let Some(describing) = self.cached.describing.take()
        {
            describing.finish();
        }
        if let Some(recording) = &mut self.cached.recording
            && fate != Fate::Swallow
        {
            recording.message(kind);
        }
        if let Some(status) = status {
            if std::mem::take(&mut self.is_asked_again) {
                // What ends is what was refused.
                self.pass_on(total, true);
                return Ok(());
            }
            lease.settle();
            if fate == Fate::Forward {
                self.kept = None;
                self.unconfirmed.ended(&mut self.statements);
                self.recorded(status);
            }
        }
        let Some(lease) = self.lease.as_deref_mut() else {
            return Ok(());
        };
        match fate {
            Fate::Forward => self.pass_on(total, false),
            Fate::Swallow => self.pass_on(total, true),
            // A statement that the pool prepared again for the client: the error is the client's.
            Fate::Failed => self.pass_on(total, false),
            Fate::Instead(answer) => {
                self.side.outbox.extend_from_slice(&answer);
                self.pass_on(total, true);
            }
            Fate::Unexpected => {
                lease.is_broken = true;
                return Err(broken("the origin sent an answer to nothing"));
            }
        }
        Ok(())
    }

    /// The body of a message that is here as a whole.
    fn error(&self, total: usize) -> Vec<u8> {
        let inbox = self.lease.as_ref().map(|lease| &lease.side.inbox);
        let body = inbox.and_then(|inbox| inbox.get(HEADER_BYTES..total));
        body.unwrap_or_default().to_vec()
    }

    /// Moves as much of a message as there is, and remembers the rest.
    fn pass_on(&mut self, total: usize, is_swallowed: bool) {
        self.relay = Relay {
            rest: total,
            is_swallowed,
        };
    }
}

/// Moves bytes from the front of one buffer to the end of another, without a copy where the other is empty.
fn move_front(from: &mut bytes::BytesMut, bytes: usize, to: &mut bytes::BytesMut) {
    if to.is_empty() && bytes == from.len() {
        std::mem::swap(from, to);
        from.clear();
    } else {
        to.extend_from_slice(&from[..bytes]);
        from.advance(bytes);
    }
}

fn is_looked_at(kind: u8) -> bool {
    matches!(
        kind,
        kind::READY_FOR_QUERY | kind::PARAMETER_STATUS | kind::ERROR_RESPONSE
    )
}

fn is_description(kind: u8) -> bool {
    matches!(
        kind,
        kind::PARAMETER_DESCRIPTION | kind::ROW_DESCRIPTION | kind::NO_DATA
    )
}

/// The kind and the length, which counts itself.
fn header(bytes: &[u8]) -> Result<Option<(u8, usize)>, PgError> {
    let Some([kind, length @ ..]) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let length = i32::from_be_bytes(*length);
    match usize::try_from(length) {
        Ok(length) if length >= 4 => Ok(Some((*kind, length))),
        _ => Err(broken("the origin sent a message without a length")),
    }
}

/// What an error of a server says.
fn error_text(body: &[u8]) -> String {
    let error = PgError::decode(body).unwrap_or_else(|error| error);
    error.message().to_owned()
}

fn broken(message: &str) -> PgError {
    PgError::fatal(sqlstate::PROTOCOL_VIOLATION, message)
}
