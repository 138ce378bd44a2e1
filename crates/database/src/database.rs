//! One database: what is known of it while it sleeps, and what it has while it is awake.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use engine::Interrupter;
use parking_lot::Mutex;
use tokio::sync::Notify;
use volume::{Base, BaseId, DatabaseId, LayerId, Volume, VolumeError};
use wire::{DatabaseName, PgError, sqlstate};

use crate::counted::Counted;
use crate::directory::{self, Rebase};
use crate::figures::Figures;
use crate::further::Further;
use crate::info::State;
use crate::node::Node;
use crate::options::Durability;
use crate::record::{Record, Settings};
use crate::refusal::Refused;
use crate::session::{Canceller, Pulse};
use crate::slot::Slot;
use crate::versions::Running;

/// A database that somebody has to do with; see [`Live`](crate::live::Live).
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
    /// What is counted of it.
    pub(crate) figures: Figures,
    /// Its further processes.
    pub(crate) further: Further,
    /// The sessions in it, the first to come first.
    pub(crate) sessions: Mutex<Vec<Present>>,
    /// The exchanges that are under way, and who reads the log along.
    pub(crate) running: Running,
    /// LSN of the last checkpoint; 0 for not known.
    checkpoint_at: AtomicU64,
    /// What was refused to the session that has the slot.
    refused: Mutex<Option<Refused>>,
    /// How many sessions wait for the slot.
    wanted: AtomicUsize,
    /// One more waits.
    asked: Notify,
    /// A session has ended.
    left: Notify,
    /// Cancels the maintenance that has the slot.
    upkeep: Mutex<Option<Interrupter>>,
}

/// A session in a database.
pub(crate) struct Present {
    pub(crate) id: u64,
    pub(crate) origin: String,
    pub(crate) canceller: Canceller,
}

impl Database {
    /// # Errors
    /// XX001 if the record cannot be a database's.
    pub(crate) fn new(name: DatabaseName, record: Record) -> Result<Self, PgError> {
        let id = record.id().ok_or_else(|| {
            PgError::fatal(
                sqlstate::DATA_CORRUPTED,
                format!("the directory of databases: \"{name}\" has no id"),
            )
        })?;
        Ok(Self {
            id,
            record: Mutex::new(record),
            name: Mutex::new(name),
            state: AtomicU8::new(State::Asleep as u8),
            dropped: AtomicBool::new(false),
            slot: Arc::default(),
            volume: Mutex::new(None),
            figures: Figures::default(),
            further: Further::default(),
            sessions: Mutex::default(),
            running: Running::default(),
            checkpoint_at: AtomicU64::new(0),
            refused: Mutex::new(None),
            wanted: AtomicUsize::new(0),
            asked: Notify::new(),
            left: Notify::new(),
            upkeep: Mutex::new(None),
        })
    }

