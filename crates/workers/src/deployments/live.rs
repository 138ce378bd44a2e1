//! What serves of an app now.

use crate::{
    Refusal,
    runtime::{Lease, Log, Program, Running, Standing, Supervisor},
    store::Version,
};
use parking_lot::Mutex;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// What serves of an app now; nothing until somebody asks for it.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// Held by whoever changes it, which may take seconds; requests go on meanwhile.
    pub(super) changing: tokio::sync::Mutex<()>,
    now: Mutex<Now>,
    failed: Mutex<Option<Failed>>,
}

/// A start that came to nothing: until some time nobody tries again.
#[derive(Debug)]
struct Failed {
    until: Instant,
    /// How long it was, up to then.
    pause: Duration,
    refusal: Refusal,
    /// Which says why, each time; it goes on with what starts at last.
    log: Arc<Log>,
}

#[derive(Debug, Default)]
struct Now {
    version: Option<Arc<Version>>,
    running: Option<Arc<Running>>,
}

/// What runs next.
#[derive(Debug)]
pub(super) enum Next {
    /// No backend.
    Nothing,
    /// One that was started.
    Started(Running),
    /// The same one, which has been exchanged.
    Same,
}

impl Live {
    pub(super) fn version(&self) -> Option<Arc<Version>> {
        self.now.lock().version.clone()
    }

    pub(super) fn lease(&self) -> Option<Lease> {
        Some(self.now.lock().running.as_ref()?.lease())
    }

    pub(super) fn running(&self) -> Option<Arc<Running>> {
        self.now.lock().running.clone()
    }

    pub(super) fn log(&self) -> Option<Arc<Log>> {
        if let Some(running) = &self.now.lock().running {
            return Some(Arc::clone(running.log()));
        }
        Some(Arc::clone(&self.failed.lock().as_ref()?.log))
    }

    pub(super) fn standing(&self) -> Option<Standing> {
        Some(self.now.lock().running.as_ref()?.standing())
    }

    /// Why it does not start, if that was seen a moment ago.
    pub(super) fn failed_lately(&self) -> Option<Refusal> {
        let failed = self.failed.lock();
        let failed = failed
            .as_ref()
            .filter(|failed| Instant::now() < failed.until);
        failed.map(|failed| failed.refusal.clone())
    }

    /// A version does not start: the pause until the next try doubles with each, from the supervisor's shortest to its longest.
    pub(super) fn failed(&self, version: u64, refusal: Refusal, supervisor: &Supervisor) {
        let (shortest, longest) = supervisor.pauses();
        let mut failed = self.failed.lock();
        let (pause, log) = match &*failed {
            Some(before) => ((before.pause * 2).min(longest), Arc::clone(&before.log)),
            None => (shortest, supervisor.new_log()),
        };
        log.say(
            version,
            format!("version {version} does not start: {refusal}"),
        );
        *failed = Some(Failed {
            until: Instant::now() + pause,
            pause,
            refusal,
            log,
        });
    }

    pub(super) fn set(&self, version: Arc<Version>, running: Option<Running>) {
        *self.failed.lock() = None;
        *self.now.lock() = Now {
            version: Some(version),
            running: running.map(Arc::new),
        };
    }

    /// Starts a program, in the place of what runs if something does.
    pub(super) async fn exchange(
        &self,
        supervisor: &Arc<Supervisor>,
        program: Program,
    ) -> Result<Next, Refusal> {
        let running = self.now.lock().running.clone();
        match running {
            Some(running) => running.swap(program).await.map(|()| Next::Same),
            None => {
                let run = supervisor.run_on(program, self.log());
                run.await.map(Next::Started)
            }
        }
    }

    /// Goes on with another version. A backend that is not needed any more is ended.
    pub(super) async fn follow(&self, version: Arc<Version>, next: Next) {
        *self.failed.lock() = None;
        let old = {
            let mut now = self.now.lock();
            now.version = Some(version);
            match next {
                Next::Same => None,
                Next::Nothing => now.running.take(),
                Next::Started(running) => now.running.replace(Arc::new(running)),
            }
        };
        if let Some(old) = old {
            old.stop().await;
        }
    }

    /// Ends all that serves.
    pub(super) async fn clear(&self) {
        *self.failed.lock() = None;
        let old = std::mem::take(&mut *self.now.lock());
        if let Some(old) = old.running {
            old.stop().await;
        }
    }
}
