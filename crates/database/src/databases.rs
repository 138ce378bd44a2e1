//! A data directory, opened.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use engine::{Engine, EngineError, EngineOptions};
use parking_lot::Mutex;
use store::{DirectoryLock, Journal, JournalError, JournalOptions, LockError, RealDisk};
use tokio_util::task::TaskTracker;
use volume::{DatabaseId, FindTemplate, Template, TemplateId, VolumeError, Volumes};
use wire::{DatabaseName, PgError};

use crate::adjustable::Adjustable;
use crate::admission::Admission;
use crate::authority::Authority;
use crate::credentials::Remembered;
use crate::currency::Currency;
use crate::database::Database;
use crate::dependencies::{Known, QueryKey};
use crate::directory::Directory;
use crate::disk_watch::DiskWatch;
use crate::figures::{Counts, DatabaseFigures, NodeFigures, Reuse};
use crate::gate;
use crate::images::Images;
use crate::info::DatabaseInfo;
use crate::live::Live;
use crate::maintenance::{self, Maintenance};
use crate::metrics::{Counters, Metrics};
use crate::node::{Node, Removal, Source, blocking};
use crate::options::Options;
use crate::record::Settings;
use crate::session::{Pulse, Session, SessionOptions};
use crate::template::{self, TemplateError};
use crate::versions::Versions;
use crate::witness::{Change, Doer};

/// Bytes of one file of the journal; two are there from the beginning.
const JOURNAL_SEGMENT_BYTES: u64 = 16 << 20;

/// All databases of a data directory. Cheap to clone; [`close`](Self::close) ends it for all.
#[derive(Clone)]
pub struct Databases {
    pub(crate) node: Arc<Node>,
    maintenance: Arc<Maintenance>,
    /// Who changes something by this handle.
    pub(crate) doer: Arc<Doer>,
}

