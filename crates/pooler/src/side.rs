//! One side of a conversation: a socket, what has arrived of it, and what is to leave.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What one read takes.
const READ_BYTES: usize = 16 * 1024;

/// Room that an empty buffer may keep.
const KEPT_BYTES: usize = 64 * 1024;

/// A socket with a buffer for each direction. Neither grows beyond what its owner lets it.
#[derive(Debug)]
pub(crate) struct Side<S> {
    pub(crate) stream: S,
    pub(crate) inbox: BytesMut,
    pub(crate) outbox: BytesMut,
    /// Nothing more will arrive.
    pub(crate) is_ended: bool,
    /// TLS may still have what the outbox no longer has.
    pub(crate) is_unflushed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Side<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            inbox: BytesMut::new(),
            outbox: BytesMut::new(),
            is_ended: false,
            is_unflushed: false,
        }
    }

    /// Reads once: how many bytes, 0 at the end.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.is_ended {
            return Poll::Pending;
        }
        // On the stack, so that a side with nothing to read holds no memory.
        let mut room = [std::mem::MaybeUninit::<u8>::uninit(); READ_BYTES];
        let mut into = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut into))?;
        let read = into.filled();
        self.inbox.extend_from_slice(read);
        self.is_ended = read.is_empty();
        Poll::Ready(Ok(read.len()))
    }

    /// Writes until the outbox is empty.
    pub(crate) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_unflushed |= !self.outbox.is_empty();
        while !self.outbox.is_empty() {
            let wrote = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.outbox))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outbox.advance(wrote);
        }
        if self.outbox.capacity() > KEPT_BYTES {
            self.outbox = BytesMut::new();
        }
        if self.is_unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once.
    pub(crate) async fn fill(&mut self) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// Writes until the outbox is empty.
    pub(crate) async fn drain(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_drain(cx)).await
    }

    /// Gives back the memory of buffers in which nothing is.
    pub(crate) fn rest(&mut self) {
        for buffer in [&mut self.inbox, &mut self.outbox] {
            if buffer.is_empty() {
                *buffer = BytesMut::new();
            }
        }
    }
}
