//! The node: what all databases of a data directory share, and how databases are made and removed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use engine::Engine;
use parking_lot::Mutex;
use store::{DirectoryLock, JournalWriter};
use tokio::sync::{OwnedMutexGuard, watch};
use tokio_util::task::TaskTracker;
use volume::{BaseId, DatabaseId, LayerId, Volume, Volumes};
use wire::{DatabaseName, PgError, sqlstate};

use crate::adjustable::Adjustable;
use crate::admission::Admission;
use crate::credentials::Remembered;
use crate::database::{Database, layers, volume_error};
use crate::dependencies::Known;
use crate::directory::{self, Directory, Garbage};
use crate::disk_watch::DiskWatch;
use crate::images::Images;
use crate::live::Live;
use crate::metrics::Counters;
use crate::options::Options;
use crate::record::{Record, Settings};
use crate::slot::Slot;
use crate::template::CurrentTemplate;
use crate::upkeep;
use crate::versions::Versions;
use crate::witness::Doer;

/// WAL since the last checkpoint of a quiet parent that a fork may have to replay, in bytes.
const FORK_WAL_BYTES: u64 = 4 << 20;

/// How long a database that is to be dropped or renamed may still be in use.
const IDLE_WAIT: Duration = Duration::from_secs(2);

/// What the databases share.
pub(crate) struct Node {
    /// As it was opened; what of it may change is in `adjustable`.
    pub(crate) options: Options,
    pub(crate) adjustable: Adjustable,
    pub(crate) engine: Engine,
    pub(crate) current: CurrentTemplate,
    pub(crate) directory: Directory,
    pub(crate) live: Live,
    pub(crate) images: Images,
    /// Who reads the logs of the databases along, and what queries were found to depend on.
    pub(crate) versions: Versions,
    pub(crate) known: Known,
    pub(crate) credentials: Remembered,
    /// What the salts of roles that do not exist are made of.
    pub(crate) mock_secret: [u8; 32],
    pub(crate) admission: Admission,
    pub(crate) counters: Counters,
    pub(crate) disk: DiskWatch,
    /// What all volumes share: the disk, the journal, the bases.
    pub(crate) volumes: Arc<Volumes>,
    /// Ends the journal's thread; taken when the node closes.
    pub(crate) journal_writer: Mutex<Option<JournalWriter>>,
    /// How many sessions there have been.
    pub(crate) sessions: AtomicU64,
    /// Changes with every change of the names.
    pub(crate) generation: AtomicU64,
    /// Shared by creations from a template; alone for what looks at one database and changes another.
    pub(crate) changing: tokio::sync::RwLock<()>,
    /// Sessions that leave by themselves, as nobody has closed them.
    pub(crate) leaving: TaskTracker,
    /// No session may run anything any more.
    pub(crate) closing: watch::Sender<bool>,
    pub(crate) _lock: DirectoryLock,
}

/// Which database of a name goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Removal {
    /// Whether sessions end for it.
    pub(crate) force: bool,
    /// None but this one.
    pub(crate) only: Option<DatabaseId>,
}

impl Removal {
    /// Whichever it is.
    pub(crate) fn any(force: bool) -> Self {
        Self { force, only: None }
    }
}

/// What a new database begins as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Empty, from the built-in template.
    Template,
    /// A copy of another database as of its last commit.
    Database(DatabaseName),
}

