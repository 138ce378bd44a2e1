//! Reading the configuration again while the server runs.

use std::sync::Arc;

use database::Databases;
use parking_lot::Mutex;
use server::{Adjuster, Reconfigure, Reload, ReloadDocument};
use tokio::signal::unix::Signal;

use super::args::ServeArgs;
use super::config::{self, Loaded};
use super::failure::Failure;
use super::logs::{self, LogFilter};

/// What is to be told when the configuration has changed.
pub(crate) struct Reloader {
    args: ServeArgs,
    /// The configuration as it holds.
    running: Mutex<Loaded>,
    log: LogFilter,
    files: Reload,
    databases: Databases,
    server: Adjuster,
}

impl Reloader {
    pub(crate) fn new(
        (args, running): (ServeArgs, Loaded),
        log: LogFilter,
        files: Reload,
        databases: Databases,
        server: Adjuster,
    ) -> Self {
        Self {
            args,
            running: Mutex::new(running),
            log,
            files,
            databases,
            server,
        }
    }

    /// Reads it again with every such signal, for ever.
    pub(crate) async fn on(self: Arc<Self>, mut signal: Signal) {
        while signal.recv().await.is_some() {
            let this = Arc::clone(&self);
            // What came of it is in the log.
            let reading = tokio::task::spawn_blocking(move || drop(this.reload()));
            if let Err(error) = reading.await {
                tracing::error!(%error, "BUG: reading the configuration again panicked");
            }
        }
    }

    /// Everything that can be wrong is looked at before anything changes.
    fn apply(&self, running: &mut Loaded) -> Result<ReloadDocument, Failure> {
        let new = config::load(&self.args)?;
        // As at a start, with all files that it names.
        new.config.server_options()?;
        let (next, changes) = running.become_like(&new)?;
        let filter = logs::filter(&next.log_filter())?;
        let adjustment = next.config.adjustment()?;

        self.log.set(filter)?;
        self.databases.adjust(&next.config.database_options());
        // Whoever stays is looked at again after this, by what it reads.
        self.files.read();
        self.server.adjust(adjustment);
        *running = next;
        Ok(changes)
    }
}

impl Reconfigure for Reloader {
    fn reload(&self) -> Result<ReloadDocument, String> {
        let mut running = self.running.lock();
        match self.apply(&mut running) {
            Ok(changes) => {
                let applied = changes.applied.join(" ");
                tracing::info!(applied, "the configuration was read again");
                if !changes.need_restart.is_empty() {
                    let settings = changes.need_restart.join(" ");
                    tracing::warn!(settings, "changed settings that need a restart");
                }
                Ok(changes)
            }
            Err(failure) => {
                let error = failure.message();
                tracing::error!(
                    error,
                    "the configuration cannot be used; nothing has changed"
                );
                Err(error)
            }
        }
    }
}
