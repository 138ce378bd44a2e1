//! Who changes something, for the audit log.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::caller::Caller;
use super::connection::Peer;
use super::error::ApiError;
use super::work::Work;
use crate::audit::{Audit, Deed};

/// Who changes something, and from where.
#[derive(Debug, Clone)]
pub(super) struct Actor {
    who: String,
    from: Option<SocketAddr>,
}

impl<S: Sync> FromRequestParts<S> for Actor {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let caller = parts.extensions.get::<Caller>();
        Ok(Self {
            who: caller.map_or_else(|| "?".to_owned(), |caller| caller.name.to_string()),
            from: parts.extensions.get::<Peer>().map(|peer| peer.0),
        })
    }
}

impl Actor {
    /// Does something wholly, and writes down that it was done, or why not, also when the client leaves meanwhile.
    pub(super) async fn does<T: Send + 'static>(
        self,
        audit: &Arc<Audit>,
        action: &'static str,
        object: String,
        detail: Option<String>,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        let audit = Arc::clone(audit);
        Work::to_its_end(async move {
            let done = work.await;
            let deed = Deed {
                who: self.who,
                from: self.from,
                action,
                object: Some(object),
                outcome: Deed::outcome(&done),
                detail,
            };
            audit.record(deed).await;
            done
        })
        .await
    }
}
