//! Whether the server is there, and how it is.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::error::ApiError;
use super::router::App;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Health {
    status: &'static str,
    version: &'static str,
    postgres_version: &'static str,
    uptime_seconds: u64,
    databases: DatabaseCounts,
    connections: ConnectionCounts,
    probe: Probe,
}

#[derive(Serialize)]
struct DatabaseCounts {
    total: u64,
    awake: u64,
}

#[derive(Serialize)]
struct ConnectionCounts {
    pgwire: Count,
    http: Count,
}

#[derive(Serialize)]
struct Count {
    open: usize,
    max: usize,
}

/// Counting the databases in the directory, which wakes none of them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    latency_ms: f64,
}

/// Touches nothing.
pub(super) async fn ping() -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        "{\"ok\":true}",
    )
        .into_response()
}

pub(super) async fn health(State(app): State<App>) -> Result<Response, ApiError> {
    let started = Instant::now();
    let (total, awake) = app.databases.count()?;
    let latency_ms = started.elapsed().as_secs_f64() * 1e3;
    let count = |connections: &crate::connections::Connections| Count {
        open: connections.count(),
        max: connections.max(),
    };
    let health = Health {
        status: "ok",
        version: env!("CARGO_PKG_VERSION"),
        postgres_version: database::POSTGRES_VERSION,
        uptime_seconds: app.started.elapsed().as_secs(),
        databases: DatabaseCounts { total, awake },
        connections: ConnectionCounts {
            pgwire: count(app.pgwire.sessions()),
            http: count(&app.connections),
        },
        probe: Probe { latency_ms },
    };
    Ok(Json(health).into_response())
}
