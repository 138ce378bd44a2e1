//! Who comes by a credential of a binding.

use std::sync::Arc;

use database::DatabaseName;
use pooler::{BindingTarget, Credential, Pool};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use wire::pg::scram::Verifier;
use wire::{PgError, sqlstate};

use super::ManagedBindings;

/// How somebody has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Over the network.
    Network,
    /// By the local socket.
    Socket,
}

/// What a password is checked against.
pub(crate) enum Proof {
    /// By SCRAM.
    Verifier(Verifier),
    /// As it is: the SHA-256 of a password that nobody chose.
    Digest([u8; 32]),
}

/// Who was let in.
pub(crate) struct Guest {
    /// Where it goes.
    pub(crate) leads_to: LeadsTo,
    /// For people.
    pub(crate) label: Arc<str>,
    /// Among whose clients it counts: an application's, or those of this user.
    pub(crate) owner: Arc<str>,
}

/// Where a credential leads.
pub(crate) enum LeadsTo {
    /// To an external Postgres: the pool, and the binding that it is of.
    Pool(Arc<Pool>, String),
    /// To a database of ours.
    Database(DatabaseName),
}

impl Proof {
    /// Of the password of an application.
    pub(super) fn of(password: &str) -> [u8; 32] {
        Sha256::digest(password).into()
    }

    /// Whether a password that came as it is is the one of this digest.
    pub(crate) fn is_digest_of(digest: &[u8; 32], password: &str) -> bool {
        Self::of(password).ct_eq(digest).into()
    }
}

impl ManagedBindings {
    /// What the password of this user is checked against; none if no user of a binding is called like this, which is told by
    /// the form of the name. One that is not there has a proof too, which no password is of.
    pub(crate) fn proof(&self, user: &str, way: Way) -> Option<Proof> {
        let id = Credential::binding_of(user)?;
        if way == Way::Socket
            && let Some(digest) = self.applications.digest(user)
        {
            return Some(Proof::Digest(digest));
        }
        let binding = self.bindings.get(id).ok();
        let credential = binding.as_ref().and_then(|binding| {
            let mut credentials = binding.credentials.iter();
            credentials.find(|credential| credential.user == user)
        });
        let verifier = credential.and_then(|one| Verifier::parse(&one.verifier).ok());
        Some(Proof::Verifier(verifier.unwrap_or_else(|| {
            Verifier::mock(self.databases.mock_secret(), "", user)
        })))
    }

    /// Lets in who has proved to be this user.
    ///
    /// # Errors
    ///
    /// 28P01 if the credential was revoked meanwhile, 3D000 if there is nothing behind the binding.
    pub(crate) fn enter(&self, user: &str, way: Way) -> Result<Guest, PgError> {
        let revoked = || {
            PgError::fatal(
                sqlstate::INVALID_PASSWORD,
                format!("password authentication failed for user \"{user}\""),
            )
        };
        let id = Credential::binding_of(user).ok_or_else(revoked)?;
        let binding = self.bindings.get(id).map_err(|_| revoked())?;
        let application = match way {
            Way::Socket => self.applications.get(user),
            Way::Network => None,
        };
        // No user is called like an application.
        let owner = match &application {
            Some(application) => application.label.clone(),
            None => user.into(),
        };
        let label = match &application {
            Some(application) => application.label.clone(),
            None => {
                let mut credentials = binding.credentials.iter();
                let credential = credentials.find(|one| one.user == user);
                let name = &credential.ok_or_else(revoked)?.name;
                format!("{name} of binding {}", binding.name).into()
            }
        };
        let nothing = |reason: String| {
            PgError::fatal(
                sqlstate::INVALID_CATALOG_NAME,
                format!("binding {} leads nowhere: {reason}", binding.name),
            )
        };
        let leads_to = match (&binding.target, application) {
            (BindingTarget::Origin(_), _) => {
                let pool = self.bindings.pool(id).map_err(|_| revoked())?;
                LeadsTo::Pool(pool.ok_or_else(revoked)?, binding.id.clone())
            }
            (BindingTarget::Database(name), _) => {
                LeadsTo::Database(DatabaseName::parse(name).map_err(|rule| {
                    nothing(format!("\"{name}\" cannot be a database's name: {rule}"))
                })?)
            }
            (BindingTarget::DatabasePerApp { .. }, Some(application)) => {
                LeadsTo::Database(application.database.ok_or_else(|| {
                    nothing("it was changed after the application was deployed".to_owned())
                })?)
            }
            (BindingTarget::DatabasePerApp { .. }, None) => {
                return Err(nothing(
                    "it has a database for each application, and only these reach theirs by it"
                        .to_owned(),
                ));
            }
        };
        Ok(Guest {
            leads_to,
            label,
            owner,
        })
    }
}
