//! The further processes of a database: slots beside the first, for sessions that come while that is taken.
//!
//! The first slot wakes, sleeps and is kept in order. When a session finds it with another session, the
//! memory of its backend is shared, and a further process joins. They stay for other sessions until the
//! database sleeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use engine::{BackendLimits, SharedMemory};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedMutexGuard};
use tokio::time::{Instant, timeout_at};
use wire::PgError;

use crate::database::Database;
use crate::node::Node;
use crate::slot::{Slot, start_error};
use crate::wake::aside;

type Shelf = Arc<tokio::sync::Mutex<Slot>>;

/// What a database has beside its first slot.
#[derive(Default)]
pub(crate) struct Further {
    slots: Mutex<Vec<Shelf>>,
    shared: Mutex<Option<SharedMemory>>,
    /// How many wait for the memory to be shared.
    wanting: AtomicUsize,
    asked: Notify,
    /// It cannot be shared, until the next wake.
    refused: AtomicBool,
    /// A slot is free, or memory is shared.
    changed: Notify,
}

impl Further {
    /// Whether the session that has the first slot is to share its backend's memory.
    pub(crate) fn is_asked(&self) -> bool {
        self.wanting.load(Ordering::Acquire) > 0 && self.shared.lock().is_none()
    }

    /// Waits until that is so.
    pub(crate) async fn asked(&self) {
        loop {
            let asked = self.asked.notified();
            tokio::pin!(asked);
            asked.as_mut().enable();
            if self.is_asked() {
                return;
            }
            asked.await;
        }
    }

    /// What came of it.
    pub(crate) fn publish(&self, shared: Option<SharedMemory>) {
        if shared.is_none() {
            self.refused.store(true, Ordering::Release);
        }
        *self.shared.lock() = shared;
        self.changed.notify_waiters();
    }

    /// A session has left its slot.
    pub(crate) fn freed(&self) {
        self.changed.notify_waiters();
    }

    /// Whether no session has one of the slots.
    pub(crate) fn is_idle(&self) -> bool {
        self.slots.lock().iter().all(|slot| slot.try_lock().is_ok())
    }

    /// Drops the processes, unless a session has one: whether they are gone.
    pub(crate) fn drop_idle(&self) -> bool {
        let mut slots = self.slots.lock();
        let guards: Vec<_> = slots
            .iter()
            .filter_map(|slot| Arc::clone(slot).try_lock_owned().ok())
            .collect();
        if guards.len() < slots.len() {
            return false;
        }
        for mut slot in guards {
            slot.backend = None;
        }
        slots.clear();
        true
    }

    /// Ends all processes that share memory, the first too: none of them runs any more when this returns.
    pub(crate) async fn end(&self) {
        self.stop();
        let shared = self.shared.lock().take();
        self.refused.store(false, Ordering::Release);
        if let Some(shared) = shared {
            shared.stopped().await;
        }
    }

    /// Ends them without waiting: the first one is lost, and the others are nothing without it.
    pub(crate) fn stop(&self) {
        if let Some(shared) = &*self.shared.lock() {
            shared.stop();
        }
        self.slots.lock().clear();
    }

    /// A slot of a process that works and that nobody has.
    fn free(&self) -> Option<OwnedMutexGuard<Slot>> {
        let slots = self.slots.lock();
        slots.iter().find_map(|slot| {
            let slot = Arc::clone(slot).try_lock_owned().ok()?;
            let works = slot
                .backend
                .as_ref()
                .is_some_and(|backend| !backend.is_broken());
            works.then_some(slot)
        })
    }

    /// Adds a slot, taken, if there are fewer than `max`.
    fn add(&self, max: usize) -> Option<OwnedMutexGuard<Slot>> {
        let mut slots = self.slots.lock();
        // A process that ended has left its slot empty.
        slots.retain(|slot| slot.try_lock().map_or(true, |slot| slot.backend.is_some()));
        if slots.len() >= max {
            return None;
        }
        let slot = Shelf::new(tokio::sync::Mutex::new(Slot::further()));
        let taken = Arc::clone(&slot).try_lock_owned().ok()?;
        slots.push(slot);
        Some(taken)
    }
}

/// Counts one who waits for shared memory.
struct Wanting<'a>(&'a Further);

impl<'a> Wanting<'a> {
    fn begin(further: &'a Further) -> Self {
        further.wanting.fetch_add(1, Ordering::AcqRel);
        further.asked.notify_waiters();
        Self(further)
    }
}

impl Drop for Wanting<'_> {
    fn drop(&mut self) {
        self.0.wanting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A slot for a session: the first one, as it is, or one with a process that works. `None` if there was none
/// `until` then.
pub(crate) async fn take(
    node: &Arc<Node>,
    database: &Arc<Database>,
    until: Instant,
) -> Result<Option<OwnedMutexGuard<Slot>>, PgError> {
    let further = &database.further;
    let processes_max = node.options.limits.processes_max;
    let mut wanting = None;
    loop {
        let changed = further.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if let Ok(slot) = Arc::clone(&database.slot).try_lock_owned() {
            return Ok(Some(slot));
        }
        if let Some(slot) = further.free() {
            return Ok(Some(slot));
        }
        let may_join = processes_max > 1
            && !further.refused.load(Ordering::Acquire)
            && !node.admission.is_over();
        if may_join {
            let shared = further.shared.lock().clone();
            match shared {
                Some(shared) => {
                    if let Some(slot) = further.add(processes_max - 1) {
                        match join(node, database, slot, shared).await {
                            Ok(slot) => return Ok(Some(slot)),
                            // Then it waits like others before it.
                            Err(error) => tracing::warn!(
                                database = %database.name(), %error, "a process could not join"
                            ),
                        }
                        continue;
                    }
                }
                None if wanting.is_none() => wanting = Some(Wanting::begin(further)),
                None => {}
            }
        }
        // The first slot may be with maintenance, which gives no sign when it leaves.
        let first = Arc::clone(&database.slot).lock_owned();
        let waited = timeout_at(until, async {
            tokio::select! {
                slot = first => Some(slot),
                () = changed => None,
            }
        });
        match waited.await {
            Ok(Some(slot)) => return Ok(Some(slot)),
            Ok(None) => {}
            Err(_elapsed) => return Ok(None),
        }
    }
}

/// Makes a process for a slot.
async fn join(
    node: &Arc<Node>,
    database: &Arc<Database>,
    mut slot: OwnedMutexGuard<Slot>,
    shared: SharedMemory,
) -> Result<OwnedMutexGuard<Slot>, PgError> {
    let volume = database.volume(node)?;
    let limits = BackendLimits {
        memory_bytes_max: node.options.limits.backend_memory_bytes_max,
    };
    let on = Arc::clone(node);
    let joining = aside(async move {
        let joined = on
            .engine
            .join(&on.current.image, &shared, volume, limits)
            .await;
        joined.map_err(|error| start_error(&error))
    });
    match joining.await {
        Ok(backend) => {
            slot.parameters = node.current.parameters.clone();
            slot.backend = Some(backend);
            Ok(slot)
        }
        Err(error) => {
            database.further.refused.store(true, Ordering::Release);
            Err(error)
        }
    }
}
