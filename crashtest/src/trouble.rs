//! Why a client cannot go on.

/// The end of a client's work with one server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The connection ended. Whether it may is for whoever knows whether the server was killed.
    #[error("the connection ended: {0}")]
    Gone(String),
    /// Postgres, or the server, refused.
    #[error("{code}: {message}")]
    Refused {
        /// The SQLSTATE.
        code: String,
        /// The message, its detail, and the statement.
        message: String,
    },
    /// A promise is broken.
    #[error("{0}")]
    Broken(String),
}

impl Trouble {
    /// A broken promise.
    pub fn broken(what: impl Into<String>) -> Self {
        Self::Broken(what.into())
    }

    /// Whether it is a refusal with this SQLSTATE.
    pub fn is(&self, sqlstate: &str) -> bool {
        matches!(self, Self::Refused { code, .. } if code == sqlstate)
    }
}
