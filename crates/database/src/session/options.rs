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
