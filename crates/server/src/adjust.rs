//! Changing what a server is told while it runs.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::http::Site;
use crate::options::{HttpOptions, PgwireOptions};
use crate::pgwire::Pgwire;
use crate::request_limits::RequestLimitOptions;
use crate::telemetry::Telemetry;

/// What of a server's [`Options`](crate::Options) can change while it runs. Where it listens, whether over TLS, and the
/// result cache's limits stay as they were, whatever is in here.
#[derive(Debug, Clone)]
pub struct Adjustment {
    /// For PostgreSQL's protocol: connections that begin from now on.
    pub pgwire: PgwireOptions,
    /// For HTTP: requests, and messages in WebSockets, that come from now on. A WebSocket that is open keeps
    /// `websocket.ping_ms` and `websocket.resume_ms`, which its client was told, and reads no larger messages.
    pub http: HttpOptions,
    /// `limits`: requests that come from now on.
    pub limits: RequestLimitOptions,
    /// `server.drain_ms_max`.
    pub drain_max: Duration,
    /// `telemetry.sample_ratio`, from 0 to 1. It changes nothing where nothing is recorded at all.
    pub sample_ratio: f64,
}

/// Changes what a server is told while it runs. Cheap to clone.
#[derive(Clone)]
pub struct Adjuster {
    site: Arc<Site>,
    pgwire: Arc<Pgwire>,
    telemetry: Telemetry,
    drain_ms_max: Arc<AtomicU64>,
}

/// Reads a server's configuration again, for whoever asks it to over HTTP.
pub trait Reconfigure: Send + Sync {
    /// Reads all of it, checks it, and applies what can be applied. Blocks for the disk.
    ///
    /// # Errors
    /// Why it cannot be used; then nothing has changed.
    fn reload(&self) -> Result<ReloadDocument, String>;
}

/// What came of reading the configuration again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReloadDocument {
    /// Settings that were changed and hold now.
    pub applied: Vec<String>,
    /// Settings that are not as the server runs, and hold after a restart.
    pub need_restart: Vec<String>,
}

impl Adjuster {
    pub(crate) fn new(
        site: Arc<Site>,
        pgwire: Arc<Pgwire>,
        telemetry: Telemetry,
        drain_max: Duration,
    ) -> Self {
        Self {
            site,
            pgwire,
            telemetry,
            drain_ms_max: Arc::new(AtomicU64::new(milliseconds(drain_max))),
        }
    }

    /// Everything is as told from now on.
    pub fn adjust(&self, adjustment: Adjustment) {
        self.pgwire.adjust(adjustment.pgwire);
        self.site.adjust(adjustment.http, adjustment.limits);
        self.telemetry.set_sample_ratio(adjustment.sample_ratio);
        let drain_ms_max = milliseconds(adjustment.drain_max);
        self.drain_ms_max.store(drain_ms_max, Ordering::Relaxed);
    }

    pub(crate) fn drain_max(&self) -> Duration {
        Duration::from_millis(self.drain_ms_max.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for Adjuster {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Adjuster").finish_non_exhaustive()
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
