//! The server as a whole: both listeners, and how they stop.

use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use database::Databases;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::address::Listeners;
use crate::adjust::{Adjuster, Reconfigure};
use crate::apps::Apps;
use crate::bindings::{LocalListener, ManagedBindings, SocketError};
use crate::http::{Http, NotReady, Site, answer_not_ready};
use crate::identity::Passwords;
use crate::metrics::Meter;
use crate::options::Options;
use crate::pgwire::{Pgwire, Rooms};
use crate::reload::Reload;
use crate::security::Security;
use crate::shutdown::Shutdown;

/// How long a cancelled statement may take to end before its connection is dropped.
const CANCEL_MAX: Duration = Duration::from_millis(2_000);

/// Serves databases on two addresses.
pub struct Server {
    listeners: Listeners,
    /// The socket of bindings.
    local: Option<LocalListener>,
    pgwire: Arc<Pgwire>,
    bindings: Option<Arc<ManagedBindings>>,
    site: Arc<Site>,
    adjuster: Adjuster,
    reload: Reload,
    shutdown: Shutdown,
}

impl Server {
    /// Puts a server together. Nothing is accepted before [`run`](Self::run).
    ///
    /// # Errors
    ///
    /// If there is no local socket for bindings.
    pub fn new(
        listeners: Listeners,
        databases: Databases,
        bindings: Option<Arc<ManagedBindings>>,
        options: Options,
    ) -> Result<Self, SocketError> {
        if let Some(bindings) = &bindings {
            bindings.set_port(listeners.pgwire_address().port());
        }
        let local = bindings.as_ref().map(|bindings| bindings.listen());
        let local = local.transpose()?;
        let shutdown = Shutdown::new();
        let reload = Reload::of(&options);
        let limits = options.identity.passwords;
        let passwords = Arc::new(Passwords::new(databases.clone(), limits));
        let security = Security::new(&options, Arc::clone(&passwords));
        let pgwire = Arc::new(Pgwire::new(
            Rooms {
                databases: databases.clone(),
                bindings: bindings.clone(),
            },
            options.pgwire,
            options.auth,
            passwords,
            options.tls.clone(),
            options.telemetry.clone(),
            shutdown.stopping(),
        ));
        let http = Http::new(
            databases,
            &options.http,
            options.tls,
            security,
            Arc::clone(&pgwire),
            options.telemetry.clone(),
            shutdown.stopping(),
        );
        let site = Site::new(http, options.http, options.limits);
        let adjuster = Adjuster::new(
            Arc::clone(&site),
            Arc::clone(&pgwire),
            options.telemetry,
            options.drain_max,
        );
        Ok(Self {
            listeners,
            local,
            pgwire,
            site,
            bindings,
            adjuster,
            reload,
            shutdown,
        })
    }

    /// Tells what is counted, also while it runs.
    pub fn meter(&self) -> Meter {
        Meter::new(Arc::clone(&self.site))
    }

    /// Changes what it is told, also while it runs.
    pub fn adjuster(&self) -> Adjuster {
        self.adjuster.clone()
    }

    /// Whoever asks over HTTP has this read the configuration again, as long as it is there.
    pub fn reloads_by(&self, configuration: Weak<dyn Reconfigure>) {
        self.site.app().reloads_by(configuration);
    }

    /// These apps are served too, on the listener for HTTP. Whoever made them ends them, when this has stopped.
    pub fn serves(&self, apps: Arc<Apps>) {
        self.site.app().serves(apps);
    }

    /// Serves until `stop` is ready. Then idle clients are sent away, running statements have
    /// `drain_max` to end, and are cancelled after that. The databases stay open.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Listeners {
            pgwire,
            http,
            http_tls,
            ..
        } = self.listeners;
        let listener = Arc::new(http);
        let local = self.local.map(|listener| {
            let serving = Arc::clone(&self.pgwire).serve_local(listener);
            tokio::spawn(serving)
        });
        let mut local = local.unwrap_or_else(|| tokio::spawn(async {}));
        let mut pgwire = tokio::spawn(self.pgwire.serve(pgwire));
        let mut http = tokio::spawn(self.site.serve(Arc::clone(&listener)));
        tokio::select! {
            () = stop => {}
            () = self.reload.watch() => {}
        }

        let mut ended = Box::pin(async {
            // A listener that panicked has ended too.
            let _ = (&mut local).await;
            let _ = (&mut pgwire).await;
            let _ = (&mut http).await;
        });
        self.shutdown.drain();
        // Whoever asks whether it is ready is told why it is not, for as long as anybody else is waited for.
        let _answering = AbortOnDropHandle::new(tokio::spawn(async move {
            answer_not_ready(&listener, http_tls.as_ref(), NotReady::Draining).await
        }));
        let drain_max = self.adjuster.drain_max();
        if timeout(drain_max, &mut ended).await.is_ok() {
            drop(ended);
            close(self.bindings.as_deref());
            return;
        }
        let drain_ms_max = drain_max.as_millis();
        tracing::warn!(
            drain_ms_max,
            "requests still run, or are not read, after server.drain_ms_max: cancelling them"
        );
        self.shutdown.cancel();
        // Who waits for a connection to an origin gets none any more.
        close(self.bindings.as_deref());
        if timeout(CANCEL_MAX, &mut ended).await.is_err() {
            tracing::warn!("dropping connections that did not end when they were cancelled");
        }
        drop(ended);
        // Their sessions clean up after themselves.
        local.abort();
        pgwire.abort();
        http.abort();
    }
}

/// Closes all connections to origins.
fn close(bindings: Option<&ManagedBindings>) {
    if let Some(bindings) = bindings {
        bindings.bindings.close();
    }
}
