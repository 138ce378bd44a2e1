//! The bytes of one HTTP connection: which version of HTTP they are, and how they end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, timeout};

use crate::linger::LINGER_MAX;

/// What a client of HTTP/2 begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes read at once of what nobody wants.
const DRAINED_BYTES: usize = 4_096;

/// The version of HTTP that a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Http1,
    Http2,
}

/// The stream of one connection.
///
/// Shut down, it goes on reading until the client closes, or for a second: closing a socket with unread bytes
/// resets the connection, and a reset can overtake the answer. The client would learn that it failed, but
/// not why.
pub(super) struct HttpStream<S> {
    inner: S,
    /// What was read to find out the version.
    head: Bytes,
    end: End,
}

enum End {
    Open,
    /// The other direction is shut down; until then the rest is read.
    Lingering(Pin<Box<Sleep>>),
    Done,
}

impl<S: AsyncRead + AsyncWrite + Unpin> HttpStream<S> {
    /// A stream whose version is known.
    pub(super) fn new(inner: S) -> Self {
        Self {
            inner,
            head: Bytes::new(),
            end: End::Open,
        }
    }

    /// Reads as much as tells the version. Nothing if the client went, or did not say in time.
    pub(super) async fn detect(mut inner: S, patience: Duration) -> Option<(Self, Version)> {
        let mut head = BytesMut::with_capacity(PREFACE.len());
        let detecting = async {
            loop {
                match inner.read_buf(&mut head).await {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return None,
                }
                let told = head.len().min(PREFACE.len());
                if head[..told] != PREFACE[..told] {
                    return Some(Version::Http1);
                }
                if told == PREFACE.len() {
                    return Some(Version::Http2);
                }
            }
        };
        let version = timeout(patience, detecting).await.ok()??;
        let stream = Self {
            inner,
            head: head.freeze(),
            end: End::Open,
        };
        Some((stream, version))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HttpStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.head.has_remaining() {
            let length = self.head.len().min(buffer.remaining());
            buffer.put_slice(&self.head.split_to(length));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for HttpStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let this = &mut *self;
            match &mut this.end {
                End::Open => {
                    ready!(Pin::new(&mut this.inner).poll_shutdown(context))?;
                    this.end = End::Lingering(Box::pin(tokio::time::sleep(LINGER_MAX)));
                }
                End::Lingering(patience) => {
                    let is_late = patience.as_mut().poll(context).is_ready();
                    if is_late || ready!(poll_drain(&mut this.inner, context)) {
                        this.end = End::Done;
                    }
                }
                End::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// Reads something and forgets it: whether it was the end.
fn poll_drain(inner: &mut (impl AsyncRead + Unpin), context: &mut Context<'_>) -> Poll<bool> {
    let mut bytes = [0; DRAINED_BYTES];
    let mut buffer = ReadBuf::new(&mut bytes);
    let read = ready!(Pin::new(inner).poll_read(context, &mut buffer));
    Poll::Ready(read.is_err() || buffer.filled().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    async fn version_of(sent: &[u8], step: usize) -> Option<(Version, Vec<u8>)> {
        let (mut client, server) = tokio::io::duplex(1024);
        let sent = sent.to_vec();
        let sending = async move {
            for piece in sent.chunks(step) {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let (detected, ()) =
            tokio::join!(HttpStream::detect(server, Duration::from_secs(5)), sending);
        let (mut stream, version) = detected?;
        let mut seen = Vec::new();
        stream.read_to_end(&mut seen).await.unwrap();
        Some((version, seen))
    }

    #[tokio::test]
    async fn the_version_is_found_and_nothing_is_lost() {
        let preface = [PREFACE, b"more"].concat();
        for step in [1, 3, 100] {
            for (sent, version) in [
                (&preface[..], Version::Http2),
                (b"GET / HTTP/1.1\r\n\r\n", Version::Http1),
                (b"PRI /x HTTP/1.1\r\n\r\n", Version::Http1),
            ] {
                assert_eq!(version_of(sent, step).await, Some((version, sent.to_vec())));
            }
        }
        assert!(version_of(b"PRI * HT", 100).await.is_none());
    }

    #[tokio::test]
    async fn who_says_nothing_is_given_up() {
        let (_client, server) = tokio::io::duplex(1024);
        let detected = HttpStream::detect(server, Duration::from_millis(1)).await;
        assert!(detected.is_none());
    }
}
