//! Creating, listing and deleting databases.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use database::{Settings, Source};
use serde::{Deserialize, Serialize};

use super::actor::Actor;
use super::body;
use super::caller::Scope;
use super::database_document::DatabaseDocument;
use super::error::ApiError;
use super::router::{App, Name, database_name};
use super::tenant::By;
use super::work::Work;
use crate::blocking::blocking;

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

/// The query of `GET /v1/databases`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// Only names after this one.
    after: Option<String>,
    /// Most databases in one answer.
    #[serde(default = "page_max")]
    limit: usize,
}

/// Most databases that one answer lists (`http.page_max`).
const PAGE_MAX: usize = 1_000;

fn page_max() -> usize {
    PAGE_MAX
}

#[derive(Serialize)]
struct List {
    databases: Vec<DatabaseDocument>,
    /// What to give as `after` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

pub(super) async fn create(
    State(app): State<App>,
    By(caller): By,
    actor: Actor,
    request: Request,
) -> Result<Response, ApiError> {
    caller.expect_node(Scope::Admin)?;
    let create: Create = body::read(request, app.options.body_bytes_max).await?;
    let name = database_name(&create.name)?;
    app.options.routing.expect_unblocked(&name)?;
    let source = match create.from {
        None => Source::Template,
        Some(From::Name(name)) if name == "template" => Source::Template,
        Some(From::Name(database) | From::Database(FromDatabase { database })) => {
            Source::Database(database_name(&database)?)
        }
    };
    let databases = app.databases.by(actor.doer());
    let creating = async move { databases.create(&name, source).await };
    let info = Work::to_its_end(creating).await?;
    let location = format!("/v1/databases/{}", info.name);
    let document = Json(DatabaseDocument::from(info));
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        document,
    )
        .into_response())
}

pub(super) async fn list(
    State(app): State<App>,
    By(caller): By,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    caller.expect_node(Scope::Admin)?;
    let Query(ListQuery { after, limit }) = query
        .map_err(|rejection| ApiError::request(StatusCode::BAD_REQUEST, rejection.body_text()))?;
    if limit == 0 || limit > PAGE_MAX {
        return Err(ApiError::request(
            StatusCode::BAD_REQUEST,
            format!("\"limit\" is {limit}; it must be from 1 to {PAGE_MAX}"),
        ));
    }
    let after = after.as_deref().map(database_name).transpose()?;
    let databases = app.databases.clone();
    let infos = blocking(move || databases.list(after.as_ref(), limit)).await?;
    let next = infos.last().filter(|_| infos.len() == limit);
    let next = next.map(|info| info.name.clone());
    let databases = infos.into_iter().map(DatabaseDocument::from).collect();
    Ok(Json(List { databases, next }).into_response())
}

pub(super) async fn show(State(app): State<App>, name: Name) -> Result<Response, ApiError> {
    let databases = app.databases.clone();
    let info = blocking(move || databases.info(&name.0)).await?;
    Ok(Json(DatabaseDocument::from(info)).into_response())
}

/// Replaces the settings of one database. Its quota is the node's administrator's to set.
pub(super) async fn configure(
    State(app): State<App>,
    Name(name): Name,
    By(caller): By,
    actor: Actor,
    request: Request,
) -> Result<Response, ApiError> {
    caller.expect(Scope::Admin)?;
    let settings: Settings = body::read(request, app.options.body_bytes_max).await?;
    let databases = app.databases.by(actor.doer());
    let is_of_node = caller.expect_node(Scope::Admin).is_ok();
    let configuring = async move {
        match is_of_node {
            true => databases.configure(&name, settings).await,
            false => databases.configure_within_quota(&name, settings).await,
        }
    };
    let info = Work::to_its_end(configuring).await?;
    Ok(Json(DatabaseDocument::from(info)).into_response())
}

/// Makes what a database has acknowledged durable, whatever its durability.
pub(super) async fn flush(
    State(app): State<App>,
    Name(name): Name,
    By(caller): By,
) -> Result<StatusCode, ApiError> {
    caller.expect(Scope::Write)?;
    let databases = app.databases.clone();
    Work::to_its_end(async move { databases.flush(&name).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn delete(
    State(app): State<App>,
    Name(name): Name,
    By(caller): By,
    actor: Actor,
    query: Result<Query<Delete>, QueryRejection>,
) -> Result<StatusCode, ApiError> {
    caller.expect(Scope::Admin)?;
    let Query(Delete { force }) = query
        .map_err(|rejection| ApiError::request(StatusCode::BAD_REQUEST, rejection.body_text()))?;
    let databases = app.databases.by(actor.doer());
    let is_of_node = caller.expect_node(Scope::Admin).is_ok();
    let deleting = async move {
        if !is_of_node {
            // The next one of its name would have no quota.
            let (checked, sought) = (databases.clone(), name.clone());
            blocking(move || checked.expect_no_quota(&sought)).await?;
        }
        databases.delete(&name, force).await
    };
    Work::to_its_end(deleting).await?;
    Ok(StatusCode::NO_CONTENT)
}
