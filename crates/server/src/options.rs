//! What a server is told: where to listen, and its limits.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::Auth;
use crate::telemetry::Telemetry;
use crate::tls::{Tls, TlsMode};

/// What a server is told. Names of limits in errors are those of the configuration file.
#[derive(Debug, Clone)]
pub struct Options {
    /// The listener for PostgreSQL's protocol.
    pub pgwire: PgwireOptions,
    /// The listener for HTTP.
    pub http: HttpOptions,
    /// `auth`: who may come in over PostgreSQL's protocol.
    pub auth: Auth,
    /// `tls`: the certificate, if there is one.
    pub tls: Option<Arc<Tls>>,
    /// `server.insecure_listen`: whether addresses that other machines reach are allowed
    /// without a password and TLS. HTTP has neither yet: whoever reaches it may do everything.
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
    /// `http.result_bytes_max`: the largest document of a result.
    pub result_bytes_max: usize,
    /// `http.request_timeout_ms`: how long a request may take, the wait for its turn included.
    pub request_timeout: Duration,
    /// `http.header_timeout_ms`: how long a client may take to send the head of a request, the
    /// quiet time before it included.
    pub header_timeout: Duration,
    /// `http.connections_max`: connections at once.
    pub connections_max: usize,
    /// `telemetry.metrics_databases_max`: databases with metrics of their own.
    pub metrics_databases_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pgwire: PgwireOptions::default(),
            http: HttpOptions::default(),
            auth: Auth::default(),
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
            result_bytes_max: 64 << 20,
            request_timeout: Duration::from_millis(60_000),
            header_timeout: Duration::from_millis(60_000),
            connections_max: 1_000,
            metrics_databases_max: 0,
        }
    }
}
