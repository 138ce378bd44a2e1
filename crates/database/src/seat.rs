//! A session's seat: what is kept of it while another session may have its process.

use std::sync::Arc;

use engine::SessionState;
use parking_lot::Mutex;

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
pub(crate) struct Seat(Mutex<Kept>);

impl Seat {
    /// A new session has nothing yet.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Kept::Away(SessionState::default()))))
    }

    fn put_away(&self, state: SessionState) {
        *self.0.lock() = Kept::Away(state);
    }

    /// What it brings to another process; `None` if that is lost.
    pub(crate) fn take(&self) -> Option<SessionState> {
        let mut kept = self.0.lock();
        match std::mem::take(&mut *kept) {
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
            seat.put_away(state);
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
            *seat.0.lock() = Kept::Lost;
        }
    }
}
