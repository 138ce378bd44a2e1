//! Fuzzers of sessions.
//!
//! `protofuzz` sends arbitrary frontend messages over many connections to few databases, whose sessions
//! share few processes, and looks for answers that cannot be right: another session's bytes, silence, an
//! end without a reason. Read in this order: [`protocol::story`], [`protocol::play`], [`protocol::run`].
//!
//! `sessionfuzz` runs programs of several sessions, message by message in one order, on both Dormouse and a
//! native server, and compares the answers. Read: [`sessions::program`], [`sessions::side`], [`sessions::run`].

pub mod cli;
pub mod log;
pub mod memory;
pub mod protocol;
pub mod server;
pub mod sessions;
