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
use wire::PgError;
use workers::Refusal;

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

/// How a change that failed is written down, and how one is said to fail that could not be written down.
pub(super) trait Told: Send + 'static {
    fn outcome(&self) -> String;
    fn unwritten(error: PgError) -> Self;
}

impl Told for ApiError {
    fn outcome(&self) -> String {
        self.code().to_owned()
    }

    fn unwritten(error: PgError) -> Self {
        error.into()
    }
}

/// By its status: these have no SQLSTATE.
impl Told for Refusal {
    fn outcome(&self) -> String {
        self.status.to_string()
    }

    fn unwritten(error: PgError) -> Self {
        Self::with_status(
            500,
            format!("The audit log cannot be written: {}.", error.message()),
        )
    }
}

impl Actor {
    /// Somebody whom no credentials of databases name.
    pub(super) fn of(who: &str, parts: &Parts) -> Self {
        Self {
            who: who.to_owned(),
            from: parts.extensions.get::<Peer>().map(|peer| peer.address),
        }
    }

    /// Who it is, for what [`Databases`](database::Databases) records itself.
    pub(super) fn doer(self) -> Doer {
        Doer {
            who: self.who,
            from: self.from,
        }
    }

    /// Does something wholly, and writes down that it begins and what came of it, also when the client leaves
    /// meanwhile. What cannot be written down is not done; if only its outcome cannot be, that is told.
    pub(super) async fn does<T: Send + 'static, E: Told>(
        self,
        audit: &Arc<Audit>,
        action: &'static str,
        object: String,
        detail: Option<String>,
        work: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E> {
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
            audit.record(deed.clone()).await.map_err(E::unwritten)?;
            let done = work.await;
            deed.outcome = match &done {
                Ok(_) => "ok".to_owned(),
                Err(error) => error.outcome(),
            };
            match (audit.record(deed).await, done) {
                (Err(error), Ok(_)) => {
                    Err(E::unwritten(error.detail("The change itself was made.")))
                }
                (_, done) => done,
            }
        })
        .await
    }
}
