//! Which request goes where, and what is said of those that go nowhere.

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Uri};
use axum::routing::{get, post, put};
use database::DatabaseName;
use wire::{PgError, sqlstate};

use super::error::ApiError;
use super::{Http, databases, figures, health, metrics, query};

/// What every handler gets.
pub(super) type App = Arc<Http>;

pub(super) fn router(app: App) -> Router {
    Router::new()
        .route("/v1/databases/{name}/query", post(query::run))
        .route("/v1/databases/{name}/flush", post(databases::flush))
        .route("/v1/databases/{name}/settings", put(databases::configure))
        .route(
            "/v1/databases/{name}",
            get(databases::show).delete(databases::delete),
        )
        .route(
            "/v1/databases",
            get(databases::list).post(databases::create),
        )
        .route("/v1/databases/{name}/figures", get(figures::of_database))
        .route("/v1/figures", get(figures::of_node))
        .route("/ping", get(health::ping))
        .route("/health", get(health::health))
        .route("/metrics", get(metrics::metrics))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .with_state(app)
}

/// The database's name in the path.
pub(super) struct Name(pub(super) DatabaseName);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(name) = path.map_err(|rejection| {
            ApiError::request(StatusCode::BAD_REQUEST, rejection.body_text())
        })?;
        database_name(&name).map(Self)
    }
}

/// Checks a name; the error says the rule.
pub(super) fn database_name(name: &str) -> Result<DatabaseName, ApiError> {
    DatabaseName::parse(name).map_err(|rule| {
        ApiError::from(
            PgError::error(
                sqlstate::INVALID_NAME,
                format!("\"{name}\" cannot be the name of a database"),
            )
            .detail(format!("{rule}.")),
        )
    })
}

async fn no_route(uri: Uri) -> ApiError {
    let path = uri.path();
    ApiError::request(StatusCode::NOT_FOUND, format!("there is no {path} here")).hint(
        "The routes are /v1/databases, /v1/databases/NAME, /v1/databases/NAME/query, \
               /v1/databases/NAME/flush, /v1/databases/NAME/settings, /v1/databases/NAME/figures, \
               /v1/figures, /ping, /health and /metrics.",
    )
}

async fn no_method(method: Method, uri: Uri) -> ApiError {
    let path = uri.path();
    ApiError::request(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{path} does not answer {method}; the header Allow says what it does"),
    )
}
