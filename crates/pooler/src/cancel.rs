//! Cancelling what a client's server does, and nobody else's.
//!
//! Each cancellation is a connection to the origin of its own, encrypted like that of the server that it is for. A client
//! has one at a time, and a pool as many as `cancels_max`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use crate::connect::{self, CancelKey};
use crate::options::PoolOptions;

/// Cancels what a client's statement does, from anywhere.
#[derive(Debug, Clone, Default)]
pub struct Canceller(Arc<Slot>);

#[derive(Debug, Default)]
struct Slot {
    state: Mutex<State>,
    done: Notify,
    /// Held by the cancellation of this client that is next.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Of the server that the client has at the moment.
    key: Option<Arc<CancelKey>>,
    /// How many servers it has had: another each time, also if it is the same one again.
    number: u64,
    /// Requests that are on their way to it.
    under_way: usize,
    /// For how many things the client waits, one of them for the sake of another, with what it has asked unsent.
    waits: usize,
    /// Its wait is to end, with what it has asked.
    is_cancelled: bool,
}

/// A client waits for something before what it has asked is sent: a cancellation is of what it has asked.
#[derive(Debug)]
pub(crate) struct Waiting(Arc<Slot>);

/// The cancellations of a pool.
#[derive(Debug)]
pub(crate) struct Cancels {
    places: Semaphore,
    max: usize,
    within: Duration,
    sent: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    unsent: AtomicU64,
}

impl Cancels {
    pub(crate) fn new(options: &PoolOptions) -> Self {
        Self {
            places: Semaphore::new(options.cancels_max),
            max: options.cancels_max,
            within: options.cancel_max,
            sent: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unsent: AtomicU64::new(0),
        }
    }

    /// How many the origin took, how many it did not, how many had no place, and how many were of what was not sent yet.
    pub(crate) fn counts(&self) -> [u64; 4] {
        [&self.sent, &self.failed, &self.refused, &self.unsent]
            .map(|count| count.load(Ordering::Relaxed))
    }

    /// What a client has asked was cancelled before the origin heard of it.
    pub(crate) fn cancelled_unsent(&self) {
        self.unsent.fetch_add(1, Ordering::Relaxed);
    }

    /// Cancels what this server does, within a time at most.
    ///
    /// # Errors
    ///
    /// If there is no place in that time, or the origin does not take note.
    pub(crate) async fn cancel(&self, key: &CancelKey, within: Duration) -> io::Result<()> {
        let until = Instant::now() + within.min(self.within);
        let _place = self.place(until).await?;
        self.send(key, until).await
    }

    /// A place among the connections that cancel.
    async fn place(&self, until: Instant) -> io::Result<SemaphorePermit<'_>> {
        match timeout_at(until, self.places.acquire()).await {
            Ok(place) => place.map_err(io::Error::other),
            Err(_) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Err(io::Error::other(format!(
                    "{} cancellations are on their way to the origin already, as many as cancels_max allows",
                    self.max
                )))
            }
        }
    }

    async fn send(&self, key: &CancelKey, until: Instant) -> io::Result<()> {
        let sent = timeout_at(until, connect::cancel(key)).await;
        let sent = sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let count = match sent {
            Ok(()) => &self.sent,
            Err(_) => &self.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
        sent
    }
}

impl Canceller {
    /// Cancels what the client's server does, or what the client waits to ask one; nothing if it asks for nothing.
    pub async fn cancel(&self) {
        self.end_wait();
        let Some((cancels, number)) = self.cancels() else {
            return;
        };
        if let Err(error) = self.cancel_among(&cancels, number).await {
            tracing::warn!(%error, "a statement could not be cancelled at the origin");
        }
    }

    fn end_wait(&self) {
        let mut state = self.0.state.lock();
        if state.waits > 0 {
            state.is_cancelled = true;
            self.0.done.notify_waiters();
        }
    }

    /// The client begins to wait for something.
    pub(crate) fn waits(&self) -> Waiting {
        self.0.state.lock().waits += 1;
        Waiting(Arc::clone(&self.0))
    }

    async fn cancel_among(&self, cancels: &Cancels, number: u64) -> io::Result<()> {
        let until = Instant::now() + cancels.within;
        let Ok(_turn) = timeout_at(until, self.0.turn.lock()).await else {
            cancels.refused.fetch_add(1, Ordering::Relaxed);
            return Err(io::Error::other(
                "an earlier cancellation of the same client is still on its way",
            ));
        };
        let _place = cancels.place(until).await?;
        // By now the client may have none any more, or another, or the same one for another transaction.
        let key = {
            let mut state = self.0.state.lock();
            let Some(key) = state.key.clone().filter(|_| state.number == number) else {
                return Ok(());
            };
            state.under_way += 1;
            key
        };
        let _under_way = UnderWay(&self.0);
        cancels.send(&key, until).await
    }

    /// Those of the pool whose server the client has, and which of its servers that is.
    fn cancels(&self) -> Option<(Arc<Cancels>, u64)> {
        let state = self.0.state.lock();
        let cancels = state.key.as_ref()?.cancels.as_ref()?;
        Some((Arc::clone(cancels), state.number))
    }

    /// The client has this server now.
    pub(crate) fn has(&self, key: Arc<CancelKey>) {
        let mut state = self.0.state.lock();
        state.key = Some(key);
        state.number += 1;
    }

    /// The client has none any more: waits until no request is on its way there, that would hit the next client.
    pub(crate) async fn has_none(&self) {
        {
            let mut state = self.0.state.lock();
            state.key = None;
            if state.under_way == 0 {
                return;
            }
        }
        self.0.until(|state| state.under_way == 0).await;
    }
}

impl Slot {
    /// Waits until something is so.
    async fn until(&self, is_so: impl Fn(&State) -> bool) {
        loop {
            let done = self.done.notified();
            {
                if is_so(&self.state.lock()) {
                    return;
                }
            }
            done.await;
        }
    }
}

impl Waiting {
    /// Ends when the wait is cancelled.
    pub(crate) async fn cancelled(&self) {
        self.0.until(|state| state.is_cancelled).await;
    }

    /// Whether it was.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.state.lock().is_cancelled
    }

    /// It waits no longer: whether it was cancelled. What comes from here on goes to the server that it has.
    pub(crate) fn ends(self) -> bool {
        self.is_cancelled()
    }
}

/// A cancellation is of what it has met, and of nothing that the client asks later.
impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.waits -= 1;
        state.is_cancelled &= state.waits > 0;
    }
}

/// Also if who asked for it has left.
struct UnderWay<'a>(&'a Slot);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.state.lock().under_way -= 1;
        self.0.done.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_place_nothing_is_sent() {
        let cancels = Cancels::new(&PoolOptions {
            cancels_max: 1,
            ..PoolOptions::default()
        });
        let held = cancels.place(Instant::now()).await.unwrap();
        let refused = cancels.place(Instant::now()).await.unwrap_err();
        assert!(refused.to_string().contains("cancels_max"), "{refused}");
        assert_eq!(cancels.counts(), [0, 0, 1, 0]);
        drop(held);
        assert!(cancels.place(Instant::now()).await.is_ok());
    }
}
