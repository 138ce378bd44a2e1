//! Everything together: what is sent becomes what serves, or a refusal.

mod catalog;
mod live;
mod response;
mod serving;

pub use response::{deployment, envelope, failure, rfc3339};

use crate::{
    App, Archive, BindingAddress, Bindings, DeployLimits, Draft, Refusal, Values, Warning,
    bindings::Purpose,
    domains::{BlockedDomain, DomainRules},
    modules::{Backend, Compiler},
    runtime::{Lease, Log, Standing, Supervisor},
    site,
    store::{NewVersion, OpenFile, Source, Store, StoreError, StoredFile, Version},
};
use catalog::Catalog;
use live::Live;
use parking_lot::Mutex;
use serving::program;
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
    /// Which host names apps may have.
    pub domains: DomainRules,
}

/// What somebody deploys.
#[derive(Debug)]
pub struct Request {
    /// Where to.
    pub app: App,
    /// Where from.
    pub source: Source,
    /// The name of the application, where one is given: that of its manifest.
    pub application: Option<String>,
    /// The zip.
    pub archive: Vec<u8>,
    /// Values of variables.
    pub vars: Values,
    /// Values of secrets.
    pub secrets: Values,
    /// Host names, in lower case, by which this has come: they are the server's own.
    pub came_by: Vec<String>,
}

/// What has been deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployed {
    /// The version that serves now.
    pub version: Arc<Version>,
    /// What was left out, and what the runtime has to say.
    pub warnings: Vec<Warning>,
    /// Host names that it asked for and did not get.
    pub blocked: Vec<BlockedDomain>,
    /// Whether it is a new one: the same commit with the same content and values is not deployed twice.
    pub new: bool,
}

/// All deployments.
#[derive(Debug)]
pub struct Deployments {
    parts: Arc<Parts>,
    catalog: Catalog,
    apps: Mutex<HashMap<App, Arc<Live>>>,
}

