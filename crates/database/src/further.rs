//! The further processes of a database: slots beside the first, for sessions that come while that is taken.
//!
//! The first slot wakes, sleeps and is kept in order. When a session finds it with another session, the
//! memory of its backend is shared, and a further process joins. They stay for other sessions until the
//! database sleeps.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use engine::{BackendLimits, SharedMemory};
use parking_lot::Mutex;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant as Deadline, timeout_at};
use wire::PgError;

use crate::database::Database;
use crate::node::Node;
use crate::seat::{Occupant, Seat};
use crate::slot::{Slot, no_backend, start_error};
use crate::upkeep::TELL_COUNTS;
use crate::wake::aside;

pub(crate) type Shelf = Arc<tokio::sync::Mutex<Slot>>;

/// How long a session keeps its process for itself, though it does nothing, if others could have one of
/// their own: longer than a client on the same machine takes from one statement to the next.
const STEAL_AFTER: Duration = Duration::from_millis(50);

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
    /// One for each session that may have a process, in the order in which they asked.
    permits: OnceLock<Arc<Semaphore>>,
}

impl Further {
    fn is_shared(&self) -> bool {
        self.shared.lock().is_some()
    }

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

    /// Shares the memory of the backend of the first slot, if it is not yet and can be.
    pub(crate) fn share(&self, slot: &mut Slot) {
        if slot.is_further || self.shared.lock().is_some() {
            return;
        }
        let Some(backend) = slot.backend.as_mut().filter(|backend| !backend.is_broken()) else {
            return;
        };
        let shared = backend.share_memory().inspect_err(|error| {
            tracing::warn!(%error, "memory is not shared");
        });
        self.publish(shared.ok());
    }

    /// What came of it.
    fn publish(&self, shared: Option<SharedMemory>) {
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
        let idle = self.slots.lock().iter().all(|slot| slot.try_lock().is_ok());
        self.freed();
        idle
    }

    /// Drops the processes, unless a session does something in one: whether they are gone. Sessions that are
    /// at rest take with them what they have there.
    pub(crate) async fn drop_idle(&self) -> bool {
        let (guards, all) = {
            let slots = self.slots.lock();
            let free = slots
                .iter()
                .filter_map(|slot| Arc::clone(slot).try_lock_owned().ok());
            (free.collect::<Vec<_>>(), slots.len())
        };
        if guards.len() < all {
            drop(guards);
            self.freed();
            return false;
        }
        for mut slot in guards {
            if let Err(error) = slot.vacate().await {
                tracing::warn!(%error, "a session is lost");
            }
            if let Some(backend) = slot.backend.take()
                && let Err(error) = backend.leave().await
            {
                tracing::warn!(%error, "a process did not end in good order");
            }
        }
        let mut slots = self.slots.lock();
        slots.retain(|slot| slot.try_lock().map_or(true, |slot| slot.backend.is_some()));
        if slots.is_empty() {
            // Nobody joins any more either.
            *self.shared.lock() = None;
        }
        slots.is_empty()
    }

    /// Makes the processes that no session is in tell the others what they have counted.
    ///
    /// # Errors
    /// What a process said; it is given up if it ended.
    pub(crate) async fn tell_counts(&self, database: &Database) -> Result<(), PgError> {
        let mut told = Ok(());
        for shelf in self.shelves() {
            let Ok(mut slot) = shelf.try_lock_owned() else {
                continue;
            };
            if slot.backend.is_some() && told.is_ok() {
                told = match slot.be_ours(database).await {
                    Ok(()) => slot.run(TELL_COUNTS).await,
                    Err(error) => Err(error),
                };
            }
        }
        self.freed();
        told
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
        let mut slots = self.slots.lock();
        for slot in slots.iter() {
            // A session that was in it may come back to it only much later.
            if let Ok(mut slot) = slot.try_lock() {
                slot.backend = None;
                slot.occupant = Occupant::default();
            }
        }
        slots.clear();
    }

    /// The slots beside the first.
    fn shelves(&self) -> Vec<Shelf> {
        self.slots.lock().clone()
    }

    /// Turns at the processes.
    fn permits(&self, max: usize) -> Arc<Semaphore> {
        let permits = self
            .permits
            .get_or_init(|| Arc::new(Semaphore::new(max.max(1))));
        Arc::clone(permits)
    }

