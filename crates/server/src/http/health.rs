//! What is known of the server and of a database, without waking any.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use database::{DatabaseInfo, Durability, Settings, State as Stage};
use serde::Serialize;

use super::caller::{Caller, Reach};
use super::error::ApiError;
use super::router::App;
use super::sizes::Sizes;
use super::tenant::About;
use crate::blocking::blocking;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeHealth {
    status: &'static str,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    known: Option<KnownHealth>,
    latency_ms: f64,
}

/// What is not everybody's to know.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KnownHealth {
    version: &'static str,
    postgres_version: &'static str,
    uptime_seconds: u64,
    databases: DatabaseCounts,
    connections: ConnectionCounts,
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
    /// Clients of managed bindings.
    #[serde(skip_serializing_if = "Option::is_none")]
    bindings: Option<Count>,
}

#[derive(Serialize)]
struct Count {
    open: usize,
    max: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DatabaseHealth {
    status: &'static str,
    database: String,
    state: String,
    memory_bytes: u64,
    own_bytes: u64,
    /// Whether it is larger than its `bytesWarn`.
    is_large: bool,
    latency_ms: f64,
}

/// What a request can expect of the node.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeConfig {
    version: &'static str,
    postgres_version: &'static str,
    limits: RequestLimits,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestLimits {
    body_bytes_max: usize,
    result_bytes_max: usize,
    request_timeout_ms: u128,
    statements_max: usize,
    transaction_idle_ms_max: u128,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DatabaseConfig {
    database: String,
    id: String,
    durability: Durability,
    maintenance: bool,
    settings: Settings,
    #[serde(flatten)]
    node: NodeConfig,
}

/// Touches nothing.
pub(super) async fn ping() -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        "{\"ok\":true}",
    )
        .into_response()
}

pub(super) async fn health(
    State(app): State<App>,
    about: About,
    by: Option<Extension<Caller>>,
) -> Result<Response, ApiError> {
    let started = Instant::now();
    let Some(tenant) = about.tenant else {
        let may_know = by.is_some_and(|Extension(caller)| caller.reach == Reach::All);
        return node_health(&app, may_know, started);
    };
    let databases = app.databases.clone();
    let info = blocking(move || databases.info(&tenant.name)).await?;
    let health = DatabaseHealth {
        status: match info.state {
            Stage::Fenced => "fenced",
            _ => "ok",
        },
        database: info.name,
        state: info.state.to_string(),
        memory_bytes: info.memory_bytes,
        own_bytes: info.own_bytes,
        is_large: info
            .settings
            .bytes_warn
            .is_some_and(|max| info.own_bytes > max),
        latency_ms: milliseconds(started.elapsed()),
    };
    Ok(Json(health).into_response())
}

fn node_health(app: &App, may_know: bool, started: Instant) -> Result<Response, ApiError> {
    let known = may_know.then(|| known_health(app)).transpose()?;
    let health = NodeHealth {
        status: if app.stopping.is_draining() {
            "draining"
        } else {
            "ok"
        },
        known,
        latency_ms: milliseconds(started.elapsed()),
    };
    Ok(Json(health).into_response())
}

fn known_health(app: &App) -> Result<KnownHealth, ApiError> {
    // Counting them in the directory wakes none.
    let (total, awake) = app.databases.count()?;
    Ok(KnownHealth {
        version: env!("CARGO_PKG_VERSION"),
        postgres_version: database::POSTGRES_VERSION,
        uptime_seconds: app.started.elapsed().as_secs(),
        databases: DatabaseCounts { total, awake },
        connections: ConnectionCounts {
            pgwire: Count {
                open: app.pgwire_connections(),
                max: app.pgwire.options().connections_max,
            },
            http: Count {
                open: app.connections(),
                max: app.options.connections_max,
            },
            bindings: app.bindings().map(|bindings| Count {
                open: bindings.clients.count(),
                max: bindings.options().clients_max,
            }),
        },
    })
}

pub(super) async fn config(
    State(app): State<App>,
    about: About,
    by: Option<Extension<Caller>>,
) -> Result<Response, ApiError> {
    let sizes = match (&about.tenant, by) {
        (Some(tenant), _) => Some(tenant.sizes),
        (None, Some(Extension(caller))) => Some(app.sizes(&caller, None).await?),
        (None, None) => None,
    };
    let node = node_config(&app, sizes);
    let Some(tenant) = about.tenant else {
        return Ok(Json(node).into_response());
    };
    let databases = app.databases.clone();
    let info: DatabaseInfo = blocking(move || databases.info(&tenant.name)).await?;
    let config = DatabaseConfig {
        database: info.name,
        id: info.id.to_string(),
        durability: info.durability,
        maintenance: info.maintenance,
        settings: info.settings,
        node,
    };
    Ok(Json(config).into_response())
}

fn node_config(app: &App, sizes: Option<Sizes>) -> NodeConfig {
    let (body, result) = (app.options.body_bytes_max, app.options.result_bytes_max);
    NodeConfig {
        version: env!("CARGO_PKG_VERSION"),
        postgres_version: database::POSTGRES_VERSION,
        limits: RequestLimits {
            body_bytes_max: sizes.map_or(body, |sizes| sizes.body.bytes),
            result_bytes_max: sizes.map_or(result, |sizes| sizes.result.bytes),
            request_timeout_ms: app.options.request_timeout.as_millis(),
            statements_max: app.options.statements_max,
            transaction_idle_ms_max: app.options.transaction_idle.as_millis(),
        },
    }
}

pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
