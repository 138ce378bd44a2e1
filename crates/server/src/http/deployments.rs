//! Deployments: made, listed, rolled back and taken away. The paths and the form of answers are those of the W7S platform,
//! whose action for GitHub calls the first of them, `usage` and `logs`.

mod archive;
mod asked;
mod gate;
mod logs;

pub(super) use logs::{logs, usage};

use std::future::Future;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use workers::deployments::{self, deployment, envelope};
use workers::store::{Source, Version};
use workers::{App as Place, Environment, Refusal, Repository, Values};

use super::router::App;
use crate::apps::Apps;
use asked::{Asked, Named};
use gate::Gate;

/// The longest name of a branch or a commit, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// A request that is not done, as the platform says it.
#[derive(Debug)]
pub(super) struct Refused(pub(super) Refusal);

/// Which deployments of a repository are meant.
#[derive(Debug, Deserialize)]
pub(super) struct Which {
    environment: Option<String>,
}

/// What to roll back to.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RollBack {
    /// Without one: the newest of those before the one that serves.
    version: Option<u64>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status);
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.0.body())).into_response()
    }
}

fn done(data: Value) -> Response {
    Json(json!({ "status": "success", "data": data })).into_response()
}

/// `POST /api/v1/deploy`
pub(super) async fn deploy(
    State(app): State<App>,
    gate: Gate,
    Asked(which): Asked<Which>,
    request: Request,
) -> Result<Response, Refused> {
    let headers = request.headers();
    let repository = text(headers, "x-github-repository")?.unwrap_or_default();
    let named = repository.to_owned();
    let repository = Repository::parse(repository)?;
    gate.expect(&repository)?;
    expect_zip(headers)?;
    let commit_sha = required(headers, "x-github-sha")?;
    let branch = required(headers, "x-github-branch")?;
    let environment = match &which.environment {
        Some(environment) if !environment.trim().is_empty() => Some(environment.as_str()),
        _ => text(headers, "x-w7s-environment")?,
    };
    let values = |name: &'static str| match text(headers, name)? {
        Some(text) if !text.trim().is_empty() => Values::from_header(name, text),
        _ => Ok(Values::default()),
    };
    let place = Place {
        environment: Environment::resolve(environment, &branch)?,
        repository,
    };
    gate.expect_environment(&place.environment)?;
    let (vars, secrets) = (values("x-w7s-vars")?, values("x-w7s-secrets")?);
    let application = text(headers, "x-w7s-application")?.map(str::to_owned);
    let apps = Arc::clone(&gate.apps);
    let turn = Arc::clone(&apps.deploys).acquire_owned().await;
    let turn = turn.map_err(|_| Refusal::with_status(503, "The server is stopping."))?;
    let (pause, upload_max) = (app.options.body_timeout, apps.upload_max);
    let archive = archive::collect(request.into_body(), apps.limits, pause, upload_max).await?;
    let sent = deployments::Request {
        app: place.clone(),
        source: Source {
            repository: named.trim().to_owned(),
            branch,
            commit_sha: commit_sha.clone(),
        },
        application,
        archive,
        vars,
        secrets,
        came_by: gate.came_by.hosts.clone(),
    };
    let deploying = {
        let apps = Arc::clone(&apps);
        async move {
            // Who leaves meanwhile does not give its turn to another: the deployment goes on.
            let _turn = turn;
            apps.deployments.deploy(sent, now_ms()).await
        }
    };
    let came_by = gate.came_by.clone();
    let deployed = gate
        .does(&app, "app.deploy", &place, Some(commit_sha), deploying)
        .await?;
    let url = apps.url(&deployed.version, &came_by);
    Ok(Json(envelope(&deployed, url.as_deref())).into_response())
}

/// `GET /api/v1/deployments`
pub(super) async fn list(gate: Gate) -> Result<Response, Refused> {
    let apps = &gate.apps;
    let seen = apps.deployments.all().into_iter();
    let seen = seen.filter(|version| gate.deployer.may(&version.app.repository));
    let all: Vec<Value> = seen
        .map(|version| {
            let standing = apps.deployments.standing(&version.app);
            let mut document = deployment(&version);
            document["url"] = json!(apps.url(&version, &gate.came_by));
            document["hosts"] = json!(apps.deployments.hosts_of(&version.app));
            document["backend"] = match (&version.backend, standing) {
                (None, _) => Value::Null,
                (Some(_), None) => json!({ "running": false }),
                (Some(_), Some(standing)) => json!({
                    "running": standing.process.is_some(),
                    "residentBytes": standing.resident_bytes,
                    "crashes": standing.crashes,
                }),
            };
            document
        })
        .collect();
    Ok(done(json!({ "deployments": all })))
}