impl fmt::Debug for Databases {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Databases")
            .field("options", &self.node.options)
            .finish()
    }
}

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// The engine could not be loaded.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// There is no template to fork databases from.
    #[error("the template: {0}")]
    Template(#[from] TemplateError),
    /// A folder could not be made or read.
    #[error("{}: {source}; check that the folder exists and may be written", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The directory of databases is damaged or of another version.
    #[error("the directory of databases {}: {reason}", .path.display())]
    Directory {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The journal is damaged, belongs to another data directory, or cannot be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A volume could not be looked at.
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

impl Databases {
    /// Opens a data directory, making it if it is not there. The first time on a machine this
    /// compiles Postgres and makes the template: seconds; later milliseconds, however many databases
    /// there are.
    ///
    /// # Errors
    ///
    /// [`OpenError`], which says what to do.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let data = options.data_directory.clone();
        for folder in [data.clone(), data.join("volumes"), data.join("templates")] {
            fs::create_dir_all(&folder).map_err(|source| OpenError::Io {
                path: folder,
                source,
            })?;
        }
        let lock = DirectoryLock::acquire(&data)?;
        let engine = open_engine(&options).await?;
        let current =
            template::current(&engine, &data.join("templates"), &options.cache_directory).await?;
        let path = data.join("directory.redb");
        let bad = |reason: String| OpenError::Directory {
            path: path.clone(),
            reason,
        };
        let directory =
            Directory::open(&path, options.limits.directory_cache_bytes_max).map_err(bad)?;
        let new_journal = u64::from_le_bytes(random().map_err(|error| bad(error.to_string()))?);
        let new_secret = random().map_err(|error| bad(error.to_string()))?;
        let mock_secret = directory
            .mock_secret(new_secret)
            .map_err(|error| bad(error.to_string()))?;
        let (generation, journal_id) = directory
            .begin_generation(new_journal)
            .map_err(|error| bad(error.to_string()))?;
        let journal = open_journal(&options, journal_id, generation).await?;
        let journal_writer = journal.start()?;
        let volumes = Volumes::new(
            Arc::new(RealDisk),
            &data.join("volumes"),
            Some(journal),
            generation,
            find_template(&data.join("templates"), &current.template),
        );
        let folder = data.join("images");
        let images =
            Images::open(folder.clone(), options.limits.images_bytes_max).map_err(|source| {
                OpenError::Io {
                    path: folder,
                    source,
                }
            })?;
        let disk = DiskWatch::new(options.limits.disk_reserve_bytes);
        volumes.watch_reserve(disk.reserve());
        disk.look(&data, &volumes);
        let node = Arc::new(Node {
            admission: Admission::new(&options.limits),
            versions: Versions::new(options.limits.etag_databases_max),
            known: Known::new(options.limits.etag_queries_max),
            live: Live::new(options.limits.figures_max),
            adjustable: Adjustable::new(&options),
            options,
            engine,
            current,
            directory,
            images,
            credentials: Remembered::default(),
            mock_secret,
            counters: Counters::default(),
            disk,
            volumes,
            journal_writer: Mutex::new(Some(journal_writer)),
            sessions: AtomicU64::new(0),
            generation: AtomicU64::new(1),
            changing: tokio::sync::RwLock::default(),
            leaving: TaskTracker::new(),
            closing: tokio::sync::watch::Sender::new(false),
            _lock: lock,
        });
        sweep(&node).map_err(|error| bad(error.to_string()))?;
        let maintenance = Maintenance::start(&node);
        Ok(Self {
            node,
            maintenance: Arc::new(maintenance),
            doer: Arc::default(),
        })
    }

    /// The same databases, for somebody: what is changed by this handle, and by sessions that it begins, is recorded
    /// as theirs ([`Options::witness`]).
    #[must_use]
    pub fn by(&self, doer: Doer) -> Self {
        Self {
            doer: Arc::new(doer),
            ..self.clone()
        }
    }

    /// Makes a database.
    ///
    /// # Errors
    ///
    /// 42P04 if the name is taken, 3D000 if the source is not there.
    pub async fn create(
        &self,
        name: &DatabaseName,
        source: Source,
    ) -> Result<DatabaseInfo, PgError> {
        self.node.create(&self.doer, name, source).await?;
        Ok(DatabaseInfo::of(&self.node, &*self.node.find(name)?))
    }

    /// Databases by name, those after `after`, at most `count`.
    ///
    /// # Errors
    ///
    /// 58030 or XX001 if the directory of databases cannot be read.
    pub fn list(
        &self,
        after: Option<&DatabaseName>,
        count: usize,
    ) -> Result<Vec<DatabaseInfo>, PgError> {
        let after = after.map(DatabaseName::as_str);
        let page = self.node.directory.page(after, count)?;
        let mut infos = Vec::with_capacity(page.len());
        for (name, _record) in page {
            // One that was deleted meanwhile is left out.
            if let Some(database) = self.node.live.find(&self.node.directory, &name)? {
                infos.push(DatabaseInfo::with_size(&self.node, &database));
            }
        }
        Ok(infos)
    }

    /// How many databases there are, and how many of them are not asleep.
    ///
    /// # Errors
    ///
    /// 58030 if the directory of databases cannot be read.
    pub fn count(&self) -> Result<(u64, u64), PgError> {
        let all = self.node.directory.count()?;
        Ok((all, self.node.live.awake()))
    }

    /// One database.
    ///
    /// # Errors
    ///
    /// 3D000 if it is not there.
    pub fn info(&self, name: &DatabaseName) -> Result<DatabaseInfo, PgError> {
        Ok(DatabaseInfo::with_size(&self.node, &*self.node.find(name)?))
    }

    /// Whether a database is there. Cheaper than [`info`](Self::info).
    ///
    /// # Errors
    ///
    /// 3D000 if it is not.
    pub fn expect(&self, name: &DatabaseName) -> Result<(), PgError> {
        self.node.find(name).map(drop)
    }

    /// What is set for a database that something has to do with, such as one that is awake or was asked for just now; `None`
    /// says nothing of any other. Looks at no disk, and waits for nobody who does.
    pub fn known_settings(&self, name: &DatabaseName) -> Option<Settings> {
        let database = self.node.live.try_get(name);
        database.map(|database| database.settings())
    }

    /// What is set for a database alone; `None` if it is not there. Wakes none, and may wait for the disk.
    ///
    /// # Errors
    ///
    /// 58030 or XX001 if the directory of databases cannot be read.
    pub fn settings(&self, name: &DatabaseName) -> Result<Option<Settings>, PgError> {
        let found = self.node.live.find(&self.node.directory, name)?;
        Ok(found.map(|database| database.settings()))
    }

    /// The limit for which a database that wakes now would have to wait, if there is one.
    pub fn why_not_admitting(&self) -> Option<&'static str> {
        if self.node.is_closing() {
            Some("closing")
        } else if self.node.admission.is_over() {
            Some("node.memory_bytes_max")
        } else if self.node.admission.wanting() > 0 {
            Some("databases.awake_max")
        } else {
            None
        }
    }

    /// Removes a database and its files.
    ///
    /// # Errors
    ///
    /// 3D000 if it is not there; 55006 if a session uses it, unless `force` ends that session.
    pub async fn delete(&self, name: &DatabaseName, force: bool) -> Result<(), PgError> {
        let removal = Removal::any(force);
        self.node.delete(&self.doer, name, removal).await
    }

    /// Removes a database and its files, if the one of this name is still this one and no session uses it.
    ///
    /// # Errors
    ///
    /// 3D000 if it is not there, or another; 55006 if a session uses it.
    pub async fn delete_only(&self, name: &DatabaseName, id: DatabaseId) -> Result<(), PgError> {
        let removal = Removal {
            force: false,
            only: Some(id),
        };
        self.node.delete(&self.doer, name, removal).await
    }

    /// Gives a database another name.
    ///
    /// # Errors
    ///
    /// 3D000, 42P04, or 55006 if a session uses it.
    pub async fn rename(&self, from: &DatabaseName, to: &DatabaseName) -> Result<(), PgError> {
        self.node.rename(&self.doer, from, to).await
    }

    /// Replaces the settings of one database; they hold from its next statement on.
    ///
    /// # Errors
    ///
    /// 3D000 if it is not there.
    pub async fn configure(
        &self,
        name: &DatabaseName,
        settings: Settings,
    ) -> Result<DatabaseInfo, PgError> {
        self.configure_by(name, settings, move |_| Ok(settings))
            .await
    }

    /// The same for who may not change how large it may be: what it says of that must be as it is, or nothing.
    ///
    /// # Errors
    ///
    /// 42501 if it says something else; 3D000 if the database is not there.
    pub async fn configure_within_quota(
        &self,
        name: &DatabaseName,
        settings: Settings,
    ) -> Result<DatabaseInfo, PgError> {
        self.configure_by(name, settings, move |old| settings.within_quota_of(old))
            .await
    }

    /// Nobody but the node's administrator deletes a database with a quota: the next one of its name would have none.
    ///
    /// # Errors
    ///
    /// 42501 if it has one; 3D000 if it is not there.
    pub fn expect_no_quota(&self, name: &DatabaseName) -> Result<(), PgError> {
        self.node.find(name)?.settings().expect_no_quota()
    }

    /// `asked` is for who reads what was done.
    async fn configure_by(
        &self,
        name: &DatabaseName,
        asked: Settings,
        change: impl FnOnce(Settings) -> Result<Settings, PgError> + Send + 'static,
    ) -> Result<DatabaseInfo, PgError> {
        let (node, name) = (Arc::clone(&self.node), name.clone());
        let detail = serde_json::to_string(&asked).ok();
        let told = Change::new(&self.doer, "database.configure", &name, detail);
        let work = async move {
            let _changing = node.changing.read().await;
            let database = node.find(&name)?;
            let node = Arc::clone(&node);
            blocking(move || {
                database.set_settings(&node, change)?;
                Ok(DatabaseInfo::of(&node, &database))
            })
            .await
        };
        self.node.witnessed(told, work).await
    }

    /// Takes over what of these options can change while the directory is open, all at once: `auto_create`, `durability`,
    /// `maintenance`, `observe`, and of the limits those of sessions, backends, volumes, the journal's length, sleep and
    /// upkeep. Backends have the memory that they began with until the next one. The rest is ignored. Blocks for locks.
    pub fn adjust(&self, options: &Options) {
        self.node.adjustable.adjust(options);
        for database in self.node.live.all() {
            if let Some(volume) = database.open_volume() {
                database.limit(&self.node, &volume);
            }
        }
    }

    /// Makes everything durable that a database has acknowledged so far, whatever its durability; with
    /// durability `relaxed` this is how to wait for the disk.
    ///
    /// # Errors
    ///
    /// 3D000 if it is not there; 53100 or 58030 if the disk does not take it.
    pub async fn flush(&self, name: &DatabaseName) -> Result<(), PgError> {
        match self.node.find(name)?.open_volume() {
            Some(volume) => gate::settle_all(&volume).await,
            // Whatever it was when its volume was closed is durable.
            None => Ok(()),
        }
    }

    /// Begins a session in a database, waking it, and waiting for others to leave it.
    ///
    /// # Errors
    ///
    /// 3D000, 53300 after the wait limit, 28000 for an unknown role, 22023 for a setting that
    /// Postgres refuses, 57P03 if the database does not start.
    pub async fn session(
        &self,
        name: &DatabaseName,
        options: SessionOptions,
    ) -> Result<Session, PgError> {
        let database = match self.node.find(name) {
            Err(error)
                if self.node.adjustable.auto_create.get()
                    && options.authority == Authority::Node
                    && error.code() == wire::sqlstate::INVALID_CATALOG_NAME =>
            {
                self.node.find_or_create(&self.doer, name).await?
            }
            found => found?,
        };
        self.begin(database, options).await
    }

    /// Begins a session in a database that is there.
    pub(crate) async fn begin(
        &self,
        database: Arc<Database>,
        options: SessionOptions,
    ) -> Result<Session, PgError> {
        let begun = Session::begin(Arc::clone(&self.node), database, options).await;
        match begun {
            Ok(mut session) => {
                session.doer = Arc::clone(&self.doer);
                Ok(session)
            }
            Err(error) => {
                self.node.counters.errors.count(error.code().as_bytes());
                Err(error)
            }
        }
    }

    /// How the sessions of a database are that run statements: whether they go on is told by two looks.
    ///
    /// # Errors
    ///
    /// 3D000 if it is not there.
    pub fn pulse(&self, name: &DatabaseName) -> Result<Pulse, PgError> {
        Ok(self.node.find(name)?.pulse())
    }

    /// Errors that sessions were told since the data directory was opened, by the class of their SQLSTATE.
    pub fn errors(&self) -> Vec<(&'static str, u64)> {
        self.node.counters.errors.get()
    }

    /// As of which commit the answer to a query would be now, without waking anyone. It is known of a query that
    /// [`Session::currency`] was asked about not long ago, in a database that was not asked to do much else since.
    ///
    /// # Errors
    ///
    /// 3D000 if the database is not there.
    pub fn currency(&self, name: &DatabaseName, query: &QueryKey) -> Result<Currency, PgError> {
        Ok(self.node.find(name)?.currency(&self.node, query))
    }

    /// Counts that somebody asked for an answer of a database that was made before. Of one that is not there nothing is
    /// counted.
    pub fn reused(&self, name: &DatabaseName, reuse: Reuse) {
        if let Ok(database) = self.node.find(name) {
            let at = self.node.live.since.at(Instant::now());
            database.figures.reused(reuse, at);
        }
    }

    /// What has been counted since the data directory was opened.
    pub fn metrics(&self) -> Metrics {
        Metrics::of(&self.node)
    }

    /// What was counted of all databases since the data directory was opened, and of the `top` of them whose
    /// `key` is the greatest: those that are awake, and the last ones that were (`telemetry.figures_databases_max`).
    pub fn figures(&self, top: usize, key: impl Fn(&Counts) -> u64) -> NodeFigures {
        NodeFigures::of(&self.node, top, key)
    }

    /// The same of one database, with its size. Blocks for the disk.
    ///
    /// # Errors
    ///
    /// 3D000 if it is not there.
    pub fn figures_of(&self, name: &DatabaseName) -> Result<DatabaseFigures, PgError> {
        DatabaseFigures::find(&self.node, name)
    }

    /// Stops: ends what runs, shuts every backend down, and flushes every volume.
    ///
    /// # Errors
    ///
    /// The first failure to flush; the others are logged.
    pub async fn close(&self) -> Result<(), PgError> {
        self.node.closing.send_replace(true);
        // Upkeep leaves as it does for a session.
        let live = self.node.live.all();
        let _wanting: Vec<_> = live.iter().map(|database| database.want()).collect();
        self.maintenance.end().await;
        let closed = maintenance::close(&self.node).await;
        // Each has the node, and with it the lock of its directory.
        self.node.leaving.close();
        self.node.leaving.wait().await;
        closed
    }
}

