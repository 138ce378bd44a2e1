//! An answer that becomes one document.

use std::task::{Context, Poll};

use bytes::BytesMut;
use wire::http::{ResultWriter, no_more_arrays};
use wire::pg::backend::kind;
use wire::{PgError, sqlstate};

use super::{Answer, execute, parse};
use crate::session::Session;

impl Session {
    /// Runs one statement with parameters in Postgres' text format, their types as Postgres infers them: the document
    /// of its result, as the writer writes it.
    ///
    /// # Errors
    ///
    /// As [`query_json`](Self::query_json).
    pub async fn query_document(
        &mut self,
        sql: &str,
        params: &[Option<Vec<u8>>],
        writer: ResultWriter,
    ) -> Result<Vec<u8>, PgError> {
        let mut messages = BytesMut::new();
        parse(&mut messages, sql)?;
        let params: Vec<Option<&[u8]>> = params.iter().map(Option::as_deref).collect();
        execute(&mut messages, &params)?;
        self.document(messages, writer).await
    }

    /// Runs messages that end in `Sync`: the document of what they give. It is written as they give it, so that no more
    /// of a result is in memory than its limit, and a piece of what the backend has said.
    pub(super) async fn document(
        &mut self,
        messages: BytesMut,
        writer: ResultWriter,
    ) -> Result<Vec<u8>, PgError> {
        let document = self.answer(messages, Document::Open(writer)).await?;
        document.into_bytes()
    }
}

/// The document of one result.
enum Document {
    Open(ResultWriter),
    Done(Vec<u8>),
    /// Between the two.
    None,
}

impl Document {
    fn into_bytes(self) -> Result<Vec<u8>, PgError> {
        match self {
            Self::Done(document) => Ok(document),
            Self::Open(_) | Self::None => Err(PgError::error(
                sqlstate::PROTOCOL_VIOLATION,
                "the statement had no end",
            )),
        }
    }

    fn end(
        &mut self,
        end: impl FnOnce(ResultWriter) -> Result<Vec<u8>, PgError>,
    ) -> Result<(), PgError> {
        if let Self::Open(writer) = std::mem::replace(self, Self::None) {
            *self = Self::Done(end(writer)?);
        }
        Ok(())
    }
}

impl Answer for Document {
    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), PgError>> {
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, kind: u8, body: &[u8]) -> Result<(), PgError> {
        match (&mut *self, kind) {
            (Self::Open(writer), kind::ROW_DESCRIPTION) => writer.row_description(body),
            (Self::Open(writer), kind::DATA_ROW) => writer.data_row(body, &no_more_arrays),
            (_, kind::COMMAND_COMPLETE) => self.end(|writer| writer.command_complete(body)),
            (_, kind::EMPTY_QUERY_RESPONSE) => self.end(ResultWriter::empty_query),
            _ => Ok(()),
        }
    }
}