    /// Says that a session waits for the slot: maintenance that has it is to leave.
    pub(crate) fn want(&self) -> Counted<'_> {
        let wanting = Counted::begin(&self.wanted);
        self.asked.notify_waiters();
        if let Some(upkeep) = &*self.upkeep.lock() {
            upkeep.cancel();
        }
        wanting
    }

    /// A checkpoint was made, or what a start does is as good as one.
    pub(crate) fn checkpointed(&self, volume: &Volume) {
        self.checkpoint_at
            .store(volume.wal_end(), Ordering::Release);
    }

    /// Bytes of WAL since the last checkpoint.
    pub(crate) fn wal_since_checkpoint(&self, volume: &Volume) -> u64 {
        let end = volume.wal_end();
        // The WAL of a new database begins where the template's ends.
        let first =
            self.checkpoint_at
                .compare_exchange(0, end, Ordering::AcqRel, Ordering::Acquire);
        match first {
            Ok(_unknown) => 0,
            Err(at) => end.saturating_sub(at),
        }
    }

    /// Writes down why the statement that runs is to fail.
    pub(crate) fn refuse(&self, refused: Refused) {
        *self.refused.lock() = Some(refused);
    }

    /// What was refused since this was last asked.
    pub(crate) fn take_refused(&self) -> Option<Refused> {
        let refused = self.refused.lock().take();
        refused.or_else(|| {
            let volume = self.volume.lock();
            volume.as_ref()?.take_refusal().map(Refused::Room)
        })
    }

    /// Whether a session waits for the slot.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire) > 0
    }

    /// Waits until a session waits for the slot.
    pub(crate) async fn wanted(&self) {
        loop {
            let asked = self.asked.notified();
            tokio::pin!(asked);
            asked.as_mut().enable();
            if self.is_wanted() {
                return;
            }
            asked.await;
        }
    }

    /// A session has ended.
    pub(crate) fn session_left(&self) {
        self.left.notify_waiters();
    }

    /// Waits until there is no session.
    pub(crate) async fn without_sessions(&self) {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if self.sessions.lock().is_empty() {
                return;
            }
            left.await;
        }
    }

    /// Says how the maintenance that has the slot is cancelled, or that none has it.
    pub(crate) fn set_upkeep(&self, interrupter: Option<Interrupter>) {
        *self.upkeep.lock() = interrupter;
    }

    /// Whether it has anything in memory beside its record.
    pub(crate) fn has_something(&self) -> bool {
        self.state() != State::Asleep || self.volume.lock().is_some()
    }

    pub(crate) fn name(&self) -> DatabaseName {
        self.name.lock().clone()
    }

    pub(crate) fn record(&self) -> Record {
        self.record.lock().clone()
    }

    /// Gives it a name, with the record that `change` makes, and writes down, of the one that it has.
    pub(crate) fn rename(
        &self,
        name: &DatabaseName,
        change: impl FnOnce(Record) -> Result<Record, PgError>,
    ) -> Result<(), PgError> {
        let mut record = self.record.lock();
        *record = change(record.clone())?;
        *self.name.lock() = name.clone();
        Ok(())
    }

    /// Bytes of its backend's address space; 0 when asleep or busy.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let slot = self.slot.try_lock().ok();
        let backend = slot.as_ref().and_then(|slot| slot.backend.as_ref());
        backend.map_or(0, |backend| backend.memory_bytes() as u64)
    }

    /// Names that the catalog may have instead of [`name`](Self::name).
    pub(crate) fn former_names(&self) -> Vec<String> {
        self.record.lock().former_names.clone()
    }

    pub(crate) fn state(&self) -> State {
        State::from_number(self.state.load(Ordering::Acquire))
    }

    /// The settings of this database alone.
    pub(crate) fn settings(&self) -> Settings {
        self.record.lock().settings
    }

    /// Replaces its settings, in the directory too. Blocks for the disk.
    pub(crate) fn set_settings(
        &self,
        node: &Node,
        change: impl FnOnce(Settings) -> Result<Settings, PgError>,
    ) -> Result<(), PgError> {
        let mut record = self.record.lock();
        let mut new = record.clone();
        new.settings = change(record.settings)?;
        node.directory.update(&new)?;
        *record = new;
        drop(record);
        if let Some(volume) = self.open_volume() {
            self.limit(node, &volume);
        }
        Ok(())
    }

    /// Tells the volume what holds for it.
    pub(crate) fn limit(&self, node: &Node, volume: &Volume) {
        volume.set_bytes_max(self.bytes_max(node));
        // In the background versions are written from half of that on.
        let dirty_bytes_max = node.adjustable.dirty_bytes_max.get();
        volume.set_dirty_bytes_max(dirty_bytes_max.saturating_mul(2));
        volume.set_relaxed(self.durability(node) == Durability::Relaxed);
    }

    /// Bytes past which it does not grow.
    pub(crate) fn bytes_max(&self, node: &Node) -> u64 {
        let own = self.settings().bytes_max;
        own.unwrap_or_else(|| node.adjustable.volume_bytes_max.get())
    }

    /// What its acknowledged commits have reached.
    pub(crate) fn durability(&self, node: &Node) -> Durability {
        self.settings()
            .durability
            .unwrap_or_else(|| node.adjustable.durability.get())
    }

    /// Whether the host maintains it.
    pub(crate) fn is_maintained(&self, node: &Node) -> bool {
        self.settings()
            .maintenance
            .unwrap_or_else(|| node.adjustable.maintenance.get())
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
        for session in &*self.sessions.lock() {
            session.canceller.cancel();
        }
    }

    /// The volume, if something has opened it.
    pub(crate) fn open_volume(&self) -> Option<Arc<Volume>> {
        self.volume.lock().clone()
    }

    /// The volume, if something has opened it and nobody is about to change that: for who can look again.
    pub(crate) fn volume_now(&self) -> Option<Arc<Volume>> {
        self.volume.try_lock()?.clone()
    }

    /// The volume, opened if need be.
    pub(crate) fn volume(&self, node: &Node) -> Result<Arc<Volume>, PgError> {
        let mut volume = self.volume.lock();
        if let Some(volume) = &*volume {
            return Ok(Arc::clone(volume));
        }
        if self.is_dropped() {
            return Err(self.dropped_error());
        }
        let opened = self.load_volume(node).map_err(|error| {
            if matches!(error, VolumeError::Fenced { .. }) {
                self.set_state(State::Fenced);
            }
            volume_error(&error)
        })?;
        self.limit(node, &opened);
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
        let unused = node.directory.rebase(&new, rebase)?;
        *record = new;
        drop(record);
        node.remove_garbage(&unused);
        Ok(())
    }

    /// Lets go of the volume, whoever else has it: it is written no more. The next use opens its last
    /// durable state. Waits for a flush that is under way.
    pub(crate) fn abandon_volume(&self) {
        self.running.end_tracker();
        let mut volume = self.volume.lock();
        if let Some(volume) = volume.take() {
            volume.retire();
        }
    }

    /// Whether it has a volume that can flush no more, and so must be opened anew.
    pub(crate) fn volume_is_broken(&self) -> bool {
        self.open_volume().is_some_and(|volume| volume.is_broken())
    }

    /// Writes what the journal holds of it anew at the journal's end, though it cannot be opened: whether
    /// that was to be done.
    pub(crate) fn carry_log(&self, node: &Node, bytes_max: u64) -> Result<bool, PgError> {
        // Nobody may open it meanwhile, and write in between.
        let volume = self.volume.lock();
        if volume.is_some() || self.is_dropped() {
            return Ok(false);
        }
        let carried = volume::carry_log(&node.volumes, self.id, bytes_max);
        carried.map_err(|error| volume_error(&error))?;
        Ok(true)
    }

    /// Lets go of the volume, unless it has changes that are not on disk: whether it is closed.
    pub(crate) fn close_volume(&self) -> bool {
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
        volume.is_none()
    }

    /// Who is in it, for those who wait: the first to have come of those who have a process.
    pub(crate) fn holder(&self) -> Option<String> {
        let sessions = self.sessions.lock();
        let holder = sessions
            .iter()
            .find(|session| session.canceller.has_process())
            .or_else(|| sessions.first());
        holder.map(|session| session.origin.clone())
    }

    /// The statements that run in it.
    pub(crate) fn running(&self) -> Vec<Canceller> {
        let sessions = self.sessions.lock();
        let cancellers = sessions.iter().map(|session| session.canceller.clone());
        cancellers.filter(Canceller::is_running).collect()
    }

    /// How the sessions are that run statements.
    pub(crate) fn pulse(&self) -> Pulse {
        let sessions = self.sessions.lock();
        let running = sessions
            .iter()
            .filter(|session| session.canceller.is_running());
        Pulse::new(
            running
                .map(|session| (session.id, session.canceller.beats()))
                .collect(),
        )
    }

    /// The error of one who waited too long.
    pub(crate) fn busy(&self, waited_ms: u128) -> PgError {
        let name = self.name();
        let holder = self
            .holder()
            .unwrap_or_else(|| "another session".to_owned());
        PgError::fatal(
            sqlstate::TOO_MANY_CONNECTIONS,
            format!("database \"{name}\" is in use by {holder}"),
        )
        .detail(format!(
            "All its processes (limit databases.processes_max) run statements, or are kept by sessions that \
             are in a transaction or have temporary tables, session locks, LISTEN or cursors WITH HOLD. This \
             one waited {waited_ms} ms (limit sessions.wait_ms_max)."
        ))
        .hint("Shorten transactions, or raise databases.processes_max or sessions.wait_ms_max.")
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
        E::Fenced { .. } => sqlstate::CANNOT_CONNECT_NOW,
        _ => sqlstate::IO_ERROR,
    };
    PgError::error(code, format!("the database's files: {error}"))
}
