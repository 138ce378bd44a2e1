//! Apps: sites and backends that somebody has deployed, on the listener for HTTP, by their hosts.
//!
//! `http` asks here first for whom a request is. What is an app's goes neither through the router nor through the guard: an
//! app asks by itself who somebody is. It goes through all that a connection goes through: limits, TLS, stops.

mod answer;
mod file;
mod file_body;
mod headers;
mod media;
mod proxy;
mod usage;
mod vault;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::http::uri::Authority;
use tokio::sync::Semaphore;
use workers::deployments::{Deployments, Parts};
use workers::domains::{DomainRules, host_of};
use workers::modules::Compiler;
use workers::routes::{self, Route};
use workers::runtime::{RuntimeOptions, Supervisor};
use workers::store::{Store, StoreError, Version};
use workers::{App, Bindings, DeployLimits};

use crate::node_key::NodeKey;
use usage::Usage;
use vault::SealedValues;

pub(crate) use answer::{Visit, asks_to_upgrade, authority};
pub(crate) use usage::today_as_date;

/// What apps are told (`workers`).
#[derive(Debug)]
pub struct AppsOptions {
    /// The folder of the versions.
    pub folder: PathBuf,
    /// `workers.base_domain`, in lower case: an owner's apps are at the label before it.
    pub base_domain: Option<String>,
    /// `workers.domains`: the host names that apps may have of their own.
    pub domains: Vec<String>,
    /// `routing.base_domain`: what is below it is no app's.
    pub databases_domain: Option<String>,
    /// `workers.hosts_reserved`, and the names that are listened on: at these the server itself is asked.
    pub hosts_reserved: Vec<String>,
    /// `workers.request_ms_max`: how long a backend may take until it begins to answer.
    pub request_max: Duration,
    /// `workers.upload_ms_max`: how long an archive may take until it is there.
    pub upload_max: Duration,
    /// `workers.deploys_max`: deployments at once; others wait.
    pub deploys_max: usize,
    /// `workers.versions_max`: versions of an app that are kept beside the one that serves.
    pub versions_max: usize,
    /// What a deployment may be.
    pub limits: DeployLimits,
    /// Who compiles backends.
    pub compiler: Compiler,
    /// How they are run; without it there are sites alone.
    pub runtime: Option<RuntimeOptions>,
}

/// Apps cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AppsError {
    /// The versions cannot be read.
    #[error("the deployments cannot be opened: {0}")]
    Store(#[from] StoreError),
    /// What runs backends cannot be made.
    #[error("what runs backends cannot be made: {0}")]
    Runtime(io::Error),
    /// There is no key for what is sealed.
    #[error("values of apps cannot be sealed")]
    Key,
}

/// All apps.
#[derive(Debug)]
pub struct Apps {
    pub(crate) deployments: Deployments,
    pub(crate) usage: Usage,
    pub(crate) deploys: Arc<Semaphore>,
    pub(crate) limits: DeployLimits,
    pub(crate) upload_max: Duration,
    base_domain: Option<String>,
    request_max: Duration,
}

/// What a request's host means here.
#[derive(Debug)]
pub(crate) enum Place {
    /// Below the base domain: apps that may be meant, the first that is there is.
    Below(Vec<Route>),
    /// A host that an app has of its own.
    Own(App),
}

/// How a client has come here, for addresses that it is given.
#[derive(Debug, Clone)]
pub(crate) struct CameBy {
    pub(crate) is_encrypted: bool,
    pub(crate) port: Option<u16>,
    /// Names that it has called us by, in lower case.
    pub(crate) hosts: Vec<String>,
}

impl Apps {
    /// Opens what is deployed. Blocks for the disk.
    ///
    /// # Errors
    /// [`AppsError`].
    pub fn open(
        options: AppsOptions,
        key: &NodeKey,
        bindings: Arc<dyn Bindings>,
    ) -> Result<Arc<Self>, AppsError> {
        let vault = SealedValues::new(key).ok_or(AppsError::Key)?;
        let store = Store::open(options.folder, options.versions_max, Arc::new(vault))?;
        let supervisor = options.runtime.map(Supervisor::new).transpose();
        let own: Vec<String> = [&options.base_domain, &options.databases_domain]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        let deployments = Deployments::open(Parts {
            store,
            supervisor: supervisor.map_err(AppsError::Runtime)?,
            compiler: options.compiler,
            bindings,
            limits: options.limits,
            domains: DomainRules::new(&options.domains, &own)
                .with_reserved(&options.hosts_reserved),
        })?;
        Ok(Arc::new(Self {
            deployments,
            usage: Usage::default(),
            deploys: Arc::new(Semaphore::new(options.deploys_max.max(1))),
            limits: options.limits,
            upload_max: options.upload_max,
            base_domain: options.base_domain,
            request_max: options.request_max,
        }))
    }

    /// Lets all backends finish their requests, and ends them.
    pub async fn stop(&self) {
        self.deployments.stop().await;
    }

    /// What a host and a path mean; none if the host is no app's.
    pub(crate) fn place(&self, authority: &str, path: &str) -> Option<Place> {
        let host = host(authority);
        if let Some(base) = &self.base_domain
            && let Some(above) = host.strip_suffix(base.as_str())
            && (above.is_empty() || above.ends_with('.'))
        {
            return Some(Place::Below(routes::routes(&host, base, path)));
        }
        self.deployments.of_host(&host).map(Place::Own)
    }

    /// Where a version is reached: below the base domain, or else at a host of its own.
    pub(crate) fn url(&self, version: &Version, came_by: &CameBy) -> Option<String> {
        let (scheme, usual) = match came_by.is_encrypted {
            true => ("https", 443),
            false => ("http", 80),
        };
        let port = came_by.port.filter(|port| *port != usual);
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        let app = &version.app;
        let below = self.base_domain.as_ref().and_then(|base| {
            let (owner, name) = (app.repository.owner(), app.repository.name());
            let label = match app.environment.is_production() {
                true => owner.to_owned(),
                false => format!("{}--{owner}", app.environment),
            };
            let host = format!("{label}.{base}");
            let path = match owner == name {
                true => "/".to_owned(),
                false => format!("/{name}/"),
            };
            let meant = routes::routes(&host, base, &path);
            let is_meant = meant.first().is_some_and(|route| route.app == *app);
            (is_meant && version.routing.default_domain && label.len() <= LABEL_BYTES_MAX)
                .then(|| format!("{scheme}://{host}{port}{path}"))
        });
        below.or_else(|| {
            let own = version.domains.first()?;
            let host = host_of(app, &version.routing, own);
            Some(format!("{scheme}://{host}{port}/"))
        })
    }
}

/// The longest label of a host name.
const LABEL_BYTES_MAX: usize = 63;

/// The name in a request's authority, in lower case, without port and last dot.
pub(crate) fn host(authority: &str) -> String {
    let name = match authority.parse::<Authority>() {
        Ok(authority) => authority.host().to_ascii_lowercase(),
        Err(_) => authority.to_ascii_lowercase(),
    };
    name.strip_suffix('.').map(str::to_owned).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names() {
        for (authority, name) in [
            ("Acme.Apps.Localhost:7433", "acme.apps.localhost"),
            ("acme.apps.localhost.", "acme.apps.localhost"),
            ("acme.apps.localhost.:80", "acme.apps.localhost"),
            ("user@shop.example", "shop.example"),
            ("[::1]:80", "[::1]"),
            ("no host", "no host"),
        ] {
            assert_eq!(host(authority), name);
        }
    }
}
