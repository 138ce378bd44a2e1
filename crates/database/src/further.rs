//! The further processes of a database: slots beside the first, for sessions that come while that is taken.
//!
//! The first slot wakes, sleeps and is kept in order. When a session finds it with another session, the
//! memory of its backend is shared, and a further process joins. They stay for other sessions until the
//! database sleeps; those beyond the usual number go when nobody needs them.

mod given;
mod taking;
mod turns;

pub(crate) use given::Given;
pub(crate) use taking::{Taken, process, take};
use turns::Turns;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use engine::{BackendError, Company, Interrupter, SharedMemory};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedMutexGuard};
use wire::PgError;

use crate::counted::Counted;
use crate::database::Database;
use crate::seat::Occupant;
use crate::slot::Slot;
use crate::upkeep::TELL_COUNTS;

pub(crate) type Shelf = Arc<tokio::sync::Mutex<Slot>>;

/// What a database has beside its first slot.
#[derive(Default)]
pub(crate) struct Further {
    slots: Mutex<Vec<Shelf>>,
    shared: Mutex<Option<SharedMemory>>,
    /// How many wait for the memory to be shared.
    wanting: AtomicUsize,
    asked: Notify,
    /// The backend of the session that has the first slot, or had it last.
    first: Mutex<Option<Interrupter>>,
    /// It cannot be shared, or no process can join; when that was found.
    refused: Mutex<Option<Instant>>,
    /// A slot is free, or memory is shared.
    changed: Notify,
    /// One for each session that may have a process, in the order in which they asked.
    turns: OnceLock<Turns>,
    /// When it was last tried to do with fewer.
    retired_at: Mutex<Option<Instant>>,
}

/// Those who want to come in beside a session of a database.
pub(crate) struct Beside(pub(crate) Weak<Database>);

impl Company for Beside {
    fn is_wanted(&self) -> bool {
        let database = self.0.upgrade();
        database.is_some_and(|database| database.further.is_asked())
    }

    fn come(&self, shared: Result<SharedMemory, BackendError>) {
        if let Some(database) = self.0.upgrade() {
            database.further.publish(shared);
        }
    }
}

/// How long nobody tries again to have a further process where that has failed.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// Time between two processes that go because nobody needs them any more.
const RETIRE_PAUSE: Duration = Duration::from_millis(500);

impl Further {
    /// How long nobody tries yet to have a further process, as it has failed.
    fn refused_for(&self) -> Option<Duration> {
        let refused = *self.refused.lock();
        refused.and_then(|at| REFUSED_FOR.checked_sub(at.elapsed()))
    }

    fn refuse(&self) {
        *self.refused.lock() = Some(Instant::now());
    }

    /// Whether the session that has the first slot is to share its backend's memory.
    pub(crate) fn is_asked(&self) -> bool {
        self.wanting.load(Ordering::Acquire) > 0
            && self.refused_for().is_none()
            && self.shared.lock().is_none()
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
            tokio::select! {
                () = asked => {}
                () = lapsed(self.refused_for()) => {}
            }
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
        self.publish(backend.share_memory());
    }

    /// What came of it.
    fn publish(&self, shared: Result<SharedMemory, BackendError>) {
        let shared = shared.inspect_err(|error| {
            tracing::warn!(%error, "memory is not shared");
            self.refuse();
        });
        *self.shared.lock() = shared.ok();
        self.changed.notify_waiters();
    }

    /// A session has got the first slot, with this backend.
    pub(crate) fn has_first(&self, interrupter: Interrupter) {
        *self.first.lock() = Some(interrupter);
    }

    /// Asks whoever has the first slot to share its backend's memory, also in the middle of a statement; `_wanting`
    /// is for as long as somebody wants that.
    fn ask(&self, _wanting: &Counted) {
        self.asked.notify_waiters();
        // After it was counted: who gets the slot later looks at that.
        if let Some(first) = &*self.first.lock() {
            first.ask_to_share();
        }
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
            slot.leave().await;
        }
        let mut slots = self.slots.lock();
        prune(&mut slots);
        if slots.is_empty() {
            // Nobody joins any more either.
            *self.shared.lock() = None;
            if let Some(turns) = self.turns.get() {
                turns.shrink(usize::MAX);
            }
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

    /// Whether there are more turns or processes than sessions need at most times, and it is time that one
    /// goes: whoever is told so lets it [retire](Self::retire).
    pub(crate) fn is_one_to_retire(&self) -> bool {
        let Some(turns) = self.turns.get() else {
            return false;
        };
        if !turns.are_many() && !is_surplus(&self.slots.lock(), turns) {
            return false;
        }
        let mut retired_at = self.retired_at.lock();
        // They may be wanted again in a moment.
        if retired_at.is_some_and(|at| at.elapsed() < RETIRE_PAUSE) {
            return false;
        }
        *retired_at = Some(Instant::now());
        true
    }

    /// Gives back one turn and one process of those that there are beyond the usual, if nobody has them.
    pub(crate) async fn retire(&self) {
        let Some(turns) = self.turns.get() else {
            return;
        };
        turns.shrink(1);
        let slot = {
            let mut slots = self.slots.lock();
            prune(&mut slots);
            let surplus = is_surplus(&slots, turns);
            let free = slots.iter().rev().filter(|_| surplus);
            free.filter_map(|slot| Arc::clone(slot).try_lock_owned().ok())
                .next()
        };
        if let Some(mut slot) = slot {
            slot.leave().await;
            drop(slot);
            let mut slots = self.slots.lock();
            prune(&mut slots);
        }
        self.freed();
    }

    /// Ends all processes that share memory, the first too: none of them runs any more when this returns.
    pub(crate) async fn end(&self) {
        self.stop();
        let shared = self.shared.lock().take();
        *self.refused.lock() = None;
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

    /// Turns at the processes, `usual` of them at first.
    fn turns(&self, usual: usize) -> &Turns {
        self.turns.get_or_init(|| Turns::new(usual))
    }

    /// Whether processes share memory, and none of them has ended in the middle of something.
    pub(crate) fn goes_on(&self) -> bool {
        self.running().is_some()
    }

    /// The memory of processes that go on.
    pub(crate) fn running(&self) -> Option<SharedMemory> {
        let shared = self.shared.lock().clone();
        shared.filter(|shared| !shared.is_stopped())
    }

    /// Adds a slot, taken, if there are fewer than `max`, with the memory that its process is to share.
    fn add(&self, max: usize) -> Option<(Shelf, OwnedMutexGuard<Slot>, SharedMemory)> {
        let mut slots = self.slots.lock();
        // As long as there is a slot, the database does not sleep.
        let shared = self.shared.lock().clone()?;
        prune(&mut slots);
        // Who looked meanwhile has found them taken.
        self.freed();
        if slots.len() >= max {
            return None;
        }
        let slot = Shelf::new(tokio::sync::Mutex::new(Slot::further()));
        let taken = Arc::clone(&slot).try_lock_owned().ok()?;
        slots.push(Arc::clone(&slot));
        Some((slot, taken, shared))
    }
}

/// Whether there are more processes, the first with them, than turns.
fn is_surplus(slots: &[Shelf], turns: &Turns) -> bool {
    slots.len() + 1 > turns.count()
}

/// Drops the slots whose process has ended.
fn prune(slots: &mut Vec<Shelf>) {
    slots.retain(|slot| slot.try_lock().map_or(true, |slot| slot.works()));
}

/// Waits for a time that has an end.
async fn lapsed(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}
