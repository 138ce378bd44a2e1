//! What is served as it is configured now: settings may change while the server runs, and what answers requests with them.

use std::ops::Deref;
use std::sync::{Arc, Weak};

use axum::Router;
use database::DatabaseName;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::Http;
use super::caller::Caller;
use super::error::ApiError;
use super::router::{App, router};
use crate::accept::accept;
use crate::options::HttpOptions;
use crate::request_limits::{Permit, RequestLimitOptions};

/// What all connections share, and what is configured as a request comes.
pub(crate) struct Configured {
    http: Arc<Http>,
    site: Weak<Site>,
    pub(super) options: HttpOptions,
    pub(super) limits: RequestLimitOptions,
}

/// HTTP as it is configured now, and may be otherwise later.
pub(crate) struct Site {
    now: watch::Sender<Now>,
}

/// What answers requests that come now.
#[derive(Clone)]
struct Now {
    app: App,
    router: TowerToHyperService<Router>,
}

/// The same, as a connection knows it, or a WebSocket. It costs no lock that they share unless something has changed.
pub(super) struct Current(Mutex<(watch::Receiver<Now>, Now)>);

impl Configured {
    pub(crate) fn options(&self) -> &HttpOptions {
        &self.options
    }

    /// What is configured from now on, for who stays longer than a request; none while the server ends.
    pub(super) fn current(&self) -> Option<Current> {
        self.site.upgrade().map(|site| site.current())
    }

    /// Lets a request or a statement of a caller begin, which counts against `limits` for as long as the permit lasts.
    pub(super) fn permit(
        &self,
        caller: &Caller,
        database: Option<&DatabaseName>,
    ) -> Result<Option<Permit>, ApiError> {
        self.security.limits.enter(&self.limits, caller, database)
    }

    /// Refuses a request of a caller that comes too soon. It does not count yet.
    pub(super) fn expect_time(
        &self,
        caller: &Caller,
        database: Option<&DatabaseName>,
    ) -> Result<(), ApiError> {
        let limits = &self.security.limits;
        limits.expect_time(&self.limits, caller, database)
    }
}

impl Deref for Configured {
    type Target = Http;

    fn deref(&self) -> &Http {
        &self.http
    }
}

impl Now {
    fn new(
        http: Arc<Http>,
        site: Weak<Site>,
        options: HttpOptions,
        limits: RequestLimitOptions,
    ) -> Self {
        let app = Arc::new(Configured {
            http,
            site,
            options,
            limits,
        });
        let router = TowerToHyperService::new(router(Arc::clone(&app)));
        Self { app, router }
    }
}

impl Site {
    pub(crate) fn new(http: Http, options: HttpOptions, limits: RequestLimitOptions) -> Arc<Self> {
        Arc::new_cyclic(|site| {
            let now = Now::new(Arc::new(http), Weak::clone(site), options, limits);
            let now = watch::Sender::new(now);
            Self { now }
        })
    }

    /// Requests that come from now on are answered by these, and messages in WebSockets; who has one is looked at again. Where
    /// it listens and how, and the result cache, stay as they are.
    pub(crate) fn adjust(&self, options: HttpOptions, limits: RequestLimitOptions) {
        self.now.send_modify(|now| {
            let (http, site) = (Arc::clone(&now.app.http), Weak::clone(&now.app.site));
            *now = Now::new(http, site, options, limits);
        });
        self.app().security.gatekeeper.look_at_all_again();
    }

    /// What is configured now.
    pub(crate) fn app(&self) -> App {
        Arc::clone(&self.now.borrow().app)
    }

    /// Serves until the server stops, and all connections have ended.
    pub(crate) async fn serve(self: Arc<Self>, listener: Arc<TcpListener>) {
        let app = self.app();
        let each = |(stream, peer)| self.app().connection(stream, peer, self.current());
        accept(listener, &app.stopping, "an HTTP connection", each).await;
        app.upgraded.ended().await;
    }

    fn current(&self) -> Current {
        let mut receiver = self.now.subscribe();
        let now = receiver.borrow_and_update().clone();
        Current(Mutex::new((receiver, now)))
    }
}

impl Current {
    /// What answers a request that comes now.
    pub(super) fn router(&self) -> TowerToHyperService<Router> {
        self.with(|now| now.router.clone())
    }

    /// What is configured now.
    pub(super) fn app(&self) -> App {
        self.with(|now| Arc::clone(&now.app))
    }

    fn with<T>(&self, take: impl FnOnce(&Now) -> T) -> T {
        let mut known = self.0.lock();
        let (receiver, now) = &mut *known;
        // An error would mean that there will be no other.
        if receiver.has_changed().unwrap_or(false) {
            *now = receiver.borrow_and_update().clone();
        }
        take(now)
    }
}
