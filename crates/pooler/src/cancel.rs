//! Cancelling what a client's server does, and nobody else's.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::connect::{self, CancelKey};

/// How long a server may take to hear of it.
const WITHIN: Duration = Duration::from_secs(10);

/// Cancels what a client's statement does, from anywhere.
#[derive(Debug, Clone, Default)]
pub struct Canceller(Arc<Slot>);

#[derive(Debug, Default)]
struct Slot {
    state: Mutex<State>,
    done: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Of the server that the client has at the moment.
    key: Option<Arc<CancelKey>>,
    /// Requests that are on their way to it.
    under_way: usize,
}

impl Canceller {
    /// Cancels what the client's server does; nothing if it has none.
    pub async fn cancel(&self) {
        let key = {
            let mut state = self.0.state.lock();
            let Some(key) = state.key.clone() else {
                return;
            };
            state.under_way += 1;
            key
        };
        let under_way = UnderWay(&self.0);
        if let Err(error) = connect::cancel(&key, WITHIN).await {
            tracing::warn!(%error, "a statement could not be cancelled at the origin");
        }
        drop(under_way);
    }

    /// The client has this server now.
    pub(crate) fn has(&self, key: Arc<CancelKey>) {
        self.0.state.lock().key = Some(key);
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
        loop {
            let done = self.0.done.notified();
            {
                if self.0.state.lock().under_way == 0 {
                    return;
                }
            }
            done.await;
        }
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
