//! Who begins a session.

use wire::{PgError, sqlstate};

use crate::authority::Authority;

/// Who begins a session, and with what.
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    /// The role; empty for `postgres`.
    pub user: String,
    /// Settings to begin with, as in a startup packet.
    pub settings: Vec<(String, String)>,
    /// Where the session comes from, for people: "psql at 127.0.0.1:50123".
    pub origin: String,
    /// What logs call it, for programs: the number of a connection or of a request.
    pub label: String,
    /// What it may do beyond its own database.
    pub authority: Authority,
}

/// For a session of the host: what others have locked or set is not to hold it up, nor what they have made to stand in
/// for what its statements mean.
const HOST_SETTINGS: [(&str, &str); 6] = [
    ("search_path", "pg_catalog, pg_temp"),
    ("statement_timeout", "10s"),
    ("transaction_timeout", "10s"),
    ("lock_timeout", "5s"),
    ("default_transaction_read_only", "off"),
    ("role", "none"),
];

/// The settings of a session of the host.
pub(crate) fn host_settings() -> Vec<(String, String)> {
    HOST_SETTINGS
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

impl SessionOptions {
    /// Postgres would take text as far as the first zero byte, and so another name or value.
    pub(super) fn check(&self) -> Result<(), PgError> {
        let zero = |what: String| {
            PgError::fatal(
                sqlstate::CHARACTER_NOT_IN_REPERTOIRE,
                format!("invalid byte sequence for encoding \"UTF8\": 0x00, in {what}"),
            )
        };
        if self.user.contains('\0') {
            return Err(zero("the name of the user".to_owned()));
        }
        for (name, value) in &self.settings {
            if name.contains('\0') || value.contains('\0') {
                return Err(zero(format!("the setting {name:?}")));
            }
        }
        Ok(())
    }
}
