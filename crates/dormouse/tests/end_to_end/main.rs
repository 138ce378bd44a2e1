//! The real program, started on free ports, with clients of every kind.

mod bad_input;
mod cancel;
mod cli;
mod harness;
mod http_api;
mod isolation;
mod persistence;
mod pgwire;
mod psql;
mod shutdown;
