//! What stands before every handler: who asks is found out, and whether it may ask so often.

use super::bindings::cloudflare_refused;
use super::bodies::Counted;
use super::body;
use super::caller::{Caller, Scope};
use super::door::{Door, is_open};
use super::error::ApiError;
use super::host;
use super::origin;
use super::permitted;
use super::router::{App, database_name};
use crate::identity::Admitted;
use crate::request_limits::Permit;
use crate::telemetry::Begun;
use axum::RequestExt as _;
use axum::body::Body;
use axum::extract::{MatchedPath, RawPathParams, Request, State};
use axum::http::Method;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use database::DatabaseName;
use std::sync::Arc;
use std::time::Instant;
use tracing::Instrument as _;

/// Lets a request through, with its [`Caller`] in its extensions, or answers it.
pub(super) async fn guard(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map(MatchedPath::as_str);
    let params = request.extract_parts::<RawPathParams>().await.ok();
    let in_path = params.as_ref().and_then(|params| {
        let name = params.iter().find(|(key, _)| *key == "name");
        name.map(|(_, name)| name.to_owned())
    });
    let (mut head, body) = request.into_parts();
    let begun = app.telemetry.begin(&head, route);
    let entered = enter(&app, &mut head, body, (route, in_path.as_deref()), &begun).await;
    // Who is not known has no say in what is recorded.
    let is_known = head.extensions.get::<Caller>().is_some();
    let traced = begun.decide(&head, is_known);
    let mut response = match entered {
        Ok((body, permit)) => {
            // What works on it longer than the answer takes has it too.
            let _counted = head.extensions.get::<Arc<Counted>>().cloned();
            let answering = next.run(Request::from_parts(head, body));
            let response = answering.instrument(traced.span.clone()).await;
            permitted::hold(response, permit)
        }
        Err(error) => cloudflare_refused(route, error),
    };
    traced.answered(&mut response);
    response
}

/// The caller is put into the head's extensions; none for who shows nothing and asks what everybody may. The body is
/// here by then, so that who sends it slowly has no permit meanwhile; that it counts is in the extensions too.
async fn enter(
    app: &App,
    head: &mut Parts,
    body: Body,
    (route, in_path): (Option<&str>, Option<&str>),
    begun: &Begun,
) -> Result<(Body, Option<Permit>), ApiError> {
    let security = &app.security;
    if security.own_hosts_only && !security.gatekeeper.asks() {
        host::expect_own(head, app.options.routing.base_domain.as_deref().as_slice())?;
    }
    if !security.gatekeeper.asks() {
        origin::expect_own(head, app.options.cors.as_ref())?;
    }
    let door = Door::of(route);
    if door == Door::Apps {
        return Ok((body, None));
    }
    // As of now is what is found out of who asks.
    head.extensions.insert(security.gatekeeper.checked());
    let admitted = security.gatekeeper.admit(head).await?;
    if let Admitted::Nobody = admitted
        && is_open(route, app.options.metrics_open)
    {
        return Ok((body, None));
    }
    let database = named(app, head, door, in_path, &admitted)?;
    let caller = security
        .gatekeeper
        .confirm(admitted, database.as_ref())
        .await?;
    if head.uri.path() == "/metrics" && !app.options.metrics_open {
        caller.expect_node(Scope::Admin)?;
    }
    if let Some(database) = &database {
        // Nobody uses up what others may ask of theirs.
        caller.expect_database(database)?;
    }
    head.extensions.insert(caller.clone());
    if door == Door::Neon {
        // It knows its database, and counts for itself.
        return Ok((body, None));
    }
    begun.admitted();
    // Nothing is looked up or read for who asks too often.
    app.expect_time(&caller, database.as_ref())?;
    let body = match route.is_some() && has_body(&head.method) {
        true => {
            // What limits its requests is set by one that is not limited.
            let limiting = database.as_ref().filter(|_| door.is_limited(route));
            let max = app.sizes(&caller, limiting).await?.body;
            let since = Instant::now();
            let (body, counted) = body::collect(app, body, max).await?;
            begun.body_read(since);
            // It counts for as long as somebody works on it, not until its client has read the answer.
            head.extensions.insert(counted);
            Body::from(body)
        }
        false => body,
    };
    Ok((body, app.permit(&caller, database.as_ref())?))
}

/// The database that is asked, if the route is about one.
fn named(
    app: &App,
    head: &Parts,
    door: Door,
    in_path: Option<&str>,
    admitted: &Admitted,
) -> Result<Option<DatabaseName>, ApiError> {
    let nobody = Caller::nobody();
    let shown = match admitted {
        Admitted::Caller(caller) => caller,
        Admitted::Nobody | Admitted::Role(_) => &nobody,
    };
    let routing = &app.options.routing;
    match door {
        Door::Database => routing.tenant(in_path, head, shown),
        Door::Either | Door::Neon => routing.tenant_or_node(in_path, head, shown),
        Door::Directory => in_path.map(database_name).transpose(),
        Door::Node | Door::Apps => Ok(None),
    }
}

/// Whether a request may have a body that is one: that of a WebSocket over HTTP/2 (`CONNECT`) has no end.
fn has_body(method: &Method) -> bool {
    ![Method::GET, Method::HEAD, Method::CONNECT].contains(method)
}
