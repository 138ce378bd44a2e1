//! Everything together: what is sent becomes what serves, or a refusal.

mod live;
mod response;
mod serving;

pub use response::{envelope, failure};

use crate::{
    App, Archive, Bindings, DeployLimits, Draft, Refusal, Values, Warning,
    modules::{Backend, Compiler},
    runtime::{Lease, Log, Standing, Supervisor},
    site,
    store::{NewVersion, Source, Store, StoreError, Version},
};
use live::Live;
use parking_lot::Mutex;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};
use tokio::task::spawn_blocking;

/// What deployments are made with.
#[derive(Debug)]
pub struct Parts {
    /// The versions.
    pub store: Store,
    /// Who runs backends; without one only static files are deployed.
    pub supervisor: Option<Arc<Supervisor>>,
    /// Who compiles them.
    pub compiler: Compiler,
    /// Who knows the bindings.
    pub bindings: Arc<dyn Bindings>,
    /// What a deployment may be.
    pub limits: DeployLimits,
}

/// What somebody deploys.
#[derive(Debug)]
pub struct Request {
    /// Where to.
    pub app: App,
    /// Where from.
    pub source: Source,
    /// The zip.
    pub archive: Vec<u8>,
    /// Values of variables.
    pub vars: Values,
    /// Values of secrets.
    pub secrets: Values,
}

/// What has been deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployed {
    /// The version that serves now.
    pub version: Arc<Version>,
    /// What was left out, and what the runtime has to say.
    pub warnings: Vec<Warning>,
    /// Whether it is a new one: the same commit with the same content and values is not deployed twice.
    pub new: bool,
}

/// All deployments.
#[derive(Debug)]
pub struct Deployments {
    parts: Arc<Parts>,
    apps: Mutex<HashMap<App, Arc<Live>>>,
}

