//! The crash test: `dormouse serve` under a workload over many databases is killed at random
//! moments, started again, and asked whether it kept its promises.
//!
//! Every transaction of a database has a number, which the transaction writes into the database, and
//! the client knows what each number's transaction did. So a database that shows number `n` must
//! hold exactly what the transactions `1..=n` left, and `n` is at least the last acknowledged and at
//! most the last sent. Everything else is checked from there: rows, catalog, and Postgres' own files.
//!
//! Read in this order: [`run`], [`schedule`], [`keeper`], [`visit`], [`model`], [`checker`].

pub mod checker;
pub mod child;
pub mod counters;
pub mod directory;
pub mod evidence;
pub mod failure;
pub mod http;
pub mod keeper;
pub mod member;
pub mod model;
pub mod op;
pub mod options;
pub mod payload;
pub mod phase;
pub mod random;
pub mod report;
pub mod run;
pub mod schedule;
pub mod session;
pub mod shared;
pub mod stage;
pub mod state;
pub mod transaction;
pub mod trouble;
pub mod visit;
pub mod window;
pub mod workload;

pub use failure::Failure;
pub use options::{Options, Until};
pub use report::Summary;
pub use run::run;
pub use window::Durability;
