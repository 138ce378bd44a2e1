//! `POST /v1/reload`: the configuration is read again.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use wire::{PgError, sqlstate};

use super::actor::Actor;
use super::caller::Scope;
use super::error::ApiError;
use super::router::App;
use super::tenant::By;

pub(super) async fn reload(
    State(app): State<App>,
    By(caller): By,
    actor: Actor,
) -> Result<Response, ApiError> {
    caller.expect_node(Scope::Admin)?;
    let configuration = app.configuration.get().and_then(std::sync::Weak::upgrade);
    let configuration = configuration.ok_or_else(|| {
        ApiError::from(PgError::error(
            sqlstate::CANNOT_CONNECT_NOW,
            "the server has not started yet, or is stopping",
        ))
    })?;
    let reading = async move {
        let read = tokio::task::spawn_blocking(move || configuration.reload()).await;
        let read =
            read.map_err(|error| PgError::error(sqlstate::INTERNAL_ERROR, error.to_string()))?;
        read.map_err(|why| unusable(&why))
    };
    let object = "configuration".to_owned();
    let audit = &app.security.audit;
    let document = actor
        .does(audit, "configuration.reload", object, None, reading)
        .await?;
    Ok(Json(document).into_response())
}

fn unusable(why: &str) -> ApiError {
    let error = PgError::error(
        sqlstate::CONFIG_FILE_ERROR,
        format!("the configuration cannot be used, and nothing has changed: {why}"),
    );
    ApiError::new(StatusCode::CONFLICT, error)
}
