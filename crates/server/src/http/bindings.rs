//! Managed bindings over HTTP: made, changed, checked and deleted; credentials for them.

mod cloudflare;
mod credentials;
mod document;
mod new;
mod said;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use pooler::{Binding, BindingTarget, Failure};
use serde::{Deserialize, Serialize};

use super::actor::Actor;
use super::body;
use super::caller::Scope;
use super::error::ApiError;
use super::router::App;
use super::tenant::By;
use crate::bindings::ManagedBindings;

pub use credentials::{CreatedCredential, NewCredential};
pub use document::{
    AllowedDocument, BindingDocument, CachingDocument, CredentialDocument, LimitsDocument,
    OriginDocument, PerAppDocument, PoolDocument, ReplicationDocument,
};
pub use new::{BindingFields, OriginFields};

pub(super) use cloudflare::{refused as cloudflare_refused, router as cloudflare_router};
pub(super) use credentials::{create as create_credential, revoke as revoke_credential};

#[derive(Serialize)]
struct List {
    bindings: Vec<BindingDocument>,
}

/// What a check has found.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckedDocument {
    /// As the origin says itself; none of a database of ours.
    pub server_version: Option<String>,
}

pub(super) async fn list(State(app): State<App>, By(caller): By) -> Result<Response, ApiError> {
    caller.expect_node(Scope::Admin)?;
    let managed = managed(&app)?;
    let bindings = managed.bindings.list();
    let bindings = bindings
        .iter()
        .map(|binding| BindingDocument::of(binding, &managed.bindings))
        .collect();
    Ok(Json(List { bindings }).into_response())
}

pub(super) async fn show(
    State(app): State<App>,
    By(caller): By,
    Path(id): Path<String>,
) -> Result<Json<BindingDocument>, ApiError> {
    caller.expect_node(Scope::Admin)?;
    let managed = managed(&app)?;
    let binding = managed
        .bindings
        .get(&id)
        .map_err(|error| said::binding(&error))?;
    Ok(Json(BindingDocument::of(&binding, &managed.bindings)))
}

pub(super) async fn create(
    State(app): State<App>,
    By(caller): By,
    actor: Actor,
    request: Request,
) -> Result<Response, ApiError> {
    caller.expect_node(Scope::Admin)?;
    let new: BindingFields = body::read(request, app.options.body_bytes_max).await?;
    let checks = !new.skip_check;
    let binding = new.into_binding()?;
    let binding = add(&app, actor, binding, checks).await?;
    let location = format!("/v1/bindings/{}", binding.id);
    let document = Json(BindingDocument::of(&binding, &managed(&app)?.bindings));
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        document,
    )
        .into_response())
}