async fn open_engine(options: &Options) -> Result<Engine, OpenError> {
    let cache = options.cache_directory.clone();
    let progress = Arc::clone(&options.progress);
    let opening = tokio::task::spawn_blocking(move || {
        Engine::open(EngineOptions {
            progress,
            ..EngineOptions::new(cache.join("code"))
        })
    });
    let opened = opening
        .await
        .map_err(|error| EngineError::Image(error.to_string()))?;
    Ok(opened?)
}

/// Finishes what a crash cut short: files that were to be removed, and log of databases that are gone.
fn sweep(node: &Node) -> Result<(), PgError> {
    node.remove_garbage(&node.directory.garbage()?);
    for owner in node.volumes.journal().into_iter().flat_map(Journal::owners) {
        if let Some(journal) = node.volumes.journal()
            && node.directory.name_of(owner)?.is_none()
        {
            journal.forget(owner);
        }
    }
    Ok(())
}

fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// Opens the journal, reading all that it holds.
async fn open_journal(options: &Options, id: u64, generation: u64) -> Result<Journal, OpenError> {
    let folder = options.data_directory.join("journal");
    let settings = JournalOptions {
        segment_bytes: JOURNAL_SEGMENT_BYTES,
        unsynced_entries_max: options.limits.flush_entries_max,
        sync_interval: options.limits.flush_interval,
        ..JournalOptions::default()
    };
    let opening = tokio::task::spawn_blocking(move || {
        Journal::open(Arc::new(RealDisk), &folder, id, generation, settings)
    });
    let journal = opening
        .await
        .map_err(|error| EngineError::Image(error.to_string()))??;
    if journal.id() == id {
        return Ok(journal);
    }
    Err(OpenError::Directory {
        path: options.data_directory.join("journal"),
        reason: "the journal belongs to another data directory: put the right one back".to_owned(),
    })
}

/// Finds templates in their folder, each opened once.
fn find_template(folder: &Path, current: &Arc<Template>) -> Box<FindTemplate> {
    let folder = folder.to_owned();
    let known = Mutex::new(HashMap::from([(current.id(), Arc::clone(current))]));
    Box::new(move |id: TemplateId| {
        let mut known = known.lock();
        if let Some(template) = known.get(&id) {
            return Ok(Arc::clone(template));
        }
        let template = template::open_template(&folder, id)?;
        known.insert(id, Arc::clone(&template));
        Ok(template)
    })
}
