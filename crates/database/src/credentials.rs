//! What a database knows of a role that wants to log in.
//!
//! Passwords are Postgres' own, in `pg_authid`; who reads them must wake the database. What was read is
//! remembered for as long as nobody can have changed it:
//!
//! 1. Only a session changes roles. One that begins makes what is remembered of its database forgotten,
//!    before it runs anything.
//! 2. What was read while a session was in the database, or began, is not remembered.
//!
//! So who guesses passwords wakes a database once, and not with every guess.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use volume::DatabaseId;
use wire::pg::scram::Verifier;
use wire::{DatabaseName, PgError, sqlstate};

use crate::authority::Authority;
use crate::database::Database;
use crate::databases::Databases;
use crate::session::{SessionOptions, host_settings};

/// Databases of which roles are remembered, and roles of each: past it all of them are forgotten.
const DATABASES_MAX: usize = 1_000;
const ROLES_MAX: usize = 32;

/// A role by its name.
const ROLE: &str = "SELECT r.rolcanlogin, r.rolpassword, \
     pg_catalog.date_part('epoch', r.rolvaliduntil), \
     pg_catalog.has_database_privilege(r.oid, 5::pg_catalog.oid, 'CONNECT') \
     FROM pg_catalog.pg_authid r WHERE r.rolname OPERATOR(pg_catalog.=) $1::pg_catalog.name";

/// What a database knows of a role that wants to log in.
#[derive(Debug, Clone)]
pub struct Credentials {
    role: String,
    database: DatabaseName,
    password: Password,
    /// Seconds since 1970 from which on the password is not accepted any more.
    valid_until: f64,
    can_login: bool,
    can_connect: bool,
}

#[derive(Debug, Clone)]
enum Password {
    None,
    Verifier(Verifier),
    /// MD5, or a form of a later PostgreSQL.
    Other,
}

impl Credentials {
    /// The verifier to ask for a password with.
    ///
    /// # Errors
    /// Why there is none now: for the log, not for the client.
    pub fn verifier(&self, now: SystemTime) -> Result<&Verifier, &'static str> {
        let verifier = match &self.password {
            Password::Verifier(verifier) => verifier,
            Password::None => return Err("the role has no password"),
            Password::Other => {
                return Err(
                    "the role's password is not kept as SCRAM-SHA-256 (MD5 is not supported): \
                     set it again",
                );
            }
        };
        let now = now.duration_since(SystemTime::UNIX_EPOCH);
        if now.unwrap_or_default().as_secs_f64() > self.valid_until {
            return Err("the role's password has expired");
        }
        Ok(verifier)
    }

    /// Whether the role, once it is known to be it, may come in.
    ///
    /// # Errors
    /// As PostgreSQL's: 28000 without LOGIN, 42501 without CONNECT.
    pub fn admit(&self) -> Result<(), PgError> {
        if !self.can_login {
            return Err(PgError::fatal(
                sqlstate::INVALID_AUTHORIZATION_SPECIFICATION,
                format!("role \"{}\" is not permitted to log in", self.role),
            ));
        }
        if !self.can_connect {
            return Err(PgError::fatal(
                sqlstate::INSUFFICIENT_PRIVILEGE,
                format!("permission denied for database \"{}\"", self.database),
            )
            .detail("User does not have CONNECT privilege."));
        }
        Ok(())
    }
}

impl Databases {
    /// What a database knows of a role; nothing if there is no such database, or no such role. It may
    /// wake the database, and wait for others to leave it, but makes none.
    ///
    /// # Errors
    /// As of [`session`](Self::session), but 3D000.
    pub async fn credentials(
        &self,
        name: &DatabaseName,
        role: &str,
    ) -> Result<Option<Credentials>, PgError> {
        let database = match self.node.find(name) {
            Ok(database) => database,
            Err(error) if error.code() == sqlstate::INVALID_CATALOG_NAME => return Ok(None),
            Err(error) => return Err(error),
        };
        let remembered = &self.node.credentials;
        let reading = match remembered.begin(&database, role) {
            Ok(known) => return Ok(known),
            Err(reading) => reading,
        };
        let options = SessionOptions {
            settings: host_settings(),
            origin: "a login".to_owned(),
            authority: Authority::Host,
            ..SessionOptions::default()
        };
        let mut session = self.session(name, options).await?;
        let found = session.query(ROLE, &[Some(role.to_owned())]).await;
        session.close().await;
        let row = found?.rows.into_iter().next();
        let found = row.map(|row| read(name, role, row)).transpose()?;
        remembered.end(&database, role, reading, &found);
        Ok(found)
    }

    /// A secret of this data directory, always the same: for authentications that cannot succeed, and to derive others
    /// from.
    pub fn mock_secret(&self) -> &[u8; 32] {
        &self.node.mock_secret
    }
}

