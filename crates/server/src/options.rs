//! What a server is told: where to listen, and its limits.

use std::sync::Arc;
use std::time::Duration;

use crate::audit::Audit;
use crate::auth::Auth;
use crate::http::Cors;
use crate::identity::IdentityOptions;
use crate::proxies::Proxies;
use crate::request_limits::RequestLimitOptions;
use crate::result_cache::ResultCacheLimits;
use crate::telemetry::Telemetry;
use crate::tls::{HttpTls, Tls, TlsMode};

/// What a server is told. Names of limits in errors are those of the configuration file.
#[derive(Debug, Clone)]
pub struct Options {
    /// The listener for PostgreSQL's protocol.
    pub pgwire: PgwireOptions,
    /// The listener for HTTP.
    pub http: HttpOptions,
    /// `auth`: who may come in with a password.
    pub auth: Auth,
    /// `auth`: who may come in with a token, over HTTP.
    pub identity: IdentityOptions,
    /// `limits`: how often, over HTTP.
    pub limits: RequestLimitOptions,
    /// `audit`: where it is written down who changed what.
    pub audit: Arc<Audit>,
    /// `tls`: the certificate, if there is one.
    pub tls: Option<Arc<Tls>>,
    /// `server.insecure_listen`: whether addresses that other machines reach are allowed
    /// though nobody is asked who they are, or TLS is not required.
    pub insecure_listen: bool,
    /// `telemetry`: which requests are recorded.
    pub telemetry: Telemetry,
    /// `server.drain_ms_max`: how long a stop waits for running statements before it cancels them.
    pub drain_max: Duration,
}

/// The listener for PostgreSQL's protocol.
#[derive(Debug, Clone)]
pub struct PgwireOptions {
    /// `pgwire.listen`: host and port; port 0 takes any free one.
    pub listen: String,
    /// `pgwire.tls`: whether it is spoken over TLS.
    pub tls: TlsMode,
    /// `auth.timeout_ms`: how long a client may take for each answer to a request for a password.
    pub auth_timeout: Duration,
    /// `pgwire.message_bytes_max`: the largest message of a client.
    pub message_bytes_max: usize,
    /// `pgwire.startup_timeout_ms`: how long a client may take to say what it wants.
    pub startup_timeout: Duration,
    /// `pgwire.connections_max`: sessions at once. As many again may be starting.
    pub connections_max: usize,
}

/// The listener for HTTP.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// `http.listen`: host and port; port 0 takes any free one.
    pub listen: String,
    /// `http.body_bytes_max`: the largest body of a request.
    pub body_bytes_max: usize,
    /// `http.bodies_bytes_max`: bytes of the bodies of all requests under way, until their statements have ended.
    pub bodies_bytes_max: usize,
    /// `http.body_timeout_ms`: how long a client may take to send it.
    pub body_timeout: Duration,
    /// `http.result_bytes_max`: the largest document of a result.
    pub result_bytes_max: usize,
    /// `http.request_timeout_ms`: how long a request may take, the wait for its turn included.
    pub request_timeout: Duration,
    /// `http.header_timeout_ms`: how long a client may take to send the head of a request, the
    /// quiet time before it included.
    pub header_timeout: Duration,
    /// `http.connections_max`: connections at once.
    pub connections_max: usize,
    /// `http.liveness_timeout_ms`: how long a database may take to answer a probe.
    pub liveness_timeout: Duration,
    /// `http.statements_max`: statements of one batch or transaction.
    pub statements_max: usize,
    /// `http.transactions_max`: interactive transactions open at once.
    pub transactions_max: usize,
    /// `http.token_transactions_max`: the same of one token, or user; 0 for no limit of its own.
    pub token_transactions_max: usize,
    /// `http.database_transactions_max`: the same in one database.
    pub database_transactions_max: usize,
    /// `http.transaction_idle_ms_max`: how long one may wait for its next request.
    pub transaction_idle: Duration,
    /// `http.idempotency_hours`: how long the answer to a request with a key is kept.
    pub idempotency_hours: u32,
    /// `http.result_cache_*`: answers that are kept.
    pub result_cache: ResultCacheLimits,
    /// `routing`: how a request names its database.
    pub routing: RoutingOptions,
    /// `websocket`: what is spoken in WebSockets.
    pub websocket: WebSocketOptions,
    /// `http.tls`: whether it is spoken over TLS.
    pub tls: HttpTls,
    /// `http.proxies`: who is believed where a request came from.
    pub proxies: Proxies,
    /// `http.cors`: which pages of other origins may read answers, if any may.
    pub cors: Option<Cors>,
    /// `metrics.open`: whether everybody may read `/metrics`.
    pub metrics_open: bool,
    /// `telemetry.metrics_databases_max`: databases with metrics of their own.
    pub metrics_databases_max: usize,
}

