//! From a version that is kept to one that serves.

use super::{
    Deployments, blocking, internal,
    live::{Live, Next},
};
use crate::{
    App, PostgresBinding, Refusal, Values,
    modules::Backend,
    runtime::{Program, Supervisor},
    store::{StoreError, Version},
};
use std::sync::Arc;

impl Deployments {
    /// Loads the version that serves, if it has not been.
    pub(super) async fn wake(&self, live: &Live, app: &App) -> Result<(), Refusal> {
        if live.version().is_some() {
            return Ok(());
        }
        let Some((version, program)) = self.load(app, None).await? else {
            return Ok(());
        };
        let running = match program {
            Some(program) => Some(self.supervisor()?.run(program).await?),
            None => None,
        };
        live.set(Arc::new(version), running);
        Ok(())
    }

    /// A version from the store, or the one that serves, and what is run of it.
    pub(super) async fn load(
        &self,
        app: &App,
        number: Option<u64>,
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
        let bindings = &version.hyperdrive;
        let program = self
            .program(app, version.number, backend, &vars, &secrets, bindings)
            .await?;
        Ok(Some((version, program)))
    }

    pub(super) async fn program(
        &self,
        app: &App,
        version: u64,
        backend: Option<Backend>,
        vars: &Values,
        secrets: &Values,
        bindings: &[PostgresBinding],
    ) -> Result<Option<Program>, Refusal> {
        let Some(backend) = backend else {
            return Ok(None);
        };
        let mut databases = Vec::with_capacity(bindings.len());
        for binding in bindings {
            let address = self.parts.bindings.address(binding, app).await?;
            databases.push((binding.binding.clone(), address));
        }
        let pairs = vars.iter().chain(secrets.iter());
        Ok(Some(Program {
            app: app.clone(),
            version,
            backend,
            values: pairs
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            databases,
        }))
    }

    /// Lets a version serve: its backend first, then the disk's word that it is the one.
    pub(super) async fn serve(
        &self,
        live: &Live,
        version: Version,
        program: Option<Program>,
    ) -> Result<Arc<Version>, Refusal> {
        let program = program.map(|program| Program {
            version: version.number,
            ..program
        });
        let next = match program {
            Some(program) => live.exchange(self.supervisor()?, program).await?,
            None => Next::Nothing,
        };
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

/// The ids that a version binds.
pub(super) fn bound(version: &Version) -> Vec<String> {
    let ids = version.hyperdrive.iter();
    ids.map(|binding| binding.id.clone()).collect()
}
