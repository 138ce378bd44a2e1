//! A data directory, opened.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use engine::{Engine, EngineError, EngineOptions};
use parking_lot::{Mutex, RwLock};
use store::{
    DirectoryLock, Journal, JournalError, JournalOptions, JournalWriter, LockError, RealDisk,
};
use volume::{
    BaseId, DatabaseId, FindTemplate, LayerId, Template, TemplateId, Volume, VolumeError, Volumes,
};
use wire::{DatabaseName, PgError, sqlstate};

use crate::database::{Database, volume_error};
use crate::directory::{self, Directory, Record};
use crate::maintenance;
use crate::options::Options;
use crate::session::{Session, SessionOptions};
use crate::template::{self, CurrentTemplate, TemplateError};

/// All databases of a data directory. Cheap to clone; [`close`](Self::close) ends it for all.
#[derive(Clone)]
pub struct Databases {
    pub(crate) node: Arc<Node>,
    maintenance: Arc<Mutex<Option<tokio::task::JoinHandle<()>>>>,
}

impl fmt::Debug for Databases {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Databases")
            .field("options", &self.node.options)
            .finish()
    }
}

/// What the databases share.
pub(crate) struct Node {
    pub(crate) options: Options,
    pub(crate) engine: Engine,
    pub(crate) current: CurrentTemplate,
    pub(crate) directory: Directory,
    /// What all volumes share: the disk, the journal, the bases.
    pub(crate) volumes: Arc<Volumes>,
    /// Ends the journal's thread; taken when the node closes.
    journal_writer: Mutex<Option<JournalWriter>>,
    entries: RwLock<BTreeMap<DatabaseName, Arc<Database>>>,
    /// Changes with every change of the entries.
    generation: AtomicU64,
    /// Held by who changes the entries, so that a name is taken once.
    changing: tokio::sync::Mutex<()>,
    /// No session may run anything any more.
    closing: AtomicBool,
    _lock: DirectoryLock,
}

/// What a new database begins as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Empty, from the built-in template.
    Template,
    /// A copy of another database as of its last commit.
    Database(DatabaseName),
}

/// Whether a database has a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It has none, and costs no memory but its record.
    Asleep = 0,
    /// One is being started.
    Waking = 1,
    /// It has one.
    Awake = 2,
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Asleep => "asleep",
            Self::Waking => "waking",
            Self::Awake => "awake",
        })
    }
}

