//! The real program, started on free ports, with clients of every kind.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod acceptance;
mod apps;
mod audit;
mod bad_input;
mod bindings;
mod bound;
mod cancel;
mod cli;
mod clients;
mod curl;
mod documents;
mod doors;
mod etags;
mod harness;
mod http_api;
mod identity;
mod interactive;
mod isolation;
mod limits;
mod live;
mod login;
mod observability;
mod once;
mod once_crash;
mod persistence;
mod pg_restore;
mod pgbench;
mod pgwire;
mod pipelines;
mod psql;
mod queue;
mod reach;
mod reload;
mod scopes;
mod shutdown;
mod sizes;
mod stalled;
mod staying;
mod tenants;
mod termination;
mod timeouts;
mod tls;
mod tokens;
mod websockets;
