//! Whether the server, or a database, can do its work: for those who restart it, or send it requests.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::time::{sleep, timeout};
use wire::{PgError, sqlstate};

use super::error::ApiError;
use super::health::milliseconds;
use super::router::App;
use super::run::{run_within, timed_out};
use super::tenant::About;
use super::visit::{Rows, Statement, Visit, Wishes};

/// Between two looks at a backend that runs a statement of others.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Alive {
    ok: bool,
    latency_ms: f64,
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// Asks a database's backend for an answer, waking it if it sleeps; of the node, that it answers at all. A backend
/// that runs a statement of somebody else, and reacts, is alive too, though it may answer nobody meanwhile.
pub(super) async fn liveness(State(app): State<App>, about: About) -> Result<Response, ApiError> {
    let started = Instant::now();
    if let Some(tenant) = about.tenant {
        let limit = app.options.liveness_timeout;
        let (databases, name) = (app.databases.clone(), tenant.name.clone());
        let before = databases.pulse(&name)?;
        let asking = run_within(
            app.options.request_timeout,
            app.stopping.cancelling(),
            move |slot| async move {
                let wishes = Wishes::default();
                let mut visit = Visit::open_existing(&app, &tenant, wishes, &slot).await?;
                let answered = visit.run(&Statement::of("SELECT 1"), Rows::Array).await;
                visit.close().await;
                answered
            },
        );
        let probing = async {
            // What it comes to later is of no use; dropping the question cancels it.
            let answered = timeout(limit, asking).await;
            answered.unwrap_or_else(|_| Err(timed_out(limit)))
        };
        let goes_on = until(|| Ok(databases.pulse(&name)?.goes_on_since(&before)));
        tokio::select! {
            biased;
            answered = probing => match answered {
                Err(error) if is_late(&error) && databases.pulse(&name)?.goes_on_since(&before) => {}
                answered => drop(answered.map_err(|error| not_alive(error, limit))?),
            },
            // Dropping the question cancels it.
            goes_on = goes_on => goes_on?,
        }
    }
    let alive = Alive {
        ok: true,
        latency_ms: milliseconds(started.elapsed()),
    };
    Ok(Json(alive).into_response())
}

/// Looks now and then whether something is so.
async fn until(is_so: impl Fn() -> Result<bool, PgError>) -> Result<(), PgError> {
    loop {
        sleep(LOOK).await;
        if is_so()? {
            return Ok(());
        }
    }
}

/// Whether nobody has answered in time, or there was no place for who asks.
fn is_late(error: &PgError) -> bool {
    [sqlstate::QUERY_CANCELED, sqlstate::TOO_MANY_CONNECTIONS].contains(&error.code())
}

fn not_alive(error: PgError, limit: Duration) -> ApiError {
    if error.code() != sqlstate::QUERY_CANCELED {
        return error.into();
    }
    let error = PgError::error(
        sqlstate::CANNOT_CONNECT_NOW,
        format!(
            "the database has not answered within http.liveness_timeout_ms, {}",
            limit.as_millis()
        ),
    );
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error)
}

/// Whether another request is welcome.
pub(super) async fn readiness(State(app): State<App>, about: About) -> Result<Response, ApiError> {
    if let Some(tenant) = &about.tenant {
        app.databases.expect(&tenant.name)?;
    }
    let reason = if app.stopping.is_draining() {
        Some("draining")
    } else {
        app.databases.why_not_admitting()
    };
    let mut response = Json(Ready {
        ready: reason.is_none(),
        reason,
    })
    .into_response();
    if reason.is_some() {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        let soon = HeaderValue::from_static("1");
        response.headers_mut().insert(header::RETRY_AFTER, soon);
    }
    Ok(response)
}