    /// Adds a slot, taken, if there are fewer than `max`, with the memory that its process is to share.
    fn add(&self, max: usize) -> Option<(Shelf, OwnedMutexGuard<Slot>, SharedMemory)> {
        let mut slots = self.slots.lock();
        // As long as there is a slot, the database does not sleep.
        let shared = self.shared.lock().clone()?;
        // A process that ended has left its slot empty.
        slots.retain(|slot| slot.try_lock().map_or(true, |slot| slot.backend.is_some()));
        if slots.len() >= max {
            return None;
        }
        let slot = Shelf::new(tokio::sync::Mutex::new(Slot::further()));
        let taken = Arc::clone(&slot).try_lock_owned().ok()?;
        slots.push(Arc::clone(&slot));
        Some((slot, taken, shared))
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

/// A process for a session.
pub(crate) struct Taken {
    /// Its slot: that of the session's own process, or one to be vacated, or the first one, as it is.
    pub(crate) slot: OwnedMutexGuard<Slot>,
    pub(crate) shelf: Shelf,
    /// The session's turn, for as long as it has the process.
    pub(crate) permit: OwnedSemaphorePermit,
}

/// How good it is to take a slot, the best last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Choice {
    /// That of a session that used it a moment ago: better a further process, if there may be one.
    Busy(Reverse<Instant>),
    /// That of a session at rest.
    AtRest(Reverse<Instant>),
    /// Nobody's.
    Vacant,
    Own,
}

/// The best of the slots that nobody has; of the first, `first` if that was got by waiting for it.
fn choose(
    further: &Further,
    shelves: &[Shelf],
    mut first: Option<OwnedMutexGuard<Slot>>,
    seat: &Arc<Seat>,
) -> Option<(Choice, Shelf, OwnedMutexGuard<Slot>)> {
    let mut best: Option<(Choice, Shelf, OwnedMutexGuard<Slot>)> = None;
    let mut looked = 0;
    for shelf in shelves {
        let got = first.take();
        let Some(slot) = got.or_else(|| Arc::clone(shelf).try_lock_owned().ok()) else {
            continue;
        };
        looked += 1;
        let works = slot
            .backend
            .as_ref()
            .is_some_and(|backend| !backend.is_broken());
        if slot.is_further && !works {
            continue;
        }
        let choice = match slot.used_at {
            _ if works && slot.occupant.is(seat) => Choice::Own,
            Some(at) if works && !slot.occupant.is_none() => match at.elapsed() < STEAL_AFTER {
                true => Choice::Busy(Reverse(at)),
                false => Choice::AtRest(Reverse(at)),
            },
            _ => Choice::Vacant,
        };
        if best.as_ref().is_none_or(|(known, ..)| choice > *known) {
            best = Some((choice, Arc::clone(shelf), slot));
        }
    }
    if looked > 1 {
        // Who looked meanwhile has found them taken.
        further.freed();
    }
    best
}

/// A process for a session: its own if nobody has taken it, or one that nobody has, or else, in the order in
/// which sessions ask, what others let go of. `None` if there was none `until` then.
pub(crate) async fn take(
    node: &Arc<Node>,
    database: &Arc<Database>,
    seat: &Arc<Seat>,
    home: Option<&Shelf>,
    until: Deadline,
) -> Result<Option<Taken>, PgError> {
    let further = &database.further;
    let max = node.options.limits.processes_max;
    let permits = further.permits(max);
    let mut waiting = None;
    let permit = match Arc::clone(&permits).try_acquire_owned() {
        Ok(permit) => permit,
        Err(_) => {
            waiting = Some(database.want());
            match timeout_at(until, permits.acquire_owned()).await {
                Ok(Ok(permit)) => permit,
                Ok(Err(_)) | Err(_) => return Ok(None),
            }
        }
    };
    if let Some(shelf) = home {
        // Whoever has it now may only look at it, or be about to make the session leave it.
        let own = Arc::clone(shelf).lock_owned();
        let own = timeout_at(until, async {
            tokio::select! {
                biased;
                () = seat.left() => None,
                slot = own => Some(slot),
            }
        });
        let Ok(own) = own.await else {
            return Ok(None);
        };
        if let Some(slot) = own
            && slot.occupant.is(seat)
            && slot
                .backend
                .as_ref()
                .is_some_and(|backend| !backend.is_broken())
        {
            let shelf = Arc::clone(shelf);
            return Ok(Some(Taken {
                slot,
                shelf,
                permit,
            }));
        }
    }
    let mut wanting = None;
    let mut first = None;
    loop {
        let changed = further.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let mut shelves = vec![Arc::clone(&database.slot)];
        shelves.extend(further.shelves());
        let found = choose(further, &shelves, first.take(), seat);
        let may_join =
            max > 1 && !further.refused.load(Ordering::Acquire) && !node.admission.is_over();
        let found = match found {
            // Two that work at the same time had better have a process each.
            Some((Choice::Busy(_), shelf, mut slot)) if may_join && shelves.len() < max => {
                further.share(&mut slot);
                match further.is_shared() {
                    true => {
                        drop(slot);
                        match joined(node, database).await {
                            Some(found) => Some(found),
                            None => continue,
                        }
                    }
                    false => Some((shelf, slot)),
                }
            }
            Some((_, shelf, slot)) => Some((shelf, slot)),
            None if may_join && further.is_shared() => match shelves.len() < max {
                true => match joined(node, database).await {
                    Some(found) => Some(found),
                    None => continue,
                },
                false => None,
            },
            None if may_join => {
                if wanting.is_none() {
                    wanting = Some(Wanting::begin(further));
                }
                None
            }
            None => None,
        };
        if let Some((shelf, slot)) = found {
            return Ok(Some(Taken {
                slot,
                shelf,
                permit,
            }));
        }
        if waiting.is_none() {
            waiting = Some(database.want());
        }
        // The first slot may be with maintenance, which gives no sign when it leaves. Who has got it by
        // waiting keeps it: let go, it would be the next waiter's, and in the end nobody's.
        let waited = timeout_at(until, async {
            tokio::select! {
                slot = Arc::clone(&database.slot).lock_owned() => Some(slot),
                () = changed => None,
            }
        });
        match waited.await {
            Ok(got) => first = got,
            Err(_elapsed) => return Ok(None),
        }
    }
}

/// A further process; `None` if there can be none, which is not asked again then.
async fn joined(
    node: &Arc<Node>,
    database: &Arc<Database>,
) -> Option<(Shelf, OwnedMutexGuard<Slot>)> {
    let max = node.options.limits.processes_max.saturating_sub(1);
    let (shelf, slot, shared) = database.further.add(max)?;
    match join(node, database, slot, shared).await {
        Ok(slot) => Some((shelf, slot)),
        // Then it waits like others before it.
        Err(error) => {
            tracing::warn!(database = %database.name(), %error, "a process could not join");
            None
        }
    }
}

/// A slot that others are told of when it is let go, even by a task that nobody waits for any more.
pub(crate) struct Given {
    pub(crate) slot: Option<OwnedMutexGuard<Slot>>,
    pub(crate) database: Arc<Database>,
}

impl Drop for Given {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            drop(slot);
            self.database.further.freed();
        }
    }
}

