//! What is left of a request's body when its answer is made.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::http::{Request, Version};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::linger::LINGER_MAX;

/// So much of it is still taken (`http2_unread_bytes_max`).
const UNREAD_BYTES_MAX: usize = 64 << 10;

/// The body of a request. Where the answer does not wait for its end, what still comes is read and forgotten for a moment
/// in HTTP/2: otherwise the stream would be reset behind the answer, which some clients (curl 7.88) then lose.
pub(super) struct Unread {
    body: Option<Incoming>,
    version: Version,
}

impl Unread {
    pub(super) fn of(request: Request<Incoming>) -> Request<Self> {
        let version = request.version();
        request.map(|body| Self {
            body: Some(body),
            version,
        })
    }
}

impl Body for Unread {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let is_wanted = |body: &Incoming| self.version == Version::HTTP_2 && !body.is_end_stream();
        let rest = self.body.take().filter(is_wanted);
        // Without a runtime the connection ends as well.
        if let (Some(rest), Ok(runtime)) = (rest, Handle::try_current()) {
            runtime.spawn(forget(rest));
        }
    }
}

async fn forget(body: Incoming) {
    let mut rest = Limited::new(body, UNREAD_BYTES_MAX);
    let reading = async { while let Some(Ok(_)) = rest.frame().await {} };
    // Past the time, or past the limit, the client gets its reset.
    let _ = timeout(LINGER_MAX, reading).await;
}
