//! Static tokens, made and revoked over HTTP.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::header::{CACHE_CONTROL, HeaderValue};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use wire::{PgError, sqlstate};

use super::actor::Actor;
use super::body;
use super::caller::Scope;
use super::error::ApiError;
use super::router::App;
use super::tenant::By;
use crate::identity::{NewToken, TokenDocument, Tokens, TokensError};

#[derive(Serialize)]
struct List {
    tokens: Vec<TokenDocument>,
}

pub(super) async fn create(
    State(app): State<App>,
    By(caller): By,
    actor: Actor,
    request: Request,
) -> Result<Response, ApiError> {
    caller.expect_node(Scope::Admin)?;
    let new: NewToken = body::read(request, app.options.body_bytes_max).await?;
    let (name, scope) = (new.name.clone(), new.scope.clone());
    let making = on(Arc::clone(&app), move |tokens| tokens.create(new));
    let audit = &app.security.audit;
    let created = actor
        .does(audit, "token.create", name, Some(scope), making)
        .await?;
    let location = format!("/v1/tokens/{}", created.document.id);
    let mut response = (
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        Json(created),
    )
        .into_response();
    // A secret is in it.
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

pub(super) async fn list(State(app): State<App>, By(caller): By) -> Result<Response, ApiError> {
    caller.expect_node(Scope::Admin)?;
    let tokens = on(app, Tokens::list).await?;
    Ok(Json(List { tokens }).into_response())
}

pub(super) async fn revoke(
    State(app): State<App>,
    By(caller): By,
    actor: Actor,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    caller.expect_node(Scope::Admin)?;
    let sought = id.clone();
    let revoking = on(Arc::clone(&app), move |tokens| tokens.revoke(&sought));
    let audit = &app.security.audit;
    actor
        .does(audit, "token.revoke", id, None, revoking)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Does something with the tokens, on a thread for what waits for the disk.
async fn on<T: Send + 'static>(
    app: App,
    work: impl FnOnce(&Tokens) -> Result<T, TokensError> + Send + 'static,
) -> Result<T, ApiError> {
    let Some(tokens) = app.security.tokens.clone() else {
        return Err(ApiError::from(
            PgError::error(
                sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
                "this server has no tokens: auth.tokens_file is not set",
            )
            .hint("Set auth.tokens_file in Dormouse's configuration."),
        ));
    };
    let done = tokio::task::spawn_blocking(move || work(&tokens)).await;
    let done = done.map_err(|error| PgError::error(sqlstate::INTERNAL_ERROR, error.to_string()))?;
    done.map_err(|error| said(&error))
}

fn said(error: &TokensError) -> ApiError {
    let message = error.to_string();
    let of = |status, code| ApiError::new(status, PgError::error(code, message.clone()));
    match error {
        TokensError::Invalid(_) => of(StatusCode::BAD_REQUEST, sqlstate::INVALID_PARAMETER_VALUE),
        TokensError::Taken(_) => of(StatusCode::CONFLICT, sqlstate::DUPLICATE_OBJECT),
        TokensError::Unknown(_) => of(StatusCode::NOT_FOUND, sqlstate::UNDEFINED_OBJECT),
        TokensError::Full => of(
            StatusCode::INSUFFICIENT_STORAGE,
            sqlstate::CONFIGURATION_LIMIT_EXCEEDED,
        ),
        TokensError::File { .. } | TokensError::Random(_) => {
            of(StatusCode::INTERNAL_SERVER_ERROR, sqlstate::IO_ERROR)
        }
    }
}
