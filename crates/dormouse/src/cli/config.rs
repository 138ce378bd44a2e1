//! The configuration: what can be set, and what the server and its databases make of it.

mod access;
mod bindings;
mod http;
mod opentelemetry;
mod sources;
mod workers;

use http::{HttpSection, RoutingSection};
pub(crate) use sources::{Loaded, load};

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use database::{Durability, Limits, Observe};
use dormouse::default_cache_directory;
use serde::{Deserialize, Serialize};
use server::{Tls, TlsFiles};

use access::{AuditSection, AuthSection, LimitsSection, MetricsSection};
use bindings::BindingsSection;
use workers::{SecretsSection, WorkersSection};

use super::failure::Failure;

/// The configuration as it is in the file; [`settings`] says what each is for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    data: PathBuf,
    cache: Option<PathBuf>,
    log: LogSection,
    telemetry: TelemetrySection,
    server: ServerSection,
    tls: TlsSection,
    auth: AuthSection,
    pgwire: PgwireSection,
    http: HttpSection,
    routing: RoutingSection,
    websocket: WebSocketSection,
    databases: DatabasesSection,
    node: NodeSection,
    directory: DirectorySection,
    etags: EtagsSection,
    images: ImagesSection,
    maintenance: MaintenanceSection,
    sessions: SessionsSection,
    durability: DurabilitySection,
    journal: JournalSection,
    backend: BackendSection,
    volume: VolumeSection,
    disk: DiskSection,
    limits: LimitsSection,
    metrics: MetricsSection,
    audit: AuditSection,
    bindings: BindingsSection,
    workers: WorkersSection,
    secrets: SecretsSection,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogSection {
    filter: String,
    format: LogFormat,
    slow_query_ms: u64,
    slow_query_plan: bool,
    query_bytes_max: usize,
}

/// How lines of the log are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// What is told to a collector of telemetry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TelemetrySection {
    pub(crate) otlp_endpoint: String,
    pub(crate) otlp_headers: Hidden,
    pub(crate) service_name: String,
    pub(crate) environment: String,
    pub(crate) resource_attributes: String,
    pub(crate) sample_ratio: f64,
    query_text: bool,
    pub(crate) metrics_interval_ms: u64,
    metrics_databases_max: usize,
    figures_databases_max: usize,
}

