//! Requests that are done once, however often they come: `Idempotency-Key`.
//!
//! The key is written in the transaction of the request's own writes, in the request's database, with the answer. So
//! either both are there after a crash or none, and a request that comes again is answered as before. One that failed
//! has left nothing, and is done when it comes again.
//!
//! What nobody but the host may do: it alone reads and writes the [`records`], within the client's transaction but by
//! its own rights, and what is in them says nothing without the node's secret ([`key`], [`seal`]).

mod key;
mod records;
mod seal;

use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use wire::{PgError, sqlstate};

use super::error::ApiError;
use super::query::json;
use super::visit::Visit;
pub(super) use key::Once;
use records::{Claimed, Found};

/// The header of an answer that was given before.
const REPLAYED: &str = "idempotency-replayed";

/// How often records are made for one request: who else makes them meanwhile makes them wholly.
const TRIES: usize = 3;

/// What became of a request.
pub(super) enum Done {
    Now(Vec<u8>),
    Before(Vec<u8>),
}

/// Runs work in a transaction that `begin` begins; with a key, once. The work fails if it ends the transaction.
pub(super) async fn run_once(
    once: Option<&Once>,
    visit: &mut Visit,
    begin: &str,
    work: impl AsyncFnOnce(&mut Visit) -> Result<Vec<u8>, PgError>,
) -> Result<Done, ApiError> {
    visit.begin(begin).await?;
    let once = match once {
        Some(once) if may_write(visit, begin).await? => once,
        _ => {
            let document = work(visit).await?;
            visit.commit().await?;
            return Ok(Done::Now(document));
        }
    };
    match records::claim(visit, once).await? {
        Claimed::Now => {}
        Claimed::Before { request, answer } => return replay(once, &request, answer.as_deref()),
    }
    let document = work(visit).await?;
    records::answer(visit, once, &once.seal.close(&document)?).await?;
    visit.commit().await?;
    Ok(Done::Now(document))
}

/// Sees to it that there are records that can be written in the open transaction; one that is read-only, and stays so,
/// has nothing to do twice.
async fn may_write(visit: &mut Visit, begin: &str) -> Result<bool, ApiError> {
    for _ in 0..TRIES {
        match records::look(visit).await {
            Ok(Found::ReadOnly) => return Ok(false),
            Ok(Found::Ready) => return Ok(true),
            Err(error) if records::are_missing(&error) => {}
            Err(error) => return Err(error.into()),
        }
        visit.order("ROLLBACK").await?;
        visit.begin(begin).await?;
        if visit.stays_read_only().await? {
            return Ok(false);
        }
        visit.order("ROLLBACK").await?;
        match records::make(visit).await {
            Err(error) if !records::were_made_meanwhile(&error) => return Err(error.into()),
            Err(_) => visit.order("ROLLBACK").await?,
            Ok(()) => {}
        }
        visit.begin(begin).await?;
    }
    Err(PgError::error(
        sqlstate::OBJECT_IN_USE,
        "others make and drop what Idempotency-Key needs at the same time",
    )
    .hint("Try again.")
    .into())
}

/// The answer from before, if it was to the same request.
fn replay(once: &Once, request: &[u8], answer: Option<&[u8]>) -> Result<Done, ApiError> {
    if request != once.request {
        let error = PgError::error(
            sqlstate::INVALID_PARAMETER_VALUE,
            "the Idempotency-Key was used with another request",
        )
        .hint("Use a new key for each new request.");
        return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, error));
    }
    let sealed = answer.ok_or_else(|| {
        PgError::error(
            sqlstate::OBJECT_IN_USE,
            "the request with this Idempotency-Key has no answer yet",
        )
    })?;
    Ok(Done::Before(once.seal.open(sealed)?))
}

impl Done {
    /// The answer, which says whether it was given before.
    pub(super) fn response(self) -> Response {
        match self {
            Self::Now(document) => json(document),
            Self::Before(document) => {
                let mut response = json(document);
                let value = HeaderValue::from_static("true");
                response.headers_mut().insert(REPLAYED, value);
                response
            }
        }
    }
}
