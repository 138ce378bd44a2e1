//! Asking anew for an answer that is older than `max_age`, while the old one is given.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::time::{Duration, Instant, sleep, timeout};

use super::{Boarding, Cache, Depends, Question, Recording};
use crate::awaited::Awaited;
use crate::pool::{Lease, Pool};
use crate::settings::Settings;

/// Between two looks for a connection that nobody wants.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long the pool waits for such an answer.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// Nobody has this number: the pool itself.
pub(super) const NO_CLIENT: u64 = 0;

/// All that is needed to ask once more.
#[derive(Debug)]
pub(crate) struct Again {
    pub(crate) settings: Settings,
    /// Messages for the server, the last of which it answers with `ReadyForQuery`.
    pub(crate) messages: Bytes,
    pub(crate) awaited: Vec<Awaited>,
}

impl Cache {
    /// Asks once more in the background, if nobody does.
    pub(crate) fn refresh(
        self: &Arc<Self>,
        question: Question,
        again: impl FnOnce() -> Option<Again>,
    ) {
        if self.is_under_way(&question) {
            return;
        }
        let Boarding::First(flight) = self.board(&question) else {
            return;
        };
        let Some(mut again) = again() else {
            return;
        };
        let cache = Arc::clone(self);
        tokio::spawn(async move {
            let until = Instant::now() + question.stale;
            let Some(mut lease) = cache.spare_lease(until).await else {
                return;
            };
            let mut became = lease.become_of(NO_CLIENT, &mut again.settings).await;
            if became.is_ok() {
                became = lease.prepare_to_read(&again.settings).await;
            }
            let tables = match became {
                Ok(()) => cache.tables(&mut lease, &question).await,
                Err(failure) => Err(failure),
            };
            let depends = match tables {
                Ok(Ok(depends)) => depends,
                Ok(Err(_)) => return lease.give_back(),
                Err(failure) => {
                    tracing::debug!(%failure, "an answer could not be asked anew");
                    return;
                }
            };
            let Some(recording) = cache.record(&lease, question, depends, Some(flight)) else {
                return lease.give_back();
            };
            let answering = lease.answer_again(again, recording.uncounted());
            match timeout(ANSWER_MAX, answering).await {
                Ok(Ok(())) => {
                    cache.counters.revalidated.fetch_add(1, Ordering::Relaxed);
                    lease.give_back();
                }
                Ok(Err(failure)) => {
                    tracing::debug!(%failure, "an answer could not be asked anew");
                }
                Err(_) => tracing::debug!("an answer was not given anew in time"),
            }
        });
    }

    /// A connection that nobody waits for.
    pub(super) async fn spare_lease(&self, until: Instant) -> Option<Lease> {
        loop {
            let pool: Arc<Pool> = self.pool.upgrade()?;
            if let Some(lease) = pool.spare_lease().await {
                return Some(lease);
            }
            drop(pool);
            if Instant::now() >= until {
                return None;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Takes down the answer to what is sent now on a connection that was made ready for it, if it can be given to
    /// others.
    pub(crate) fn record(
        self: &Arc<Self>,
        lease: &Lease,
        mut question: Question,
        depends: Depends,
        flight: Option<super::Flight>,
    ) -> Option<Recording> {
        let Depends { tables, on_name } = depends;
        question.turn_to_name(on_name);
        let stamp = self.stamp(&tables)?;
        // Of an origin that is another by now nothing is kept.
        if !self.pool.upgrade()?.is_current(lease.epoch) {
            return None;
        }
        let cache = Arc::clone(self);
        Some(Recording::new(cache, question, tables, stamp, flight))
    }
}