/// What is known of a database without waking it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseInfo {
    /// Unique, and never reused.
    pub id: DatabaseId,
    /// Its name, which can change.
    pub name: String,
    /// When it was made.
    pub created_at: SystemTime,
    /// The database that it was forked from, by the name of that time.
    pub parent: Option<String>,
    /// Whether it is awake.
    pub state: State,
    /// Bytes that it stores beyond what it shares.
    pub own_bytes: u64,
    /// Bytes of its backend's address space; 0 when asleep or busy.
    pub memory_bytes: u64,
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
    /// compiles Postgres and makes the template: seconds; later milliseconds.
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
        let cache = options.cache_directory.clone();
        let progress = Arc::clone(&options.progress);
        let engine = tokio::task::spawn_blocking(move || {
            Engine::open(EngineOptions {
                progress,
                ..EngineOptions::new(cache.join("code"))
            })
        })
        .await
        .map_err(|error| EngineError::Image(error.to_string()))??;
        let current =
            template::current(&engine, &data.join("templates"), &options.cache_directory).await?;
        let path = data.join("directory.redb");
        let bad = |reason: String| OpenError::Directory {
            path: path.clone(),
            reason,
        };
        let directory = Directory::open(&path).map_err(|error| bad(error.to_string()))?;
        let mut entries = BTreeMap::new();
        for (name, record) in directory.load().map_err(bad)? {
            let id = record
                .id()
                .ok_or_else(|| bad(format!("{name} has no id")))?;
            entries.insert(name.clone(), Arc::new(Database::new(name, id, record)));
        }
        let new_journal = random().map_err(|error| bad(error.to_string()))?;
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
        let node = Arc::new(Node {
            options,
            engine,
            current,
            directory,
            volumes,
            journal_writer: Mutex::new(Some(journal_writer)),
            entries: RwLock::new(entries),
            generation: AtomicU64::new(1),
            changing: tokio::sync::Mutex::default(),
            closing: AtomicBool::new(false),
            _lock: lock,
        });
        node.sweep()?;
        let task = tokio::spawn(maintenance::run(Arc::downgrade(&node)));
        Ok(Self {
            node,
            maintenance: Arc::new(Mutex::new(Some(task))),
        })
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
        Ok(describe(&*self.node.create(name, source).await?))
    }

    /// Every database, by name.
    ///
    /// # Errors
    ///
    /// None today; a directory too large for memory may have some.
    pub fn list(&self) -> Result<Vec<DatabaseInfo>, PgError> {
        Ok(self
            .node
            .entries
            .read()
            .values()
            .map(|database| describe(database))
            .collect())
    }

    /// How many databases there are, and how many of them are awake.
    pub fn count(&self) -> (usize, usize) {
        let entries = self.node.entries.read();
        let awake = entries
            .values()
            .filter(|database| database.state() != State::Asleep)
            .count();
        (entries.len(), awake)
    }

    /// One database.
    ///
    /// # Errors
    ///
    /// 3D000 if it is not there.
    pub fn info(&self, name: &DatabaseName) -> Result<DatabaseInfo, PgError> {
        Ok(describe(&*self.node.find(name)?))
    }

    /// Removes a database and its files.
    ///
    /// # Errors
    ///
    /// 3D000 if it is not there; 55006 if a session uses it, unless `force` ends that session.
    pub async fn delete(&self, name: &DatabaseName, force: bool) -> Result<(), PgError> {
        self.node.delete(name, force).await
    }

    /// Gives a database another name.
    ///
    /// # Errors
    ///
    /// 3D000, 42P04, or 55006 if a session uses it.
    pub async fn rename(&self, from: &DatabaseName, to: &DatabaseName) -> Result<(), PgError> {
        self.node.rename(from, to).await
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
            Ok(database) => database,
            Err(_) if self.node.options.auto_create => self.node.find_or_create(name).await?,
            Err(error) => return Err(error),
        };
        Session::begin(Arc::clone(&self.node), database, options).await
    }

    /// Stops: ends what runs, shuts every backend down, and flushes every volume.
    ///
    /// # Errors
    ///
    /// The first failure to flush; the others are logged.
    pub async fn close(&self) -> Result<(), PgError> {
        let task = self.maintenance.lock().take();
        if let Some(task) = task {
            task.abort();
            // An aborted task ends with an error that says so.
            let _ended = task.await;
        }
        maintenance::close(&self.node).await
    }
}