impl Deployments {
    /// The deployments of a store. Backends are started when they are asked for.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            parts: Arc::new(parts),
            apps: Mutex::default(),
        }
    }

    /// Tells whoever has the bindings which of them are in use. Reads the disk.
    ///
    /// # Errors
    /// If the disk does not let it be known of some app.
    pub fn tell_bound(&self) -> Result<(), StoreError> {
        let Parts {
            store, bindings, ..
        } = &*self.parts;
        for app in store.apps()? {
            if let Some(version) = store.current(&app)? {
                bindings.bound(&app, &serving::bound(&version));
            }
        }
        Ok(())
    }

    /// Deploys: unpacks, checks, compiles, tries, keeps, and lets it serve. Until the last step nothing that serves is
    /// touched. `at_ms` is the time, in milliseconds since 1970.
    ///
    /// # Errors
    /// 400 and 403 for what is wrong with it, 500 and 501 for what is wrong here.
    pub async fn deploy(&self, request: Request, at_ms: u64) -> Result<Deployed, Refusal> {
        let Request {
            app,
            source,
            archive,
            vars,
            secrets,
        } = request;
        let limits = self.parts.limits;
        let (archive, draft) = blocking(move || {
            let archive = Archive::from_zip(&archive, limits)?;
            let draft = Draft::read(&archive, limits)?;
            Ok((archive, draft))
        })
        .await?;
        let mut warnings = check_values(&draft, &vars, &secrets)?;
        warnings.extend(draft.warnings.iter().cloned());
        let backend = self.compiled(&archive, &draft).await?;

        let live = self.live(&app);
        let _changing = live.changing.lock().await;
        let site = draft.site.map(|root| {
            let files = site::files(&archive, root);
            files
                .map(|(path, bytes)| (path.to_owned(), bytes.to_vec()))
                .collect()
        });
        let new = NewVersion {
            source,
            manifest: draft.manifest,
            backend: backend.clone(),
            site,
            vars,
            secrets,
            domains: draft.domains,
        };
        let parts = Arc::clone(&self.parts);
        let known = app.clone();
        let (new, same) = blocking(move || {
            let same = parts.store.same(&known, &new).map_err(internal)?;
            Ok((new, same))
        })
        .await?;
        if let Some(version) = same {
            let version = Arc::new(version);
            return Ok(Deployed {
                version,
                warnings,
                new: false,
            });
        }

        let bindings = &new.manifest.hyperdrive;
        let program = self
            .program(&app, 0, backend, &new.vars, &new.secrets, bindings)
            .await?;
        if let Some(program) = &program {
            let said = self.supervisor()?.trial(program).await?;
            let target = &program.backend.entrypoint;
            warnings.extend(said.into_iter().map(|message| Warning {
                code: "runtime".to_owned(),
                target: target.clone(),
                message,
            }));
        }
        let parts = Arc::clone(&self.parts);
        let version = blocking(move || parts.store.add(&app, new, at_ms).map_err(internal)).await?;
        let version = self.serve(&live, version, program).await?;
        Ok(Deployed {
            version,
            warnings,
            new: true,
        })
    }

    /// Lets another version that is kept serve, at once.
    ///
    /// # Errors
    /// 404 if there is none, 400 if it does not start any more: what serves is not touched.
    pub async fn roll_back(&self, app: &App, number: u64) -> Result<Arc<Version>, Refusal> {
        let live = self.live(app);
        let _changing = live.changing.lock().await;
        let (version, program) = self
            .load(app, Some(number))
            .await?
            .ok_or_else(|| Refusal::with_status(404, format!("{app} has no version {number}.")))?;
        self.serve(&live, version, program).await
    }

    /// Ends an app's backend and forgets all its versions.
    ///
    /// # Errors
    /// 500 if the disk does not let it.
    pub async fn delete(&self, app: &App) -> Result<(), Refusal> {
        let live = self.live(app);
        let _changing = live.changing.lock().await;
        let (parts, app) = (Arc::clone(&self.parts), app.clone());
        let deleted = app.clone();
        blocking(move || parts.store.delete(&deleted).map_err(internal)).await?;
        live.clear().await;
        self.parts.bindings.bound(&app, &[]);
        self.parts.bindings.undeployed(&app);
        Ok(())
    }

    /// The version that serves, whose files are in the [`Store`].
    ///
    /// # Errors
    /// 500 if the disk does not let it be known.
    pub async fn current(&self, app: &App) -> Result<Option<Arc<Version>>, Refusal> {
        let live = self.live(app);
        if let Some(version) = live.version() {
            return Ok(Some(version));
        }
        let _changing = live.changing.lock().await;
        self.wake(&live, app).await?;
        Ok(live.version())
    }

    /// The way to an app's backend, which is started if it does not run; `None` if there is none.
    ///
    /// # Errors
    /// 400 if it does not start, 500 for what is wrong here.
    pub async fn lease(&self, app: &App) -> Result<Option<Lease>, Refusal> {
        let live = self.live(app);
        if let Some(lease) = live.lease() {
            return Ok(Some(lease));
        }
        let _changing = live.changing.lock().await;
        self.wake(&live, app).await?;
        Ok(live.lease())
    }

    /// What an app's backend has written since it was started; `None` if it does not run.
    #[must_use]
    pub fn log(&self, app: &App) -> Option<Arc<Log>> {
        self.live(app).log()
    }

    /// How an app's backend stands; `None` if it does not run.
    #[must_use]
    pub fn standing(&self, app: &App) -> Option<Standing> {
        self.live(app).standing()
    }

    /// The versions.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.parts.store
    }

    /// Lets all backends finish their requests, and ends them.
    pub async fn stop(&self) {
        let all: Vec<_> = self.apps.lock().drain().collect();
        let mut ending = tokio::task::JoinSet::new();
        for (_, live) in all {
            ending.spawn(async move {
                let _changing = live.changing.lock().await;
                live.clear().await;
            });
        }
        while ending.join_next().await.is_some() {}
    }

    fn live(&self, app: &App) -> Arc<Live> {
        let mut apps = self.apps.lock();
        Arc::clone(apps.entry(app.clone()).or_default())
    }

    async fn compiled(&self, archive: &Archive, draft: &Draft) -> Result<Option<Backend>, Refusal> {
        let Some(entrypoint) = draft.entrypoint else {
            return Ok(None);
        };
        let Parts {
            compiler, limits, ..
        } = &*self.parts;
        compiler
            .backend(archive, entrypoint, *limits)
            .await
            .map(Some)
    }
}

/// Values must not hide a binding or each other; names without a value are worth a warning.
fn check_values(draft: &Draft, vars: &Values, secrets: &Values) -> Result<Vec<Warning>, Refusal> {
    let manifest = &draft.manifest;
    let mut taken: BTreeSet<&str> = BTreeSet::new();
    let bindings = manifest
        .hyperdrive
        .iter()
        .map(|binding| binding.binding.as_str());
    for name in bindings.chain(vars.names()).chain(secrets.names()) {
        if !taken.insert(name) {
            return Err(Refusal::bad(format!(
                "{name} is the name of more than one binding, variable or secret."
            )));
        }
    }
    let declared = manifest.vars.iter().chain(&manifest.secrets);
    let missing = declared.filter(|name| !taken.contains(name.as_str()));
    let warning = |name: &String| Warning {
        code: "value_missing".to_owned(),
        target: name.clone(),
        message: format!("w7s.json names {name}, but no value of it came with the deployment."),
    };
    Ok(missing.map(warning).collect())
}

/// Runs what computes long or waits for the disk.
async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    spawn_blocking(run).await.map_err(internal)?
}

fn internal(error: impl std::fmt::Display) -> Refusal {
    Refusal::with_status(500, format!("The deployment could not be kept: {error}."))
}
