//! Who asks the origin for an answer that others want as well.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

use super::space::Key;

/// Questions that are under way, by what their answers will be found by.
#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<HashMap<Key, watch::Receiver<()>>>);

/// The first who asks. Dropped, the others go on.
#[derive(Debug)]
pub(crate) struct Flight {
    flights: Arc<Flights>,
    key: Key,
    _ends: watch::Sender<()>,
}

/// What somebody who wants an answer does.
pub(crate) enum Boarding {
    First(Flight),
    /// Waits for who asks already.
    Other(Waiting),
}

/// Ends when the first is done.
pub(crate) struct Waiting(watch::Receiver<()>);

impl Flights {
    pub(crate) fn board(self: &Arc<Self>, key: &Key) -> Boarding {
        let mut flights = self.0.lock();
        if let Some(first) = flights.get(key) {
            return Boarding::Other(Waiting(first.clone()));
        }
        let (ends, receiver) = watch::channel(());
        flights.insert(key.clone(), receiver);
        Boarding::First(Flight {
            flights: Arc::clone(self),
            key: key.clone(),
            _ends: ends,
        })
    }

    /// Whether somebody asks.
    pub(crate) fn is_under_way(&self, key: &Key) -> bool {
        self.0.lock().contains_key(key)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.flights.0.lock().remove(&self.key);
    }
}

impl Waiting {
    /// Waits for the first, but no longer than this: whether it is done.
    pub(crate) async fn within(mut self, max: Duration) -> bool {
        // Nothing is ever sent: it changes when the first is gone.
        timeout(max, self.0.changed()).await.is_ok()
    }
}
