//! The bytes of a file of a site on their way to a client: read as it takes them, a part at a time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::task::{JoinHandle, spawn_blocking};
use workers::store::Parts;

/// Bytes that are read at a time: what a response has in memory of its file.
const PART_BYTES: usize = 64 << 10;

/// Parts of a file, each read when the one before is on its way.
struct FileBody {
    first: Option<Bytes>,
    parts: Option<Parts>,
    reading: Option<JoinHandle<(Parts, io::Result<Vec<u8>>)>>,
    left: u64,
}

/// The body with these parts, the first of which is there.
///
/// # Errors
/// If that cannot be read.
pub(super) async fn body(parts: Parts) -> io::Result<Body> {
    let left = parts.left();
    let (parts, first) = reading(parts).await.map_err(io::Error::other)?;
    let first = Bytes::from(first?);
    if first.len() as u64 == left {
        return Ok(Body::from(first));
    }
    Ok(Body::new(FileBody {
        first: Some(first),
        parts: Some(parts),
        reading: None,
        left,
    }))
}

fn reading(mut parts: Parts) -> JoinHandle<(Parts, io::Result<Vec<u8>>)> {
    spawn_blocking(move || {
        let read = parts.read(PART_BYTES);
        (parts, read)
    })
}

impl FileBody {
    fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        if let Some(parts) = self.parts.take().filter(|parts| parts.left() > 0) {
            self.reading = Some(reading(parts));
        }
        let Some(handle) = &mut self.reading else {
            return Poll::Ready(None);
        };
        let read = ready!(Pin::new(handle).poll(context));
        self.reading = None;
        Poll::Ready(Some(match read {
            Ok((parts, Ok(bytes))) => {
                self.parts = Some(parts);
                Ok(bytes.into())
            }
            Ok((_, Err(error))) => Err(error),
            Err(error) => Err(io::Error::other(error)),
        }))
    }
}

impl hyper::body::Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.is_end_stream() {
            return Poll::Ready(None);
        }
        let bytes = ready!(self.poll_bytes(context));
        match &bytes {
            Some(Ok(bytes)) => self.left = self.left.saturating_sub(bytes.len() as u64),
            Some(Err(error)) => {
                // The client sees that it has not got all of it.
                tracing::error!(%error, "a file of a site breaks off");
            }
            None => {}
        }
        Poll::Ready(bytes.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
