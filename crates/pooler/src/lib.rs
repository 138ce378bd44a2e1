//! Managed bindings to external Postgres: many clients' transactions over few connections.
//!
//! [`Bindings`] keeps what is configured; each [`Binding`] to an external Postgres has a pool. A [`Pool`] has connections to one [`Origin`]. A [`Client`] gets one of them for a transaction, or for longer if its
//! session leaves something there that cannot be carried to another. What holds in every file:
//!
//! 1. Nothing of one client's session is seen by another. What cannot be kept apart keeps its connection ("pinned"),
//!    or is an error.
//! 2. There are never more connections than `connections_max`, those that are being made or ended included.
//! 3. A connection of which nobody knows where it stands is closed.
//! 4. Secrets are in no log and in no `Debug`.

mod awaited;
mod binding;
mod bindings;
mod cache;
mod cancel;
mod client;
mod connect;
mod credential;
mod dialing;
mod facts;
mod failure;
mod literals;
mod options;
mod origin;
mod pool;
mod record;
mod replication;
mod server;
mod settings;
mod side;
mod statements;
mod stranger;
mod stream;
mod tls;
mod vault;
mod weighed;

pub use binding::{
    Allowed, Binding, BindingTarget, CREDENTIALS_MAX, Caching, CachingMode, InvalidField, Limits,
    MAX_AGE_MAX, NAME_BYTES_MAX,
};
pub use bindings::{BINDINGS_MAX, Bindings, BindingsError, Checked, Reservation, check};
pub use cache::{CacheFigures, CacheFilling, CacheOptions, CacheSpace, CacheStatus};
pub use cancel::Canceller;
pub use client::{Client, ClientIdentity, Ended, Stop};
pub use credential::Credential;
pub use dialing::{Addresses, Dialing, Keepalive, Resolver, SystemResolver};
pub use facts::Pin;
pub use failure::{Failure, FailureKind};
pub use options::PoolOptions;
pub use origin::{ChannelBinding, Host, Identity, Origin, Secret, Target, Tls, TlsMode, UrlError};
pub use pool::{Counts, Durations, Pool, Standing};
pub use replication::{ReplicationFailure, ReplicationReason, ReplicationStanding};
pub use vault::VaultError;