/// A value that is not shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Hidden(pub(crate) String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("...")
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServerSection {
    insecure_listen: bool,
    drain_ms_max: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsSection {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PgwireTls {
    Off,
    Allow,
    Require,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PgwireSection {
    listen: String,
    tls: PgwireTls,
    message_bytes_max: usize,
    startup_timeout_ms: u64,
    connections_max: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WebSocketSection {
    connections_max: usize,
    token_connections_max: usize,
    database_connections_max: usize,
    origins: String,
    message_bytes_max: usize,
    requests_max: usize,
    requests_bytes_max: usize,
    answers_bytes_max: usize,
    state_bytes_max: usize,
    transactions_max: usize,
    transaction_idle_ms_max: u64,
    ping_ms: u64,
    resume_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DatabasesSection {
    auto_create: bool,
    idle_ms: u64,
    awake_max: usize,
    wakes_max: usize,
    spares_max: usize,
    processes_shared: usize,
    processes_max: usize,
    wake_wait_ms_max: u64,
    wake_ms_max: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeSection {
    memory_bytes_max: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DirectorySection {
    cache_bytes_max: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EtagsSection {
    databases_max: usize,
    queries_max: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImagesSection {
    bytes_max: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MaintenanceSection {
    enabled: bool,
    checkpoint_wal_bytes: u64,
    freeze_age: u32,
    statement_ms_max: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionsSection {
    wait_ms_max: u64,
    idle_holder_ms_max: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DurabilitySection {
    level: Durability,
    flush_interval_ms: u64,
    flush_entries_max: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JournalSection {
    bytes_max: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackendSection {
    memory_bytes_max: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VolumeSection {
    bytes_max: u64,
    dirty_bytes_max: u64,
    wal_bytes_max: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DiskSection {
    reserve_bytes: u64,
}

impl WebSocketSection {
    fn options(&self) -> server::WebSocketOptions {
        server::WebSocketOptions {
            connections_max: self.connections_max,
            token_connections_max: self.token_connections_max,
            database_connections_max: self.database_connections_max,
            origins: self.origins.split_whitespace().map(str::to_owned).collect(),
            message_bytes_max: self.message_bytes_max,
            requests_max: self.requests_max,
            requests_bytes_max: self.requests_bytes_max,
            answers_bytes_max: self.answers_bytes_max,
            state_bytes_max: self.state_bytes_max,
            transactions_max: self.transactions_max,
            transaction_idle: Duration::from_millis(self.transaction_idle_ms_max),
            // A pause of nothing would be one ping after the other.
            ping: Duration::from_millis(self.ping_ms.max(1)),
            resume: Duration::from_millis(self.resume_ms),
        }
    }
}

fn ms(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

impl Default for Config {
    fn default() -> Self {
        let server = server::Options::default();
        let limits = Limits::default();
        let observe = Observe::default();
        Self {
            data: PathBuf::from("./dormouse-data"),
            cache: None,
            log: LogSection {
                filter: "info".to_owned(),
                format: LogFormat::Text,
                slow_query_ms: 0,
                slow_query_plan: observe.slow_query_plan,
                query_bytes_max: observe.query_bytes_max,
            },
            telemetry: TelemetrySection {
                otlp_endpoint: String::new(),
                otlp_headers: Hidden(String::new()),
                service_name: "dormouse".to_owned(),
                environment: String::new(),
                resource_attributes: String::new(),
                sample_ratio: 0.01,
                query_text: observe.query_text,
                metrics_interval_ms: 60_000,
                metrics_databases_max: server.http.metrics_databases_max,
                figures_databases_max: limits.figures_max,
            },
            server: ServerSection {
                insecure_listen: server.insecure_listen,
                drain_ms_max: ms(server.drain_max),
            },
            tls: TlsSection {
                certificate: None,
                key: None,
                client_ca: None,
            },
            auth: AuthSection::default(),
            pgwire: PgwireSection {
                listen: server.pgwire.listen,
                tls: PgwireTls::Allow,
                message_bytes_max: server.pgwire.message_bytes_max,
                startup_timeout_ms: ms(server.pgwire.startup_timeout),
                connections_max: server.pgwire.connections_max,
            },
            routing: RoutingSection::of(&server.http.routing),
            http: HttpSection::of(server.http.clone()),
            websocket: WebSocketSection {
                connections_max: server.http.websocket.connections_max,
                token_connections_max: server.http.websocket.token_connections_max,
                database_connections_max: server.http.websocket.database_connections_max,
                origins: server.http.websocket.origins.join(" "),
                message_bytes_max: server.http.websocket.message_bytes_max,
                requests_max: server.http.websocket.requests_max,
                requests_bytes_max: server.http.websocket.requests_bytes_max,
                answers_bytes_max: server.http.websocket.answers_bytes_max,
                state_bytes_max: server.http.websocket.state_bytes_max,
                transactions_max: server.http.websocket.transactions_max,
                transaction_idle_ms_max: ms(server.http.websocket.transaction_idle),
                ping_ms: ms(server.http.websocket.ping),
                resume_ms: ms(server.http.websocket.resume),
            },
            databases: DatabasesSection {
                auto_create: true,
                idle_ms: ms(limits.idle),
                awake_max: limits.awake_max,
                wakes_max: limits.wakes_max,
                spares_max: limits.spares_max,
                processes_shared: limits.processes_shared,
                processes_max: limits.processes_max,
                wake_wait_ms_max: ms(limits.wake_wait_max),
                wake_ms_max: ms(limits.wake_max),
            },
            node: NodeSection {
                memory_bytes_max: limits.node_memory_bytes_max,
            },
            directory: DirectorySection {
                cache_bytes_max: limits.directory_cache_bytes_max,
            },
            etags: EtagsSection {
                databases_max: limits.etag_databases_max,
                queries_max: limits.etag_queries_max,
            },
            images: ImagesSection {
                bytes_max: limits.images_bytes_max,
            },
            maintenance: MaintenanceSection {
                enabled: true,
                checkpoint_wal_bytes: limits.checkpoint_wal_bytes,
                freeze_age: limits.freeze_age,
                statement_ms_max: ms(limits.upkeep_statement_max),
            },
            sessions: SessionsSection {
                wait_ms_max: ms(limits.session_wait_max),
                idle_holder_ms_max: ms(limits.idle_holder),
            },
            durability: DurabilitySection {
                level: Durability::default(),
                flush_interval_ms: ms(limits.flush_interval),
                flush_entries_max: limits.flush_entries_max,
            },
            journal: JournalSection {
                bytes_max: limits.journal_bytes_max,
            },
            backend: BackendSection {
                memory_bytes_max: limits.backend_memory_bytes_max,
            },
            volume: VolumeSection {
                bytes_max: limits.volume_bytes_max,
                dirty_bytes_max: limits.dirty_bytes_max,
                wal_bytes_max: limits.wal_bytes_max,
            },
            disk: DiskSection {
                reserve_bytes: limits.disk_reserve_bytes,
            },
            limits: LimitsSection::default(),
            metrics: MetricsSection::default(),
            audit: AuditSection::default(),
            bindings: BindingsSection::default(),
            workers: WorkersSection::default(),
            secrets: SecretsSection::default(),
        }
    }
}

impl Config {
    /// Connections that there may be at once, of all kinds.
    pub(crate) fn connections_max(&self) -> u64 {
        let http = self.http.connections_max();
        let others = self.websocket.connections_max + self.bindings.clients_max();
        (self.pgwire.connections_max + http + others) as u64
    }

    /// `sockets`: where its socket is, if nothing else is configured.
    pub(crate) fn bindings(&self, sockets: &Path) -> server::BindingsOptions {
        self.bindings.options(&self.data, sockets)
    }

    pub(crate) fn log_format(&self) -> LogFormat {
        self.log.format
    }

    pub(crate) fn telemetry(&self) -> &TelemetrySection {
        &self.telemetry
    }

    /// Reads the files that it names: certificates, the administrator's password, tokens and keys.
    pub(crate) fn server_options(&self) -> Result<server::Options, Failure> {
        let tls = self.tls()?;
        let adjustable = self.adjustment()?;
        Ok(server::Options {
            auth: self.auth()?,
            identity: self.identity()?,
            limits: adjustable.limits,
            audit: self.audit()?,
            tls,
            pgwire: adjustable.pgwire,
            http: adjustable.http,
            telemetry: self.recorded(),
            insecure_listen: self.server.insecure_listen,
            drain_max: adjustable.drain_max,
        })
    }

    /// What of that can change while the server runs. No file is read.
    pub(crate) fn adjustment(&self) -> Result<server::Adjustment, Failure> {
        self.workers.check(&self.routing.options()?)?;
        Ok(server::Adjustment {
            pgwire: server::PgwireOptions {
                listen: self.pgwire.listen.clone(),
                tls: match self.pgwire.tls {
                    PgwireTls::Off => server::TlsMode::Off,
                    PgwireTls::Allow => server::TlsMode::Allow,
                    PgwireTls::Require => server::TlsMode::Require,
                },
                auth_timeout: Duration::from_millis(self.auth.timeout_ms),
                message_bytes_max: self.pgwire.message_bytes_max,
                startup_timeout: Duration::from_millis(self.pgwire.startup_timeout_ms),
                connections_max: self.pgwire.connections_max,
            },
            http: self.http.options(
                &self.routing,
                &self.websocket,
                self.metrics.open,
                self.telemetry.metrics_databases_max,
            )?,
            limits: self.request_limits(),
            drain_max: Duration::from_millis(self.server.drain_ms_max),
            sample_ratio: self.telemetry.sample_ratio,
        })
    }

    fn recorded(&self) -> server::Telemetry {
        match self.telemetry.otlp_endpoint.is_empty() {
            true => server::Telemetry::default(),
            false => server::Telemetry::on(self.telemetry.sample_ratio),
        }
    }

    fn tls(&self) -> Result<Option<Arc<Tls>>, Failure> {
        let usage = |message: &str| Err(Failure::Usage(message.to_owned()));
        let (certificate, key) = match (&self.tls.certificate, &self.tls.key) {
            (Some(certificate), Some(key)) => (certificate.clone(), key.clone()),
            (None, None) if self.pgwire.tls == PgwireTls::Require => {
                return usage("pgwire.tls = \"require\" needs tls.certificate and tls.key");
            }
            (None, None) if self.http.needs_tls() => {
                return usage("http.tls = \"require\" needs tls.certificate and tls.key");
            }
            (None, None) if self.tls.client_ca.is_some() => {
                return usage("tls.client_ca needs tls.certificate and tls.key");
            }
            (None, None) => return Ok(None),
            (Some(_), None) => return usage("tls.certificate needs tls.key"),
            (None, Some(_)) => return usage("tls.key needs tls.certificate"),
        };
        let files = TlsFiles {
            certificate,
            key,
            client_ca: self.tls.client_ca.clone(),
        };
        let tls = Tls::load(files).map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(Some(Arc::new(tls)))
    }

    pub(crate) fn database_options(&self) -> database::Options {
        let cache = self.cache.clone().unwrap_or_else(default_cache_directory);
        database::Options {
            auto_create: self.databases.auto_create,
            durability: self.durability.level,
            maintenance: self.maintenance.enabled,
            limits: Limits {
                backend_memory_bytes_max: self.backend.memory_bytes_max,
                volume_bytes_max: self.volume.bytes_max,
                session_wait_max: Duration::from_millis(self.sessions.wait_ms_max),
                idle_holder: Duration::from_millis(self.sessions.idle_holder_ms_max),
                flush_interval: Duration::from_millis(self.durability.flush_interval_ms),
                flush_entries_max: self.durability.flush_entries_max,
                dirty_bytes_max: self.volume.dirty_bytes_max,
                journal_bytes_max: self.journal.bytes_max,
                idle: Duration::from_millis(self.databases.idle_ms),
                awake_max: self.databases.awake_max,
                wakes_max: self.databases.wakes_max,
                spares_max: self.databases.spares_max,
                processes_shared: self.databases.processes_shared,
                processes_max: self.databases.processes_max,
                wake_wait_max: Duration::from_millis(self.databases.wake_wait_ms_max),
                wake_max: Duration::from_millis(self.databases.wake_ms_max),
                upkeep_statement_max: Duration::from_millis(self.maintenance.statement_ms_max),
                node_memory_bytes_max: self.node.memory_bytes_max,
                images_bytes_max: self.images.bytes_max,
                checkpoint_wal_bytes: self.maintenance.checkpoint_wal_bytes,
                wal_bytes_max: self.volume.wal_bytes_max,
                directory_cache_bytes_max: self.directory.cache_bytes_max,
                etag_databases_max: self.etags.databases_max,
                etag_queries_max: self.etags.queries_max,
                disk_reserve_bytes: self.disk.reserve_bytes,
                freeze_age: self.maintenance.freeze_age,
                figures_max: self.telemetry.figures_databases_max,
            },
            observe: Observe {
                slow_query: (self.log.slow_query_ms > 0)
                    .then(|| Duration::from_millis(self.log.slow_query_ms)),
                slow_query_plan: self.log.slow_query_plan,
                query_bytes_max: self.log.query_bytes_max,
                query_text: self.telemetry.query_text,
            },
            progress: super::progress::progress(),
            ..database::Options::new(&self.data, cache)
        }
    }
}
