//! The client as a session sees it in the midst of a message: `COPY`, and large results.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use database::{ClientIo, ClientIoError};
use parking_lot::Mutex;

use super::inbox::Inbox;
use super::stream::WriteHalf;

/// One connection's client.
pub(super) struct Client {
    inbox: Arc<Mutex<Inbox>>,
    writer: Arc<WriteHalf>,
}

impl Client {
    pub(super) fn new(inbox: Arc<Mutex<Inbox>>, writer: Arc<WriteHalf>) -> Self {
        Self { inbox, writer }
    }
}

impl ClientIo for Client {
    fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        input: &mut BytesMut,
    ) -> Poll<Result<(), ClientIoError>> {
        // What it waits for may be an answer to what is on its way to the client.
        ready!(self.writer.poll_flush(context)).map_err(|_| ClientIoError)?;
        // To a session that waits for data it is the same whether the client went with a word,
        // without one, or with a word that is none.
        let batch = ready!(self.inbox.lock().poll_take_copy(context)).map_err(|_| ClientIoError)?;
        input.extend_from_slice(&batch);
        Poll::Ready(Ok(()))
    }

    fn poll_drain(
        &mut self,
        context: &mut Context<'_>,
        output: &mut BytesMut,
    ) -> Poll<Result<(), ClientIoError>> {
        let drained = self.writer.poll_drain(context, output);
        drained.map_err(|_| ClientIoError)
    }
}
