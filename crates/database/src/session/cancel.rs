//! Cancelling what a session runs or waits for, from anywhere.

use std::sync::Arc;
use std::time::Duration;

use engine::Interrupter;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::pulse::Beats;

/// Time that a cancelled statement has to end before its backend is stopped
/// (`backend.cancel_grace_ms`).
const CANCEL_GRACE: Duration = Duration::from_secs(10);

/// What a session has to do with a process now.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Of the process that it has.
    interrupter: Mutex<Option<Interrupter>>,
    /// Somebody cancelled its wait for one.
    cancelled: Notify,
    /// Of what it runs.
    pub(super) beats: Beats,
}

impl Line {
    /// The session has a process from now on, or none any more.
    pub(super) fn set(&self, interrupter: Option<Interrupter>) {
        *self.interrupter.lock() = interrupter;
    }

    /// Waits until a wait is cancelled.
    pub(super) async fn cancelled(&self) {
        self.cancelled.notified().await;
    }
}

/// Cancels what a session runs, from anywhere.
#[derive(Debug, Clone)]
pub struct Canceller {
    pub(super) line: Arc<Line>,
    /// How often the backend was entered and left: odd while a statement of the session runs.
    pub(super) runs: watch::Receiver<u64>,
}

impl Canceller {
    /// Ends the statement that runs now, or waits to run, with 57014; does nothing if there is none. A
    /// backend that does not react is stopped after a while.
    pub fn cancel(&self) {
        // As long as this is held, the session keeps its process: no other one is meant.
        let line = self.line.interrupter.lock();
        let Some(interrupter) = line.clone() else {
            self.line.cancelled.notify_waiters();
            return;
        };
        if !self.is_running() {
            return;
        }
        let run = *self.runs.borrow();
        interrupter.cancel();
        drop(line);
        let cancelled = self.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let ended = cancelled.left(run);
                if tokio::time::timeout(CANCEL_GRACE, ended).await.is_err() {
                    tracing::error!("a cancelled statement did not end; its backend is stopped");
                    interrupter.stop();
                }
            });
        }
    }

    /// Ends the backend under the session at its next loop or call, whatever it does: its client
    /// is told 57P02, and the next session gets a fresh backend. For what ignores
    /// [`cancel`](Self::cancel).
    pub fn stop(&self) {
        if let Some(interrupter) = &*self.line.interrupter.lock() {
            interrupter.stop();
        }
    }

    /// Whether a statement of the session runs.
    pub(crate) fn is_running(&self) -> bool {
        !self.runs.borrow().is_multiple_of(2)
    }

    /// How often its process was given a thread, and gave it back.
    pub(crate) fn beats(&self) -> u64 {
        self.line.beats.now()
    }

    /// Whether the session has a process: it runs something, or is in a transaction, or bound.
    pub(crate) fn has_process(&self) -> bool {
        self.line.interrupter.lock().is_some()
    }

    /// Waits until the statement that runs now has ended.
    pub(crate) async fn ended(&self) {
        let run = *self.runs.borrow();
        self.left(run).await;
    }

    /// Waits until nothing runs, or something else than at `run`.
    async fn left(&self, run: u64) {
        let mut runs = self.runs.clone();
        // A session that is gone has ended too.
        let _gone = runs
            .wait_for(|now| now.is_multiple_of(2) || *now != run)
            .await;
    }
}