impl Node {
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn is_closing(&self) -> bool {
        *self.closing.borrow()
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

    /// Removes files that nothing needs any more. What cannot be removed stays written down as
    /// garbage for the next start.
    pub(crate) fn remove_garbage(&self, garbage: &[Garbage]) {
        let mut removed = Vec::new();
        for one in garbage {
            let outcome = match one {
                Garbage::Database(id) => {
                    self.images.remove(*id);
                    self.remove_volume(*id)
                }
                Garbage::Layer(layer) => self.volumes.remove_layer(*layer),
            };
            match outcome {
                Ok(()) => removed.push(*one),
                Err(error) => tracing::warn!(?one, %error, "files could not be removed"),
            }
        }
        if removed.is_empty() {
            return;
        }
        if let Err(error) = self.directory.removed(&removed) {
            tracing::warn!(%error, "what was removed is still written down as garbage");
        }
    }

    /// Removes a database's files, but for layers of it that others are over.
    fn remove_volume(&self, id: DatabaseId) -> volume::Result<()> {
        Volume::remove(&self.volumes, id, &|epoch| {
            let layer = LayerId { origin: id, epoch };
            // Not to know is no reason to remove.
            self.directory
                .referents(layer)
                .map_or(true, |count| count > 0)
        })
    }

    /// Stops the journal, writing what it still holds. Nothing can be made durable afterwards.
    pub(crate) fn close_journal(&self) {
        drop(self.journal_writer.lock().take());
    }

    pub(crate) fn find(&self, name: &DatabaseName) -> Result<Arc<Database>, PgError> {
        let found = self.live.find(&self.directory, name)?;
        found.ok_or_else(|| not_there(name))
    }

    pub(crate) async fn find_or_create(
        self: &Arc<Self>,
        doer: &Arc<Doer>,
        name: &DatabaseName,
    ) -> Result<Arc<Database>, PgError> {
        match self.create(doer, name, Source::Template).await {
            Err(error) if error.code() == sqlstate::DUPLICATE_DATABASE => {}
            result => result?,
        }
        self.find(name)
    }

    /// Makes a database. Nobody writes that down.
    pub(crate) async fn create_unseen(
        self: &Arc<Self>,
        name: DatabaseName,
        source: Source,
    ) -> Result<(), PgError> {
        self.disk.check()?;
        let node = Arc::clone(self);
        match source {
            Source::Template => {
                let _changing = self.changing.read().await;
                blocking(move || node.create_from_template(&name)).await
            }
            Source::Database(parent) => {
                let _changing = self.changing.write().await;
                self.prepare_fork(&parent).await?;
                blocking(move || node.fork(&name, &parent)).await
            }
        }
    }

    fn create_from_template(&self, name: &DatabaseName) -> Result<(), PgError> {
        let template = self.current.template.id().to_string();
        let record = self.new_record(name, template)?;
        self.directory.insert(name, &record, &[])?;
        self.changed();
        Ok(())
    }

    /// Makes a checkpoint in the parent if much WAL has gathered and nobody uses it: the fork would
    /// replay all of that when it first wakes, and then own the pages.
    async fn prepare_fork(&self, parent: &DatabaseName) -> Result<(), PgError> {
        let parent = self.find(parent)?;
        let Some(volume) = parent.open_volume() else {
            return Ok(());
        };
        if parent.wal_since_checkpoint(&volume) <= FORK_WAL_BYTES {
            return Ok(());
        }
        if let Ok(mut slot) = parent.slot.try_lock()
            && slot.backend.is_some()
        {
            slot.be_ours(&parent).await?;
            let done = upkeep::checkpoint(self, &parent, &mut slot).await;
            if slot.backend.is_none() {
                slot.lose(&parent);
            }
            done?;
        }
        Ok(())
    }

    /// Makes a database that is what its parent is now. Nothing is copied: what the parent has of its
    /// own becomes a layer that both are over.
    fn fork(&self, name: &DatabaseName, parent: &DatabaseName) -> Result<(), PgError> {
        // Before anything is shared for nothing.
        if self.directory.find(name)?.is_some() {
            return Err(directory::taken(name));
        }
        let parent = self.find(parent)?;
        let volume = parent.volume(self)?;
        let base = volume.share().map_err(|error| volume_error(&error))?;
        parent.settle_base(self, &volume)?;
        let chain = match volume.base() {
            at if at.id() == base => layers(&at),
            // Shared again meanwhile.
            _ => self.chain(Some(base))?,
        };
        let parent_name = parent.name();
        let record = Record {
            layer: chain.first().copied().map(directory::key),
            parent: Some(parent_name.as_str().to_owned()),
            former_names: with_name(parent.former_names(), parent_name.as_str()),
            settings: parent.settings(),
            ..self.new_record(name, parent.record().template)?
        };
        self.directory.insert(name, &record, &chain)?;
        self.changed();
        Ok(())
    }

    fn new_record(&self, name: &DatabaseName, template: String) -> Result<Record, PgError> {
        let created = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Ok(Record {
            id: self.directory.next_id()?.get(),
            name: name.as_str().to_owned(),
            template,
            layer: None,
            created_ms: created.as_millis() as u64,
            parent: None,
            former_names: Vec::new(),
            settings: Settings::default(),
        })
    }

    /// Removes a database. Nobody writes that down.
    pub(crate) async fn delete_unseen(
        self: &Arc<Self>,
        name: &DatabaseName,
        removal: Removal,
    ) -> Result<(), PgError> {
        let database = self.find(name)?;
        if removal.only.is_some_and(|id| id != database.id) {
            return Err(not_there(name));
        }
        let idle = match removal.force {
            true => {
                let slot = Arc::clone(&database.slot).try_lock_owned();
                let alone = slot.is_ok() && database.further.drop_idle().await;
                slot.ok().filter(|_| alone)
            }
            false => Some(idle_slot(&database).await?),
        };
        let changing = self.changing.write().await;
        self.check_still(name, &database)?;
        let (node, name) = (Arc::clone(self), name.clone());
        let garbage = blocking(move || {
            let record = database.record();
            let chain = node.chain(record.base()).unwrap_or_else(|error| {
                // One that is damaged must go all the same.
                tracing::error!(%error, "a layer cannot be read: those below it stay for ever");
                let top = record.layer.and_then(directory::layer_of);
                top.into_iter().collect()
            });
            let garbage = node.directory.remove(&name, database.id, &chain)?;
            node.live.remove(&name);
            node.changed();
            database.mark_dropped();
            if let Some(mut slot) = idle {
                slot.lose(&database);
            }
            // Whoever still has it, a session or a flush, must not write into files that are gone.
            database.abandon_volume();
            Ok(garbage)
        })
        .await?;
        // Others need not wait for that.
        drop(changing);
        let node = Arc::clone(self);
        blocking(move || {
            node.remove_garbage(&garbage);
            Ok(())
        })
        .await
    }

    /// Gives a database another name. Nobody writes that down.
    pub(crate) async fn rename_unseen(
        self: &Arc<Self>,
        from: &DatabaseName,
        to: &DatabaseName,
    ) -> Result<(), PgError> {
        let database = self.find(from)?;
        let mut slot = idle_slot(&database).await?;
        let _changing = self.changing.write().await;
        self.check_still(from, &database)?;
        // The next wake gives the catalog the new name.
        if slot.backend.is_some() {
            slot.shut_down(&database).await;
        }
        let (node, from, to) = (Arc::clone(self), from.clone(), to.clone());
        blocking(move || {
            node.live.rename(&from, &to, || {
                database.rename(&to, |mut record| {
                    record.former_names = with_name(record.former_names, from.as_str());
                    record.name = to.as_str().to_owned();
                    node.directory.rename(&from, &to, &record)?;
                    Ok(record)
                })
            })?;
            node.changed();
            drop(slot);
            Ok(())
        })
        .await
    }

    /// That a database has the name that it was found by, though there was a wait.
    fn check_still(&self, name: &DatabaseName, database: &Arc<Database>) -> Result<(), PgError> {
        match Arc::ptr_eq(&self.find(name)?, database) {
            true => Ok(()),
            false => Err(in_use(database)),
        }
    }

    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}

/// Runs what waits for the disk on a thread for that.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PgError> + Send + 'static,
) -> Result<T, PgError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(PgError::error(sqlstate::INTERNAL_ERROR, error.to_string())),
    }
}

