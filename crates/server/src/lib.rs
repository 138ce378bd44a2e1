//! Listeners for pgwire and HTTP: routing a request to a database, limits, errors.
//!
//! [`Listeners::bind`] takes the addresses, [`Server::run`] serves [`Databases`](database::Databases)
//! on them until it is told to stop, and then lets what runs come to its end. Read in this order:
//!
//! - `pgwire`: one task a connection. Whole messages go in, PostgreSQL's bytes come out.
//! - `http`: SQL over HTTP and the directory of databases, all of it JSON.
//!
//! What holds in every file:
//!
//! 1. A client can end its own connection only. Whatever it sends, others are served.
//! 2. Whoever waits for a statement is watched: when the client goes, its statement is cancelled.
//! 3. Nothing that a client makes us keep is without a limit in [`Options`].

mod accept;
mod address;
mod adjust;
mod apps;
mod audit;
mod auth;
mod bindings;
mod blocking;
mod connections;
mod http;
mod identity;
mod insist;
mod linger;
mod metrics;
mod node_key;
mod options;
mod pgwire;
mod proxies;
mod reload;
mod request_limits;
mod result_cache;
mod secret_file;
mod security;
mod server;
mod shutdown;
mod telemetry;
mod timestamp;
mod tls;

pub use address::{ListenError, Listeners};
pub use adjust::{Adjuster, Adjustment, Reconfigure, ReloadDocument};
pub use apps::{Apps, AppsError, AppsOptions};
pub use audit::Audit;
pub use auth::{Administrator, AdministratorError, Auth, verifier_of};
pub use bindings::{BindingsOptions, LendError, ManagedBindings, OpenBindingsError, SocketError};
pub use http::{
    AllowedDocument, BindingDocument, BindingFields, BucketDocument, By, CachingDocument,
    CheckedDocument, Cors, CorsOptions, CountsDocument, CreatedCredential, CredentialDocument,
    DatabaseDocument, FiguresDocument, FiguresPage, LatencyDocument, LimitsDocument, NewCredential,
    OriginDocument, OriginFields, PerAppDocument, PoolDocument, ReplicationDocument,
};
pub use identity::{
    ClaimDatabase, ClaimOptions, CreatedToken, IdentityOptions, Introspection,
    IntrospectionOptions, Jwt, JwtOptions, KeySource, NewToken, PasswordLimits, RefPattern,
    RepositoryPattern, TokenDocument, Tokens, TokensError, Workflow, WorkflowOptions,
    subject_database,
};
pub use metrics::{Durations, Family, Kind, Meter, Sample, Value};
pub use node_key::{NodeKey, NodeKeyError};
pub use options::{HttpOptions, Options, PgwireOptions, RoutingOptions, WebSocketOptions};
pub use pooler::{CacheOptions, Failure as OriginFailure, Keepalive};
pub use proxies::Proxies;
pub use reload::Reload;
pub use request_limits::RequestLimitOptions;
pub use result_cache::{ResultCache, ResultCacheLimits, ResultCacheMetrics};
pub use server::Server;
pub use telemetry::{ROOTS, Telemetry};
pub use tls::{HttpTls, Tls, TlsError, TlsFiles, TlsMode, client_config, client_config_of_nobody};
