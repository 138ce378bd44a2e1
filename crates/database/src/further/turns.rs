//! Turns at the processes of a database, in the order in which sessions ask.
//!
//! There are as many as sessions that work beside each other can use, and more once nobody gives one back: the
//! sessions that have them are in the middle of transactions then, and may be waiting for those who wait.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How long nobody who waits has got a turn when there is to be one more.
const STALLED: Duration = Duration::from_millis(10);

pub(super) struct Turns {
    semaphore: Arc<Semaphore>,
    /// How many there are at first.
    usual: usize,
    /// How many there are.
    count: AtomicUsize,
    /// How many have been taken by those who waited.
    taken: AtomicU64,
    grown_at: Mutex<Option<Instant>>,
    /// With who looks whether it stalls, of those who wait.
    looking: tokio::sync::Mutex<()>,
}

impl Turns {
    pub(super) fn new(usual: usize) -> Self {
        Self {
            semaphore: Arc::new(Semaphore::new(usual)),
            usual,
            count: AtomicUsize::new(usual),
            taken: AtomicU64::new(0),
            grown_at: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// One that is free, if nobody waits for it.
    pub(super) fn try_take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.semaphore).try_acquire_owned().ok()
    }

    /// Waits for one; there may be `max` of them, as long as `may_grow`.
    pub(super) async fn take(
        &self,
        max: usize,
        may_grow: impl Fn() -> bool,
    ) -> OwnedSemaphorePermit {
        let mut taking = pin!(Arc::clone(&self.semaphore).acquire_owned());
        let taken = tokio::select! {
            biased;
            taken = &mut taking => taken,
            _looking = self.looking.lock() => loop {
                let seen = self.taken.load(Ordering::Acquire);
                match timeout(STALLED, &mut taking).await {
                    Ok(taken) => break taken,
                    Err(_stalled) if may_grow() => self.grow(max, seen),
                    Err(_stalled) => {}
                }
            },
        };
        self.taken.fetch_add(1, Ordering::AcqRel);
        taken.expect("BUG: nobody closes the semaphore")
    }

    /// Makes one more, unless somebody has got one since `seen`, or one was made a moment ago.
    fn grow(&self, max: usize, seen: u64) {
        let mut grown_at = self.grown_at.lock();
        let recent = grown_at.is_some_and(|at| at.elapsed() < STALLED);
        if recent || self.count() >= max || self.taken.load(Ordering::Acquire) != seen {
            return;
        }
        *grown_at = Some(Instant::now());
        self.count.fetch_add(1, Ordering::AcqRel);
        self.semaphore.add_permits(1);
    }

    /// Whether there are more than at first.
    pub(super) fn are_many(&self) -> bool {
        self.count() > self.usual
    }

    /// Takes back those that are more than at first and that nobody has, at most so many.
    pub(super) fn shrink(&self, most: usize) {
        let _growing = self.grown_at.lock();
        let more = self.count().saturating_sub(self.usual).min(most);
        let gone = self.semaphore.forget_permits(more);
        self.count.fetch_sub(gone, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn there_is_one_more_when_nobody_gives_one_back() {
        let turns = Turns::new(2);
        let held = (turns.try_take().unwrap(), turns.try_take().unwrap());
        assert!(turns.try_take().is_none());
        let third = turns.take(3, || true).await;
        assert_eq!(turns.count(), 3);
        let fourth = timeout(10 * STALLED, turns.take(3, || true));
        assert!(fourth.await.is_err());
        assert_eq!(turns.count(), 3);
        assert!(turns.are_many());
        drop(held);
        turns.shrink(usize::MAX);
        assert_eq!(turns.count(), 2);
        drop(third);
        let again = (turns.try_take().unwrap(), turns.try_take().unwrap());
        assert!(turns.try_take().is_none());
        drop(again);
    }

    #[tokio::test]
    async fn those_who_wait_keep_their_order_and_their_number() {
        let turns = Arc::new(Turns::new(1));
        let mut running = Vec::new();
        let order = Arc::new(Mutex::new(Vec::new()));
        let held = turns.try_take().unwrap();
        for number in 0..3 {
            let (turns, order) = (Arc::clone(&turns), Arc::clone(&order));
            running.push(tokio::spawn(async move {
                let turn = turns.take(9, || false).await;
                order.lock().push(number);
                drop(turn);
            }));
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(10 * STALLED).await;
        assert!(order.lock().is_empty());
        drop(held);
        for one in running {
            one.await.unwrap();
        }
        assert_eq!(*order.lock(), [0, 1, 2]);
        assert_eq!(turns.count(), 1);
    }
}