/// Makes a process for a slot. If nobody waits for it any more when it is there, it is anybody's.
async fn join(
    node: &Arc<Node>,
    database: &Arc<Database>,
    slot: OwnedMutexGuard<Slot>,
    shared: SharedMemory,
) -> Result<OwnedMutexGuard<Slot>, PgError> {
    let volume = database.volume(node)?;
    let limits = BackendLimits {
        memory_bytes_max: node.options.limits.backend_memory_bytes_max,
    };
    let mut given = Given {
        slot: Some(slot),
        database: Arc::clone(database),
    };
    let (on, memory) = (Arc::clone(node), shared.clone());
    let joining = aside(async move {
        let joined = on
            .engine
            .join(&on.current.image, &memory, volume, limits)
            .await;
        let backend = joined.map_err(|error| start_error(&error))?;
        if let Some(slot) = &mut given.slot {
            slot.parameters = on.current.parameters.clone();
            slot.begin_further(backend);
        }
        Ok(given)
    });
    match joining.await {
        Ok(mut given) => given.slot.take().ok_or_else(no_backend),
        Err(error) => {
            // Memory that has gone meanwhile says nothing of what comes after it.
            if !shared.is_stopped() {
                database.further.refused.store(true, Ordering::Release);
            }
            Err(error)
        }
    }
}
