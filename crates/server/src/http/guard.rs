//! What stands before every handler: who asks is found out, and whether it may ask so often.

use super::caller::{Caller, Scope};
use super::error::ApiError;
use super::host;
use super::origin;
use super::permitted;
use super::router::App;
use crate::identity::Admitted;
use crate::request_limits::Permit;
use axum::RequestExt as _;
use axum::extract::{RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

/// What everybody may ask: whether the server is there. Of databases it says nothing.
const OPEN: [&str; 4] = ["/ping", "/health", "/liveness", "/readiness"];

/// Neon's driver says who it is in a header of its own, or in what it sends through its tunnel.
const WITH_OWN_CREDENTIALS: [&str; 2] = ["/sql", "/v2"];

/// Lets a request through, with its [`Caller`] in its extensions, or answers it.
pub(super) async fn guard(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let params = request.extract_parts::<RawPathParams>().await.ok();
    let in_path = params.as_ref().and_then(|params| {
        let name = params.iter().find(|(key, _)| *key == "name");
        name.map(|(_, name)| name.to_owned())
    });
    let (mut head, body) = request.into_parts();
    match enter(&app, &mut head, in_path.as_deref()).await {
        Ok(permit) => {
            let response = next.run(Request::from_parts(head, body)).await;
            match permit {
                Some(permit) => permitted::hold(response, permit),
                None => response,
            }
        }
        Err(error) => error.into_response(),
    }
}

/// The caller is put into the head's extensions; none for who shows nothing and asks what everybody may. The permit is none
/// where there is no limit.
async fn enter(
    app: &App,
    head: &mut Parts,
    in_path: Option<&str>,
) -> Result<Option<Permit>, ApiError> {
    let security = &app.security;
    if security.own_hosts_only && !security.gatekeeper.asks() {
        host::expect_own(head, app.options.routing.base_domain.as_deref().as_slice())?;
    }
    if !security.gatekeeper.asks() {
        origin::expect_own(head, app.options.cors.as_ref())?;
    }
    let admitted = security.gatekeeper.admit(head).await?;
    if let Admitted::Nobody = admitted
        && is_open(head.uri.path(), app.options.metrics_open)
    {
        return Ok(None);
    }
    let database = {
        let nobody = Caller::nobody();
        let shown = match &admitted {
            Admitted::Caller(caller) => caller,
            Admitted::Nobody | Admitted::Role(_) => &nobody,
        };
        app.options.routing.tenant(in_path, head, shown)?
    };
    let caller = security
        .gatekeeper
        .confirm(admitted, database.as_ref())
        .await?;
    if head.uri.path() == "/metrics" && !app.options.metrics_open {
        caller.expect_node(Scope::Admin)?;
    }
    let permit = security
        .limits
        .enter(&app.limits, &caller, database.as_ref())?;
    head.extensions.insert(caller);
    Ok(permit)
}

fn is_open(path: &str, metrics_open: bool) -> bool {
    OPEN.contains(&path)
        || path.ends_with("/ping")
        || WITH_OWN_CREDENTIALS.contains(&path)
        || (metrics_open && path == "/metrics")
}
