//! A commit whose outcome is not known yet.

use std::sync::Arc;

use tokio::time::{Duration, Instant, sleep};

use super::Cache;
use super::ledger::Writes;

/// After this time a server that was lost is taken for gone, even if it still shows.
const GONE_AFTER: Duration = Duration::from_secs(600);

/// Between two questions whether a server that was lost is gone.
const ASKED_EVERY: Duration = Duration::from_millis(500);

/// What a server may have committed since it was last heard of. Dropped without its outcome, its tables stay in doubt
/// until that server is gone.
#[derive(Debug)]
pub(crate) struct Doubt {
    cache: Arc<Cache>,
    writes: Writes,
    /// The server's process.
    pid: u32,
    is_over: bool,
}

impl Doubt {
    pub(crate) fn new(cache: Arc<Cache>, pid: u32) -> Self {
        Self {
            cache,
            writes: Writes::default(),
            pid,
            is_over: false,
        }
    }

    /// These are about to be committed, too.
    pub(crate) fn add(&mut self, writes: &Writes) {
        let news = writes.without(&self.writes);
        if !news.is_empty() {
            if news.everything && self.cache.is_on() {
                super::add(&self.cache.counters.dropped_all, 1);
            }
            self.cache.ledger.lock().begin(&news);
            self.writes.add(&news);
        }
    }

    /// The outcome is known.
    pub(crate) fn end(mut self) {
        self.is_over = true;
        self.cache.ledger.lock().end(&self.writes);
    }
}

impl Drop for Doubt {
    fn drop(&mut self) {
        if self.is_over || self.writes.is_empty() {
            return;
        }
        // Without a runtime nobody asks any more.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (cache, writes) = (Arc::clone(&self.cache), std::mem::take(&mut self.writes));
            runtime.spawn(end_when_gone(cache, writes, self.pid));
        }
    }
}

/// The server may still be about to commit: waits until it is no more.
async fn end_when_gone(cache: Arc<Cache>, writes: Writes, pid: u32) {
    let lost = Instant::now();
    while lost.elapsed() < GONE_AFTER {
        let Some(pool) = cache.pool.upgrade() else {
            return;
        };
        if pool.is_process_gone(pid).await {
            break;
        }
        drop(pool);
        sleep(ASKED_EVERY).await;
    }
    cache.ledger.lock().end(&writes);
}
