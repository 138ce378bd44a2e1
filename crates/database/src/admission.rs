//! Admission: how many databases wake at once, and how many are awake.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};
use wire::{PgError, sqlstate};

use crate::counted::Counted;
use crate::options::Limits;

/// Turns are given in the order they were asked for.
pub(crate) struct Admission {
    awake_max: usize,
    wakes_max: usize,
    wait_max: Duration,
    memory_bytes_max: u64,
    awake: Arc<Semaphore>,
    waking: Semaphore,
    /// How many wait for room among the awake.
    waiting: AtomicUsize,
    /// Somebody began to wait for room.
    wanted: Notify,
    /// The process has more memory than it may.
    over: AtomicBool,
    /// It has no longer.
    relieved: Notify,
}

/// Room among the awake databases; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
}

/// A turn to wake; over when dropped.
pub(crate) struct Turn<'a> {
    _permit: SemaphorePermit<'a>,
}

impl Admission {
    pub(crate) fn new(limits: &Limits) -> Self {
        let awake_max = limits.awake_max.clamp(1, Semaphore::MAX_PERMITS);
        let wakes_max = limits.wakes().clamp(1, Semaphore::MAX_PERMITS);
        Self {
            awake_max,
            wakes_max,
            wait_max: limits.wake_wait_max,
            memory_bytes_max: limits.memory_bytes(),
            awake: Arc::new(Semaphore::new(awake_max)),
            waking: Semaphore::new(wakes_max),
            waiting: AtomicUsize::new(0),
            wanted: Notify::new(),
            over: AtomicBool::new(false),
            relieved: Notify::new(),
        }
    }

    /// Waits for room among the awake, and for a turn to wake.
    ///
    /// # Errors
    /// 53300 or 53200 after `databases.wake_wait_ms_max`; the error names the limit that was met.
    pub(crate) async fn enter(&self) -> Result<(Place, Turn<'_>), PgError> {
        let until = Instant::now() + self.wait_max;
        loop {
            let place = self.place(until).await?;
            let turn = self.turn(until).await?;
            // Those who had their turns meanwhile may have taken the memory.
            if !self.is_over() {
                return Ok((place, turn));
            }
        }
    }