impl Node {
    pub(crate) fn volumes_directory(&self) -> PathBuf {
        self.options.data_directory.join("volumes")
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(crate) fn set_closing(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub(crate) fn databases(&self) -> Vec<Arc<Database>> {
        self.entries.read().values().cloned().collect()
    }

    /// The layers of a base, the topmost first, read from their files.
    pub(crate) fn chain(&self, base: Option<BaseId>) -> Result<Vec<LayerId>, PgError> {
        let mut chain = Vec::new();
        let mut at = base;
        while let Some(BaseId::Layer(layer)) = at {
            chain.push(layer);
            let below = self.volumes.base_of_layer(layer);
            at = Some(below.map_err(|error| volume_error(&error))?);
        }
        Ok(chain)
    }

    /// Removes the files of layers that nothing is over.
    pub(crate) fn remove_layers(&self, layers: &[LayerId]) {
        for layer in layers {
            // What stays is only garbage; the next start sweeps it.
            if let Err(error) = self.volumes.remove_layer(*layer) {
                tracing::warn!(%layer, %error, "a layer's files could not be removed");
            }
        }
    }

    /// Stops the journal, writing what it still holds. Nothing can be made durable afterwards.
    pub(crate) fn close_journal(&self) {
        drop(self.journal_writer.lock().take());
    }

    pub(crate) fn find(&self, name: &DatabaseName) -> Result<Arc<Database>, PgError> {
        self.entries.read().get(name).cloned().ok_or_else(|| {
            PgError::fatal(
                sqlstate::INVALID_CATALOG_NAME,
                format!("database \"{name}\" does not exist"),
            )
        })
    }

    async fn find_or_create(&self, name: &DatabaseName) -> Result<Arc<Database>, PgError> {
        match self.create(name, Source::Template).await {
            Err(error) if error.code() == sqlstate::DUPLICATE_DATABASE => self.find(name),
            result => result,
        }
    }

    pub(crate) async fn create(
        &self,
        name: &DatabaseName,
        source: Source,
    ) -> Result<Arc<Database>, PgError> {
        let _changing = self.changing.lock().await;
        if self.entries.read().contains_key(name) {
            return Err(taken(name));
        }
        let id = self.directory.next_id()?;
        let (base, parent) = match &source {
            Source::Template => (BaseId::Template(self.current.template.id()), None),
            Source::Database(parent) => {
                let parent = self.find(parent)?;
                (self.share(&parent).await?, Some(parent))
            }
        };
        let chain = self.chain(Some(base))?;
        let template = match (&parent, base) {
            (Some(parent), _) => parent.record().template,
            (None, BaseId::Template(id)) => id.to_string(),
            (None, BaseId::Layer(_)) => unreachable!("BUG: only a fork is over a layer"),
        };
        let parent_name = parent
            .as_ref()
            .map(|parent| parent.name().as_str().to_owned());
        let former_names = parent
            .map(|parent| parent.former_names())
            .unwrap_or_default();
        let former_names = with_name(former_names, parent_name.as_deref());
        let created = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let record = Record {
            id: id.get(),
            template,
            layer: chain.first().copied().map(directory::key),
            created_ms: created.as_millis() as u64,
            parent: parent_name,
            former_names,
        };
        self.directory.insert(name, &record, &chain)?;
        let database = Arc::new(Database::new(name.clone(), id, record));
        self.entries
            .write()
            .insert(name.clone(), Arc::clone(&database));
        self.changed();
        Ok(database)
    }

    /// The base of a fork of `parent` as it is now. Nothing is copied: what the parent has of its own
    /// becomes a layer that both are over.
    async fn share(&self, parent: &Arc<Database>) -> Result<BaseId, PgError> {
        let volume = parent.volume(self)?;
        let sharing = Arc::clone(&volume);
        let shared = tokio::task::spawn_blocking(move || sharing.share()).await;
        let base = shared
            .map_err(|error| PgError::error(sqlstate::INTERNAL_ERROR, error.to_string()))?
            .map_err(|error| volume_error(&error))?;
        parent.settle_base(self, &volume)?;
        Ok(base)
    }

    pub(crate) async fn delete(&self, name: &DatabaseName, force: bool) -> Result<(), PgError> {
        let _changing = self.changing.lock().await;
        let database = self.find(name)?;
        let idle = database.slot.try_lock();
        if idle.is_err() && !force {
            return Err(in_use(&database));
        }
        let chain = self.chain(database.record().base())?;
        let unused = self.directory.remove(name, &chain)?;
        self.entries.write().remove(name);
        self.changed();
        database.mark_dropped();
        if let Ok(mut slot) = idle {
            slot.lose(&database);
        }
        self.remove_volume(database.id)
            .map_err(|error| volume_error(&error))?;
        self.remove_layers(&unused);
        Ok(())
    }

    /// Removes a database's files, but for layers of it that others are over.
    fn remove_volume(&self, id: DatabaseId) -> volume::Result<()> {
        Volume::remove(&self.volumes, id, &|epoch| {
            let layer = LayerId { origin: id, epoch };
            // Not to know is no reason to remove.
            self.directory.is_layer(layer).unwrap_or(true)
        })
    }

    pub(crate) async fn rename(
        &self,
        from: &DatabaseName,
        to: &DatabaseName,
    ) -> Result<(), PgError> {
        let _changing = self.changing.lock().await;
        let database = self.find(from)?;
        if self.entries.read().contains_key(to) {
            return Err(taken(to));
        }
        let Ok(mut slot) = database.slot.try_lock() else {
            return Err(in_use(&database));
        };
        let mut record = database.record();
        record.former_names = with_name(record.former_names, Some(from.as_str()));
        self.directory.rename(from, to, &record)?;
        database.rename(to.clone(), record);
        {
            let mut entries = self.entries.write();
            entries.remove(from);
            entries.insert(to.clone(), Arc::clone(&database));
        }
        self.changed();
        // The next wake, or the next session, gives the catalog the new name.
        if slot.backend.is_some() {
            slot.shut_down(&database).await;
        }
        Ok(())
    }

    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Removes files and log of databases that are not in the directory: what a crash in the middle of
    /// a creation or removal left.
    fn sweep(&self) -> Result<(), OpenError> {
        let known: HashSet<u64> = self
            .entries
            .read()
            .values()
            .map(|database| database.id.get())
            .collect();
        let folder = self.volumes_directory();
        let io = |source| OpenError::Io {
            path: folder.clone(),
            source,
        };
        let mut unknown = HashSet::new();
        for entry in fs::read_dir(&folder).map_err(io)? {
            let path = entry.map_err(io)?.path();
            let Some((id, epoch)) = file_of(&path) else {
                continue;
            };
            let is_layer = match epoch {
                Some(epoch) => {
                    let layer = LayerId { origin: id, epoch };
                    let found = self.directory.is_layer(layer);
                    found.map_err(|error| OpenError::Directory {
                        path: folder.clone(),
                        reason: error.to_string(),
                    })?
                }
                None => false,
            };
            if !known.contains(&id.get()) && !is_layer {
                unknown.insert(id);
            }
        }
        for id in unknown {
            tracing::info!(%id, "removing the files of a database that does not exist");
            self.remove_volume(id)?;
        }
        for owner in self.volumes.journal().into_iter().flat_map(Journal::owners) {
            if let Some(journal) = self.volumes.journal()
                && !known.contains(&owner)
            {
                journal.forget(owner);
            }
        }
        Ok(())
    }
}

/// The database that a file of the volumes' folder belongs to, and the epoch in its name: `ID.manifest`,
/// `ID.EPOCH.pages` and the like.
fn file_of(path: &Path) -> Option<(DatabaseId, Option<u32>)> {
    let mut parts = path.file_name()?.to_str()?.split('.');
    let id = DatabaseId::new(u64::from_str_radix(parts.next()?, 16).ok()?)?;
    let epoch = parts.next()?;
    Some((id, u32::from_str_radix(epoch, 16).ok()))
}

fn random() -> Result<u64, getrandom::Error> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
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

/// Bytes of one file of the journal; two are there from the beginning.
const JOURNAL_SEGMENT_BYTES: u64 = 16 << 20;

/// `names` and one more at the front, each once.
fn with_name(mut names: Vec<String>, name: Option<&str>) -> Vec<String> {
    if let Some(name) = name {
        names.retain(|known| known != name);
        names.insert(0, name.to_owned());
    }
    names
}

fn taken(name: &DatabaseName) -> PgError {
    PgError::error(
        sqlstate::DUPLICATE_DATABASE,
        format!("database \"{name}\" already exists"),
    )
}

fn in_use(database: &Database) -> PgError {
    let holder = database
        .holder
        .lock()
        .clone()
        .unwrap_or_else(|| "a session".to_owned());
    let message = format!(
        "database \"{}\" is being accessed by other users",
        database.name()
    );
    PgError::error(sqlstate::OBJECT_IN_USE, message).detail(format!("It is in use by {holder}."))
}

fn describe(database: &Database) -> DatabaseInfo {
    let memory = database.slot.try_lock().ok().and_then(|slot| {
        slot.backend
            .as_ref()
            .map(|backend| backend.memory_bytes() as u64)
    });
    let record = database.record();
    DatabaseInfo {
        id: database.id,
        name: database.name().as_str().to_owned(),
        created_at: UNIX_EPOCH + Duration::from_millis(record.created_ms),
        parent: record.parent,
        state: database.state(),
        own_bytes: database
            .open_volume()
            .map_or(0, |volume| volume.own_bytes()),
        memory_bytes: memory.unwrap_or_default(),
    }
}
