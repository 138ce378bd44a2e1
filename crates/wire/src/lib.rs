//! Protocols as pure state machines: Postgres v3 messages, SQL over HTTP. No sockets, no clock.
//!
//! Read in this order: [`pg`] frames, inspects and builds the bytes of both sides of a PostgreSQL
//! connection; [`http`] turns the same values into JSON and back. Nothing here waits, keeps time or
//! knows a tenant. What holds in every file:
//!
//! 1. Every parser is total: any bytes give a value or a [`PgError`], never a panic, and never an
//!    allocation larger than what was received.
//! 2. There is one error, [`PgError`]: what a client of PostgreSQL would be told. It becomes an
//!    `ErrorResponse` or an HTTP status with JSON, both defined beside it.

mod database_name;
pub mod http;
pub mod pg;
mod size_limit;
mod trace_context;

pub use database_name::{DatabaseName, InvalidDatabaseName};
pub use pg::{PgError, Severity, sqlstate};
pub use size_limit::SizeLimit;
pub use trace_context::{TraceContext, trace_state};
