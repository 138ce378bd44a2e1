//! Requests of a connection that are under way, so that a stop waits for them and for nothing else.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Response;
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::time::sleep;

/// The requests of one connection.
#[derive(Debug, Default)]
pub(super) struct Requests {
    begun: AtomicUsize,
    under_way: AtomicUsize,
}

impl Requests {
    /// Whether there are some.
    pub(super) fn are_under_way(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0
    }

    /// Returns when there was none for so long, twice that at most.
    pub(super) async fn end(&self, idle: Duration) {
        let mut before = 0;
        loop {
            sleep(idle).await;
            let begun = self.begun.load(Ordering::Relaxed);
            if begun == before && !self.are_under_way() {
                return;
            }
            before = begun;
        }
    }
}

/// One that has no answer yet, or one whose answer still comes from somewhere.
pub(super) struct UnderWay(Arc<Requests>);

impl UnderWay {
    pub(super) fn new(requests: &Arc<Requests>) -> Self {
        requests.begun.fetch_add(1, Ordering::Relaxed);
        requests.under_way.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(requests))
    }

    /// Lasts until the last of the answer has come.
    pub(super) fn until_its_end(self, response: Response<Body>) -> Response<Body> {
        let still_comes = response.extensions().get::<StillComes>().is_some();
        let body = response.body();
        // All of the others is here already.
        if body.is_end_stream() || !still_comes && body.size_hint().exact().is_some() {
            return response;
        }
        response.map(|body| {
            Body::new(Coming {
                body,
                _under_way: self,
            })
        })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An extension of an answer whose body still comes, though it is known how long it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct StillComes;

/// The body of such an answer.
struct Coming {
    body: Body,
    _under_way: UnderWay,
}

impl hyper::body::Body for Coming {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