/// `names` and one more at the front, each once.
fn with_name(mut names: Vec<String>, name: &str) -> Vec<String> {
    names.retain(|known| known != name);
    names.insert(0, name.to_owned());
    names
}

/// A database's slot, once no session has it. Maintenance that has it is to leave.
///
/// # Errors
/// 55006 if somebody has it for longer than [`IDLE_WAIT`], as PostgreSQL waits for those who are about to
/// leave.
async fn idle_slot(database: &Arc<Database>) -> Result<OwnedMutexGuard<Slot>, PgError> {
    let _wanting = database.want();
    let waiting = async {
        database.without_sessions().await;
        Arc::clone(&database.slot).lock_owned().await
    };
    let Ok(slot) = tokio::time::timeout(IDLE_WAIT, waiting).await else {
        return Err(in_use(database));
    };
    match database.further.drop_idle().await {
        true => Ok(slot),
        false => Err(in_use(database)),
    }
}

fn not_there(name: &DatabaseName) -> PgError {
    PgError::fatal(
        sqlstate::INVALID_CATALOG_NAME,
        format!("database \"{name}\" does not exist"),
    )
}

fn in_use(database: &Database) -> PgError {
    let holder = database.holder().unwrap_or_else(|| "a session".to_owned());
    let message = format!(
        "database \"{}\" is being accessed by other users",
        database.name()
    );
    PgError::error(sqlstate::OBJECT_IN_USE, message).detail(format!("It is in use by {holder}."))
}
