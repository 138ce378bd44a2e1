//! Users and passwords, in clear from the client: they are hashed here.

use std::sync::Arc;
use std::time::SystemTime;

use database::{Credentials, DatabaseName, Databases};
use tokio::sync::Semaphore;
use wire::PgError;
use wire::pg::scram::Verifier;
use zeroize::Zeroizing;

use super::presented::Password;
use super::verdicts::Verdicts;
use crate::auth::Administrator;

/// The role whose password the node keeps.
pub(super) const ADMINISTRATOR: &str = "postgres";

/// The most rounds of a verifier that are done: a role chooses those of its own.
const ITERATIONS_MAX: u32 = 100_000;

/// Passwords that are hashed at once; each takes a processor.
const TURNS: usize = 2;

/// Passwords that are remembered, and for how many seconds.
const ENTRIES_MAX: usize = 10_000;
const REMEMBERED: u64 = 60;

/// Checks passwords.
pub(super) struct Passwords {
    turns: Arc<Semaphore>,
    /// Those that were right, so that not every request is hashed a few thousand times.
    right: Verdicts<()>,
}

/// Why nobody comes in with a password.
pub(super) enum Wrong {
    /// For the log; the client learns only that it is wrong.
    Refused(&'static str),
    /// After the right password.
    Role(PgError),
    /// It cannot be checked.
    Failed(PgError),
}

impl Passwords {
    pub(super) fn new() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(TURNS)),
            right: Verdicts::new(ENTRIES_MAX),
        }
    }

    /// Whether it is the administrator's.
    pub(super) async fn administrator(
        &self,
        administrator: &Administrator,
        password: &Password,
        now: u64,
    ) -> Result<(), Wrong> {
        self.check(administrator.verifier(), &password.password, now)
            .await
    }

    /// Whether it is that of a role of the database, which may come in.
    pub(super) async fn role(
        &self,
        databases: &Databases,
        database: &DatabaseName,
        password: &Password,
        now: u64,
    ) -> Result<(), Wrong> {
        let user = &*password.user;
        let found: Option<Credentials> = databases
            .credentials(database, user)
            .await
            .map_err(Wrong::Failed)?;
        let verifier = match &found {
            Some(found) => found.verifier(SystemTime::now()).cloned(),
            None => Err("there is no such role, or no such database"),
        };
        let (verifier, reason) = match verifier {
            Ok(verifier) if verifier.iterations() > ITERATIONS_MAX => (
                None,
                Some("the role's scram_iterations are more than 100,000, the most over HTTP"),
            ),
            Ok(verifier) => (Some(verifier), None),
            Err(reason) => (None, Some(reason)),
        };
        // Who is not there takes as long as who is.
        let verifier = verifier
            .unwrap_or_else(|| Verifier::mock(databases.mock_secret(), database.as_str(), user));
        self.check(verifier, &password.password, now).await?;
        match (reason, found) {
            (None, Some(found)) => found.admit().map_err(Wrong::Role),
            (reason, _) => Err(Wrong::Refused(reason.unwrap_or("there is no such role"))),
        }
    }

    async fn check(
        &self,
        verifier: Verifier,
        password: &Zeroizing<String>,
        now: u64,
    ) -> Result<(), Wrong> {
        let name = self
            .right
            .name(&[verifier.to_text().as_bytes(), password.as_bytes()]);
        if self.right.get(&name, now).is_some() {
            return Ok(());
        }
        let failed =
            |what: String| Wrong::Failed(PgError::error(wire::sqlstate::INTERNAL_ERROR, what));
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(|error| failed(error.to_string()))?;
        let password = password.clone();
        let checked = tokio::task::spawn_blocking(move || {
            let right = verifier.is_of(&password);
            drop(turn);
            right
        });
        match checked.await {
            Ok(true) => {
                self.right
                    .keep(name, (), now, now.saturating_add(REMEMBERED));
                Ok(())
            }
            Ok(false) => Err(Wrong::Refused("the password is wrong")),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}
