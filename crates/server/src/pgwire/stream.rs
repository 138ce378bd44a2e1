//! A client's socket, in clear or in TLS.
//!
//! In clear nothing stands between the halves and the socket. In TLS both share one state; what a write
//! leaves in it is flushed before the write is done.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_rustls::server::TlsStream;
use wire::pg::scram::Channel;

use crate::tls::Identity;

/// How long a client may take to let us say goodbye in TLS.
const GOODBYE_MAX: Duration = Duration::from_millis(1_000);

/// A socket.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls {
        stream: Box<TlsStream<TcpStream>>,
        /// What it was accepted with.
        identity: Arc<Identity>,
    },
}

/// Its reading half.
pub(super) enum ReadHalf {
    Plain(OwnedReadHalf),
    Tls(tokio::io::ReadHalf<TlsStream<TcpStream>>),
}

/// Its writing half. One task at a time writes.
pub(super) enum WriteHalf {
    Plain(OwnedWriteHalf),
    Tls(Mutex<tokio::io::WriteHalf<TlsStream<TcpStream>>>),
}

impl Stream {
    pub(super) fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tls { .. })
    }

    /// What a password exchange in it can be bound to.
    pub(super) fn channel(&self) -> Channel {
        match self {
            Self::Plain(_) => Channel::Plain,
            Self::Tls { identity, .. } => identity.channel(),
        }
    }

    pub(super) fn into_split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Self::Plain(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Plain(read), WriteHalf::Plain(write))
            }
            Self::Tls { stream, .. } => {
                let (read, write) = tokio::io::split(*stream);
                (ReadHalf::Tls(read), WriteHalf::Tls(Mutex::new(write)))
            }
        }
    }
}

impl ReadHalf {
    /// Waits until a read may have something, where that can be told.
    pub(super) fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Plain(half) => {
                let stream: &TcpStream = half.as_ref();
                // An error is the read's to tell.
                stream.poll_read_ready(context).map(drop)
            }
            Self::Tls(_) => Poll::Ready(()),
        }
    }
}

impl WriteHalf {
    /// Writes all of it.
    pub(super) async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(half) => {
                while !bytes.is_empty() {
                    match half.try_write(bytes) {
                        Ok(count) => bytes = &bytes[count..],
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            half.writable().await?;
                        }
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            }
            Self::Tls(half) => {
                std::future::poll_fn(|context| {
                    let mut half = half.lock();
                    while !bytes.is_empty() {
                        let count = ready!(Pin::new(&mut *half).poll_write(context, bytes))?;
                        if count == 0 {
                            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                        }
                        bytes = &bytes[count..];
                    }
                    Pin::new(&mut *half).poll_flush(context)
                })
                .await
            }
        }
    }

    /// Writes some of it, at least one byte, and takes that off its front.
    pub(super) fn poll_drain(
        &self,
        context: &mut Context<'_>,
        output: &mut BytesMut,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(half) => {
                let stream: &TcpStream = half.as_ref();
                loop {
                    ready!(stream.poll_write_ready(context))?;
                    match stream.try_write(output) {
                        Ok(count) => {
                            output.advance(count);
                            return Poll::Ready(Ok(()));
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                }
            }
            Self::Tls(half) => {
                let mut half = half.lock();
                let count = ready!(Pin::new(&mut *half).poll_write(context, output))?;
                output.advance(count);
                match Pin::new(&mut *half).poll_flush(context) {
                    Poll::Ready(flushed) => Poll::Ready(flushed),
                    // It was taken all the same. Who waits for the client's answer to it flushes.
                    Poll::Pending => Poll::Ready(Ok(())),
                }
            }
        }
    }

    /// Sees that nothing that was taken is still on its way inside.
    pub(super) fn poll_flush(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(half) => Pin::new(&mut *half.lock()).poll_flush(context),
        }
    }

    /// In TLS, says that nothing more comes: without a word a client could not tell the end from an
    /// attacker's cut.
    pub(super) async fn say_goodbye(&self) {
        let Self::Tls(half) = self else {
            return;
        };
        let goodbye =
            std::future::poll_fn(|context| Pin::new(&mut *half.lock()).poll_shutdown(context));
        // Who has gone needs none.
        let _ = tokio::time::timeout(GOODBYE_MAX, goodbye).await;
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(half) => Pin::new(half).poll_read(context, buffer),
            Self::Tls(half) => Pin::new(half).poll_read(context, buffer),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls { stream, .. } => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls { stream, .. } => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls { stream, .. } => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls { stream, .. } => Pin::new(stream).poll_shutdown(context),
        }
    }
}
