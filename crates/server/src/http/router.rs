//! Which request goes where, and what is said of those that go nowhere.

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post, put};
use database::DatabaseName;
use tower_http::compression::CompressionLayer;
use wire::{PgError, sqlstate};

use super::error::ApiError;
use super::tenant::caller;
use super::{
    Configured, bindings, databases, deployments, figures, guard, health, metrics, neon, openapi,
    probe, query, reload, schema, statements, tokens, transactions, tunnel, websocket,
};

/// What every handler gets.
pub(crate) type App = Arc<Configured>;

pub(super) fn router(app: App) -> Router {
    let cors = app.options.cors.clone();
    let databases = Router::new()
        .route("/v1/databases/{name}/flush", post(databases::flush))
        .route("/v1/databases/{name}/settings", put(databases::configure))
        .route(
            "/v1/databases/{name}",
            get(databases::show).delete(databases::delete),
        )
        .route(
            "/v1/databases",
            get(databases::list).post(databases::create),
        );
    let router = Router::new()
        .merge(databases)
        .merge(deployed())
        .merge(of_a_database(""))
        .merge(of_a_database("/v1/databases/{name}"))
        // Those without a database are about the node.
        .merge(about("/v1/databases/{name}"))
        .merge(about(""))
        .route("/sql", post(neon::sql))
        .route("/v2", get(tunnel::tunnel).connect(tunnel::tunnel))
        .route("/v1/databases/{name}/figures", get(figures::of_database))
        .route("/v1/figures", get(figures::of_node))
        .route("/metrics", get(metrics::metrics))
        .route("/openapi.json", get(openapi::document))
        .route("/v1/reload", post(reload::reload))
        .route("/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/v1/tokens/{id}", delete(tokens::revoke))
        .merge(of_bindings())
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn_with_state(Arc::clone(&app), guard::guard))
        // As the client accepts it, from a few bytes on.
        .layer(CompressionLayer::new())
        .with_state(app);
    match cors {
        Some(cors) => router.layer(cors.layer()),
        None => router,
    }
}

/// Managed bindings.
fn of_bindings() -> Router<App> {
    let one = "/v1/bindings/{id}";
    let at = |path: &str| format!("{one}{path}");
    Router::new()
        .route("/v1/bindings", get(bindings::list).post(bindings::create))
        .route(
            one,
            get(bindings::show)
                .patch(bindings::change)
                .delete(bindings::delete),
        )
        .route(&at("/check"), post(bindings::check))
        .route(&at("/restart"), post(bindings::restart))
        .route(&at("/credentials"), post(bindings::create_credential))
        .route(
            &at("/credentials/{user}"),
            delete(bindings::revoke_credential),
        )
        .merge(bindings::cloudflare_router())
}

/// What is deployed.
fn deployed() -> Router<App> {
    Router::new()
        .route("/api/v1/deploy", post(deployments::deploy))
        .route("/api/v1/deployments", get(deployments::list))
        .route(
            "/api/v1/deployments/{owner}/{repository}",
            get(deployments::history).delete(deployments::undeploy),
        )
        .route(
            "/api/v1/deployments/{owner}/{repository}/rollback",
            post(deployments::roll_back),
        )
        .route("/api/v1/logs/{owner}/{repository}", get(deployments::logs))
        .route(
            "/api/v1/usage/{owner}/{repository}",
            get(deployments::usage),
        )
}

/// What is asked of a database, whatever names it.
fn of_a_database(prefix: &str) -> Router<App> {
    let at = |path: &str| format!("{prefix}{path}");
    Router::new()
        .route(&at("/query"), post(query::query))
        .route(
            &at("/ws"),
            // HTTP/2 opens a WebSocket by CONNECT.
            get(websocket::websocket).connect(websocket::websocket),
        )
        .route(&at("/batch"), post(statements::batch))
        .route(&at("/transaction"), post(statements::transaction))
        .route(&at("/transactions"), post(transactions::begin))
        .route(&at("/transactions/{id}/query"), post(transactions::query))
        .route(&at("/transactions/{id}/commit"), post(transactions::commit))
        .route(
            &at("/transactions/{id}/rollback"),
            post(transactions::rollback),
        )
        .route(&at("/schema"), get(schema::schema))
}

/// What is asked of a database or, where none is named, of the node.
fn about(prefix: &str) -> Router<App> {
    let at = |path: &str| format!("{prefix}{path}");
    Router::new()
        .route(&at("/ping"), get(health::ping))
        .route(&at("/health"), get(health::health))
        .route(&at("/config"), get(health::config))
        .route(&at("/liveness"), get(probe::liveness))
        .route(&at("/readiness"), get(probe::readiness))
}

/// The database's name in the path; the caller reaches it.
pub(super) struct Name(pub(super) DatabaseName);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(name) = path.map_err(|rejection| {
            ApiError::request(StatusCode::BAD_REQUEST, rejection.body_text())
        })?;
        let name = database_name(&name)?;
        caller(parts)?.expect_database(&name)?;
        Ok(Self(name))
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
    ApiError::request(StatusCode::NOT_FOUND, format!("there is no {path} here"))
        .hint("GET /openapi.json lists what there is.")
}

async fn no_method(method: Method, uri: Uri) -> ApiError {
    let path = uri.path();
    ApiError::request(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{path} does not answer {method}; the header Allow says what it does"),
    )
}
