//! Checking a password that came as it is: over HTTP, and in a tunnel.
//!
//! 1. As over PostgreSQL's protocol, who has not proved who it is learns nothing of roles and databases.
//! 2. Hashing a password takes a millisecond and more, by design. What was proved once is remembered, as a hash that
//!    is worth nothing outside this process; another password of the role makes it void.

use std::collections::HashSet;

use database::Authority;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use wire::pg::scram::Verifier;
use wire::{PgError, sqlstate};
use zeroize::Zeroizing;

use super::Pgwire;
use super::authentication::{ADMINISTRATOR, look_up};
use crate::auth::Auth;

/// What was proved and is remembered: past it all of it is forgotten.
const PROVED_MAX: usize = 10_000;

/// Passwords hashed at once: they are the processor's work alone.
const HASHING_MAX: usize = 2;

/// Rounds of a verifier that this server hashes itself. Over PostgreSQL's protocol that is the client's work.
const ITERATIONS_MAX: u32 = 1_000_000;

/// Bytes of a password.
const PASSWORD_BYTES_MAX: usize = 1_024;

/// Which passwords were proved.
pub(super) struct Passwords {
    /// Makes the hashes worthless elsewhere.
    salt: Zeroizing<[u8; 32]>,
    proved: Mutex<HashSet<[u8; 32]>>,
    hashing: Semaphore,
}

/// Who wants to come in, and where.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) database: String,
    pub(crate) password: Zeroizing<String>,
}

impl Passwords {
    pub(super) fn new() -> Self {
        let mut salt = Zeroizing::new([0; 32]);
        // Without random bytes the hashes are still hashes, in this process' memory.
        let _ = getrandom::fill(&mut *salt);
        Self {
            salt,
            proved: Mutex::default(),
            hashing: Semaphore::new(HASHING_MAX),
        }
    }

    async fn is_of(&self, verifier: Verifier, password: &Zeroizing<String>) -> bool {
        if verifier.iterations() > ITERATIONS_MAX || password.len() > PASSWORD_BYTES_MAX {
            return false;
        }
        let hash = self.hash(&verifier, password);
        if self.proved.lock().contains(&hash) {
            return true;
        }
        // Nobody closes it.
        let _turn = self.hashing.acquire().await;
        let password = password.clone();
        let hashing = tokio::task::spawn_blocking(move || verifier.is_of(&password));
        let is_right = hashing.await.unwrap_or(false);
        if is_right {
            let mut proved = self.proved.lock();
            if proved.len() >= PROVED_MAX {
                proved.clear();
            }
            proved.insert(hash);
        }
        is_right
    }

    fn hash(&self, verifier: &Verifier, password: &str) -> [u8; 32] {
        let verifier = verifier.to_text();
        let mut hash = Sha256::new();
        hash.update(*self.salt);
        hash.update((verifier.len() as u64).to_be_bytes());
        hash.update(verifier.as_bytes());
        hash.update(password.as_bytes());
        hash.finalize().into()
    }
}

impl Pgwire {
    /// What a session of who logs in like this may do. `origin` is for the log.
    ///
    /// # Errors
    /// 28P01 for a wrong password, an unknown role or database alike; 28000 and 42501 for a role that may not log in
    /// or connect.
    pub(crate) async fn check_password(
        &self,
        login: &Login,
        origin: &str,
    ) -> Result<Authority, PgError> {
        let Auth::Scram(administrator) = &self.auth else {
            return Ok(Authority::Node);
        };
        let (database, user) = (&*login.database, &*login.user);
        let known = look_up(self, administrator, database, user).await?;
        // A password is tried also where none would do, for the time that it takes.
        let is_right = self.passwords.is_of(known.verifier, &login.password).await;
        if !is_right || known.reason.is_some() {
            let reason = known.reason.as_deref().unwrap_or("the password is wrong");
            tracing::info!(
                origin,
                database,
                user,
                reason,
                "password authentication failed"
            );
            return Err(wrong_password(user));
        }
        let Some(credentials) = known.credentials else {
            debug_assert_eq!(user, ADMINISTRATOR, "BUG: who else has no credentials");
            return Ok(Authority::Node);
        };
        credentials.admit()?;
        Ok(Authority::Role)
    }
}

/// What is said to whoever is not let in.
pub(super) fn wrong_password(user: &str) -> PgError {
    PgError::fatal(
        sqlstate::INVALID_PASSWORD,
        format!("password authentication failed for user \"{user}\""),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_proved_is_remembered_for_its_verifier_alone() {
        let passwords = Passwords::new();
        let password = |text: &str| Zeroizing::new(text.to_owned());
        let verifier = Verifier::of_password("secret", b"salt", 2);
        assert!(!passwords.is_of(verifier.clone(), &password("other")).await);
        assert!(passwords.proved.lock().is_empty());
        assert!(passwords.is_of(verifier.clone(), &password("secret")).await);
        assert_eq!(passwords.proved.lock().len(), 1);
        assert!(passwords.is_of(verifier, &password("secret")).await);
        let changed = Verifier::of_password("other", b"salt", 2);
        assert!(!passwords.is_of(changed, &password("secret")).await);
    }

    #[tokio::test]
    async fn what_takes_too_long_is_not_hashed() {
        let slow = "SCRAM-SHA-256$4000000000:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        let slow = Verifier::parse(slow).unwrap();
        let password = Zeroizing::new("pencil".to_owned());
        assert!(!Passwords::new().is_of(slow, &password).await);
    }
}
