//! The processes of one running database: backends that share Postgres' shared memory.
//!
//! Each is an instance of its own, with memory of its own but for the pages that Postgres shares. Postgres'
//! spinlocks and atomics are plain loads and stores in this build, so:
//!
//! Invariants
//! 1. Only who has the *turn* runs the guest, or looks at its memory. It is given back between calls of the
//!    host, while the guest waits for a latch, and, where Postgres counts no reason not to be interrupted, while it
//!    waits for time or for its client, and when it has had the turn for long and others want it: there it holds
//!    no lightweight lock.
//! 2. So nobody ever waits for a lightweight lock or a spinlock, whose waits are stubs in this build.
//! 3. Whoever is dropped in the middle of a call has left the shared memory in the middle of something: nobody gets a
//!    turn any more, as when a process of a server crashes.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedMutexGuard};

use crate::backend::ServerExit;
use crate::host::Interrupt;
use crate::memory::SharedPages;
use crate::rewrite::SENT;

/// How long a process runs while others want the turn.
const TURN: Duration = Duration::from_millis(5);

/// What the processes of one database have in common.
#[derive(Debug)]
pub(crate) struct Processes {
    pages: SharedPages,
    running: Arc<tokio::sync::Mutex<()>>,
    /// How many wait for the turn.
    wanting: AtomicUsize,
    /// Those who wait for a latch, each with its address.
    waiting: Mutex<Vec<(u32, Arc<Notify>)>>,
    interrupts: Mutex<HashMap<u32, Arc<Interrupt>>>,
    next_id: AtomicU32,
    crashed: AtomicBool,
    /// How many have not left in good order.
    living: AtomicUsize,
    server_exit: ServerExit,
}

impl Processes {
    pub(crate) fn new(pages: SharedPages, server_exit: ServerExit) -> Self {
        Self {
            pages,
            running: Arc::default(),
            wanting: AtomicUsize::new(0),
            waiting: Mutex::default(),
            interrupts: Mutex::default(),
            // The first has the number that the build gives every process.
            next_id: AtomicU32::new(crate::landmarks::GETPID),
            crashed: AtomicBool::new(false),
            living: AtomicUsize::new(0),
            server_exit,
        }
    }

    /// Nobody gets a turn any more.
    pub(crate) fn stop(&self) {
        self.crashed.store(true, Ordering::Release);
        for interrupt in self.interrupts.lock().values() {
            interrupt.stop();
        }
        self.wake(|_| true);
    }

    /// Wakes those who wait for one of these latches.
    fn wake(&self, which: impl Fn(u32) -> bool) {
        for (latch, waiter) in &*self.waiting.lock() {
            if which(*latch) {
                waiter.notify_one();
            }
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.crashed.load(Ordering::Acquire)
    }

    /// Waits until nobody has one.
    pub(crate) async fn stopped(&self) {
        drop(self.running.lock().await);
    }

    pub(crate) fn pages(&self) -> &SharedPages {
        &self.pages
    }
}

/// A backend among the others.
#[derive(Debug)]
pub(crate) struct Process {
    id: u32,
    of: Arc<Processes>,
    turn: Option<(OwnedMutexGuard<()>, Duration)>,
    /// A call of its guest is under way, with the turn or waiting.
    pub(crate) in_call: bool,
    role: Role,
}

/// What a process' end means to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It can go without them, in good order.
    OneOfMany,
    /// Nobody shares its memory any more: its end is the server's.
    Last,
    Gone,
}

/// Another process crashed while it had the turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crashed;

impl Process {
    pub(crate) fn new(of: &Arc<Processes>, interrupt: &Arc<Interrupt>) -> Self {
        let id = of.next_id.fetch_add(1, Ordering::AcqRel);
        of.interrupts.lock().insert(id, Arc::clone(interrupt));
        of.living.fetch_add(1, Ordering::AcqRel);
        Self {
            id,
            of: Arc::clone(of),
            turn: None,
            in_call: false,
            role: Role::OneOfMany,
        }
    }

