//! SQL over HTTP, and the directory of databases.
//!
//! What is asked of a database stands under `/v1/databases/NAME/`, and at the root where a header, the host or a
//! token names it ([`tenant`]): `ping`, `health`, `config`, `liveness`, `readiness`, `schema`, `query`, `batch`,
//! `transaction`, `transactions`. Beside it: `/v1/databases`, `/metrics`, `/openapi.json`, which lists all.
//!
//! Every error is a problem document (RFC 9457) with PostgreSQL's fields, also those about HTTP itself: see
//! [`error`]. A request is served in its connection's task; [`work`] sees to it that what it began comes to an
//! end when the client leaves.

mod actor;
mod bindings;
mod bodies;
mod body;
pub(crate) mod caller;
mod conditional;
mod connection;
mod cors;
mod database_document;
mod databases;
mod deployments;
pub(crate) mod door;
pub(crate) mod error;
mod etag;
mod figures;
mod guard;
mod health;
mod host;
mod isolation;
mod metrics;
mod ndjson;
mod neon;
mod not_ready;
mod once;
mod openapi;
mod origin;
mod params;
mod permitted;
mod probe;
mod query;
mod reload;
mod router;
mod run;
mod schema;
mod shares;
mod site;
pub(crate) mod sizes;
mod statements;
mod stream;
mod tenant;
mod tokens;
mod transactions;
mod tunnel;
mod under_way;
mod unread;
mod upgraded;
mod visit;
mod websocket;
mod work;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use axum::http::{Extensions, HeaderMap, HeaderValue, Request, Response};
use axum::response::IntoResponse;
use database::Databases;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tracing::Instrument as _;
use wire::PgError;

use crate::adjust::Reconfigure;
use crate::apps::{self, Apps, Place, Visit};
use crate::bindings::ManagedBindings;
use crate::connections::Connections;
use crate::identity::Pass;
use crate::metrics::{Counted, Labelled};
use crate::options::HttpOptions;
use crate::pgwire::Pgwire;
use crate::result_cache::ResultCache;
use crate::security::Security;
use crate::shutdown::Stopping;
use crate::telemetry::Telemetry;
use crate::tls::Tls;
use upgraded::Upgraded;

use bodies::Bodies;
use shares::Shares;
use tenant::Tenant;
use transactions::Transactions;
use under_way::StillComes;
use unread::Unread;

pub(crate) use connection::Peer;
pub(crate) use not_ready::{NotReady, answer as answer_not_ready};
pub(crate) use site::{Configured, Site};
pub(crate) use upgraded::Place as UpgradedPlace;

pub use bindings::{
    AllowedDocument, BindingDocument, BindingFields, CachingDocument, CheckedDocument,
    CreatedCredential, CredentialDocument, LimitsDocument, NewCredential, OriginDocument,
    OriginFields, PerAppDocument, PoolDocument, ReplicationDocument,
};
pub use cors::{Cors, CorsOptions};
pub use database_document::DatabaseDocument;
pub use figures::{
    BucketDocument, By, CountsDocument, FiguresDocument, FiguresPage, LatencyDocument,
};

/// What requests to apps are called in traces: their paths are not ours.
const APPS: &str = "an app";

/// What all connections share.
pub(crate) struct Http {
    databases: Databases,
    tls: Option<Arc<Tls>>,
    security: Security,
    pgwire: Arc<Pgwire>,
    connections: Arc<Connections>,
    upgraded: Arc<Upgraded>,
    conversations: Arc<websocket::Registry>,
    stopping: Stopping,
    started: Instant,
    request_ids: RequestIds,
    transactions: Transactions,
    transaction_shares: Arc<Shares>,
    websocket_shares: Arc<Shares>,
    bodies: Arc<Bodies>,
    results: ResultCache,
    telemetry: Telemetry,
    counted: Counted,
    labelled: Mutex<Labelled>,
    /// Who reads the configuration again.
    configuration: OnceLock<Weak<dyn Reconfigure>>,
    /// What is deployed, if anything is.
    apps: OnceLock<Arc<Apps>>,
}

/// What a request is called in logs: an extension of it.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) String);

/// Numbers that name a request in answers and logs.
struct RequestIds {
    /// Tells the requests of this start from those of others.
    start: u32,
    next: AtomicU64,
}

impl Http {
    pub(crate) fn new(
        databases: Databases,
        options: &HttpOptions,
        tls: Option<Arc<Tls>>,
        security: Security,
        pgwire: Arc<Pgwire>,
        telemetry: Telemetry,
        stopping: Stopping,
    ) -> Self {
        Self {
            databases,
            connections: Connections::new(),
            transactions: Transactions::default(),
            transaction_shares: Arc::default(),
            websocket_shares: Arc::default(),
            bodies: Arc::default(),
            results: ResultCache::new(options.result_cache),
            upgraded: Upgraded::new(),
            conversations: Arc::default(),
            tls,
            security,
            pgwire,
            stopping,
            started: Instant::now(),
            request_ids: RequestIds::new(),
            telemetry,
            counted: Counted::default(),
            labelled: Mutex::default(),
            configuration: OnceLock::new(),
            apps: OnceLock::new(),
        }
    }

