//! How a stop goes: those who do nothing leave at once, those at work get some time.

use std::future::Future;

use tokio::sync::watch;

/// How far a stop has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    Draining,
    Cancelling,
}

/// Tells every connection how far a stop has come.
#[derive(Debug)]
pub(crate) struct Shutdown(watch::Sender<Phase>);

/// A connection's view of it.
#[derive(Debug, Clone)]
pub(crate) struct Stopping(watch::Receiver<Phase>);

impl Shutdown {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Phase::Running))
    }

    pub(crate) fn stopping(&self) -> Stopping {
        Stopping(self.0.subscribe())
    }

    /// From now on no new work is begun.
    pub(crate) fn drain(&self) {
        self.0.send_replace(Phase::Draining);
    }

    /// From now on running work is cancelled.
    pub(crate) fn cancel(&self) {
        self.0.send_replace(Phase::Cancelling);
    }
}

impl Stopping {
    /// Waits until no new work may begin.
    pub(crate) fn draining(&self) -> impl Future<Output = ()> + Send + use<> {
        self.reaches(Phase::Draining)
    }

    /// Waits until running work is to be cancelled.
    pub(crate) fn cancelling(&self) -> impl Future<Output = ()> + Send + use<> {
        self.reaches(Phase::Cancelling)
    }

    /// Whether no new work may begin.
    pub(crate) fn is_draining(&self) -> bool {
        *self.0.borrow() >= Phase::Draining
    }

    fn reaches(&self, phase: Phase) -> impl Future<Output = ()> + Send + use<> {
        let mut receiver = self.0.clone();
        async move {
            // An error means that the server is gone altogether.
            let _ = receiver.wait_for(|now| *now >= phase).await;
        }
    }
}
