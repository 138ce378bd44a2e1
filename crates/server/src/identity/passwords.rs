//! Users and passwords. One that comes as it is, over HTTP or in a tunnel, is hashed here; over PostgreSQL's protocol the
//! client does that.
//!
//! 1. A role or a database that is not there has a verifier too, which no password is of: who has not proved who they
//!    are learns nothing, also not from the time that it takes.
//! 2. Hashing takes a millisecond and more, by design. What was right is remembered for a while, by a hash that is worth
//!    nothing outside this process; another password of the role makes it void.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use database::{Credentials, DatabaseName, Databases};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use wire::PgError;
use wire::pg::scram::Verifier;
use zeroize::Zeroizing;

use super::queue::Queue;
use super::verdicts::Verdicts;
use super::{PasswordLimits, now};
use crate::auth::Administrator;

/// The role whose password the node keeps.
pub(crate) const ADMINISTRATOR: &str = "postgres";

/// The longest password, in bytes.
const PASSWORD_BYTES_MAX: usize = 1_024;

/// Passwords that are hashed at once; each takes a processor, also when nobody waits for what comes of it any more.
const TURNS: usize = 2;

/// Passwords that are remembered, and for how many seconds.
const ENTRIES_MAX: usize = 10_000;
const REMEMBERED: u64 = 60;

/// Checks passwords.
pub(crate) struct Passwords {
    databases: Databases,
    limits: PasswordLimits,
    hashing: Hashing,
}

/// What is known of who wants to come in.
pub(crate) struct Known {
    pub(crate) verifier: Verifier,
    /// Of a role of the database; the administrator has none.
    pub(crate) credentials: Option<Credentials>,
    /// Why nobody can come in as it.
    pub(crate) reason: Option<Cow<'static, str>>,
}

/// Why nobody comes in with a password.
pub(crate) enum Wrong {
    /// For the log; the client learns only that it is wrong.
    Refused(Cow<'static, str>),
    /// After the right password.
    Role(PgError),
    /// It cannot be checked.
    Failed(PgError),
}

/// Why a password is not hashed.
#[derive(Debug)]
struct NotHashed(PgError);

/// Whether passwords are right, and which were.
struct Hashing {
    turns: Arc<Semaphore>,
    queue: Queue,
    limits: PasswordLimits,
    right: Verdicts<()>,
}

impl Passwords {
    /// A role chooses its own number of rounds: of more than the limit no password is hashed here.
    pub(crate) fn new(databases: Databases, limits: PasswordLimits) -> Self {
        Self {
            databases,
            limits,
            hashing: Hashing::new(limits),
        }
    }

    /// What is known of a role of the database, or of the administrator.
    ///
    /// # Errors
    /// What the database says if it cannot be read.
    pub(crate) async fn look_up(
        &self,
        administrator: &Administrator,
        database: &str,
        role: &str,
    ) -> Result<Known, PgError> {
        if role == ADMINISTRATOR {
            return Ok(Known {
                verifier: administrator.verifier(),
                credentials: None,
                reason: None,
            });
        }
        let credentials = match DatabaseName::parse(database) {
            Ok(name) => self.databases.credentials(&name, role).await?,
            Err(_) => None,
        };
        let verifier = match &credentials {
            Some(credentials) => credentials.verifier(SystemTime::now()).cloned(),
            None => Err("there is no such role, or no such database"),
        };
        Ok(match verifier {
            Ok(verifier) => Known {
                verifier,
                credentials,
                reason: None,
            },
            Err(reason) => Known {
                verifier: Verifier::mock(self.databases.mock_secret(), database, role),
                credentials: None,
                reason: Some(reason.into()),
            },
        })
    }