    pub(crate) fn databases(&self) -> &Databases {
        &self.databases
    }

    /// From now on this reads the configuration again, as long as it is there.
    pub(crate) fn reloads_by(&self, configuration: Weak<dyn Reconfigure>) {
        // There is one configuration; the first that says so has it.
        let _ = self.configuration.set(configuration);
    }

    /// From now on these are served too.
    pub(crate) fn serves(&self, apps: Arc<Apps>) {
        // The first are the only ones.
        let _ = self.apps.set(apps);
    }

    /// Managed bindings, if there are any here.
    pub(crate) fn bindings(&self) -> Option<&Arc<ManagedBindings>> {
        self.pgwire.bindings()
    }

    /// What is deployed, if anything can be.
    pub(crate) fn apps(&self) -> Option<&Arc<Apps>> {
        self.apps.get()
    }

    /// Connections that are open.
    pub(crate) fn connections(&self) -> usize {
        self.connections.count()
    }

    /// The same of PostgreSQL's protocol.
    pub(crate) fn pgwire_connections(&self) -> usize {
        self.pgwire.sessions().count()
    }

    /// Those that are WebSockets by now.
    pub(crate) fn websockets(&self) -> usize {
        self.upgraded.count()
    }

    /// Bytes of the bodies of requests under way.
    pub(crate) fn bodies_bytes(&self) -> usize {
        self.bodies.bytes()
    }

    pub(crate) fn results(&self) -> &ResultCache {
        &self.results
    }

    pub(crate) fn counted(&self) -> &Counted {
        &self.counted
    }

    pub(crate) fn labelled(&self) -> &Mutex<Labelled> {
        &self.labelled
    }

    /// What a caller whom a request with these headers and extensions has let in stays by.
    fn pass(&self, head: (&HeaderMap, &Extensions), tenant: &Tenant) -> Arc<Pass> {
        let gatekeeper = &self.security.gatekeeper;
        Arc::new(gatekeeper.pass(head, Some(&tenant.name), &tenant.caller))
    }

    /// Names a request, has it answered, and logs it.
    async fn request(
        &self,
        router: &TowerToHyperService<axum::Router>,
        mut request: Request<Incoming>,
        options: &HttpOptions,
    ) -> Result<Response<axum::body::Body>, std::convert::Infallible> {
        let id = self.request_ids.next();
        let started = Instant::now();
        let logged = tracing::enabled!(tracing::Level::DEBUG)
            .then(|| (request.method().clone(), request.uri().path().to_owned()));
        request.extensions_mut().insert(RequestId(id.clone()));
        let mut response = match self.place(&request) {
            Some((apps, place)) => self.app(apps, place, request, options).await,
            None => router.call(Unread::of(request)).await?,
        };
        let status = response.status();
        let elapsed = started.elapsed();
        self.counted.answered(status, elapsed);
        let milliseconds = elapsed.as_secs_f64() * 1e3;
        if let Some((method, path)) = logged {
            let status = status.as_u16();
            tracing::debug!(request = id, %method, path, status, milliseconds, "HTTP request");
        }
        if status.is_server_error()
            && let Some(error) = response.extensions().get::<PgError>()
        {
            let error = error.for_log();
            tracing::warn!(request = id, status = status.as_u16(), %error, "HTTP request failed");
        }
        if let Ok(id) = HeaderValue::try_from(id) {
            response.headers_mut().insert("x-request-id", id);
        }
        Ok(response)
    }
}

impl Http {
    /// The apps, and which of them a request may be for, if it is for a host of apps.
    fn place(&self, request: &Request<Incoming>) -> Option<(&Arc<Apps>, Place)> {
        let apps = self.apps.get()?;
        let place = apps.place(apps::authority(request)?, request.uri().path())?;
        Some((apps, place))
    }

    /// Has an app answer a request.
    async fn app(
        &self,
        apps: &Arc<Apps>,
        place: Place,
        request: Request<Incoming>,
        options: &HttpOptions,
    ) -> Response<axum::body::Body> {
        let (head, body) = request.into_parts();
        // Who asks is the app's to find out, and so has no say here in what is recorded.
        let traced = self.telemetry.request(&head, Some(APPS), false);
        let upgrade = apps::asks_to_upgrade(&head.headers)
            .then(|| self.upgraded.enter(options.websocket.connections_max));
        let upgrade = match upgrade.transpose() {
            Ok(upgrade) => upgrade,
            Err(error) => return error.into_response(),
        };
        let visit = Visit {
            peer: head.extensions.get::<Peer>().copied(),
            proxies: options.proxies.clone(),
            stopping: self.stopping.clone(),
            upgrade,
            trace: traced.context(),
        };
        let answering = apps.answer(place, Request::from_parts(head, body), visit);
        let mut response = answering.instrument(traced.span.clone()).await;
        traced.answered(&mut response);
        response.extensions_mut().insert(StillComes);
        response
    }
}

impl RequestIds {
    fn new() -> Self {
        let mut start = [0; 4];
        // Without random bytes the ids are only unique within one start.
        let _ = getrandom::fill(&mut start);
        Self {
            start: u32::from_ne_bytes(start),
            next: AtomicU64::new(1),
        }
    }

    fn next(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{:08x}-{number}", self.start)
    }
}