/// `GET /api/v1/deployments/OWNER/REPOSITORY`
pub(super) async fn history(
    gate: Gate,
    Named(repository): Named,
    Asked(which): Asked<Which>,
) -> Result<Response, Refused> {
    let place = gate.place(&repository, which.environment.as_deref())?;
    let current = serving(&gate.apps, &place)?;
    let history = gate.apps.deployments.history(&place).await?;
    let all = history.iter().map(|version| {
        let mut document = deployment(version);
        document["current"] = (version.number == current.number).into();
        document
    });
    Ok(done(json!({
        "url": gate.apps.url(&current, &gate.came_by),
        "deployments": all.collect::<Vec<_>>(),
    })))
}

/// `POST /api/v1/deployments/OWNER/REPOSITORY/rollback`
pub(super) async fn roll_back(
    State(app): State<App>,
    gate: Gate,
    Named(repository): Named,
    Asked(which): Asked<Which>,
    request: Request,
) -> Result<Response, Refused> {
    let place = gate.place(&repository, which.environment.as_deref())?;
    let apps = Arc::clone(&gate.apps);
    let current = serving(&apps, &place)?;
    let body = archive::small(request.into_body(), app.options.body_timeout).await?;
    let asked: RollBack = match body.trim_ascii() {
        [] => RollBack::default(),
        body => serde_json::from_slice(body).map_err(|error| {
            Refusal::bad(format!("The body is not what is expected here: {error}."))
        })?,
    };
    let number = match asked.version {
        Some(number) => number,
        None => {
            let history = apps.deployments.history(&place).await?;
            let before = history.iter().map(|version| version.number);
            let before = before.filter(|number| *number < current.number).max();
            before.ok_or_else(|| {
                Refusal::with_status(
                    409,
                    format!("{place} has no version before {}.", current.number),
                )
            })?
        }
    };
    let rolling = {
        let (apps, place) = (Arc::clone(&apps), place.clone());
        async move { apps.deployments.roll_back(&place, number).await }
    };
    let came_by = gate.came_by.clone();
    let version = gate
        .does(
            &app,
            "app.rollback",
            &place,
            Some(number.to_string()),
            rolling,
        )
        .await?;
    Ok(done(json!({
        "deployment": deployment(&version),
        "url": apps.url(&version, &came_by),
    })))
}

/// `DELETE /api/v1/deployments/OWNER/REPOSITORY`
pub(super) async fn undeploy(
    State(app): State<App>,
    gate: Gate,
    Named(repository): Named,
    Asked(which): Asked<Which>,
) -> Result<Response, Refused> {
    let place = gate.place(&repository, which.environment.as_deref())?;
    serving(&gate.apps, &place)?;
    let deleting = {
        let (apps, place) = (Arc::clone(&gate.apps), place.clone());
        async move {
            apps.deployments.delete(&place).await?;
            apps.usage.forget(&place);
            Ok(())
        }
    };
    let document = json!({
        "repository": place.repository.to_string(),
        "environment": place.environment.as_str(),
    });
    gate.does(&app, "app.undeploy", &place, None, deleting)
        .await?;
    Ok(done(document))
}

/// The version that serves.
fn serving(apps: &Apps, place: &Place) -> Result<Arc<Version>, Refusal> {
    let current = apps.deployments.current(place);
    current.ok_or_else(|| Refusal::with_status(404, format!("{place} is not deployed.")))
}

/// A header's text; none if it is not there.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Refusal> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    let text = std::str::from_utf8(value.as_bytes());
    text.map(Some)
        .map_err(|_| Refusal::bad(format!("The header {name} is not UTF-8 text.")))
}

/// A name that must be there.
fn required(headers: &HeaderMap, name: &str) -> Result<String, Refusal> {
    let text = text(headers, name)?.map(str::trim).unwrap_or_default();
    if text.is_empty() {
        return Err(Refusal::bad(format!("Missing {name} header.")));
    }
    if text.len() > NAME_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(Refusal::bad(format!(
            "The header {name} has more than {NAME_BYTES_MAX} bytes, or a control character."
        )));
    }
    Ok(text.to_owned())
}

fn expect_zip(headers: &HeaderMap) -> Result<(), Refusal> {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind
        .and_then(|kind| kind.split(';').next())
        .unwrap_or_default();
    let kinds = [
        "application/zip",
        "application/x-zip-compressed",
        "application/octet-stream",
    ];
    match kinds
        .iter()
        .any(|known| kind.trim().eq_ignore_ascii_case(known))
    {
        true => Ok(()),
        false => Err(Refusal::with_status(
            415,
            "Deploy body must be an application/zip archive.",
        )),
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_millis() as u64
}

/// What changes an app: done wholly, and written down.
trait Change<T>: Future<Output = Result<T, Refusal>> + Send + 'static {}
impl<T, F: Future<Output = Result<T, Refusal>> + Send + 'static> Change<T> for F {}
