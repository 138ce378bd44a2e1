//! One database's life: wake, serve, sleep; its sessions; the directory of all databases.
//!
//! [`Databases`] is a data directory, opened. Each database in it is asleep, a record and perhaps
//! files, or awake, with a backend. A [`Session`] has the backend to itself until it is closed;
//! others wait their turn. Nobody but this crate starts or stops a backend.

#![forbid(unsafe_code)]

mod adjustable;
mod admission;
mod authority;
mod callers;
mod catalog;
mod compact;
mod counted;
mod credentials;
mod currency;
mod database;
mod databases;
mod dependencies;
mod directory;
mod disk_watch;
mod errors;
mod figures;
mod further;
mod gate;
mod hibernate;
mod images;
mod info;
mod live;
mod machine;
mod maintenance;
mod metrics;
mod node;
mod options;
mod prepared;
mod query;
mod record;
mod refusal;
mod role_settings;
mod seat;
mod session;
mod slot;
mod spares;
mod statements;
mod template;
mod trace;
mod upkeep;
mod versions;
mod wake;
mod witness;

pub use authority::Authority;
pub use callers::{READ_ROLE, WRITE_ROLE};
pub use credentials::Credentials;
pub use currency::{Currency, ResultVersion};
pub use databases::{Databases, OpenError};
pub use dependencies::{QueryKey, Uncacheable};
pub use engine::distribution::{PGLITE_VERSION, POSTGRES_VERSION};
pub use engine::{ClientIo, ClientIoError, Progress, Silent};
pub use figures::{Counts, DatabaseFigures, Durations, Histogram, NodeFigures, Reuse};
pub use info::{DatabaseInfo, State};
pub use machine::memory_bytes as machine_memory_bytes;
pub use metrics::{Metrics, Timed};
pub use node::Source;
pub use options::{Durability, Limits, Observe, Options, PROCESSES_MAX};
pub use query::{Answer, Column, QueryResult};
pub use record::Settings;
pub use session::{
    Canceller, HostResult, HostStatement, Pulse, Session, SessionEnded, SessionOptions,
};
pub use trace::TRACE;
pub use volume::DatabaseId;
pub use wire::{DatabaseName, PgError};
pub use witness::{Change, Doer, Witness};