fn read(name: &DatabaseName, role: &str, row: Vec<Option<String>>) -> Result<Credentials, PgError> {
    let unreadable = || PgError::fatal(sqlstate::INTERNAL_ERROR, "pg_authid cannot be read");
    let row: [Option<String>; 4] = row.try_into().map_err(|_| unreadable())?;
    let [can_login, password, valid_until, can_connect] = row;
    let password = password.map(zeroize::Zeroizing::new);
    Ok(Credentials {
        role: role.to_owned(),
        database: name.clone(),
        password: match password.as_deref().map(|text| Verifier::parse(text)) {
            None => Password::None,
            Some(Ok(verifier)) => Password::Verifier(verifier),
            Some(Err(_)) => Password::Other,
        },
        valid_until: match valid_until {
            Some(text) => text.parse().map_err(|_| unreadable())?,
            None => f64::INFINITY,
        },
        can_login: can_login.as_deref() == Some("t"),
        can_connect: can_connect.as_deref() == Some("t"),
    })
}

/// What was read of roles and still holds.
#[derive(Default)]
pub(crate) struct Remembered {
    roles: Mutex<HashMap<DatabaseId, HashMap<String, Option<Credentials>>>>,
    /// How often something may have changed, in any database.
    changes: AtomicU64,
}

/// When something began to be read; none if a session was in the database.
struct Reading(Option<u64>);

impl Remembered {
    /// What is known of a role, or a note that it is about to be read.
    fn begin(&self, database: &Database, role: &str) -> Result<Option<Credentials>, Reading> {
        let roles = self.roles.lock();
        let known = roles.get(&database.id).and_then(|roles| roles.get(role));
        if let Some(known) = known {
            return Ok(known.clone());
        }
        let alone = database.sessions.lock().is_empty();
        Err(Reading(alone.then(|| self.changes.load(Ordering::Acquire))))
    }

    /// Keeps what was read, if it still holds.
    fn end(&self, database: &Database, role: &str, reading: Reading, found: &Option<Credentials>) {
        let mut roles = self.roles.lock();
        let alone = database.sessions.lock().is_empty();
        if !alone || reading.0 != Some(self.changes.load(Ordering::Acquire)) {
            return;
        }
        if roles.len() >= DATABASES_MAX {
            roles.clear();
        }
        let roles = roles.entry(database.id).or_default();
        if roles.len() >= ROLES_MAX {
            roles.clear();
        }
        roles.insert(role.to_owned(), found.clone());
    }

    /// A session is in the database, and has run nothing yet.
    pub(crate) fn session_begins(&self, database: &Database, authority: Authority) {
        if authority == Authority::Host {
            return;
        }
        let mut roles = self.roles.lock();
        self.changes.fetch_add(1, Ordering::AcqRel);
        roles.remove(&database.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn credentials(row: [Option<&str>; 4]) -> Credentials {
        let name = DatabaseName::parse("shop").unwrap();
        let row = row.map(|value| value.map(str::to_owned));
        read(&name, "ann", row.to_vec()).unwrap()
    }

    #[test]
    fn passwords_that_are_not_accepted() {
        let verifier = Verifier::of_password("x", b"salt", 1).to_text();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let of = |password, until| {
            let row = [Some("t"), password, until, Some("t")];
            let found = credentials(row);
            found.verifier(now).map(drop).err()
        };
        assert_eq!(of(Some(&*verifier), None), None);
        assert_eq!(of(Some(&*verifier), Some("1000.5")), None);
        assert_eq!(of(Some(&*verifier), Some("Infinity")), None);
        for (password, until, why) in [
            (None, None, "no password"),
            (Some("md5d41d8cd98f00b204e9800998ecf8427e"), None, "MD5"),
            (Some(&*verifier), Some("999"), "expired"),
            (Some(&*verifier), Some("-Infinity"), "expired"),
        ] {
            let reason = of(password.map(|text: &str| text), until);
            assert!(reason.is_some_and(|reason| reason.contains(why)), "{why}");
        }
    }

    #[test]
    fn who_may_come_in() {
        let code = |can_login, can_connect| {
            let found = credentials([Some(can_login), None, None, Some(can_connect)]);
            found.admit().err().map(|error| error.code().to_owned())
        };
        assert_eq!(code("t", "t"), None);
        assert_eq!(code("f", "t").as_deref(), Some("28000"));
        assert_eq!(code("t", "f").as_deref(), Some("42501"));
    }

    #[test]
    fn debug_shows_no_secret() {
        let verifier = Verifier::of_password("x", b"salt", 1).to_text();
        let found = credentials([Some("t"), Some(&*verifier), None, Some("t")]);
        let keys = verifier.rsplit_once('$').unwrap().1;
        assert!(!format!("{found:?}").contains(keys));
    }
}