pub(super) async fn change(
    State(app): State<App>,
    By(caller): By,
    actor: Actor,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<BindingDocument>, ApiError> {
    caller.expect_node(Scope::Admin)?;
    let change: BindingFields = body::read(request, app.options.body_bytes_max).await?;
    let checks = !change.skip_check;
    let binding = alter(&app, actor, &id, checks, move |binding| {
        change.apply(binding)
    })
    .await?;
    Ok(Json(BindingDocument::of(
        &binding,
        &managed(&app)?.bindings,
    )))
}

pub(super) async fn delete(
    State(app): State<App>,
    By(caller): By,
    actor: Actor,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    caller.expect_node(Scope::Admin)?;
    remove(&app, actor, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Connects as the pool would.
pub(super) async fn check(
    State(app): State<App>,
    By(caller): By,
    Path(id): Path<String>,
) -> Result<Json<CheckedDocument>, ApiError> {
    caller.expect_node(Scope::Admin)?;
    let managed = managed(&app)?;
    let binding = managed
        .bindings
        .get(&id)
        .map_err(|error| said::binding(&error))?;
    let checked = checked(&managed, &binding, said::does_not_work).await;
    let server_version = checked?;
    Ok(Json(CheckedDocument { server_version }))
}

/// Closes the pool's connections, those in use when they are free.
pub(super) async fn restart(
    State(app): State<App>,
    By(caller): By,
    actor: Actor,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    caller.expect_node(Scope::Admin)?;
    let managed = managed(&app)?;
    let binding = managed
        .bindings
        .get(&id)
        .map_err(|error| said::binding(&error))?;
    let name = binding.name.clone();
    let restarting = async move {
        let pool = managed.bindings.pool(&binding.id);
        if let Some(pool) = pool.map_err(|error| said::binding(&error))? {
            pool.restart();
        }
        Ok::<_, ApiError>(())
    };
    let audit = &app.security.audit;
    actor
        .does(audit, "binding.restart", name, None, restarting)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

fn managed(app: &App) -> Result<Arc<ManagedBindings>, ApiError> {
    app.bindings().cloned().ok_or_else(said::none_here)
}

/// Adds a binding, which leads somewhere if that is to be checked.
async fn add(
    app: &App,
    actor: Actor,
    binding: Binding,
    checks: bool,
) -> Result<Arc<Binding>, ApiError> {
    let managed = managed(app)?;
    let name = binding.name.clone();
    let adding = async move {
        binding.check().map_err(|error| said::field(&error))?;
        if checks {
            checked(&managed, &binding, said::not_saved).await?;
        }
        on_disk(move || managed.bindings.create(binding)).await
    };
    let audit = &app.security.audit;
    actor
        .does(audit, "binding.create", name, None, adding)
        .await
}

/// Changes a binding; where it leads then is checked if that is wanted, and has changed.
async fn alter(
    app: &App,
    actor: Actor,
    id: &str,
    checks: bool,
    change: impl FnOnce(&mut Binding) -> Result<(), ApiError> + Send + 'static,
) -> Result<Arc<Binding>, ApiError> {
    let managed = managed(app)?;
    let old = managed
        .bindings
        .get(id)
        .map_err(|error| said::binding(&error))?;
    let name = old.name.clone();
    let changing = async move {
        let mut new = Binding::clone(&old);
        change(&mut new)?;
        new.check().map_err(|error| said::field(&error))?;
        if checks && new.target != old.target {
            checked(&managed, &new, said::not_saved).await?;
        }
        let changed = on_disk(move || {
            // What somebody else has changed meanwhile is not undone.
            let as_seen = Some(old.modified_ms);
            managed.bindings.change(&old.id, as_seen, |binding| {
                *binding = new;
                Ok(())
            })
        });
        changed.await
    };
    let audit = &app.security.audit;
    actor
        .does(audit, "binding.change", name, None, changing)
        .await
}

async fn remove(app: &App, actor: Actor, id: &str) -> Result<(), ApiError> {
    let managed = managed(app)?;
    let binding = managed
        .bindings
        .get(id)
        .map_err(|error| said::binding(&error))?;
    let name = binding.name.clone();
    let id = binding.id.clone();
    let removing = on_disk(move || managed.bindings.delete(&id));
    let audit = &app.security.audit;
    actor
        .does(audit, "binding.delete", name, None, removing)
        .await
}

/// Whether a binding leads somewhere: the version of an external server. `say`: what is said if that does not let us in.
async fn checked(
    managed: &ManagedBindings,
    binding: &Binding,
    say: fn(&Failure) -> ApiError,
) -> Result<Option<String>, ApiError> {
    match &binding.target {
        BindingTarget::Origin(origin) => {
            let within = Duration::from_millis(binding.limits.connect_timeout_ms.into());
            let checked = pooler::check(origin, within).await;
            let checked = checked.map_err(|failure| say(&failure))?;
            Ok(Some(checked.server_version))
        }
        BindingTarget::Database(name) => expect_database(managed, "database", name),
        BindingTarget::DatabasePerApp {
            template: Some(name),
        } => expect_database(managed, "databasePerApp.template", name),
        BindingTarget::DatabasePerApp { template: None } => Ok(None),
    }
}

fn expect_database(
    managed: &ManagedBindings,
    field: &'static str,
    name: &str,
) -> Result<Option<String>, ApiError> {
    let name = super::router::database_name(name)?;
    match managed.has_database(&name) {
        true => Ok(None),
        false => Err(said::no_database(field, &name)),
    }
}

/// Does what waits for the disk.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, pooler::BindingsError> + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| said::internal(&error))?
        .map_err(|error| said::binding(&error))
}
