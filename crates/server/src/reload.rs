//! Reading certificates, the administrator's password, tokens and files of keys again while we run.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::audit::Audit;
use crate::auth::{Administrator, Auth};
use crate::identity::{Jwt, Tokens, Workflow};
use crate::options::Options;
use crate::tls::Tls;

/// How often the files are looked at, for whoever replaces them without telling.
const LOOK: Duration = Duration::from_secs(10);

/// What can be read again.
#[derive(Debug, Clone)]
pub struct Reload {
    tls: Option<Arc<Tls>>,
    administrator: Option<Arc<Administrator>>,
    tokens: Option<Arc<Tokens>>,
    jwt: Option<Arc<Jwt>>,
    workflow: Option<Arc<Workflow>>,
    audit: Arc<Audit>,
}

impl Reload {
    /// What of these options can be.
    pub fn of(options: &Options) -> Self {
        Self {
            tls: options.tls.clone(),
            administrator: match &options.auth {
                Auth::Scram(administrator) => Some(Arc::clone(administrator)),
                Auth::Trust => None,
            },
            tokens: options.identity.tokens.clone(),
            jwt: options.identity.jwt.clone(),
            workflow: options.identity.workflow.clone(),
            audit: Arc::clone(&options.audit),
        }
    }

    /// Whether there is nothing to read again.
    fn is_empty(&self) -> bool {
        self.tls.is_none()
            && self.administrator.is_none()
            && self.tokens.is_none()
            && !self.jwt.as_ref().is_some_and(|jwt| jwt.has_file())
            && !self
                .workflow
                .as_ref()
                .is_some_and(|workflow| workflow.has_file())
            && !self.audit.is_file()
    }

    /// Reads again what has changed. What cannot be used is logged, and what was before stays.
    /// Blocks for the disk.
    pub fn read(&self) {
        if let Some(tls) = &self.tls {
            tls.reload();
        }
        if let Some(administrator) = &self.administrator {
            administrator.reload();
        }
        if let Some(tokens) = &self.tokens {
            tokens.reload();
        }
        if let Some(jwt) = &self.jwt {
            jwt.reload();
        }
        if let Some(workflow) = &self.workflow {
            workflow.reload();
        }
        self.audit.reopen();
    }

    async fn look(&self) {
        let this = self.clone();
        let reading = tokio::task::spawn_blocking(move || this.read());
        if let Err(error) = reading.await {
            tracing::error!(%error, "BUG: reading files again panicked");
        }
    }

    /// Does so for ever, some seconds apart.
    pub(crate) async fn watch(self) {
        if self.is_empty() {
            return std::future::pending().await;
        }
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look().await;
        }
    }
}
