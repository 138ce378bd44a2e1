//! Statements within a request's time: cancelled when it is over, or when the client goes.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use database::Canceller;
use tokio::time::{sleep, timeout};
use wire::pg::ErrorField;
use wire::{PgError, sqlstate};

use super::error::ApiError;
use super::router::App;
use super::work::{CancelSlot, Work};
use crate::insist::insist;
use crate::pgwire::shutting_down;

/// How long a request that was cancelled may take to say what it came to (`http.outcome_ms_max`). Shorter than what a
/// stop of the server gives to cancelled statements, so that it is said then too.
pub(super) const OUTCOME_MAX: Duration = Duration::from_millis(1_500);

/// An error with PostgreSQL's fields in it.
pub(super) trait Failure: From<PgError> + Send + 'static {
    fn error(&self) -> &PgError;
}

impl Failure for PgError {
    fn error(&self) -> &PgError {
        self
    }
}

impl Failure for ApiError {
    fn error(&self) -> &PgError {
        Self::error(self)
    }
}

/// Does work for so long. Past it, when the client goes, or the server does not wait any more (`stops`), it is cancelled. Its client is told what it came to, which may
/// be its end all the same; if that takes long, it is told that, and the work comes to its end in the background.
///
/// # Errors
/// What the work says; 57014 when the time is over, 57P01 when the server stops.
pub(super) async fn run_within<T, E, F>(
    limit: Duration,
    stops: impl Future<Output = ()>,
    work: impl FnOnce(CancelSlot) -> F,
) -> Result<T, E>
where
    T: Send + 'static,
    E: Failure,
    F: Future<Output = Result<T, E>> + Send + 'static,
{
    let slot = CancelSlot::default();
    let mut work = Work::cancellable(slot.clone(), work(slot.clone()));
    let why = tokio::select! {
        biased;
        done = &mut work => return done,
        () = stops => shutting_down(),
        () = sleep(limit) => timed_out(limit),
    };
    let Some(canceller) = slot.give_up() else {
        // Nothing has begun.
        return Err(why.into());
    };
    match timeout(OUTCOME_MAX, insist(&canceller, &mut work)).await {
        Ok(Err(ended)) if ended.error().code() == sqlstate::QUERY_CANCELED => {
            Err(at_the_place_of(why, ended.error()).into())
        }
        Ok(done) => done,
        // Dropping the work has it cancelled further.
        Err(_) => Err(not_ended(why).into()),
    }
}

/// What is said of a request that does not react.
pub(super) fn not_ended(why: PgError) -> PgError {
    why.detail("What runs has not ended yet, though it was cancelled: it may still be done.")
}

/// Does work, unless `ends` is ready before: then it is cancelled. It is always done to its end.
///
/// # Errors
/// What the work says; what `ends` says where that has cancelled it.
pub(super) async fn unless<T>(
    canceller: &Canceller,
    ends: impl Future<Output = PgError>,
    work: impl Future<Output = Result<T, PgError>>,
) -> Result<T, PgError> {
    let mut work = pin!(work);
    let why = tokio::select! {
        biased;
        done = &mut work => return done,
        why = ends => why,
    };
    match insist(canceller, work).await {
        Err(error) if error.code() == sqlstate::QUERY_CANCELED => Err(why),
        done => done,
    }
}

/// An error that says where another one was.
fn at_the_place_of(error: PgError, other: &PgError) -> PgError {
    match other.get(ErrorField::Where) {
        Some(place) => error.with(ErrorField::Where, place.to_owned()),
        None => error,
    }
}

/// How long a request may take that wants so many milliseconds.
///
/// # Errors
/// 22023 if that is nothing, or more than the configuration allows.
pub(super) fn time_limit(app: &App, wanted: Option<u64>) -> Result<Duration, PgError> {
    let max = app.options.request_timeout;
    let Some(wanted) = wanted else {
        return Ok(max);
    };
    let limit = Duration::from_millis(wanted);
    if wanted > 0 && limit <= max {
        return Ok(limit);
    }
    Err(PgError::error(
        sqlstate::INVALID_PARAMETER_VALUE,
        format!(
            "\"timeoutMs\" is {wanted}; it must be from 1 to http.request_timeout_ms, {}",
            max.as_millis()
        ),
    ))
}

/// The error of what took too long.
pub(super) fn timed_out(limit: Duration) -> PgError {
    PgError::error(
        sqlstate::QUERY_CANCELED,
        format!(
            "canceling statement: the request exceeded its time, {} ms",
            limit.as_millis()
        ),
    )
    .detail("A request's time is its \"timeoutMs\", and http.request_timeout_ms at most.")
    .hint(
        "Ask for less at once, for more time in \"timeoutMs\", or raise http.request_timeout_ms in \
         Dormouse's configuration.",
    )
}
