//! A client's socket: of TCP, in clear or in TLS, the local one, or a tunnel through HTTP.
//!
//! In clear nothing stands between the halves and the socket. Otherwise both share one state; what a write
//! leaves in it is flushed before the write is done.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;
use wire::pg::scram::Channel;

use crate::tls::Identity;

/// How long a client may take to let us say goodbye in TLS.
const GOODBYE_MAX: Duration = Duration::from_millis(1_000);

/// What comes through a tunnel, and whether that is encrypted on its way.
pub(crate) struct Tunnel {
    pub(crate) stream: DuplexStream,
    pub(crate) is_encrypted: bool,
}

/// What TLS is spoken over.
pub(super) trait Carrier: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Carrier for T {}

/// A socket.
pub(super) enum Stream {
    Plain(TcpStream),
    /// Of this machine and this user alone.
    Local(UnixStream),
    Tunnel(Tunnel),
    Tls {
        stream: Box<TlsStream<Box<dyn Carrier>>>,
        in_tunnel: bool,
        /// What it was accepted with.
        identity: Arc<Identity>,
    },
}

/// A socket on its way to another runtime.
pub(super) enum Moving {
    Plain(std::net::TcpStream),
    Local(std::os::unix::net::UnixStream),
}

impl Moving {
    /// To be called where the socket is to be from now on.
    pub(super) fn arrived(self) -> io::Result<Stream> {
        Ok(match self {
            Self::Plain(stream) => Stream::Plain(TcpStream::from_std(stream)?),
            Self::Local(stream) => Stream::Local(UnixStream::from_std(stream)?),
        })
    }
}

/// Its reading half.
pub(super) enum ReadHalf {
    Plain(OwnedReadHalf),
    Shared(tokio::io::ReadHalf<Box<dyn Carrier>>),
}

/// Its writing half. One task at a time writes.
pub(super) enum WriteHalf {
    Plain(OwnedWriteHalf),
    Shared(Mutex<tokio::io::WriteHalf<Box<dyn Carrier>>>),
}

impl Stream {
    /// Whether nobody on the way can read along.
    pub(super) fn is_encrypted(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Local(_) => true,
            Self::Tunnel(tunnel) => tunnel.is_encrypted,
            Self::Tls { .. } => true,
        }
    }

    /// Whether its bytes come through HTTP.
    pub(super) fn is_tunnel(&self) -> bool {
        match self {
            Self::Plain(_) | Self::Local(_) => false,
            Self::Tunnel(_) => true,
            Self::Tls { in_tunnel, .. } => *in_tunnel,
        }
    }

    /// What a password exchange in it can be bound to.
    pub(super) fn channel(&self) -> Channel {
        match self {
            Self::Plain(_) | Self::Local(_) | Self::Tunnel(_) => Channel::Plain,
            Self::Tls { identity, .. } => identity.channel(),
        }
    }

    /// Whether it can leave the runtime that it is in.
    pub(super) fn can_move(&self) -> bool {
        matches!(self, Self::Plain(_) | Self::Local(_))
    }

    /// Takes it out of the runtime that it is in, where that [can be](Self::can_move).
    pub(super) fn departing(self) -> io::Result<Moving> {
        Ok(match self {
            Self::Plain(stream) => Moving::Plain(stream.into_std()?),
            Self::Local(stream) => Moving::Local(stream.into_std()?),
            Self::Tunnel(_) | Self::Tls { .. } => return Err(io::ErrorKind::Unsupported.into()),
        })
    }

    pub(super) fn into_split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Self::Plain(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Plain(read), WriteHalf::Plain(write))
            }
            Self::Local(stream) => shared(Box::new(stream)),
            Self::Tunnel(tunnel) => shared(Box::new(tunnel.stream)),
            Self::Tls { stream, .. } => shared(stream),
        }
    }
}

fn shared(stream: Box<dyn Carrier>) -> (ReadHalf, WriteHalf) {
    let (read, write) = tokio::io::split(stream);
    (ReadHalf::Shared(read), WriteHalf::Shared(Mutex::new(write)))
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
            Self::Shared(_) => Poll::Ready(()),
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
            Self::Shared(half) => {
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
            Self::Shared(half) => {
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
            Self::Shared(half) => Pin::new(&mut *half.lock()).poll_flush(context),
        }
    }

    /// In TLS, says that nothing more comes: without a word a client could not tell the end from an
    /// attacker's cut.
    pub(super) async fn say_goodbye(&self) {
        let Self::Shared(half) = self else {
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
            Self::Shared(half) => Pin::new(half).poll_read(context, buffer),
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
            Self::Local(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tunnel(tunnel) => Pin::new(&mut tunnel.stream).poll_read(context, buffer),
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
            Self::Local(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tunnel(tunnel) => Pin::new(&mut tunnel.stream).poll_write(context, bytes),
            Self::Tls { stream, .. } => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Local(stream) => Pin::new(stream).poll_flush(context),
            Self::Tunnel(tunnel) => Pin::new(&mut tunnel.stream).poll_flush(context),
            Self::Tls { stream, .. } => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Local(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tunnel(tunnel) => Pin::new(&mut tunnel.stream).poll_shutdown(context),
            Self::Tls { stream, .. } => Pin::new(stream).poll_shutdown(context),
        }
    }
}
