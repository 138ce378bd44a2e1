//! From a version that is kept to one that serves.

use super::{
    Deployments, blocking, internal,
    live::{Live, Next},
};
use crate::{
    App, BindingAddress, PostgresBinding, Refusal, Values,
    bindings::Purpose,
    modules::Backend,
    runtime::{Program, Running, Supervisor},
    store::{StoreError, Version},
};
use std::{collections::HashMap, sync::Arc};

impl Deployments {
    /// Loads the version that serves, if it has not been.
    pub(super) async fn wake(&self, live: &Live, app: &App) -> Result<(), Refusal> {
        if live.version().is_some() {
            return Ok(());
        }
        if let Some(refusal) = live.failed_lately() {
            return Err(refusal);
        }
        let woken = self.woken(live, app).await;
        match woken {
            Ok(Some((version, running))) => live.set(Arc::new(version), running),
            Ok(None) => {}
            Err(refusal) => {
                if let Some(supervisor) = &self.parts.supervisor {
                    let version = self.catalog.get(app).map_or(0, |version| version.number);
                    live.failed(version, refusal.clone(), supervisor);
                }
                return Err(refusal);
            }
        }
        Ok(())
    }

    async fn woken(
        &self,
        live: &Live,
        app: &App,
    ) -> Result<Option<(Version, Option<Running>)>, Refusal> {
        // What there is stays: it is not of a deployment that may yet fail.
        let Some((version, program)) = self.load(app, None, &mut Vec::new()).await? else {
            return Ok(None);
        };
        let running = match program {
            Some(program) => {
                let supervisor = self.supervisor()?;
                Some(supervisor.run_on(program, live.log()).await?)
            }
            None => None,
        };
        Ok(Some((version, running)))
    }

    /// A version from the store, or the one that serves, and what is run of it. `given` gets the addresses of its bindings.
    pub(super) async fn load(
        &self,
        app: &App,
        number: Option<u64>,
        given: &mut Vec<BindingAddress>,
    ) -> Result<Option<(Version, Option<Program>)>, Refusal> {
        let (parts, owned) = (Arc::clone(&self.parts), app.clone());
        let loaded = blocking(move || {
            let store = &parts.store;
            let version = match number {
                None => store.current(&owned).map_err(internal)?,
                Some(number) => match store.version(&owned, number) {
                    Err(StoreError::NoVersion { .. }) => None,
                    version => Some(version.map_err(internal)?),
                },
            };
            let Some(version) = version else {
                return Ok(None);
            };
            let backend = store.backend(&version).map_err(internal)?;
            let (vars, secrets) = store.values(&version).map_err(internal)?;
            Ok(Some((version, backend, vars, secrets)))
        });
        let Some((version, backend, vars, secrets)) = loaded.await? else {
            return Ok(None);
        };
        let purpose = match number {
            Some(_) => Purpose::Deployment,
            None => Purpose::Start,
        };
        let databases = match &backend {
            Some(_) => {
                self.addresses(app, &version.hyperdrive, purpose, given)
                    .await?
            }
            None => Vec::new(),
        };
        let program = program(app, version.number, backend, (&vars, &secrets), databases);
        Ok(Some((version, program)))
    }

    /// What leads to each of some bindings, by its name. `given` gets them one by one, also if a later one is refused.
    pub(super) async fn addresses(
        &self,
        app: &App,
        bindings: &[PostgresBinding],
        purpose: Purpose,
        given: &mut Vec<BindingAddress>,
    ) -> Result<Vec<(String, BindingAddress)>, Refusal> {
        let mut by_id: HashMap<&str, BindingAddress> = HashMap::new();
        let mut databases = Vec::with_capacity(bindings.len());
        for binding in bindings {
            let address = match by_id.get(&*binding.id) {
                Some(address) => address.clone(),
                None => self.parts.bindings.address(binding, app, purpose).await?,
            };
            given.push(address.clone());
            by_id.insert(&binding.id, address.clone());
            databases.push((binding.binding.clone(), address));
        }
        Ok(databases)
    }

    /// Lets a version serve: its backend first, then the disk's word that it is the one. From when the backend may have
    /// answered somebody, `given` is empty: what was made for it stays.
    pub(super) async fn serve(
        &self,
        live: &Live,
        version: Version,
        program: Option<Program>,
        given: &mut Vec<BindingAddress>,
    ) -> Result<Arc<Version>, Refusal> {
        let program = program.map(|program| Program {
            version: version.number,
            ..program
        });
        let next = match program {
            Some(program) => live.exchange(self.supervisor()?, program).await?,
            None => Next::Nothing,
        };
        given.clear();
        let (app, number) = (version.app.clone(), version.number);
        let parts = Arc::clone(&self.parts);
        let made = blocking(move || parts.store.make_current(&app, number).map_err(internal)).await;
        if let Err(refused) = made {
            // What serves must be what the disk says: it is started again from there.
            live.clear().await;
            return Err(refused);
        }
        let version = Arc::new(version);
        self.catalog.put(Arc::clone(&version), &self.parts.domains);
        live.follow(Arc::clone(&version), next).await;
        self.parts.bindings.bound(&version.app, &bound(&version));
        Ok(version)
    }

    pub(super) fn supervisor(&self) -> Result<&Arc<Supervisor>, Refusal> {
        self.parts.supervisor.as_ref().ok_or_else(|| {
            Refusal::with_status(
                501,
                "Backends need the runtime workerd, which is not here: install the npm package 'workerd' and set \
                 workers.workerd to its program.",
            )
        })
    }
}

/// What is run of a version, if it has a backend.
pub(super) fn program(
    app: &App,
    version: u64,
    backend: Option<Backend>,
    (vars, secrets): (&Values, &Values),
    databases: Vec<(String, BindingAddress)>,
) -> Option<Program> {
    let pairs = vars.iter().chain(secrets.iter());
    Some(Program {
        app: app.clone(),
        version,
        backend: backend?,
        values: pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        databases,
    })
}

/// The ids that a version binds.
pub(super) fn bound(version: &Version) -> Vec<String> {
    let ids = version.hyperdrive.iter();
    ids.map(|binding| binding.id.clone()).collect()
}
