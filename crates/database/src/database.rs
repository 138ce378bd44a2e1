//! One database: what is known of it while it sleeps, and what it has while it is awake.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use parking_lot::Mutex;
use volume::{DatabaseId, Volume};
use wire::{DatabaseName, PgError, sqlstate};

use crate::databases::{Node, State};
use crate::directory::Record;
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
        let opened = Arc::new(opened);
        *volume = Some(Arc::clone(&opened));
        Ok(opened)
    }

    fn load_volume(&self, node: &Node) -> volume::Result<Volume> {
        let directory = node.volumes_directory();
        if Volume::exists(&directory, self.id)? {
            return Volume::open(&directory, self.id, &|id| node.template(id));
        }
        // Nothing of its own yet: it is its template.
        let template = self
            .record
            .lock()
            .template()
            .ok_or(volume::VolumeError::NotFound)?;
        Volume::create(&directory, self.id, node.template(template)?)
    }

    /// Lets go of the volume, unless it has changes that are not on disk.
    pub(crate) fn close_volume(&self) {
        let mut volume = self.volume.lock();
        if volume
            .as_ref()
            .is_some_and(|volume| volume.is_pristine() || !volume.dirty())
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

/// What a client is told of a volume's failure.
pub(crate) fn volume_error(error: &volume::VolumeError) -> PgError {
    use volume::VolumeError as E;
    let code = match error {
        E::NoSpace { .. } => sqlstate::DISK_FULL,
        E::Corrupt { .. } => sqlstate::DATA_CORRUPTED,
        _ => sqlstate::IO_ERROR,
    };
    PgError::error(code, format!("the database's files: {error}"))
}