impl Deployments {
    /// The deployments of a store. Backends are started when they are asked for. Reads the disk, and tells whoever has the
    /// bindings which are in use.
    ///
    /// # Errors
    /// If the folders of the store cannot be read.
    pub fn open(parts: Parts) -> Result<Self, StoreError> {
        let catalog = Catalog::load(&parts.store, &parts.domains, &*parts.bindings)?;
        Ok(Self {
            parts: Arc::new(parts),
            catalog,
            apps: Mutex::default(),
        })
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
            application,
            archive,
            vars,
            secrets,
            came_by,
        } = request;
        let limits = self.parts.limits;
        let (archive, draft) = blocking(move || {
            let archive = Archive::from_zip(&archive, limits)?;
            let draft = Draft::read(&archive, limits)?;
            Ok((archive, draft))
        })
        .await?;
        check_application(&draft, application.as_deref())?;
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
        let (domains, mut blocked) = self.catalog.sort(
            &app,
            &draft.manifest.routing,
            draft.domains,
            (&self.parts.domains, &came_by),
        );
        let mut manifest = draft.manifest;
        for binding in &mut manifest.hyperdrive {
            binding.id = self.parts.bindings.id_of(binding)?;
        }
        let new = NewVersion {
            source,
            manifest,
            backend,
            site,
            vars,
            secrets,
            domains,
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
                blocked,
                new: false,
            });
        }

        let mut given = Vec::new();
        let placed = self.place(&live, &app, new, at_ms, &mut given).await;
        let (version, said) = self.kept_if(placed, given).await?;
        warnings.extend(said);
        blocked.extend(self.catalog.missed(&version));
        Ok(Deployed {
            version,
            warnings,
            blocked,
            new: true,
        })
    }

    /// Tries a new version, keeps it and lets it serve; with it what the runtime has to say. `given` gets the addresses of
    /// its bindings.
    async fn place(
        &self,
        live: &Live,
        app: &App,
        new: NewVersion,
        at_ms: u64,
        given: &mut Vec<BindingAddress>,
    ) -> Result<(Arc<Version>, Vec<Warning>), Refusal> {
        let bindings = &new.manifest.hyperdrive;
        let databases = match &new.backend {
            Some(_) => {
                self.addresses(app, bindings, Purpose::Deployment, given)
                    .await?
            }
            None => Vec::new(),
        };
        let values = (&new.vars, &new.secrets);
        let program = program(app, 0, new.backend.clone(), values, databases);
        let mut warnings = Vec::new();
        if let Some(program) = &program {
            let said = self.supervisor()?.trial(program).await?;
            let target = &program.backend.entrypoint;
            warnings.extend(said.into_iter().map(|message| Warning {
                code: "runtime".to_owned(),
                target: target.clone(),
                message,
            }));
        }
        let (parts, known) = (Arc::clone(&self.parts), app.clone());
        let adding = blocking(move || parts.store.add(&known, new, at_ms).map_err(internal));
        let version = self.serve(live, adding.await?, program, given).await?;
        Ok((version, warnings))
    }

    /// What was done; of what was not, what was made for it goes again.
    async fn kept_if<T>(
        &self,
        done: Result<T, Refusal>,
        given: Vec<BindingAddress>,
    ) -> Result<T, Refusal> {
        if done.is_err() {
            self.parts.bindings.abandoned(given).await;
        }
        done
    }

    /// Lets another version that is kept serve, at once.
    ///
    /// # Errors
    /// 404 if there is none, 400 if it does not start any more: what serves is not touched.
    pub async fn roll_back(&self, app: &App, number: u64) -> Result<Arc<Version>, Refusal> {
        let live = self.live(app);
        let _changing = live.changing.lock().await;
        let mut given = Vec::new();
        let rolling = async {
            let loaded = self.load(app, Some(number), &mut given).await?;
            let (version, program) = loaded.ok_or_else(|| {
                Refusal::with_status(404, format!("{app} has no version {number}."))
            })?;
            self.serve(&live, version, program, &mut given).await
        };
        let rolled = rolling.await;
        self.kept_if(rolled, given).await
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
        self.catalog.remove(&app);
        live.clear().await;
        self.parts.bindings.bound(&app, &[]);
        self.parts.bindings.undeployed(&app);
        Ok(())
    }

    /// The version that serves, whose files are in the [`Store`].
    #[must_use]
    pub fn current(&self, app: &App) -> Option<Arc<Version>> {
        self.catalog.get(app)
    }

    /// The versions that serve, of all apps.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Version>> {
        self.catalog.all()
    }

    /// The app that has a host, in lower case, of its own.
    #[must_use]
    pub fn of_host(&self, host: &str) -> Option<App> {
        self.catalog.of_host(host)
    }

    /// The hosts of its own that an app has.
    #[must_use]
    pub fn hosts_of(&self, app: &App) -> Vec<String> {
        self.catalog.hosts_of(app)
    }

    /// A file of a version, opened.
    ///
    /// # Errors
    /// 500 if it is not there, or not whole.
    pub async fn open_file(
        &self,
        version: Arc<Version>,
        file: StoredFile,
    ) -> Result<OpenFile, Refusal> {
        let parts = Arc::clone(&self.parts);
        blocking(move || parts.store.open_file(&version, &file).map_err(internal)).await
    }

    /// The versions of an app that are kept, the newest first.
    ///
    /// # Errors
    /// 500 if the disk does not let it be known.
    pub async fn history(&self, app: &App) -> Result<Vec<Version>, Refusal> {
        let (parts, app) = (Arc::clone(&self.parts), app.clone());
        blocking(move || parts.store.history(&app).map_err(internal)).await
    }

    /// The way to an app's backend, which is started if it does not run; `None` if there is none.
    ///
    /// # Errors
    /// 400 if it does not start, 500 for what is wrong here.
    pub async fn lease(&self, app: &App) -> Result<Option<Lease>, Refusal> {
        if self
            .catalog
            .get(app)
            .is_none_or(|version| version.backend.is_none())
        {
            return Ok(None);
        }
        let live = self.live(app);
        if let Some(lease) = live.lease() {
            return Ok(Some(lease));
        }
        let _changing = live.changing.lock().await;
        self.wake(&live, app).await?;
        Ok(live.lease())
    }

    /// Ends the process of this id, as its backend answers nobody; it is started again. `why` is for its log.
    pub async fn restart(&self, app: &App, process: u32, why: &str) {
        if let Some(running) = self.known(app).and_then(|live| live.running()) {
            running.restart(process, why).await;
        }
    }

    /// What an app's backend has written since it was started, or why it does not start; `None` if it does not run.
    #[must_use]
    pub fn log(&self, app: &App) -> Option<Arc<Log>> {
        self.known(app)?.log()
    }

    /// How an app's backend stands; `None` if it does not run.
    #[must_use]
    pub fn standing(&self, app: &App) -> Option<Standing> {
        self.known(app)?.standing()
    }

    /// How many backends have a process now.
    #[must_use]
    pub fn running(&self) -> usize {
        let apps: Vec<_> = self.apps.lock().values().cloned().collect();
        let runs = |live: &Arc<Live>| {
            live.standing()
                .is_some_and(|standing| standing.process.is_some())
        };
        apps.iter().filter(|live| runs(live)).count()
    }

    /// Whether backends can be run.
    #[must_use]
    pub fn has_runtime(&self) -> bool {
        self.parts.supervisor.is_some()
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

    /// What there is of an app that has been asked for.
    fn known(&self, app: &App) -> Option<Arc<Live>> {
        self.apps.lock().get(app).cloned()
    }

    /// The same, made if need be: only for apps that are there, or are deployed.
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

/// Whoever names the application means the one of the manifest.
fn check_application(draft: &Draft, application: Option<&str>) -> Result<(), Refusal> {
    let named = application.map(str::trim).filter(|name| !name.is_empty());
    match (named, &draft.manifest.name) {
        (Some(named), Some(name)) if named != name => Err(Refusal::bad(format!(
            "x-w7s-application is '{}', and w7s.json has the name '{}'.",
            named.escape_debug(),
            name.escape_debug()
        ))),
        (Some(named), None) => Err(Refusal::bad(format!(
            "x-w7s-application is '{}', and w7s.json has no name.",
            named.escape_debug()
        ))),
        _ => Ok(()),
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
