//! The versions of every app on the disk.
//!
//! ```text
//! ROOT/OWNER/REPOSITORY/ENVIRONMENT/VERSION.pack   the bytes of a version's files, one after another
//! ROOT/OWNER/REPOSITORY/ENVIRONMENT/VERSION.json   its record: which file is where in them, and all else
//! ROOT/OWNER/REPOSITORY/ENVIRONMENT/current        the number of the version that serves
//! ```
//!
//! Each is written beside its place, synced and renamed, in this order: what is named by another is there before it.
//! A pack without a record and a file that was not finished are removed when the store is opened.

mod disk;
mod reading;
mod record;

pub use reading::{OpenFile, Parts};
pub use record::{Source, StoredFile, Version};

use crate::{App, Environment, Repository, Values, modules::Backend};
use parking_lot::Mutex;
use record::Content;
use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The file that names the version that serves.
const CURRENT: &str = "current";

/// What the store cannot do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk does not.
    #[error("{}: {source}", path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is there is not what was written.
    #[error("{}: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There is no such version.
    #[error("{app} has no version {number}")]
    NoVersion {
        /// The app.
        app: App,
        /// The version.
        number: u64,
    },
}

/// Who keeps secrets unreadable on the disk. What was sealed for one context opens for no other.
pub trait Vault: fmt::Debug + Send + Sync {
    /// Bytes that nobody else can read.
    ///
    /// # Errors
    /// If there is no key.
    fn seal(&self, context: &str, bytes: &[u8]) -> io::Result<Vec<u8>>;

    /// The bytes that were sealed.
    ///
    /// # Errors
    /// If they were not sealed with this key for this context.
    fn open(&self, context: &str, sealed: &[u8]) -> io::Result<Vec<u8>>;
}

/// What a new version is made of.
#[derive(Debug, Clone)]
pub struct NewVersion {
    /// Where it comes from.
    pub source: Source,
    /// What it asks for.
    pub manifest: crate::Manifest,
    /// Its backend, compiled.
    pub backend: Option<Backend>,
    /// The files that are served, by path.
    pub site: Option<BTreeMap<String, Vec<u8>>>,
    /// Variables.
    pub vars: Values,
    /// Secrets.
    pub secrets: Values,
    /// Host names of its own.
    pub domains: Vec<String>,
}

/// The versions of every app. Its calls read and write files, and wait for the disk.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    /// How many versions of an app are kept, the one that serves aside. Setting `versions_max`.
    versions_max: usize,
    vault: Arc<dyn Vault>,
    /// Held by whoever changes something.
    writing: Mutex<()>,
}

impl Store {
    /// Opens the store in a folder, which is made if it is not there, and removes what was not finished.
    ///
    /// # Errors
    /// What the disk does not let be done.
    pub fn open(
        root: PathBuf,
        versions_max: usize,
        vault: Arc<dyn Vault>,
    ) -> Result<Self, StoreError> {
        disk::make_folder(&root)?;
        let store = Self {
            root,
            versions_max: versions_max.max(1),
            vault,
            writing: Mutex::default(),
        };
        for app in store.apps()? {
            store.sweep(&app)?;
        }
        Ok(store)
    }

    /// All apps that have versions.
    ///
    /// # Errors
    /// What the disk does not let be done.
    pub fn apps(&self) -> Result<Vec<App>, StoreError> {
        let mut apps = Vec::new();
        for owner in disk::names(&self.root)? {
            for name in disk::names(&self.root.join(&owner))? {
                let Ok(repository) = Repository::parse(&format!("{owner}/{name}")) else {
                    continue;
                };
                for environment in disk::names(&self.root.join(&owner).join(&name))? {
                    let environment = Environment::try_from(environment);
                    apps.extend(environment.ok().map(|environment| App {
                        repository: repository.clone(),
                        environment,
                    }));
                }
            }
        }
        apps.sort();
        Ok(apps)
    }

    /// The version that serves.
    ///
    /// # Errors
    /// What the disk does not let be done.
    pub fn current(&self, app: &App) -> Result<Option<Version>, StoreError> {
        let path = self.folder(app).join(CURRENT);
        let Some(text) = disk::read(&path)? else {
            return Ok(None);
        };
        let number = str::from_utf8(&text)
            .ok()
            .and_then(|text| text.trim().parse().ok());
        let number = number.ok_or_else(|| StoreError::Damaged {
            path,
            why: "it is no number".to_owned(),
        })?;
        self.version(app, number).map(Some)
    }

    /// A version.
    ///
    /// # Errors
    /// If there is none of that number.
    pub fn version(&self, app: &App, number: u64) -> Result<Version, StoreError> {
        let path = self.record_path(app, number);
        let record = disk::read(&path)?.ok_or_else(|| StoreError::NoVersion {
            app: app.clone(),
            number,
        })?;
        let version: Version = serde_json::from_slice(&record).map_err(|error| {
            let why = error.to_string();
            StoreError::Damaged {
                path: path.clone(),
                why,
            }
        })?;
        if version.app != *app || version.number != number {
            let why = format!("it is version {} of {}", version.number, version.app);
            return Err(StoreError::Damaged { path, why });
        }
        Ok(version)
    }

