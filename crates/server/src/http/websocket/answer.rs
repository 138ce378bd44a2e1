//! The answer to one request, on its way into the outbox.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use database::Answer;
use tokio::sync::Notify;
use wire::http::{ResultWriter, no_more_arrays};
use wire::pg::backend::kind;
use wire::{PgError, SizeLimit, sqlstate};

use super::outbox::Outbox;
use super::request::Id;
use crate::http::visit::Rows;

/// Rows of one message. A row that is larger has one of its own.
const PART_BYTES: usize = 16 * 1024;

/// The largest row, as JSON.
const ROW_MAX: SizeLimit = SizeLimit {
    bytes: 64 << 20,
    name: "what a row in a WebSocket may be",
    remedy: "ask for it by Accept: application/x-ndjson, or over PostgreSQL's protocol",
};

/// Whether a request is to end.
#[derive(Clone, Default)]
pub(super) struct Given(Arc<(AtomicBool, Notify)>);

impl Given {
    /// It is to end: nobody waits for room on its behalf any more.
    pub(super) fn up(&self, outbox: &Outbox) {
        self.0.0.store(true, Ordering::Release);
        self.0.1.notify_one();
        outbox.wake();
    }

    pub(super) fn is_up(&self) -> bool {
        self.0.0.load(Ordering::Acquire)
    }

    /// Waits until it is to end.
    pub(super) async fn is_given_up(&self) {
        while !self.is_up() {
            self.0.1.notified().await;
        }
    }
}

/// The result of a statement: all but its last message is given away as it comes.
pub(super) struct Result {
    writer: Option<ResultWriter>,
    outbox: Arc<Outbox>,
    given: Given,
    last: Option<Vec<u8>>,
}

impl Result {
    pub(super) fn new(
        id: Id,
        rows: Rows,
        max: SizeLimit,
        outbox: Arc<Outbox>,
        given: Given,
    ) -> Self {
        let mode = rows.mode();
        let writer = ResultWriter::in_parts(mode, &format!("\"id\":{id}"), max, ROW_MAX);
        Self {
            writer: Some(writer),
            outbox,
            given,
            last: None,
        }
    }

    /// Its last message.
    pub(super) fn into_last(self) -> std::result::Result<Vec<u8>, PgError> {
        self.last
            .ok_or_else(|| PgError::error(sqlstate::PROTOCOL_VIOLATION, "the statement had no end"))
    }
}

impl Answer for Result {
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<std::result::Result<(), PgError>> {
        // In this order: who gives it up wakes who waits.
        let room = self.outbox.poll_room(context);
        if self.given.is_up() {
            return Poll::Ready(Err(cancelled()));
        }
        ready!(room);
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, kind: u8, body: &[u8]) -> std::result::Result<(), PgError> {
        match (kind, &mut self.writer) {
            (kind::ROW_DESCRIPTION, Some(writer)) => writer.row_description(body)?,
            (kind::DATA_ROW, Some(writer)) => {
                writer.data_row(body, &no_more_arrays)?;
                if writer.bytes() >= PART_BYTES {
                    self.outbox.push(writer.take_part());
                }
            }
            (kind::COMMAND_COMPLETE, writer) => {
                let last = writer.take().map(|writer| writer.command_complete(body));
                self.last = last.transpose()?;
            }
            (kind::EMPTY_QUERY_RESPONSE, writer) => {
                self.last = writer.take().map(ResultWriter::empty_query).transpose()?;
            }
            _ => {}
        }
        Ok(())
    }
}

pub(super) fn cancelled() -> PgError {
    PgError::error(
        sqlstate::QUERY_CANCELED,
        "canceling statement due to user request",
    )
}

/// `{"id":1,"error":{...}}`
pub(super) fn error(id: Id, error: &PgError) -> Vec<u8> {
    let mut out = format!("{{\"id\":{id},").into_bytes();
    out.extend_from_slice(&error.to_json()[1..]);
    out
}

/// `{"transaction":1,"error":{...}}`: it has ended without being asked to.
pub(super) fn transaction_ended(transaction: Id, error: &PgError) -> Vec<u8> {
    let mut out = format!("{{\"transaction\":{transaction},").into_bytes();
    out.extend_from_slice(&error.to_json()[1..]);
    out
}

/// `{"id":1,"transaction":1}`
pub(super) fn begun(id: Id) -> Vec<u8> {
    format!("{{\"id\":{id},\"transaction\":{id}}}").into_bytes()
}

/// `{"id":1,"ok":true}`
pub(super) fn done(id: Id) -> Vec<u8> {
    format!("{{\"id\":{id},\"ok\":true}}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors() {
        let text = error(7, &PgError::error("42601", "no"));
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(json["id"], 7);
        assert_eq!(json["error"]["code"], "42601");
    }
}