    /// Postgres has ended it in good order: the others go on without it.
    pub(crate) fn exited(&mut self) {
        if self.role == Role::OneOfMany {
            self.role = Role::Gone;
            self.in_call = false;
            self.give_turn();
            self.of.living.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Whether it [has exited](Self::exited), and nothing has stopped the others.
    pub(crate) fn has_left(&self) -> bool {
        self.role == Role::Gone && !self.is_crashed()
    }

    /// Whether nothing of any other process is in the shared memory.
    pub(crate) fn is_alone(&self) -> bool {
        self.of.living.load(Ordering::Acquire) == 1 && self.role != Role::Gone
    }

    /// Makes one that is alone the one whose end is the server's: whether it was not before.
    pub(crate) fn become_last(&mut self) -> bool {
        std::mem::replace(&mut self.role, Role::Last) == Role::OneOfMany
    }

    /// What the server's end has to do beside a process'.
    pub(crate) fn server_exit(&self) -> &ServerExit {
        &self.of.server_exit
    }

    /// Where the shared memory is.
    pub(crate) fn shared(&self) -> &[Range<usize>] {
        self.of.pages.ranges()
    }

    /// Whether no process gets a turn any more.
    pub(crate) fn is_crashed(&self) -> bool {
        self.of.crashed.load(Ordering::Acquire)
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Gives it another number.
    pub(crate) fn rename(&mut self, id: u32) {
        let mut interrupts = self.of.interrupts.lock();
        if let Some(interrupt) = interrupts.remove(&self.id) {
            interrupts.insert(id, interrupt);
        }
        self.id = id;
    }

    /// Its guest is in a call that began before it was a process among others: it has the turn, which nobody else can
    /// have had yet.
    pub(crate) fn goes_on(&mut self, now: Duration) {
        self.in_call = true;
        if let Ok(turn) = Arc::clone(&self.of.running).try_lock_owned() {
            self.turn = Some((turn, now));
        }
    }

    /// Waits for the turn; `now` is when it begins, asked for once it is there.
    pub(crate) async fn take_turn(&mut self, now: impl Fn() -> Duration) -> Result<(), Crashed> {
        if self.turn.is_none() {
            let running = Arc::clone(&self.of.running);
            let turn = match Arc::clone(&running).try_lock_owned() {
                Ok(turn) => turn,
                Err(_) => {
                    let _wanting = Wanting::begin(&self.of.wanting);
                    running.lock_owned().await
                }
            };
            self.turn = Some((turn, now()));
        }
        if self.of.crashed.load(Ordering::Acquire) {
            self.turn = None;
            return Err(Crashed);
        }
        Ok(())
    }

    /// Gives the turn back: whether it had it.
    pub(crate) fn give_turn(&mut self) -> bool {
        let had = self.turn.is_some();
        if had {
            // While nobody else can have it: latches change only with the turn.
            self.of
                .wake(|latch| self.of.pages.word(latch).is_some_and(|set| set != 0));
            self.turn = None;
        }
        had
    }

    /// Enters this one among those who wait for a latch. To be called with the turn, when the latch has been
    /// found not set: whoever sets it wakes this one when it gives the turn back.
    pub(crate) fn wait_for(&self, latch: u32) -> Waiting {
        let waiter = Arc::new(Notify::new());
        self.of.waiting.lock().push((latch, Arc::clone(&waiter)));
        if self.of.crashed.load(Ordering::Acquire) {
            waiter.notify_one();
        }
        Waiting {
            waiter,
            of: Arc::clone(&self.of),
        }
    }

    /// Whether others want the turn that this one has had for long.
    pub(crate) fn should_yield(&self, now: Duration) -> bool {
        let long = self
            .turn
            .as_ref()
            .is_some_and(|(_, since)| now.saturating_sub(*since) >= TURN);
        long && self.of.wanting.load(Ordering::Acquire) > 0
    }

    /// Sends a signal to another process: whether there is one of that number.
    pub(crate) fn signal(&self, id: u32, signal: i32) -> bool {
        let interrupts = self.of.interrupts.lock();
        let Some(interrupt) = interrupts.get(&id) else {
            return false;
        };
        // Of others Postgres asks only whether the process is there.
        if let Some((bit, _)) = SENT.iter().find(|(_, number)| *number == signal) {
            interrupt.send(*bit as u32);
        }
        true
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.of.interrupts.lock().remove(&self.id);
        // One that is dropped without a word has left its traces in what is shared.
        if self.turn.is_some() || self.in_call || self.role == Role::OneOfMany {
            // Those who wait, or do nothing, are told at once.
            self.of.stop();
        }
        self.give_turn();
    }
}

/// One who waits for a latch, for as long as it does.
#[derive(Debug)]
pub(crate) struct Waiting {
    waiter: Arc<Notify>,
    of: Arc<Processes>,
}

impl Waiting {
    /// Waits until the latch was set, or nobody gets a turn any more.
    pub(crate) async fn woken(&self) {
        self.waiter.notified().await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiting = self.of.waiting.lock();
        waiting.retain(|(_, waiter)| !Arc::ptr_eq(waiter, &self.waiter));
    }
}

/// Counts one who wants the turn.
struct Wanting<'a>(&'a AtomicUsize);

impl<'a> Wanting<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Wanting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
