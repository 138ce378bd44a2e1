//! Managed bindings to external Postgres.

mod awaited;
mod connect;
mod facts;
mod failure;
mod origin;
mod settings;
mod side;
mod stream;
mod tls;

pub use facts::Pin;
pub use failure::{Failure, FailureKind};
pub use origin::{Host, Identity, Origin, Secret, Target, Tls, TlsMode, UrlError};