    async fn turn(&self, until: Instant) -> Result<Turn<'_>, PgError> {
        let turn = timeout_at(until, self.waking.acquire()).await;
        let turn = turn.map_err(|_elapsed| {
            let wakes = self.wakes_max;
            self.too_late(
                sqlstate::TOO_MANY_CONNECTIONS,
                format!("too many databases are waking (limit databases.wakes_max = {wakes})"),
                "databases.wakes_max",
            )
        })?;
        let turn = turn.expect("BUG: the semaphore is never closed");
        Ok(Turn { _permit: turn })
    }

    async fn place(&self, until: Instant) -> Result<Place, PgError> {
        loop {
            // Made before the look, so that relief in between is not missed.
            let relieved = self.relieved.notified();
            if !self.over.load(Ordering::Acquire) {
                break;
            }
            self.wanted.notify_one();
            if timeout_at(until, relieved).await.is_err() {
                return Err(self.too_late(
                    sqlstate::OUT_OF_MEMORY,
                    format!(
                        "the node is out of memory (limit node.memory_bytes_max = {})",
                        self.memory_bytes_max
                    ),
                    "node.memory_bytes_max",
                ));
            }
        }
        if let Ok(permit) = Arc::clone(&self.awake).try_acquire_owned() {
            return Ok(Place { _permit: permit });
        }
        let _waiting = Counted::begin(&self.waiting);
        self.wanted.notify_one();
        let permit = timeout_at(until, Arc::clone(&self.awake).acquire_owned()).await;
        let permit = permit.map_err(|_elapsed| {
            let awake = self.awake_max;
            self.too_late(
                sqlstate::TOO_MANY_CONNECTIONS,
                format!("too many databases are awake (limit databases.awake_max = {awake})"),
                "databases.awake_max",
            )
        })?;
        let permit = permit.expect("BUG: the semaphore is never closed");
        Ok(Place { _permit: permit })
    }

    fn too_late(&self, code: &str, message: String, limit: &str) -> PgError {
        PgError::fatal(code, message)
            .detail(format!(
                "The database waited {} ms for its turn to wake (limit databases.wake_wait_ms_max), \
                 and no quiet database could be put to sleep for it.",
                self.wait_max.as_millis()
            ))
            .hint(format!("Try again later, or raise {limit}."))
    }

    /// Whether a database wakes at this moment.
    pub(crate) fn is_waking(&self) -> bool {
        self.waking.available_permits() < self.wakes_max
    }

    /// A session has left its database, which may go to sleep if others want the room.
    pub(crate) fn left(&self) {
        if self.wanting() > 0 || self.is_over() {
            self.wanted.notify_one();
        }
    }

    /// How many databases must go to sleep for those who wait to get room.
    pub(crate) fn wanting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Waits until somebody wants room.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Says whether the process has more memory than it may: nobody wakes until it has not.
    pub(crate) fn set_over(&self, over: bool) {
        if self.over.swap(over, Ordering::AcqRel) && !over {
            self.relieved.notify_waiters();
        }
    }

    /// The limit `node.memory_bytes_max`.
    pub(crate) fn memory_bytes_max(&self) -> u64 {
        self.memory_bytes_max
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(awake_max: usize, wakes_max: usize) -> Admission {
        Admission::new(&Limits {
            awake_max,
            wakes_max,
            wake_wait_max: Duration::from_millis(50),
            ..Limits::default()
        })
    }

    #[tokio::test]
    async fn the_error_names_the_limit() {
        let admission = admission(2, 1);
        let (_place, turn) = admission.enter().await.unwrap();
        let error = admission.enter().await.err().unwrap();
        assert!(error.message().contains("databases.wakes_max = 1"));
        drop(turn);
        let (_second, turn) = admission.enter().await.unwrap();
        drop(turn);
        let error = admission.enter().await.err().unwrap();
        assert_eq!(error.code(), sqlstate::TOO_MANY_CONNECTIONS);
        assert!(error.message().contains("databases.awake_max = 2"));
        assert_eq!(admission.wanting(), 0);
    }

    #[tokio::test]
    async fn nobody_wakes_while_memory_is_short() {
        let admission = Arc::new(admission(2, 2));
        admission.set_over(true);
        let error = admission.enter().await.err().unwrap();
        assert_eq!(error.code(), sqlstate::OUT_OF_MEMORY);
        let waiting = tokio::spawn({
            let admission = Arc::clone(&admission);
            async move { admission.enter().await.map(drop) }
        });
        admission.wanted().await;
        admission.set_over(false);
        waiting.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn memory_is_looked_at_again_when_a_turn_comes() {
        let admission = Arc::new(admission(3, 1));
        let (_place, turn) = admission.enter().await.unwrap();
        let queued = tokio::spawn({
            let admission = Arc::clone(&admission);
            async move { admission.enter().await.map(drop) }
        });
        while admission.awake.available_permits() > 1 {
            tokio::task::yield_now().await;
        }
        admission.set_over(true);
        drop(turn);
        let error = queued.await.unwrap().unwrap_err();
        assert_eq!(error.code(), sqlstate::OUT_OF_MEMORY);
        assert_eq!(admission.awake.available_permits(), 2);
    }

    #[tokio::test]
    async fn turns_come_in_order() {
        let admission = Arc::new(admission(100, 1));
        let (_place, turn) = admission.enter().await.unwrap();
        let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for n in 0..20 {
            let (admission, order) = (Arc::clone(&admission), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                let entered = admission.enter().await.unwrap();
                order.lock().push(n);
                drop(entered);
            }));
            // Each has asked before the next one does.
            tokio::task::yield_now().await;
        }
        drop(turn);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock(), (0..20).collect::<Vec<_>>());
    }
}
