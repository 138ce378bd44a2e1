//! One database's life: wake, serve, sleep; its sessions; the directory of all databases.
//!
//! [`Databases`] is a data directory, opened. Each database in it is asleep, a record and perhaps
//! files, or awake, with a backend. A [`Session`] has the backend to itself until it is closed;
//! others wait their turn. Nobody but this crate starts or stops a backend.

#![forbid(unsafe_code)]

mod catalog;
mod database;
mod databases;
mod directory;
mod gate;
mod maintenance;
mod options;
mod query;
mod session;
mod slot;
mod statements;
mod template;

pub use databases::{DatabaseInfo, Databases, OpenError, Source, State};
pub use engine::distribution::{PGLITE_VERSION, POSTGRES_VERSION};
pub use engine::{ClientIo, ClientIoError, Progress, Silent};
pub use options::{Durability, Limits, Options};
pub use query::{Column, QueryResult};
pub use session::{Canceller, Session, SessionEnded, SessionOptions};
pub use volume::DatabaseId;
pub use wire::{DatabaseName, PgError};
