//! Creating, listing and deleting databases.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use database::Source;
use serde::{Deserialize, Serialize};

use super::body;
use super::database_document::DatabaseDocument;
use super::error::ApiError;
use super::router::{App, Name, database_name};
use super::work::Work;

/// The body of `POST /v1/databases`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    from: Option<From>,
}

/// What a database is made from.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "\"from\" is \"template\", the name of a database, or {\"database\": NAME}"
)]
enum From {
    Name(String),
    Database(FromDatabase),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FromDatabase {
    database: String,
}

/// The query of `DELETE /v1/databases/NAME`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Delete {
    /// End its sessions first.
    #[serde(default)]
    force: bool,
}

#[derive(Serialize)]
struct List {
    databases: Vec<DatabaseDocument>,
}

pub(super) async fn create(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let create: Create = body::read(request, app.options.body_bytes_max).await?;
    let name = database_name(&create.name)?;
    let source = match create.from {
        None => Source::Template,
        Some(From::Name(name)) if name == "template" => Source::Template,
        Some(From::Name(database) | From::Database(FromDatabase { database })) => {
            Source::Database(database_name(&database)?)
        }
    };
    let databases = app.databases.clone();
    let info = Work::to_its_end(async move { databases.create(&name, source).await }).await?;
    let location = format!("/v1/databases/{}", info.name);
    let document = Json(DatabaseDocument::from(info));
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        document,
    )
        .into_response())
}

pub(super) async fn list(State(app): State<App>) -> Result<Response, ApiError> {
    let databases = app.databases.list()?;
    let databases = databases.into_iter().map(DatabaseDocument::from).collect();
    Ok(Json(List { databases }).into_response())
}

pub(super) async fn show(State(app): State<App>, name: Name) -> Result<Response, ApiError> {
    let info = app.databases.info(&name.0)?;
    Ok(Json(DatabaseDocument::from(info)).into_response())
}

pub(super) async fn delete(
    State(app): State<App>,
    Name(name): Name,
    query: Result<Query<Delete>, QueryRejection>,
) -> Result<StatusCode, ApiError> {
    let Query(Delete { force }) = query
        .map_err(|rejection| ApiError::request(StatusCode::BAD_REQUEST, rejection.body_text()))?;
    let databases = app.databases.clone();
    Work::to_its_end(async move { databases.delete(&name, force).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}
