//! A session's seat: what is kept of it while another session may have its process.

use std::sync::Arc;

use engine::SessionState;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Where what a session has of its own is now.
#[derive(Debug, Default)]
enum Kept {
    /// In the process that it had last.
    #[default]
    Seated,
    /// Here: it has no process.
    Away(SessionState),
    /// Nowhere: its process ended.
    Lost,
}

/// What is kept of a session.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    kept: Mutex<Kept>,
    /// It is not in its process any more.
    left: Notify,
}

impl Seat {
    /// A new session has nothing yet.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            kept: Mutex::new(Kept::Away(SessionState::default())),
            left: Notify::new(),
        })
    }

    fn set(&self, kept: Kept) {
        *self.kept.lock() = kept;
        self.left.notify_waiters();
    }

    /// Whether what it has is in the process that it had last.
    fn is_seated(&self) -> bool {
        matches!(*self.kept.lock(), Kept::Seated)
    }

    /// Waits until what it has is not in its process any more.
    pub(crate) async fn left(&self) {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if !self.is_seated() {
                return;
            }
            left.await;
        }
    }

    /// What it brought to a process that has ended since, before it was the session's.
    pub(crate) fn put_back(&self, state: SessionState) {
        self.set(Kept::Away(state));
    }

    /// What it brings to another process; `None` if that is lost.
    pub(crate) fn take(&self) -> Option<SessionState> {
        let mut kept = self.kept.lock();
        match std::mem::replace(&mut *kept, Kept::Seated) {
            Kept::Away(state) => Some(state),
            Kept::Seated | Kept::Lost => {
                *kept = Kept::Lost;
                None
            }
        }
    }
}

/// The session that a process is one of, though it may do nothing there now.
///
/// If the process ends with a session in it, what the session had there is lost.
#[derive(Debug, Default)]
pub(crate) struct Occupant(Option<Arc<Seat>>);

impl Occupant {
    pub(crate) fn of(seat: &Arc<Seat>) -> Self {
        Self(Some(Arc::clone(seat)))
    }

    pub(crate) fn is(&self, seat: &Arc<Seat>) -> bool {
        self.0.as_ref().is_some_and(|own| Arc::ptr_eq(own, seat))
    }

    pub(crate) fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// The session goes, and takes with it what it has.
    pub(crate) fn leave(&mut self, state: SessionState) {
        if let Some(seat) = self.0.take() {
            seat.set(Kept::Away(state));
        }
    }

    /// The session has ended.
    pub(crate) fn forget(&mut self) {
        self.0 = None;
    }
}

impl Drop for Occupant {
    fn drop(&mut self) {
        if let Some(seat) = &self.0 {
            seat.set(Kept::Lost);
        }
    }
}
