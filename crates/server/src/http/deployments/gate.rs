//! What stands before every endpoint of deployments: who asks is found out, in the platform's words.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::{HOST, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Uri};
use axum::response::{IntoResponse as _, Response};
use workers::{App as Place, Environment, Refusal, Repository};

use super::{Change, Refused};
use crate::apps::{self, Apps, CameBy};
use crate::http::actor::Actor;
use crate::http::connection::Peer;
use crate::http::router::App;
use crate::identity::{Deployer, NotDeployer};
use crate::proxies::Proxies;

/// What is said of everything that does not let somebody deploy.
const NOT_AUTHORIZED: &str = "Bearer token is not authorized for this GitHub repository.";

/// Who asks, and for what.
pub(in crate::http) struct Gate {
    pub(super) apps: Arc<Apps>,
    pub(super) deployer: Deployer,
    pub(super) came_by: CameBy,
    actor: Actor,
}

impl FromRequestParts<App> for Gate {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        let Some(apps) = app.apps() else {
            let refusal = Refusal::with_status(404, "Nothing can be deployed on this server.");
            return Err(Refused(refusal).into_response());
        };
        let gatekeeper = &app.security.gatekeeper;
        let deployer = gatekeeper.deployer(parts).await;
        let deployer = deployer.map_err(refused)?;
        Ok(Self {
            apps: Arc::clone(apps),
            actor: Actor::of(&deployer.name, parts),
            came_by: came_by(parts, &app.options.proxies),
            deployer,
        })
    }
}

impl Gate {
    /// # Errors
    /// 401 if this repository is not for who asks.
    pub(super) fn expect(&self, repository: &Repository) -> Result<(), Refusal> {
        match self.deployer.may(repository) {
            true => Ok(()),
            false => Err(Refusal::with_status(401, NOT_AUTHORIZED)),
        }
    }

    /// # Errors
    /// 403 if this environment is not for who asks.
    pub(super) fn expect_environment(&self, environment: &Environment) -> Result<(), Refusal> {
        let may = self.deployer.may_in(environment);
        may.map_err(Refusal::forbidden)
    }

    /// The app that a path and an environment name.
    ///
    /// # Errors
    /// 400 if there can be none, 401 and 403 if it is not for who asks.
    pub(super) fn place(
        &self,
        (owner, name): &(String, String),
        environment: Option<&str>,
    ) -> Result<Place, Refusal> {
        let repository = Repository::parse(&format!("{owner}/{name}"))
            .map_err(|_| Refusal::bad("Repository must be in owner/repo form."))?;
        self.expect(&repository)?;
        let environment = Environment::resolve(environment, "main")?;
        self.expect_environment(&environment)?;
        Ok(Place {
            repository,
            environment,
        })
    }

    /// Changes an app wholly, also when the client leaves meanwhile, and writes down that it begins and what came of it.
    pub(super) async fn does<T: Send + 'static>(
        self,
        app: &App,
        action: &'static str,
        place: &Place,
        detail: Option<String>,
        change: impl Change<T>,
    ) -> Result<T, Refusal> {
        let audit = &app.security.audit;
        let object = place.to_string();
        self.actor.does(audit, action, object, detail, change).await
    }
}

fn refused(why: NotDeployer) -> Response {
    let unauthorized = |message: &str, details: Vec<String>| {
        let refusal = Refusal::with_status(401, message).detailed(details);
        let mut response = Refused(refusal).into_response();
        let challenge = HeaderValue::from_static("Bearer realm=\"dormouse\"");
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        response
    };
    match why {
        NotDeployer::Missing => unauthorized("Missing bearer token.", Vec::new()),
        NotDeployer::Refused(why) => {
            tracing::info!(reason = why, "a deployer was not accepted");
            unauthorized(NOT_AUTHORIZED, vec![why.to_owned()])
        }
        NotDeployer::Unavailable(why) => {
            let refusal = Refusal::with_status(503, "Who asks cannot be found out now.");
            Refused(refusal.detailed(vec![why.to_owned()])).into_response()
        }
    }
}

/// How the client has come here: what it has called us, and what a proxy that is believed says.
fn came_by(parts: &Parts, proxies: &Proxies) -> CameBy {
    let peer = parts.extensions.get::<Peer>();
    let named = parts.uri.authority().map(|authority| authority.as_str());
    let header = || parts.headers.get(HOST)?.to_str().ok();
    let authority = named.or_else(header).map(str::to_owned);
    let told = peer.map(|peer| proxies.came_from(peer.address, &parts.headers));
    let is_told_https = told
        .as_ref()
        .is_some_and(|came| came.scheme.as_deref() == Some("https"));
    let uri = authority.as_ref().and_then(|host| host.parse::<Uri>().ok());
    let names = [authority, told.and_then(|came| came.host)];
    CameBy {
        is_encrypted: peer.is_some_and(|peer| peer.is_encrypted) || is_told_https,
        port: uri.and_then(|uri| uri.port_u16()),
        hosts: names
            .into_iter()
            .flatten()
            .map(|name| apps::host(&name))
            .collect(),
    }
}
