//! Who makes a request, and what it may do.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::http::header::WWW_AUTHENTICATE;
use database::{Authority, DatabaseName};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use wire::{PgError, sqlstate};

use super::error::ApiError;
use super::sizes::OwnSizes;

/// Who makes a request, and what it may do. Made once a request by whoever checks credentials; found in the
/// request's extensions by everyone behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// For people, in logs and the audit: the token's name, a subject with its issuer, or `anonymous`. Never a secret.
    /// Several may have the same.
    pub(crate) name: Arc<str>,
    /// For programs: nobody else has the same.
    pub(crate) identity: Identity,
    /// The most that it may do.
    pub(crate) scope: Scope,
    /// Which databases it reaches.
    pub(crate) reach: Reach,
    /// The role of its sessions, if it is not that of its scope.
    pub(crate) role: Option<Arc<str>>,
    /// Its claims, a JSON object: `request.jwt.claims` in its sessions.
    pub(crate) claims: Option<Arc<str>>,
    /// How large its requests and their results may be, if its token says so.
    pub(crate) sizes: OwnSizes,
}

/// Tells callers apart: a hash of what kind of caller it is, and of what names it among those. The same for each of its
/// requests, and for each token that it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity([u8; 32]);

/// What a request may do; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// Read, in transactions that Postgres keeps read-only, by the role `dormouse_read`.
    Read,
    /// Read and write, by the role `dormouse_write`.
    Write,
    /// Everything: databases are made and deleted, statements run by the role `postgres`.
    Admin,
}

/// Which databases a request reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reach {
    /// All of them.
    All,
    /// This one, which it names by itself where nothing else does.
    One(DatabaseName),
}

impl Identity {
    /// The one of this kind that these parts name.
    pub(crate) fn of(kind: &str, parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in std::iter::once(&kind).chain(parts) {
            // The length tells where it ends.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Caller {
    /// Whoever comes where nobody is asked who they are.
    pub(crate) fn anyone() -> Self {
        Self {
            name: "anonymous".into(),
            identity: Identity::of("anyone", &[]),
            scope: Scope::Admin,
            reach: Reach::All,
            role: None,
            claims: None,
            sizes: OwnSizes::default(),
        }
    }

    /// Whoever did not say who they are where they are asked: enough for what everybody may ask.
    pub(crate) fn nobody() -> Self {
        Self {
            name: "nobody".into(),
            identity: Identity::of("nobody", &[]),
            scope: Scope::Read,
            ..Self::anyone()
        }
    }

    /// Whether another one is the same, who may do the same: what tells one token of theirs from the next does not count.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let besides = |caller: &Self| (caller.scope, caller.reach.clone(), caller.role.clone());
        self.identity == other.identity
            && besides(self) == besides(other)
            && are_same_claims(self.claims.as_deref(), other.claims.as_deref())
    }

    /// # Errors
    /// 403 if it may not do so much.
    pub(crate) fn expect(&self, scope: Scope) -> Result<(), ApiError> {
        if self.scope >= scope {
            return Ok(());
        }
        Err(forbidden(format!(
            "this needs the scope \"{}\", and \"{}\" has the scope \"{}\"",
            scope.as_str(),
            self.name,
            self.scope.as_str()
        )))
    }

    /// # Errors
    /// 403 if it does not reach this database.
    pub(crate) fn expect_database(&self, name: &DatabaseName) -> Result<(), ApiError> {
        match &self.reach {
            Reach::All => Ok(()),
            Reach::One(own) if own == name => Ok(()),
            Reach::One(_) => Err(forbidden(format!(
                "\"{}\" may not use the database \"{name}\"",
                self.name
            ))),
        }
    }

    /// # Errors
    /// 403 if it is not for all databases.
    pub(crate) fn expect_node(&self, scope: Scope) -> Result<(), ApiError> {
        self.expect(scope)?;
        match &self.reach {
            Reach::All => Ok(()),
            Reach::One(own) => Err(forbidden(format!(
                "\"{}\" is for the database \"{own}\" alone",
                self.name
            ))),
        }
    }

    /// What its sessions may do beyond their database. Whoever is for one does not reach others by SQL either.
    pub(crate) fn authority(&self) -> Authority {
        let is_admin = self.scope == Scope::Admin && self.reach == Reach::All;
        match is_admin && self.role.is_none() {
            true => Authority::Node,
            false => Authority::Role,
        }
    }

    /// The role of its sessions.
    pub(crate) fn role(&self) -> &str {
        self.role.as_deref().unwrap_or(match self.scope {
            Scope::Read => database::READ_ROLE,
            Scope::Write => database::WRITE_ROLE,
            Scope::Admin => "postgres",
        })
    }
}

impl Scope {
    /// Its name in tokens and claims.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }

    /// The scope of this name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Read, Self::Write, Self::Admin]
            .into_iter()
            .find(|scope| scope.as_str() == text)
    }
}

/// Claims that every token has of its own: times, and its number.
const OF_ONE_TOKEN: [&str; 5] = ["exp", "iat", "nbf", "auth_time", "jti"];

fn are_same_claims(one: Option<&str>, other: Option<&str>) -> bool {
    let lasting = |claims: &str| {
        let mut claims: Map<String, Value> = serde_json::from_str(claims).ok()?;
        claims.retain(|name, _| !OF_ONE_TOKEN.contains(&&**name));
        Some(claims)
    };
    match (one, other) {
        (one, other) if one == other => true,
        (Some(one), Some(other)) => {
            let (one, other) = (lasting(one), lasting(other));
            one.is_some() && one == other
        }
        _ => false,
    }
}

/// 403, in the words of RFC 6750 too.
fn forbidden(message: String) -> ApiError {
    let error = PgError::error(sqlstate::INSUFFICIENT_PRIVILEGE, message);
    ApiError::new(StatusCode::FORBIDDEN, error).header(
        WWW_AUTHENTICATE,
        "Bearer realm=\"dormouse\", error=\"insufficient_scope\"",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_the_same_has_another_identity() {
        let all = [
            Identity::of("token", &[]),
            Identity::of("token", &["ab"]),
            Identity::of("token", &["a", "b"]),
            Identity::of("toke", &["nab"]),
            Caller::anyone().identity,
            Caller::nobody().identity,
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "{at}");
        }
    }

    fn with(claims: &str) -> Caller {
        Caller {
            claims: Some(claims.into()),
            ..Caller::anyone()
        }
    }

    #[test]
    fn the_next_token_of_somebody_is_theirs() {
        let first = with(r#"{"sub":"anna","exp":1,"iat":1,"jti":"a","org":"x"}"#);
        assert!(first.is_same(&with(
            r#"{"exp":9,"iat":8,"nbf":8,"jti":"b","sub":"anna","org":"x"}"#
        )));
        for other in [
            with(r#"{"sub":"berta","exp":1,"iat":1,"jti":"a","org":"x"}"#),
            with(r#"{"sub":"anna","org":"y"}"#),
            with("no object"),
            Caller::anyone(),
            Caller {
                scope: Scope::Read,
                ..first.clone()
            },
            Caller {
                role: Some("postgres".into()),
                ..first.clone()
            },
            Caller {
                identity: Identity::of("other", &[]),
                ..first.clone()
            },
        ] {
            assert!(!first.is_same(&other), "{other:?}");
        }
        assert!(!with("no object").is_same(&with("no other")));
    }
}
