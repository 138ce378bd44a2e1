//! What serves of every app, in memory: who asks for an app, or by a host, waits for no disk, and makes nothing grow.

use super::serving::bound;
use crate::{
    App, Bindings,
    domains::{BlockedDomain, DomainRules, host_of},
    store::{Store, StoreError, Version},
};
use parking_lot::RwLock;
use std::{collections::HashMap, sync::Arc};

/// What serves of every app.
#[derive(Debug, Default)]
pub(super) struct Catalog(RwLock<Entries>);

#[derive(Debug, Default)]
struct Entries {
    versions: HashMap<App, Arc<Version>>,
    /// Host names of their own, and whose they are.
    hosts: HashMap<String, App>,
}

impl Catalog {
    /// That of a store. An app whose record cannot be read is left out, and the log says so. Reads the disk, and tells
    /// whoever has the bindings which are in use.
    ///
    /// # Errors
    /// If the folders cannot be read.
    pub(super) fn load(
        store: &Store,
        rules: &DomainRules,
        bindings: &dyn Bindings,
    ) -> Result<Self, StoreError> {
        let catalog = Self::default();
        let mut serving = Vec::new();
        for app in store.apps()? {
            match store.current(&app) {
                Ok(None) => {}
                Ok(Some(version)) => {
                    bindings.bound(&app, &bound(&version));
                    serving.push(version);
                }
                Err(error) => tracing::error!(%app, %error, "an app cannot be served"),
            }
        }
        // A version that has come back may ask for a host that another app was given since: that keeps it.
        serving.sort_by_key(|version| std::cmp::Reverse(version.deployed_at_ms));
        for version in serving {
            catalog.put(Arc::new(version), rules);
        }
        Ok(catalog)
    }

    pub(super) fn get(&self, app: &App) -> Option<Arc<Version>> {
        self.0.read().versions.get(app).cloned()
    }

    /// All of them, in the order of their names.
    pub(super) fn all(&self) -> Vec<Arc<Version>> {
        let mut all: Vec<_> = self.0.read().versions.values().cloned().collect();
        all.sort_by(|a, b| a.app.cmp(&b.app));
        all
    }

    /// The app that a host is one's own of.
    pub(super) fn of_host(&self, host: &str) -> Option<App> {
        self.0.read().hosts.get(host).cloned()
    }

    /// Of the names that an app asks for, those that it gets, and those that it does not. `came_by`: names by which the
    /// server was asked for this.
    pub(super) fn sort(
        &self,
        app: &App,
        routing: &crate::Routing,
        names: Vec<String>,
        (rules, came_by): (&DomainRules, &[String]),
    ) -> (Vec<String>, Vec<BlockedDomain>) {
        let entries = self.0.read();
        let (mut given, mut blocked) = (Vec::new(), Vec::new());
        for name in names {
            let host = host_of(app, routing, &name);
            let other = entries.hosts.get(&host).filter(|other| *other != app);
            let checked = match came_by.contains(&host) {
                true => Err("it is the server's own: this deployment has come by it"),
                false => rules.check(&host),
            };
            match (checked, other) {
                (Ok(()), None) => given.push(name),
                (Ok(()), Some(other)) => blocked.push(taken(host, other)),
                (Err(why), _) => blocked.push(BlockedDomain {
                    hostname: host,
                    reason: why.to_owned(),
                    current_repository: None,
                }),
            }
        }
        (given, blocked)
    }

    /// The names of a version that serves which another app has taken since it was said that it gets them.
    pub(super) fn missed(&self, version: &Version) -> Vec<BlockedDomain> {
        let entries = self.0.read();
        let other = |host: String| {
            let other = entries.hosts.get(&host);
            let other = other.filter(|other| **other != version.app)?;
            Some(taken(host, other))
        };
        hosts(version).filter_map(other).collect()
    }

    /// A version serves from now on. Of its names it has those that it may have and nobody else has.
    pub(super) fn put(&self, version: Arc<Version>, rules: &DomainRules) {
        let mut entries = self.0.write();
        let app = &version.app;
        entries.hosts.retain(|_, other| other != app);
        for host in hosts(&version) {
            if rules.check(&host).is_ok() {
                entries.hosts.entry(host).or_insert_with(|| app.clone());
            }
        }
        entries.versions.insert(app.clone(), version);
    }

    /// An app is gone.
    pub(super) fn remove(&self, app: &App) {
        let mut entries = self.0.write();
        entries.hosts.retain(|_, other| other != app);
        entries.versions.remove(app);
    }

    /// The host names of its own that an app has now, sorted.
    pub(super) fn hosts_of(&self, app: &App) -> Vec<String> {
        let entries = self.0.read();
        let own = entries.hosts.iter().filter(|(_, other)| *other == app);
        let mut hosts: Vec<_> = own.map(|(host, _)| host.clone()).collect();
        hosts.sort();
        hosts
    }
}

/// A name that another app has.
fn taken(hostname: String, other: &App) -> BlockedDomain {
    BlockedDomain {
        hostname,
        reason: format!("{other} has it: take it out of the CNAME file there first"),
        current_repository: Some(other.repository.to_string()),
    }
}

/// The host names that a version asks for.
fn hosts(version: &Version) -> impl Iterator<Item = String> {
    let names = version.domains.iter();
    names.map(|name| host_of(&version.app, &version.routing, name))
}
