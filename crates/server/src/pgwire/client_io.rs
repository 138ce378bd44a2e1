//! The client as a session sees it in the midst of a message: `COPY`, and large results.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use database::{ClientIo, ClientIoError};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

use super::inbox::Inbox;

/// One connection's client.
pub(super) struct Client {
    inbox: Arc<Mutex<Inbox>>,
    writer: Arc<OwnedWriteHalf>,
}

impl Client {
    pub(super) fn new(inbox: Arc<Mutex<Inbox>>, writer: Arc<OwnedWriteHalf>) -> Self {
        Self { inbox, writer }
    }
}

impl ClientIo for Client {
    fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        input: &mut BytesMut,
    ) -> Poll<Result<(), ClientIoError>> {
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
        let stream: &TcpStream = (*self.writer).as_ref();
        loop {
            ready!(stream.poll_write_ready(context)).map_err(|_| ClientIoError)?;
            match stream.try_write(output) {
                Ok(count) => {
                    output.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(Err(ClientIoError)),
            }
        }
    }
}
