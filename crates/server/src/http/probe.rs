//! Whether the server, or a database, can do its work: for those who restart it, or send it requests.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use wire::{PgError, sqlstate};

use super::error::ApiError;
use super::health::milliseconds;
use super::router::App;
use super::run::run_within;
use super::tenant::About;
use super::visit::{Rows, Statement, Visit, Wishes};

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

/// Asks a database's backend for an answer, waking it if it sleeps; of the node, that it answers at all.
pub(super) async fn liveness(State(app): State<App>, about: About) -> Result<Response, ApiError> {
    let started = Instant::now();
    if let Some(tenant) = about.tenant {
        let limit = app.options.liveness_timeout;
        let probing = run_within(limit, move |slot| async move {
            let wishes = Wishes::default();
            let mut visit = Visit::open_existing(&app, &tenant, wishes, &slot).await?;
            let answered = visit.run(&Statement::of("SELECT 1"), Rows::Array).await;
            visit.close().await;
            answered
        });
        probing.await.map_err(|error| not_alive(error, limit))?;
    }
    let alive = Alive {
        ok: true,
        latency_ms: milliseconds(started.elapsed()),
    };
    Ok(Json(alive).into_response())
}

fn not_alive(error: PgError, limit: std::time::Duration) -> ApiError {
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
