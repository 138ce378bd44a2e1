//! Commits that were heard of before everybody sees them.
//!
//! A commit is in the write-ahead log before its transaction is over for others; with a standby that must confirm it,
//! long before. Whoever asks between sees what was. So its tables stay in doubt until a snapshot shows it.

use std::sync::{Arc, Weak};

use tokio::time::{Duration, sleep};

use super::snapshot::Snapshot;
use crate::cache::{Cache, Writes};
use crate::pool::Pool;

/// Between two questions, if a commit does not show yet.
const ASKED_EVERY: Duration = Duration::from_millis(20);

/// The same, if there was no answer.
const TRIED_EVERY: Duration = Duration::from_secs(1);

const SNAPSHOT: &str = "SELECT pg_catalog.txid_current_snapshot()::pg_catalog.text";

/// Commits of which nobody knows whether they show.
#[derive(Debug)]
pub(super) struct Unseen {
    cache: Arc<Cache>,
    commits: Vec<(u32, Writes)>,
}

impl Unseen {
    pub(super) fn new(cache: Arc<Cache>) -> Self {
        let commits = Vec::new();
        Self { cache, commits }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.commits.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.commits.len()
    }

    pub(super) fn add(&mut self, xid: u32, writes: Writes) {
        self.cache.begins(&writes);
        self.commits.push((xid, writes));
    }

    /// Of the first of them, those that a snapshot shows are over. It was asked for when there were as many.
    pub(super) fn show(&mut self, snapshot: &Snapshot, first: usize) {
        let later = self.commits.split_off(first.min(self.commits.len()));
        let cache = &self.cache;
        self.commits.retain(|(xid, writes)| {
            let shows = snapshot.shows(*xid);
            if shows {
                cache.ends(writes);
            }
            !shows
        });
        self.commits.extend(later);
    }
}

impl Drop for Unseen {
    /// Without the stream nobody knows more: it ends with all answers dropped, or begins with it.
    fn drop(&mut self) {
        for (_, writes) in &self.commits {
            self.cache.ends(writes);
        }
    }
}

/// Asks until there is an answer; nothing if there is no pool any more.
pub(super) async fn ask(pool: Weak<Pool>, is_again: bool) -> Option<Snapshot> {
    if is_again {
        sleep(ASKED_EVERY).await;
    }
    loop {
        let alive = pool.upgrade()?;
        if let Ok(mut lease) = alive.lease(&Arc::from("the cache")).await
            && let Ok(rows) = lease.ask(SNAPSHOT).await
        {
            lease.give_back();
            let text = rows.into_iter().flatten().next().flatten();
            if let Some(snapshot) = text.as_deref().and_then(Snapshot::parse) {
                return Some(snapshot);
            }
        }
        drop(alive);
        sleep(TRIED_EVERY).await;
    }
}
