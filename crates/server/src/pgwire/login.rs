//! Who comes in with a password that is not asked for by SCRAM: in a tunnel.

use database::Authority;
use wire::{PgError, sqlstate};
use zeroize::Zeroizing;

use super::Pgwire;
use crate::auth::Auth;
use crate::identity::Wrong;

/// Who wants to come in, and where.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) database: String,
    pub(crate) password: Zeroizing<String>,
}

impl Pgwire {
    /// What a session of who logs in like this may do. `origin` is for the log.
    ///
    /// # Errors
    /// 28P01 for a wrong password, an unknown role or database alike; 28000 and 42501 for a role that may not log in
    /// or connect.
    pub(super) async fn check_password(
        &self,
        login: &Login,
        origin: &str,
    ) -> Result<Authority, PgError> {
        let Auth::Scram(administrator) = &self.auth else {
            return Ok(Authority::Node);
        };
        let (database, user) = (&*login.database, &*login.user);
        let checked = self
            .passwords
            .check(administrator, database, user, &login.password);
        match checked.await {
            Ok(Some(_)) => Ok(Authority::Role),
            Ok(None) => Ok(Authority::Node),
            Err(Wrong::Role(error)) => Err(error),
            Err(Wrong::Failed(error)) => Err(unreadable(database, user, &error)),
            Err(Wrong::Refused(reason)) => {
                tracing::info!(
                    origin,
                    database,
                    user,
                    %reason,
                    "password authentication failed"
                );
                Err(wrong_password(user))
            }
        }
    }
}

/// What is said to whoever is not let in.
pub(super) fn wrong_password(user: &str) -> PgError {
    PgError::fatal(
        sqlstate::INVALID_PASSWORD,
        format!("password authentication failed for user \"{user}\""),
    )
}

/// What is said where a role's password cannot be checked; why is in the log alone.
pub(super) fn unreadable(database: &str, user: &str, error: &PgError) -> PgError {
    tracing::warn!(database, user, %error, "a role's password cannot be read");
    PgError::fatal(error.code(), "the role's password cannot be read now")
        .hint("Try again later; the server's log says why.")
}
