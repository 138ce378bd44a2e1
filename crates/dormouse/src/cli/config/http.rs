//! The sections `http` and `routing`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use server::{HttpOptions, Proxies, ResultCacheLimits, RoutingOptions};
use workers::AddressRange;

use super::access::CorsSection;
use super::{WebSocketSection, ms};
use crate::cli::failure::Failure;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HttpSection {
    pub(super) listen: String,
    pub(super) body_bytes_max: usize,
    bodies_bytes_max: usize,
    body_timeout_ms: u64,
    result_bytes_max: usize,
    request_timeout_ms: u64,
    header_timeout_ms: u64,
    connections_max: usize,
    liveness_timeout_ms: u64,
    statements_max: usize,
    transactions_max: usize,
    token_transactions_max: usize,
    database_transactions_max: usize,
    transaction_idle_ms_max: u64,
    idempotency_hours: u32,
    result_cache_entries_max: usize,
    result_cache_bytes_max: usize,
    result_cache_ttl_ms: u64,
    tls: HttpTls,
    proxies: Vec<String>,
    pub(super) cors: CorsSection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum HttpTls {
    Off,
    Require,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RoutingSection {
    header: String,
    base_domain: String,
    token: bool,
    blocked_names: Vec<String>,
}

impl HttpSection {
    pub(super) fn of(options: HttpOptions) -> Self {
        Self {
            listen: options.listen,
            body_bytes_max: options.body_bytes_max,
            bodies_bytes_max: options.bodies_bytes_max,
            body_timeout_ms: ms(options.body_timeout),
            result_bytes_max: options.result_bytes_max,
            request_timeout_ms: ms(options.request_timeout),
            header_timeout_ms: ms(options.header_timeout),
            connections_max: options.connections_max,
            liveness_timeout_ms: ms(options.liveness_timeout),
            statements_max: options.statements_max,
            transactions_max: options.transactions_max,
            token_transactions_max: options.token_transactions_max,
            database_transactions_max: options.database_transactions_max,
            transaction_idle_ms_max: ms(options.transaction_idle),
            idempotency_hours: options.idempotency_hours,
            result_cache_entries_max: options.result_cache.entries_max,
            result_cache_bytes_max: options.result_cache.bytes_max,
            result_cache_ttl_ms: ms(options.result_cache.ttl),
            tls: HttpTls::Off,
            proxies: options.proxies.names(),
            cors: CorsSection::default(),
        }
    }

    pub(super) fn connections_max(&self) -> usize {
        self.connections_max
    }

    pub(super) fn needs_tls(&self) -> bool {
        self.tls == HttpTls::Require
    }

    /// A body that fits in none of the room for all would be sent again and again.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let (one, all) = (self.body_bytes_max, self.bodies_bytes_max);
        if one <= all {
            return Ok(());
        }
        Err(Failure::Usage(format!(
            "http.bodies_bytes_max = {all} is less than http.body_bytes_max = {one}: the largest body would never be \
             taken. Raise the one, or lower the other"
        )))
    }

    fn proxies(&self) -> Result<Proxies, Failure> {
        let ranges = self.proxies.iter().map(|range| AddressRange::parse(range));
        let ranges = ranges.collect::<Result<Vec<_>, _>>();
        let ranges = ranges.map_err(|error| Failure::Usage(format!("http.proxies: {error}")))?;
        Ok(Proxies::new(&ranges))
    }

    pub(super) fn options(
        &self,
        routing: &RoutingSection,
        websocket: &WebSocketSection,
        metrics_open: bool,
        metrics_databases_max: usize,
    ) -> Result<HttpOptions, Failure> {
        let routing = routing.options()?;
        Ok(HttpOptions {
            listen: self.listen.clone(),
            body_bytes_max: self.body_bytes_max,
            bodies_bytes_max: self.bodies_bytes_max,
            body_timeout: Duration::from_millis(self.body_timeout_ms),
            result_bytes_max: self.result_bytes_max,
            request_timeout: Duration::from_millis(self.request_timeout_ms),
            header_timeout: Duration::from_millis(self.header_timeout_ms),
            connections_max: self.connections_max,
            liveness_timeout: Duration::from_millis(self.liveness_timeout_ms),
            statements_max: self.statements_max,
            transactions_max: self.transactions_max,
            token_transactions_max: self.token_transactions_max,
            database_transactions_max: self.database_transactions_max,
            transaction_idle: Duration::from_millis(self.transaction_idle_ms_max),
            idempotency_hours: self.idempotency_hours,
            result_cache: ResultCacheLimits {
                entries_max: self.result_cache_entries_max,
                bytes_max: self.result_cache_bytes_max,
                ttl: Duration::from_millis(self.result_cache_ttl_ms),
            },
            websocket: websocket.options(),
            tls: match self.tls {
                HttpTls::Off => server::HttpTls::Off,
                HttpTls::Require => server::HttpTls::Require,
            },
            proxies: self.proxies()?,
            cors: self.cors.options(routing.header.as_deref())?,
            routing,
            metrics_open,
            metrics_databases_max,
        })
    }
}

impl RoutingSection {
    pub(super) fn of(options: &RoutingOptions) -> Self {
        Self {
            header: options.header.clone().unwrap_or_default(),
            base_domain: options.base_domain.clone().unwrap_or_default(),
            token: options.token,
            blocked_names: options.blocked_names.clone(),
        }
    }

    pub(super) fn options(&self) -> Result<RoutingOptions, Failure> {
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if !self.header.bytes().all(is_token) {
            let header = &self.header;
            let message = format!("routing.header = \"{header}\" is no name of a header");
            return Err(Failure::Usage(message));
        }
        let domain = self.base_domain.trim_matches('.').to_ascii_lowercase();
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
        if !domain.bytes().all(is_host) {
            let message = format!(
                "routing.base_domain = \"{}\" is no name of a host; leave scheme and port out",
                self.base_domain
            );
            return Err(Failure::Usage(message));
        }
        Ok(RoutingOptions {
            header: (!self.header.is_empty()).then(|| self.header.to_ascii_lowercase()),
            base_domain: (!domain.is_empty()).then_some(domain),
            token: self.token,
            blocked_names: self.blocked_names.clone(),
        })
    }
}
