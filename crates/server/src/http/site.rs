//! What is served as it is configured now: settings may change while the server runs, and what answers requests with them.

use std::ops::Deref;
use std::sync::Arc;

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

/// The same, as a connection knows it. It costs no lock that connections share unless something has changed.
pub(super) struct Current(Mutex<(watch::Receiver<Now>, TowerToHyperService<Router>)>);

impl Configured {
    pub(crate) fn options(&self) -> &HttpOptions {
        &self.options
    }

    /// Lets a request or a statement of a caller begin, which counts against `limits` for as long as the permit lasts.
    pub(super) fn permit(
        &self,
        caller: &Caller,
        database: Option<&DatabaseName>,
    ) -> Result<Option<Permit>, ApiError> {
        self.security.limits.enter(&self.limits, caller, database)
    }
}

impl Deref for Configured {
    type Target = Http;

    fn deref(&self) -> &Http {
        &self.http
    }
}

impl Now {
    fn new(http: Arc<Http>, options: HttpOptions, limits: RequestLimitOptions) -> Self {
        let app = Arc::new(Configured {
            http,
            options,
            limits,
        });
        let router = TowerToHyperService::new(router(Arc::clone(&app)));
        Self { app, router }
    }
}

impl Site {
    pub(crate) fn new(http: Http, options: HttpOptions, limits: RequestLimitOptions) -> Arc<Self> {
        let now = Now::new(Arc::new(http), options, limits);
        let now = watch::Sender::new(now);
        Arc::new(Self { now })
    }

    /// Requests that come from now on are answered by these. Where it listens and how, and the result cache, stay as they
    /// are.
    pub(crate) fn adjust(&self, options: HttpOptions, limits: RequestLimitOptions) {
        self.now.send_modify(|now| {
            let http = Arc::clone(&now.app.http);
            *now = Now::new(http, options, limits);
        });
    }

    /// What is configured now.
    pub(crate) fn app(&self) -> App {
        Arc::clone(&self.now.borrow().app)
    }

    /// Serves until the server stops, and all connections have ended.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        let app = self.app();
        let each = |(stream, peer)| self.app().connection(stream, peer, self.current());
        accept(listener, &app.stopping, "an HTTP connection", each).await;
        app.upgraded.ended().await;
    }

    fn current(&self) -> Current {
        let mut receiver = self.now.subscribe();
        let router = receiver.borrow_and_update().router.clone();
        Current(Mutex::new((receiver, router)))
    }
}

impl Current {
    /// What answers a request that comes now.
    pub(super) fn router(&self) -> TowerToHyperService<Router> {
        let mut known = self.0.lock();
        let (receiver, router) = &mut *known;
        // An error would mean that there will be no other.
        if receiver.has_changed().unwrap_or(false) {
            *router = receiver.borrow_and_update().router.clone();
        }
        router.clone()
    }
}
