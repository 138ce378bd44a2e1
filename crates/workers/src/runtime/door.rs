//! The way to a process: its socket, and who is on the way.
//!
//! A process that is told to end closes connections on which no request has begun, also one on which a request is just
//! being written. So it is told only when nobody holds a lease of its door any more.

use super::supervisor::Socket;
use parking_lot::Mutex;
use std::{path::Path, sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::timeout};

/// The right to use a socket: as long as it is held, the process behind is not asked to end, up to `drain_max`.
#[derive(Debug, Clone)]
pub struct Lease {
    path: Arc<Path>,
    _held: mpsc::Sender<()>,
}

impl Lease {
    /// The path of the Unix socket that HTTP/1.1 is spoken on.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The door that is used for what comes next.
#[derive(Debug, Clone)]
pub(super) struct Entrance(Arc<Mutex<Lease>>);

impl Entrance {
    pub(super) fn lease(&self) -> Lease {
        self.0.lock().clone()
    }

    /// Leads to another door from now on. The entrance's own lease of the old one ends here.
    pub(super) fn lead_to(&self, lease: Lease) {
        *self.0.lock() = lease;
    }

    /// Leads nowhere: to a name without a socket.
    pub(super) fn close(&self) {
        let (held, _) = mpsc::channel(1);
        self.lead_to(Lease {
            path: Path::new("/nonexistent").into(),
            _held: held,
        });
    }
}

/// A socket and the end of its leases.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) socket: Socket,
    released: mpsc::Receiver<()>,
}

impl Door {
    /// A door and its first lease.
    pub(super) fn new(socket: Socket) -> (Self, Lease) {
        let (held, released) = mpsc::channel(1);
        let lease = Lease {
            path: socket.path().into(),
            _held: held,
        };
        (Self { socket, released }, lease)
    }

    /// Waits until nobody holds a lease, for a time at most.
    pub(super) async fn released(&mut self, at_most: Duration) {
        if timeout(at_most, self.released.recv()).await.is_err() {
            tracing::debug!("leases of a backend's socket outlive its time to drain");
        }
    }
}

impl From<Lease> for Entrance {
    fn from(lease: Lease) -> Self {
        Self(Arc::new(Mutex::new(lease)))
    }
}