    /// The versions of an app that are kept, the newest first.
    ///
    /// # Errors
    /// What the disk does not let be done.
    pub fn history(&self, app: &App) -> Result<Vec<Version>, StoreError> {
        let mut numbers = self.numbers(app)?;
        numbers.reverse();
        numbers
            .into_iter()
            .map(|number| self.version(app, number))
            .collect()
    }

    /// Keeps a new version, which does not serve yet.
    ///
    /// # Errors
    /// What the disk does not let be done.
    pub fn add(&self, app: &App, new: NewVersion, at_ms: u64) -> Result<Version, StoreError> {
        let _writing = self.writing.lock();
        disk::make_folder(&self.folder(app))?;
        let last = self.numbers(app)?.last().copied().unwrap_or(0);
        let number = last + 1;
        let content = Content::of(&new);
        let context = context(app, number);
        let sealed = |values: &Values| {
            let path = self.record_path(app, number);
            let sealed = self.vault.seal(&context, values.to_json().as_bytes());
            sealed.map_err(|source| StoreError::Disk { path, source })
        };
        let (vars, secrets) = (sealed(&new.vars)?, sealed(&new.secrets)?);
        let version = content.version(app, number, at_ms, &new, &vars, &secrets);
        let record = serde_json::to_vec(&version).map_err(|error| StoreError::Damaged {
            path: self.record_path(app, number),
            why: error.to_string(),
        })?;
        disk::write(&self.pack_path(app, number), &content.bytes)?;
        disk::write(&self.record_path(app, number), &record)?;
        Ok(version)
    }

    /// The version that serves, if it is of the same commit, content and values as a new one.
    ///
    /// # Errors
    /// What the disk does not let be done.
    pub fn same(&self, app: &App, new: &NewVersion) -> Result<Option<Version>, StoreError> {
        let Some(current) = self.current(app)? else {
            return Ok(None);
        };
        let next = Content::of(new).version(app, current.number, 0, new, &[], &[]);
        if next.source != current.source || next.digest != current.digest {
            return Ok(None);
        }
        let (vars, secrets) = self.values(&current)?;
        Ok((vars == new.vars && secrets == new.secrets).then_some(current))
    }

    /// Makes a version the one that serves, in one step, and forgets the oldest ones.
    ///
    /// # Errors
    /// If there is no such version, or what the disk does not let be done.
    pub fn make_current(&self, app: &App, number: u64) -> Result<(), StoreError> {
        let _writing = self.writing.lock();
        self.version(app, number)?;
        let path = self.folder(app).join(CURRENT);
        disk::write(&path, number.to_string().as_bytes())?;
        let numbers = self.numbers(app)?;
        let others = numbers.into_iter().rev().filter(|other| *other != number);
        for old in others.skip(self.versions_max) {
            disk::remove(&self.record_path(app, old))?;
            disk::remove(&self.pack_path(app, old))?;
        }
        Ok(())
    }

    /// Forgets an app and all its versions.
    ///
    /// # Errors
    /// What the disk does not let be done.
    pub fn delete(&self, app: &App) -> Result<(), StoreError> {
        let _writing = self.writing.lock();
        // Without this name nothing of it serves any more, whatever happens to the rest.
        disk::remove(&self.folder(app).join(CURRENT))?;
        disk::remove_folder(&self.folder(app))
    }

    /// The numbers of an app's versions, sorted.
    fn numbers(&self, app: &App) -> Result<Vec<u64>, StoreError> {
        let names = disk::names(&self.folder(app))?;
        let number = |name: String| name.strip_suffix(".json")?.parse().ok();
        let mut numbers: Vec<u64> = names.into_iter().filter_map(number).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Removes what was not finished.
    fn sweep(&self, app: &App) -> Result<(), StoreError> {
        let folder = self.folder(app);
        let numbers = self.numbers(app)?;
        for name in disk::names(&folder)? {
            let lone = name.strip_suffix(".pack").is_some_and(|number| {
                number
                    .parse()
                    .is_ok_and(|number| !numbers.contains(&number))
            });
            if lone || disk::is_unfinished(&name) {
                disk::remove(&folder.join(name))?;
            }
        }
        Ok(())
    }

    /// Names of repositories and environments have no slash, and are never `.` or `..`.
    fn folder(&self, app: &App) -> PathBuf {
        let App {
            repository,
            environment,
        } = app;
        self.root
            .join(repository.owner())
            .join(repository.name())
            .join(environment.as_str())
    }

    fn record_path(&self, app: &App, number: u64) -> PathBuf {
        self.folder(app).join(format!("{number}.json"))
    }

    fn pack_path(&self, app: &App, number: u64) -> PathBuf {
        self.folder(app).join(format!("{number}.pack"))
    }

    /// Where the store is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// What the values of a version are sealed for.
fn context(app: &App, number: u64) -> String {
    format!("{}/{}/{number}", app.repository, app.environment)
}

#[cfg(test)]
mod tests;
