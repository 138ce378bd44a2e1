//! The PostgreSQL protocol, version 3.0 to 3.2, as bytes.
//!
//! A connection begins with [`startup`] packets, which have no type byte; everything after them is
//! a [`Frame`]. [`frontend`] holds the messages that clients send, [`backend`] those that servers
//! send, [`PgError`] the one that both know. [`sasl`] and [`scram`] ask a client for its password. [`statement`] reads just enough SQL to find the
//! statements that no single PostgreSQL can execute, because they are about databases as a whole.

pub mod authentication;
pub mod backend;
mod database_option;
mod database_parser;
mod database_statement;
mod error;
mod frame;
pub mod frontend;
mod lexer;
mod reader;
pub mod sasl;
pub mod scram;
mod shape;
pub mod startup;
pub mod statement;
mod tally;
mod writer;

pub use database_statement::DatabaseStatement;
pub use error::{ErrorField, PgError, Severity, http_status, sqlstate};
pub use frame::{Frame, frames};
pub use lexer::{Lexer, Token, TokenKind};
pub use shape::{command, shape};
pub use tally::Tally;

/// How a value is encoded in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As its type's output function writes it.
    Text,
    /// As its type's send function writes it.
    Binary,
}

impl Format {
    /// The code of this format in messages.
    pub fn code(self) -> i16 {
        match self {
            Self::Text => 0,
            Self::Binary => 1,
        }
    }

    pub(crate) fn from_code(code: i16) -> Result<Self, PgError> {
        match code {
            0 => Ok(Self::Text),
            1 => Ok(Self::Binary),
            _ => Err(PgError::error(
                sqlstate::PROTOCOL_VIOLATION,
                format!("unsupported format code: {code}"),
            )),
        }
    }
}

/// What `Describe` and `Close` are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A prepared statement.
    Statement,
    /// A portal.
    Portal,
}

impl Target {
    /// The code of this target in messages.
    pub fn code(self) -> u8 {
        match self {
            Self::Statement => b'S',
            Self::Portal => b'P',
        }
    }
}

/// Where a session stands between two messages, as `ReadyForQuery` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    /// No transaction is open.
    Idle,
    /// A transaction is open.
    InTransaction,
    /// A transaction is open and failed: only its end is accepted.
    Failed,
}

impl TransactionStatus {
    /// The code of this status in `ReadyForQuery`.
    pub fn code(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InTransaction => b'T',
            Self::Failed => b'E',
        }
    }
}
