//! The engine's clock: it raises the epoch by which guests that run are interrupted, and rests while none does.
//!
//! Invariants
//! 1. While a [`Call`] lives the epoch rises at least once in some [`EPOCH`]s.
//! 2. Some time after the last one has gone nothing wakes up any more: a machine of databases that are asleep is at
//!    rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

/// Time between looks at interrupts and timers, and the longest a backend keeps a thread.
const EPOCH: Duration = Duration::from_millis(5);

/// Epochs without a call before the clock rests: to stop and start it between two statements of a client would cost
/// them more than it saves.
const QUIET_EPOCHS: u32 = 40;

/// Runs the clock for as long as it lives.
#[derive(Debug)]
pub(crate) struct Ticker {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    /// Calls of guests that are under way.
    calls: AtomicUsize,
    is_resting: AtomicBool,
    is_over: AtomicBool,
}

/// A call of a guest, for as long as it is under way.
#[derive(Debug)]
pub(crate) struct Call {
    state: Arc<State>,
}

impl Ticker {
    pub(crate) fn start(engine: &wasmtime::Engine) -> std::io::Result<Self> {
        let engine = engine.clone();
        Self::run(move || engine.increment_epoch())
    }

    fn run(tick: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let state = Arc::<State>::default();
        let own = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name("dormouse-epoch".to_owned())
            .spawn(move || own.run(tick))?;
        Ok(Self {
            state,
            thread: Some(thread),
        })
    }

    /// A call begins.
    pub(crate) fn begin(&self) -> Call {
        let state = &self.state;
        state.calls.fetch_add(1, Ordering::SeqCst);
        if state.is_resting.load(Ordering::SeqCst)
            && let Some(thread) = self.thread()
        {
            thread.unpark();
        }
        Call {
            state: Arc::clone(state),
        }
    }

    fn thread(&self) -> Option<&Thread> {
        self.thread.as_ref().map(JoinHandle::thread)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.state.calls.fetch_sub(1, Ordering::SeqCst);
    }
}

impl State {
    fn run(&self, tick: impl Fn()) {
        let mut quiet = 0;
        while !self.is_over.load(Ordering::SeqCst) {
            tick();
            quiet = match self.is_quiet() {
                true => quiet + 1,
                false => 0,
            };
            if quiet < QUIET_EPOCHS {
                std::thread::park_timeout(EPOCH);
                continue;
            }
            self.is_resting.store(true, Ordering::SeqCst);
            // Who has begun before this was said does not wake it.
            while self.is_quiet() && !self.is_over.load(Ordering::SeqCst) {
                std::thread::park();
            }
            self.is_resting.store(false, Ordering::SeqCst);
            quiet = 0;
        }
    }

    fn is_quiet(&self) -> bool {
        self.calls.load(Ordering::SeqCst) == 0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn it_rests_while_there_is_no_call_and_goes_on_with_the_next() {
        let (ticks, ticked) = mpsc::channel();
        let ticker = Ticker::run(move || ticks.send(()).unwrap_or_default()).unwrap();
        for _ in 0..3 {
            let call = ticker.begin();
            for _ in 0..3 * QUIET_EPOCHS {
                ticked.recv().unwrap();
            }
            let other = ticker.begin();
            drop(call);
            for _ in 0..3 * QUIET_EPOCHS {
                ticked.recv().unwrap();
            }
            drop(other);
            while !ticker.state.is_resting.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            while ticked.try_recv().is_ok() {}
            assert!(ticked.recv_timeout(10 * EPOCH).is_err());
        }
        drop(ticker);
        // Its thread ends, at rest or not.
        assert!(ticked.iter().count() <= 1);
    }
}