    /// Whether a password that came as it is is that of somebody who is no role: of a user of a binding.
    ///
    /// # Errors
    /// 57P03 if too many wait to be checked.
    pub(crate) async fn is_of(
        &self,
        verifier: Verifier,
        password: &Zeroizing<String>,
    ) -> Result<bool, PgError> {
        let is_right = self.hashing.is_of(verifier, password).await;
        is_right.map_err(|NotHashed(error)| error)
    }

    /// Checks a password that came as it is: what is known of the role, which may come in. The administrator's is none
    /// of a database.
    pub(crate) async fn check(
        &self,
        administrator: &Administrator,
        database: &str,
        role: &str,
        password: &Zeroizing<String>,
    ) -> Result<Option<Credentials>, Wrong> {
        let known = self.look_up(administrator, database, role).await;
        let mut known = known.map_err(Wrong::Failed)?;
        if let Some(reason) = too_slow(&known.verifier, self.limits.iterations_max) {
            known.reason = Some(reason.into());
            known.verifier = Verifier::mock(self.databases.mock_secret(), database, role);
        }
        let is_right = self.hashing.is_of(known.verifier, password).await;
        let is_right = is_right.map_err(|NotHashed(error)| Wrong::Failed(error))?;
        match known.reason {
            Some(reason) => Err(Wrong::Refused(reason)),
            None if !is_right => Err(Wrong::Refused("the password is wrong".into())),
            None => {
                let admitted = known.credentials.as_ref().map(Credentials::admit);
                admitted.transpose().map_err(Wrong::Role)?;
                Ok(known.credentials)
            }
        }
    }
}

/// Why no password is hashed as this verifier wants.
fn too_slow(verifier: &Verifier, iterations_max: u32) -> Option<String> {
    let iterations = verifier.iterations();
    (iterations > iterations_max).then(|| {
        format!(
            "the password was made with scram_iterations = {iterations}, more than auth.scram_iterations_max, \
             {iterations_max}: set it anew with fewer, or raise that"
        )
    })
}

/// A password that could not be hashed.
fn failed(error: &dyn std::error::Error) -> NotHashed {
    NotHashed(PgError::error(
        wire::sqlstate::INTERNAL_ERROR,
        error.to_string(),
    ))
}

impl Hashing {
    fn new(limits: PasswordLimits) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(TURNS)),
            queue: Queue::default(),
            limits,
            right: Verdicts::new(ENTRIES_MAX),
        }
    }

    async fn is_of(
        &self,
        verifier: Verifier,
        password: &Zeroizing<String>,
    ) -> Result<bool, NotHashed> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Ok(false);
        }
        let (name, now) = (self.name(&verifier, password), now());
        if self.right.get(&name, now).is_some() {
            return Ok(true);
        }
        let turn = self.turn().await?;
        let password = password.clone();
        let checked = tokio::task::spawn_blocking(move || {
            let is_right = verifier.is_of(&password);
            // Who leaves meanwhile does not give it back: it is still used.
            drop(turn);
            is_right
        });
        let is_right = checked.await.map_err(|error| failed(&error))?;
        if is_right {
            self.right
                .keep(name, (), now, now.saturating_add(REMEMBERED));
        }
        Ok(is_right)
    }

    /// A turn to hash. Anybody can make others wait, but not for long.
    async fn turn(&self) -> Result<OwnedSemaphorePermit, NotHashed> {
        let free = Arc::clone(&self.turns).try_acquire_owned();
        if let Ok(turn) = free {
            return Ok(turn);
        }
        let PasswordLimits {
            queue_max,
            wait_max,
            ..
        } = self.limits;
        let busy = |limit: String| {
            NotHashed(PgError::error(
                wire::sqlstate::CANNOT_CONNECT_NOW,
                format!("too many passwords wait to be checked: {limit}"),
            ))
        };
        let place = self.queue.enter(queue_max);
        let _place =
            place.ok_or_else(|| busy(format!("auth.password_queue_max is {queue_max}")))?;
        let turn = timeout(wait_max, Arc::clone(&self.turns).acquire_owned()).await;
        let waited = |_| {
            let waited = wait_max.as_millis();
            busy(format!("auth.password_wait_ms_max, {waited}, is over"))
        };
        let turn = turn.map_err(waited)?;
        turn.map_err(|error| failed(&error))
    }

    fn name(&self, verifier: &Verifier, password: &str) -> super::verdicts::Name {
        self.right
            .name(&[verifier.to_text().as_bytes(), password.as_bytes()])
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_was_right_is_remembered_for_its_verifier_alone() {
        let hashing = Hashing::new(PasswordLimits::default());
        let is_of = async |verifier: &Verifier, password: &str| {
            let password = Zeroizing::new(password.to_owned());
            hashing
                .is_of(verifier.clone(), &password)
                .await
                .ok()
                .unwrap()
        };
        let is_remembered = |verifier: &Verifier, password| {
            let name = hashing.name(verifier, password);
            hashing.right.get(&name, now()).is_some()
        };
        let verifier = Verifier::of_password("secret", b"salt", 2);
        assert!(!is_of(&verifier, "other").await);
        assert!(!is_remembered(&verifier, "other"));
        for _ in 0..2 {
            assert!(is_of(&verifier, "secret").await);
            assert!(is_remembered(&verifier, "secret"));
        }
        let changed = Verifier::of_password("other", b"salt", 2);
        assert!(!is_of(&changed, "secret").await);
        let long = "x".repeat(PASSWORD_BYTES_MAX + 1);
        let of_long = Verifier::of_password(&long, b"salt", 2);
        assert!(!is_of(&of_long, &long).await);
    }

    #[tokio::test]
    async fn nobody_waits_in_a_long_queue_nor_for_long() {
        let hashing = Hashing::new(PasswordLimits {
            queue_max: 1,
            wait_max: Duration::from_millis(20),
            ..PasswordLimits::default()
        });
        let verifier = Verifier::of_password("secret", b"salt", 2);
        let ask = async |password: &str| {
            let password = Zeroizing::new(password.to_owned());
            match hashing.is_of(verifier.clone(), &password).await {
                Err(NotHashed(error)) => {
                    assert_eq!(error.code(), wire::sqlstate::CANNOT_CONNECT_NOW);
                    Err(error.message().to_owned())
                }
                Ok(is_right) => Ok(is_right),
            }
        };
        assert_eq!(ask("secret").await, Ok(true));
        let turns = hashing.turns.acquire_many(TURNS as u32).await.unwrap();
        // The second comes while the first waits.
        let (late, full) = tokio::join!(ask("a"), ask("b"));
        assert!(late.unwrap_err().contains("auth.password_wait_ms_max, 20"));
        assert!(full.unwrap_err().contains("auth.password_queue_max is 1"));
        // What is remembered waits for nobody.
        assert_eq!(ask("secret").await, Ok(true));
        drop(turns);
        assert_eq!(ask("b").await, Ok(false));
    }

    #[tokio::test]
    async fn who_leaves_does_not_give_back_the_turn_that_is_used() {
        let hashing = Hashing::new(PasswordLimits::default());
        let quick = Verifier::mock(b"secret", "shop", "slow").to_text();
        let slow = Verifier::parse(&quick.replacen("4096", "3000000", 1)).unwrap();
        let password = Zeroizing::new("wrong".to_owned());
        let asking = timeout(Duration::ZERO, hashing.is_of(slow, &password));
        assert!(asking.await.is_err());
        assert_eq!(hashing.turns.available_permits(), TURNS - 1);
    }

    #[test]
    fn what_takes_too_long_is_named() {
        let verifier = Verifier::of_password("secret", b"salt", 11);
        assert!(too_slow(&verifier, 11).is_none());
        let reason = too_slow(&verifier, 10).unwrap();
        assert!(reason.contains("auth.scram_iterations_max, 10"), "{reason}");
    }
}
