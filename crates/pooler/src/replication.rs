//! Hearing of what others commit at the origin: a stream of its write-ahead log, as a standby has one.
//!
//! Each pool whose caching has `replication` keeps one such connection, beside `connections_max`, as long as somebody
//! uses the pool and for `idle_ms` after. When it begins all answers are dropped: what was written before is not known.

mod message;
mod snapshot;
mod standing;
mod stream;
mod unseen;

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep};

use crate::dialing::Dialing;
use crate::origin::Origin;
use crate::pool::Pool;

pub use standing::{ReplicationFailure, ReplicationReason, ReplicationStanding};

/// After a stream that has failed the next begins no sooner; twice as long after each that follows.
const BACK_OFF_MIN: Duration = Duration::from_millis(500);

/// As long as it grows to.
const BACK_OFF_MAX: Duration = Duration::from_secs(15);

/// A stream that has lived for this long was one: the next that fails is the first again.
const LIVED: Duration = Duration::from_secs(10);

/// The stream of a pool.
#[derive(Debug)]
pub(crate) struct Replication {
    state: Mutex<State>,
    /// Changes when a stream may have to begin otherwise, or end.
    changes: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    standing: ReplicationStanding,
    /// What the log has last.
    logged: ReplicationStanding,
    clients: usize,
    /// When the last of them left.
    left: Instant,
    is_running: bool,
}

/// A client that is there. Dropped, it is not.
#[derive(Debug)]
pub(crate) struct Presence(Arc<Pool>);

/// Where a stream comes from.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) origin: Arc<Origin>,
    pub(crate) dialing: Dialing,
    pub(crate) epoch: u64,
}

impl Replication {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                standing: ReplicationStanding::Off,
                logged: ReplicationStanding::Off,
                clients: 0,
                left: Instant::now(),
                is_running: false,
            }),
            changes: watch::Sender::new(()),
        }
    }

    /// Whoever is there looks whether it is still right that he is.
    pub(crate) fn look_again(&self) {
        self.changes.send_replace(());
    }

    /// Since when nobody uses the pool; nothing as long as somebody does.
    fn idle_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        (state.clients == 0).then_some(state.left)
    }

    /// It is tried again: why it has failed is told as long as nothing better is known.
    fn tries(&self) {
        let mut state = self.state.lock();
        if !matches!(state.standing, ReplicationStanding::Failed(_)) {
            state.standing = ReplicationStanding::Connecting;
        }
    }

    fn set(&self, standing: ReplicationStanding) {
        let mut state = self.state.lock();
        state.standing = standing.clone();
        // Between two failures that are the same nothing is new.
        if state.logged == standing || standing == ReplicationStanding::Connecting {
            return;
        }
        match &standing {
            ReplicationStanding::Failed(failure) => {
                let reason = failure.reason.name();
                tracing::warn!(reason, %failure, "what others write at the origin is not heard of");
            }
            standing => tracing::info!(standing = standing.name(), "replication from the origin"),
        }
        state.logged = standing;
    }
}

impl Presence {
    pub(crate) fn new(pool: &Arc<Pool>) -> Self {
        pool.replication.state.lock().clients += 1;
        Self(Arc::clone(pool))
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut state = self.0.replication.state.lock();
        state.clients -= 1;
        state.left = Instant::now();
    }
}

impl Pool {
    /// How it stands with what others write at the origin.
    pub fn replication(&self) -> ReplicationStanding {
        match self.cache.wants_replication() {
            true => self.replication.state.lock().standing.clone(),
            false => ReplicationStanding::Off,
        }
    }

    /// Begins a stream, if there is none and there is to be one.
    pub(crate) fn replicate(&self) {
        if !self.cache.wants_replication() || self.replication.state.lock().is_running {
            return;
        }
        if self.stream_until().is_none() {
            return;
        }
        let mut state = self.replication.state.lock();
        if state.is_running {
            return;
        }
        state.is_running = true;
        let changes = self.replication.changes.subscribe();
        self.home().spawn(keep(self.weak(), changes));
    }

    /// From where a stream is to come now, and when that is to be looked at again; nothing if there is to be none.
    fn stream_until(&self) -> Option<(Source, Duration)> {
        let source = self.source().filter(|_| self.cache.wants_replication())?;
        let idle = self.options().idle;
        match self.replication.idle_since() {
            None => Some((source, idle)),
            Some(since) => match idle.saturating_sub(since.elapsed()) {
                Duration::ZERO => None,
                left => Some((source, left)),
            },
        }
    }
}

/// Keeps a stream as long as there is to be one.
async fn keep(pool: Weak<Pool>, mut changes: watch::Receiver<()>) {
    let mut back_off = BACK_OFF_MIN;
    while let Some((source, cache)) = next(&pool) {
        let began = Instant::now();
        let streaming = stream::run(&pool, &source, &cache);
        let ended = tokio::select! {
            ended = streaming => ended,
            () = over(&pool, source.epoch, &mut changes) => continue,
        };
        let Some(alive) = pool.upgrade() else {
            return;
        };
        if began.elapsed() >= LIVED {
            back_off = BACK_OFF_MIN;
        }
        alive.replication.set(ReplicationStanding::Failed(ended));
        drop(alive);
        tokio::select! {
            () = sleep(back_off) => back_off = (back_off * 2).min(BACK_OFF_MAX),
            () = over(&pool, source.epoch, &mut changes) => back_off = BACK_OFF_MIN,
        }
    }
}

/// What is to be done next; nothing if it is to end, which is told then.
fn next(pool: &Weak<Pool>) -> Option<(Source, Arc<crate::cache::Cache>)> {
    let pool = pool.upgrade()?;
    if let Some((source, _)) = pool.stream_until() {
        return Some((source, Arc::clone(&pool.cache)));
    }
    // Nobody hears of what is written from now on.
    pool.cache.drop_all();
    pool.replication.set(match pool.cache.wants_replication() {
        true => ReplicationStanding::Idle,
        false => ReplicationStanding::Off,
    });
    pool.replication.state.lock().is_running = false;
    // Somebody may have come meanwhile, for whom it was still running.
    pool.replicate();
    None
}

/// Waits until a stream from this version of the origin is not what is to be.
async fn over(pool: &Weak<Pool>, epoch: u64, changes: &mut watch::Receiver<()>) {
    loop {
        let look_after = match pool.upgrade().and_then(|pool| pool.stream_until()) {
            Some((source, look_after)) if source.epoch == epoch => look_after,
            _ => return,
        };
        tokio::select! {
            () = sleep(look_after) => {}
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}
