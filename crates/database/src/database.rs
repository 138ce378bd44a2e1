//! One database: what is known of it while it sleeps, and what it has while it is awake.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use parking_lot::Mutex;
use volume::{Base, BaseId, DatabaseId, LayerId, Volume, VolumeError};
use wire::{DatabaseName, PgError, sqlstate};

use crate::databases::{Node, State};
use crate::directory::{self, Rebase, Record};
use crate::options::Durability;
use crate::session::Canceller;
use crate::slot::Slot;

/// A database of the directory.
pub(crate) struct Database {
    pub(crate) id: DatabaseId,
    record: Mutex<Record>,
    name: Mutex<DatabaseName>,
    state: AtomicU8,
    /// Removed from the directory; whoever still has it must let go.
    dropped: AtomicBool,
    /// The backend, for one session at a time.
    pub(crate) slot: Arc<tokio::sync::Mutex<Slot>>,
    /// The volume, once something needed it. Only one may exist for a database.
    volume: Mutex<Option<Arc<Volume>>>,
    /// Who has the slot, for those who wait.
    pub(crate) holder: Mutex<Option<String>>,
    /// Cancels the statement of the session that has the slot.
    pub(crate) current: Mutex<Option<Canceller>>,
}

impl Database {
    pub(crate) fn new(name: DatabaseName, id: DatabaseId, record: Record) -> Self {
        Self {
            id,
            record: Mutex::new(record),
            name: Mutex::new(name),
            state: AtomicU8::new(State::Asleep as u8),
            dropped: AtomicBool::new(false),
            slot: Arc::default(),
            volume: Mutex::new(None),
            holder: Mutex::new(None),
            current: Mutex::new(None),
        }
    }

    pub(crate) fn name(&self) -> DatabaseName {
        self.name.lock().clone()
    }

    pub(crate) fn record(&self) -> Record {
        self.record.lock().clone()
    }

    pub(crate) fn rename(&self, name: DatabaseName, record: Record) {
        *self.name.lock() = name;
        *self.record.lock() = record;
    }

    /// Names that the catalog may have instead of [`name`](Self::name).
    pub(crate) fn former_names(&self) -> Vec<String> {
        self.record.lock().former_names.clone()
    }

    pub(crate) fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            state if state == State::Awake as u8 => State::Awake,
            state if state == State::Waking as u8 => State::Waking,
            _ => State::Asleep,
        }
    }

    pub(crate) fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Acquire)
    }

    /// Marks it as dropped, and ends what still runs in it.
    pub(crate) fn mark_dropped(&self) {
        self.dropped.store(true, Ordering::Release);
        if let Some(current) = &*self.current.lock() {
            current.cancel();
        }
    }

    /// The volume, if something has opened it.
    pub(crate) fn open_volume(&self) -> Option<Arc<Volume>> {
        self.volume.lock().clone()
    }

    /// The volume, opened if need be.
    pub(crate) fn volume(&self, node: &Node) -> Result<Arc<Volume>, PgError> {
        let mut volume = self.volume.lock();
        if let Some(volume) = &*volume {
            return Ok(Arc::clone(volume));
        }
        let opened = self
            .load_volume(node)
            .map_err(|error| volume_error(&error))?;
        opened.set_bytes_max(node.options.limits.volume_bytes_max);
        opened.set_relaxed(node.options.durability == Durability::Relaxed);
        let opened = Arc::new(opened);
        self.settle_base(node, &opened)?;
        *volume = Some(Arc::clone(&opened));
        Ok(opened)
    }

    fn load_volume(&self, node: &Node) -> volume::Result<Volume> {
        if Volume::exists(&node.volumes, self.id)? {
            return Volume::open(&node.volumes, self.id);
        }
        // No version of its own yet: it is its base, and what the journal holds.
        let base = self.record.lock().base();
        let base = node.volumes.base(base.ok_or(VolumeError::NotFound)?)?;
        Volume::create(&node.volumes, self.id, &base)
    }

    /// Writes into the directory what the volume is over, if that has changed: because it was shared,
    /// or because a crash came between sharing it and writing it down.
    pub(crate) fn settle_base(&self, node: &Node, volume: &Volume) -> Result<(), PgError> {
        let base = volume.base();
        let mut record = self.record.lock();
        if record.base() == Some(base.id()) {
            return Ok(());
        }
        let rebase = Rebase {
            before: node.chain(record.base())?,
            after: layers(&base),
        };
        let mut new = record.clone();
        new.layer = rebase.after.first().copied().map(directory::key);
        let unused = node.directory.rebase(&self.name(), &new, &rebase)?;
        *record = new;
        drop(record);
        node.remove_layers(&unused);
        Ok(())
    }

    /// Lets go of a volume that can flush no more; the next use opens its last durable state.
    pub(crate) fn abandon_volume(&self) {
        *self.volume.lock() = None;
    }

    /// Lets go of the volume, unless it has changes that are not on disk.
    pub(crate) fn close_volume(&self) {
        let mut volume = self.volume.lock();
        // Somebody who still has it may be about to write, as a fork does: a second one must not be
        // opened beside it.
        let alone = |volume: &Arc<Volume>| Arc::strong_count(volume) == 1;
        if volume
            .as_ref()
            .is_some_and(|volume| alone(volume) && (volume.is_pristine() || !volume.dirty()))
        {
            *volume = None;
        }
    }

    /// The error of one who waited too long.
    pub(crate) fn busy(&self, waited_ms: u128) -> PgError {
        let name = self.name();
        let holder = self
            .holder
            .lock()
            .clone()
            .unwrap_or_else(|| "another session".to_owned());
        PgError::fatal(
            sqlstate::TOO_MANY_CONNECTIONS,
            format!("database \"{name}\" is in use by {holder}"),
        )
        .detail(format!(
            "One session at a time uses a database. This one waited {waited_ms} ms (limit \
             sessions.wait_ms_max)."
        ))
        .hint("Close the other session, or raise sessions.wait_ms_max.")
    }

    pub(crate) fn dropped_error(&self) -> PgError {
        PgError::fatal(
            sqlstate::ADMIN_SHUTDOWN,
            format!("database \"{}\" has been dropped", self.name()),
        )
    }
}

/// The layers of a base, the topmost first.
pub(crate) fn layers(base: &Base) -> Vec<LayerId> {
    let mut layers = Vec::new();
    let mut at = Some(base);
    while let Some(base) = at {
        if let BaseId::Layer(layer) = base.id() {
            layers.push(layer);
        }
        at = base.below().map(|below| &**below);
    }
    layers
}

/// What a client is told of a volume's failure.
pub(crate) fn volume_error(error: &volume::VolumeError) -> PgError {
    use volume::VolumeError as E;
    let code = match error {
        E::NoSpace { .. } | E::DiskFull { .. } => sqlstate::DISK_FULL,
        E::FlushFailed { source, .. } => return volume_error(source),
        E::Corrupt { .. } => sqlstate::DATA_CORRUPTED,
        _ => sqlstate::IO_ERROR,
    };
    PgError::error(code, format!("the database's files: {error}"))
}
