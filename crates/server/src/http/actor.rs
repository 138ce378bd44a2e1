//! Who changes something, for the audit log.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use database::Doer;

use super::caller::Caller;
use super::connection::Peer;
use super::error::ApiError;
use super::work::Work;
use crate::audit::{Audit, BEGINS, Deed};

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
            from: parts.extensions.get::<Peer>().map(|peer| peer.address),
        })
    }
}

impl Actor {
    /// Who it is, for what [`Databases`](database::Databases) records itself.
    pub(super) fn doer(self) -> Doer {
        Doer {
            who: self.who,
            from: self.from,
        }
    }

    /// Does something wholly, and writes down that it begins and what came of it, also when the client leaves
    /// meanwhile. What cannot be written down is not done; if only its outcome cannot be, that is told.
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
            let mut deed = Deed {
                who: self.who,
                from: self.from,
                action,
                object: Some(object),
                outcome: BEGINS.to_owned(),
                detail,
            };
            audit.record(deed.clone()).await?;
            let done = work.await;
            deed.outcome = Deed::outcome(&done);
            match (audit.record(deed).await, done) {
                (Err(error), Ok(_)) => Err(error.detail("The change itself was made.").into()),
                (_, done) => done,
            }
        })
        .await
    }
}
