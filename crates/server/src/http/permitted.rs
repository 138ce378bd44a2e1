//! The body of an answer whose request counts against limits on what there is at once until the answer is at its end, or
//! nobody wants it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::response::Response;
use hyper::body::{Body as _, Frame, SizeHint};

use crate::request_limits::Permit;

/// Has the answer hold its request's place among those that run at once, if there is a limit, for as long as its body
/// lasts; one without a body gives it back at once.
pub(super) fn hold(response: Response, permit: Option<Permit>) -> Response {
    if permit.is_none() || response.body().is_end_stream() {
        return response;
    }
    response.map(|body| Body::new(Permitted { body, permit }))
}

struct Permitted {
    body: Body,
    /// None once the body is at its end.
    permit: Option<Permit>,
}

impl hyper::body::Body for Permitted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        // Whoever reads need not ask again after the last piece.
        if !matches!(frame, Some(Ok(_))) || self.body.is_end_stream() {
            self.permit = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use futures_util::stream;
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::http::caller::Caller;
    use crate::request_limits::{RequestLimitOptions, RequestLimits};

    fn enter(limits: &Arc<RequestLimits>) -> Option<Permit> {
        let options = RequestLimitOptions {
            token_concurrency_max: 1,
            ..RequestLimitOptions::default()
        };
        let entered = limits.enter(&options, &Caller::anyone(), None);
        entered.ok().flatten()
    }

    fn held(limits: &Arc<RequestLimits>, body: Body) -> Response {
        let permit = enter(limits);
        assert!(permit.is_some());
        hold(Response::new(body), permit)
    }

    #[tokio::test]
    async fn a_body_counts_to_its_end() {
        let limits = Arc::default();
        let is_free = || enter(&limits).is_some();
        let pieces = ["one", "two"].map(Ok::<_, Infallible>);
        let mut streamed = held(&limits, Body::from_stream(stream::iter(pieces)));
        for _ in 0..2 {
            assert!(!is_free());
            assert!(streamed.body_mut().frame().await.is_some());
        }
        assert!(streamed.body_mut().frame().await.is_none());
        assert!(is_free());

        // The length of this one is known: nobody asks for its end.
        let mut whole = held(&limits, Body::from("whole"));
        assert!(!is_free());
        assert!(whole.body_mut().frame().await.is_some());
        assert!(is_free());
    }

    #[test]
    fn what_is_empty_or_unwanted_does_not_count() {
        let limits = Arc::default();
        let _empty = held(&limits, Body::empty());
        drop(held(&limits, Body::from("unwanted")));
        assert!(enter(&limits).is_some());
    }
}