/// How a request names its database; the path always does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutingOptions {
    /// `routing.header`: the name of a header.
    pub header: Option<String>,
    /// `routing.base_domain`, in lower case: databases are the labels before it.
    pub base_domain: Option<String>,
    /// `routing.token`: whether a token of one database names it.
    pub token: bool,
    /// `routing.blocked_names`: names that are no tenants.
    pub blocked_names: Vec<String>,
}

/// WebSockets: our own protocol's, and tunnels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocketOptions {
    /// `websocket.connections_max`: WebSockets at once.
    pub connections_max: usize,
    /// `websocket.token_connections_max`: the same of one token, or user; 0 for no limit of its own.
    pub token_connections_max: usize,
    /// `websocket.database_connections_max`: the same with one database.
    pub database_connections_max: usize,
    /// `websocket.origins`: the origins of web pages that may open one; `*` for any.
    pub origins: Vec<String>,
    /// `websocket.message_bytes_max`: the largest message of a client.
    pub message_bytes_max: usize,
    /// `websocket.requests_max`: requests of one conversation that wait for their answer.
    pub requests_max: usize,
    /// `websocket.requests_bytes_max`: bytes of such requests.
    pub requests_bytes_max: usize,
    /// `websocket.state_bytes_max`: settings and prepared statements of one conversation.
    pub state_bytes_max: usize,
    /// `websocket.transactions_max`: transactions of one conversation at once.
    pub transactions_max: usize,
    /// `websocket.transaction_idle_ms_max`: how long a transaction may wait for its next request.
    pub transaction_idle: Duration,
    /// `websocket.ping_ms`: how often a client is asked whether it is still there.
    pub ping: Duration,
    /// `websocket.resume_ms`: how long a conversation waits for a client that was cut off; 0 for not at all.
    pub resume: Duration,
    /// `websocket.answers_bytes_max`: answers of one conversation that are kept until the client has them.
    pub answers_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pgwire: PgwireOptions::default(),
            http: HttpOptions::default(),
            auth: Auth::default(),
            identity: IdentityOptions::default(),
            limits: RequestLimitOptions::default(),
            audit: Arc::default(),
            tls: None,
            insecure_listen: false,
            telemetry: Telemetry::default(),
            drain_max: Duration::from_millis(5_000),
        }
    }
}

impl Default for PgwireOptions {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:7432".to_owned(),
            tls: TlsMode::default(),
            auth_timeout: Duration::from_millis(10_000),
            message_bytes_max: 64 << 20,
            startup_timeout: Duration::from_millis(10_000),
            connections_max: 1_000,
        }
    }
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:7433".to_owned(),
            body_bytes_max: 16 << 20,
            bodies_bytes_max: 256 << 20,
            body_timeout: Duration::from_millis(60_000),
            result_bytes_max: 64 << 20,
            request_timeout: Duration::from_millis(60_000),
            header_timeout: Duration::from_millis(60_000),
            connections_max: 1_000,
            liveness_timeout: Duration::from_millis(2_000),
            statements_max: 1_000,
            transactions_max: 100,
            token_transactions_max: 50,
            database_transactions_max: 50,
            transaction_idle: Duration::from_millis(10_000),
            idempotency_hours: 24,
            result_cache: ResultCacheLimits::default(),
            routing: RoutingOptions::default(),
            websocket: WebSocketOptions::default(),
            tls: HttpTls::default(),
            proxies: Proxies::default(),
            cors: None,
            metrics_open: false,
            metrics_databases_max: 0,
        }
    }
}

impl Default for RoutingOptions {
    fn default() -> Self {
        Self {
            header: Some("x-dormouse-database".to_owned()),
            base_domain: None,
            token: true,
            blocked_names: ["www", "api", "admin"].map(str::to_owned).to_vec(),
        }
    }
}

impl Default for WebSocketOptions {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            token_connections_max: 10_000,
            database_connections_max: 10_000,
            origins: Vec::new(),
            message_bytes_max: 16 << 20,
            requests_max: 1_000,
            requests_bytes_max: 64 << 20,
            state_bytes_max: 64 << 10,
            transactions_max: 16,
            transaction_idle: Duration::from_millis(30_000),
            ping: Duration::from_millis(30_000),
            resume: Duration::from_millis(30_000),
            answers_bytes_max: 1 << 20,
        }
    }
}
