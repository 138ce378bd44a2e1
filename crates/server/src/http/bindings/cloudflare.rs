//! The paths and documents of Cloudflare's Hyperdrive configurations, so that what was written for these finds ours. The
//! account in the path is looked at by nobody: this node has one.

mod fields;

use axum::extract::{Path, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use pooler::{Binding, BindingTarget, Host, TlsMode};
use serde::Serialize;
use serde_json::{Value, json};

use super::document::moment;
use super::{add, alter, managed, remove, said};
use crate::http::actor::Actor;
use crate::http::body;
use crate::http::caller::{Caller, Scope};
use crate::http::error::ApiError;
use crate::http::router::App;
use crate::http::tenant::By;
use fields::Fields;

/// Their number for what has none of its own.
const GENERIC: u64 = 2015;

/// Their number for whoever may not ask, known or not.
const NOT_AUTHORIZED: u64 = 10_000;

const CONFIGS: &str = "/client/v4/accounts/{account}/hyperdrive/configs";

/// Their envelope.
#[derive(Serialize)]
struct Envelope {
    success: bool,
    errors: Vec<Value>,
    messages: Vec<Value>,
    result: Value,
}

/// An error in their envelope.
struct Refused(ApiError);

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let number = self
            .0
            .member_of("failure")
            .and_then(|failure| failure["code"].as_u64());
        let code = match (number, self.0.status()) {
            (Some(number), _) => number,
            (None, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => NOT_AUTHORIZED,
            (None, _) => GENERIC,
        };
        let envelope = Envelope {
            success: false,
            errors: vec![json!({ "code": code, "message": self.0.error().message() })],
            messages: Vec::new(),
            result: Value::Null,
        };
        // Status and headers are ours.
        let mut response = self.0.into_response();
        let theirs = Json(envelope).into_response();
        response.headers_mut().extend(theirs.headers().clone());
        *response.body_mut() = theirs.into_body();
        response
    }
}

fn told(result: Value) -> Response {
    let envelope = Envelope {
        success: true,
        errors: Vec::new(),
        messages: Vec::new(),
        result,
    };
    Json(envelope).into_response()
}

/// An error of what stands before every handler, in their envelope where the route is one of theirs.
pub(in crate::http) fn refused(route: Option<&str>, error: ApiError) -> Response {
    match route.is_some_and(|route| route.starts_with(CONFIGS)) {
        true => Refused(error).into_response(),
        false => error.into_response(),
    }
}

pub(in crate::http) fn router() -> Router<App> {
    Router::new().route(CONFIGS, get(list).post(create)).route(
        &format!("{CONFIGS}/{{id}}"),
        get(show).put(replace).patch(change).delete(delete),
    )
}

fn expect(caller: &Caller) -> Result<(), Refused> {
    Ok(caller.expect_node(Scope::Admin)?)
}

/// Whether a request shows a token: a browser sends none to a foreign address without asking before, whatever the content
/// type is. A password that it knows (`Basic`) it may send by itself.
fn shows_token(headers: &HeaderMap) -> bool {
    let value = headers.get(AUTHORIZATION);
    let scheme = value.and_then(|value| value.to_str().ok()?.split(' ').next());
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer"))
}

/// What is sent to make or change a configuration. Their own tool sends its JSON as text.
async fn read(request: Request, app: &App) -> Result<Fields, ApiError> {
    let max = app.options.body_bytes_max;
    match shows_token(request.headers()) {
        true => body::read_of_any_type(request, max).await,
        false => body::read(request, max).await,
    }
}

async fn list(State(app): State<App>, By(caller): By) -> Result<Response, Refused> {
    expect(&caller)?;
    let bindings = managed(&app)?.bindings.list();
    // Theirs lead to origins only.
    let configs = bindings.iter().filter_map(|binding| config(binding));
    Ok(told(configs.collect()))
}

async fn show(
    State(app): State<App>,
    By(caller): By,
    Path((_, id)): Path<(String, String)>,
) -> Result<Response, Refused> {
    expect(&caller)?;
    let managed = managed(&app)?;
    let binding = managed
        .bindings
        .get(&id)
        .map_err(|error| said::binding(&error))?;
    Ok(told(shown(&binding)?))
}

async fn create(
    State(app): State<App>,
    By(caller): By,
    actor: Actor,
    request: Request,
) -> Result<Response, Refused> {
    expect(&caller)?;
    let fields = read(request, &app).await?;
    let binding = fields.ours()?.into_binding()?;
    let binding = add(&app, actor, binding, true).await?;
    Ok(told(shown(&binding)?))
}

async fn change(
    State(app): State<App>,
    By(caller): By,
    actor: Actor,
    Path((_, id)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refused> {
    expect(&caller)?;
    let fields = read(request, &app).await?;
    let fields = fields.ours()?;
    let binding = alter(&app, actor, &id, true, move |binding| fields.apply(binding)).await?;
    Ok(told(shown(&binding)?))
}

/// All of it anew.
async fn replace(
    State(app): State<App>,
    By(caller): By,
    actor: Actor,
    Path((_, id)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refused> {
    expect(&caller)?;
    let fields = read(request, &app).await?;
    let whole = fields.ours()?.into_binding()?;
    let replacing = move |binding: &mut Binding| {
        binding.name = whole.name;
        binding.target = whole.target;
        binding.limits.connections_max = whole.limits.connections_max;
        binding.caching = whole.caching;
        Ok(())
    };
    let binding = alter(&app, actor, &id, true, replacing).await?;
    Ok(told(shown(&binding)?))
}

async fn delete(
    State(app): State<App>,
    By(caller): By,
    actor: Actor,
    Path((_, id)): Path<(String, String)>,
) -> Result<Response, Refused> {
    expect(&caller)?;
    remove(&app, actor, &id).await?;
    Ok(told(Value::Null))
}

fn shown(binding: &Binding) -> Result<Value, ApiError> {
    config(binding).ok_or_else(|| {
        said::binding(&pooler::BindingsError::Unknown(binding.id.clone()))
            .hint("It leads to a database of this node: GET /v1/bindings shows it.")
    })
}

/// A binding to an origin, in their words; without the password.
fn config(binding: &Binding) -> Option<Value> {
    let BindingTarget::Origin(origin) = &binding.target else {
        return None;
    };
    let (host, port) = match origin.hosts.first()? {
        Host::Tcp(name, port) => (name.clone(), *port),
        Host::Unix(folder, port) => (folder.to_string_lossy().into_owned(), *port),
    };
    let caching = &binding.caching;
    let mut config = json!({
        "id": binding.id,
        "name": binding.name,
        "created_on": moment(binding.created_ms),
        "modified_on": moment(binding.modified_ms),
        "origin": {
            "scheme": "postgresql",
            "host": host,
            "port": port,
            "database": origin.database,
            "user": origin.user,
        },
        "caching": match caching.is_disabled {
            true => json!({ "disabled": true }),
            false => json!({
                "disabled": false,
                "max_age": caching.max_age,
                "stale_while_revalidate": caching.stale_while_revalidate,
            }),
        },
        "origin_connection_limit": binding.limits.connections_max,
    });
    if origin.tls.mode != TlsMode::default() {
        config["mtls"] = json!({ "sslmode": origin.tls.mode.name() });
    }
    Some(config)
}
