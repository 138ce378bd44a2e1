//! A backend that others may interrupt.

use std::sync::Arc;

use crate::host::Interrupt;

/// Interrupts a backend from anywhere.
#[derive(Debug, Clone)]
pub struct Interrupter(pub(super) Arc<Interrupt>);

impl Interrupter {
    /// Waits until another process has sent a signal, or something is asked from outside.
    pub async fn asked(&self) {
        self.0.asked().await;
    }

    /// Asks the statement that runs now to end with 57014. A backend that runs none is told at
    /// its next statement; see
    /// [`Backend::clear_cancel`](super::Backend::clear_cancel).
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// Asks the statement that runs to share the backend's memory, if its
    /// [company](super::Backend::expect) still wants that when it comes to it. It is not ended by this.
    pub fn ask_to_share(&self) {
        self.0.ask_to_share();
    }

    /// Ends the backend at its next loop or call, whatever it does: for one that ignored
    /// [`cancel`](Self::cancel).
    pub fn stop(&self) {
        self.0.stop();
    }
}
