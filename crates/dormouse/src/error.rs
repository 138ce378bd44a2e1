//! What can go wrong, by what to do about it.

use database::{OpenError, PgError};
use wire::InvalidDatabaseName;

use crate::rows::ValueError;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot be opened. The message says what to do.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// No database can have this name. The message is the rule.
    #[error("\"{name}\" cannot be the name of a database: {rule}")]
    Name {
        /// The name.
        name: String,
        /// What names are like.
        rule: InvalidDatabaseName,
    },
    /// PostgreSQL refused, or Dormouse in its words: [`PgError::code`] tells errors apart.
    #[error(transparent)]
    Postgres(#[from] PgError),
    /// A value is not what was asked for.
    #[error(transparent)]
    Value(#[from] ValueError),
}

impl Error {
    /// The SQLSTATE, if PostgreSQL refused: `23505` is a unique violation, `3D000` a database that
    /// does not exist.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Postgres(error) => Some(error.code()),
            _ => None,
        }
    }
}
