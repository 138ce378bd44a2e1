//! What the claims of a token allow, whoever gave them.

use database::DatabaseName;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::http::caller::{Caller, Identity, Reach, Scope};
use crate::http::sizes::OwnSizes;

/// The most characters of a subject that logs show.
const NAME_CHARACTERS_MAX: usize = 120;

/// Digits of 32 of a subject's hash, in the name of its database.
const SUBJECT_DIGITS: usize = 52;

/// What claims mean (`auth.claims`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimOptions {
    /// `auth.claims.scope`: the claim with the scopes; without it `scope`, or else `scp`.
    pub scope: Option<String>,
    /// `auth.claims.read`: the scopes that allow to read.
    pub read: Vec<String>,
    /// `auth.claims.write`: the scopes that allow to read and write.
    pub write: Vec<String>,
    /// `auth.claims.admin`: the scopes that allow everything.
    pub admin: Vec<String>,
    /// `auth.claims.role`: the claim with the role.
    pub role: Option<String>,
    /// `auth.claims.roles`: the roles that it may name.
    pub roles: Vec<String>,
    /// `auth.claims.database`: which database a token reaches.
    pub database: ClaimDatabase,
    /// `auth.claims.required`: claims that must be there.
    pub required: Vec<String>,
}

/// Which database a token reaches (`auth.claims.database`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimDatabase {
    /// The one of its subject, whose name begins with this.
    Subject {
        /// `auth.claims.database_prefix`.
        prefix: String,
    },
    /// The one that this claim names.
    Claim(String),
    /// All of them.
    All,
}

/// Why claims do not let anybody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The token is wrong.
    Invalid(&'static str),
    /// It is right, and not enough.
    Insufficient(&'static str),
}

impl Default for ClaimOptions {
    fn default() -> Self {
        Self {
            scope: None,
            read: vec!["read".to_owned()],
            write: vec!["write".to_owned()],
            admin: Vec::new(),
            role: None,
            roles: Vec::new(),
            database: ClaimDatabase::Subject {
                prefix: "user-".to_owned(),
            },
            required: Vec::new(),
        }
    }
}

/// The name of a subject's database: the prefix, and 52 digits of 32 for the SHA-256 of issuer and subject. Two subjects never share one.
/// It is a label of a host name too.
pub fn subject_database(prefix: &str, issuer: &str, subject: &str) -> String {
    let mut hash = Sha256::new();
    // The length tells where the issuer ends.
    hash.update((issuer.len() as u64).to_be_bytes());
    hash.update(issuer);
    hash.update(subject);
    let hash: [u8; 32] = hash.finalize().into();
    format!("{prefix}{}", base32(&hash))
}

impl ClaimOptions {
    /// Whether they can be meant so.
    ///
    /// # Errors
    /// What is wrong, with the setting's name.
    pub fn check(&self) -> Result<(), String> {
        if let ClaimDatabase::Subject { prefix } = &self.database {
            let longest = DatabaseName::BYTES_MAX - SUBJECT_DIGITS;
            if prefix.len() > longest || DatabaseName::parse(&format!("{prefix}a")).is_err() {
                return Err(format!(
                    "auth.claims.database_prefix is \"{prefix}\": it must be the beginning of a database's name, of at most {longest} bytes"
                ));
            }
        }
        if self.role.is_some() && self.roles.is_empty() {
            return Err(
                "auth.claims.role needs auth.claims.roles, the roles that a token may name"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// Who shows this token with these claims.
    pub(super) fn caller(
        &self,
        issuer: &str,
        claims: &Map<String, Value>,
        token: &str,
    ) -> Result<Caller, Refused> {
        if self
            .required
            .iter()
            .any(|name| claims.get(name).is_none_or(Value::is_null))
        {
            return Err(Refused::Invalid(
                "the token lacks a claim of auth.claims.required",
            ));
        }
        let scope = self.scope(claims).ok_or(Refused::Insufficient(
            "the token has no scope that allows anything here",
        ))?;
        let subject = claims.get("sub").and_then(Value::as_str);
        let subject = subject.filter(|subject| !subject.is_empty());
        let text = Value::Object(claims.clone()).to_string();
        Ok(Caller {
            name: name(issuer, subject).into(),
            identity: identity(issuer, subject, claims, token),
            scope,
            reach: self.reach(issuer, subject, claims)?,
            role: self.role(claims)?.map(Into::into),
            claims: Some(text.into()),
            sizes: OwnSizes::default(),
        })
    }

    fn scope(&self, claims: &Map<String, Value>) -> Option<Scope> {
        let claim = match &self.scope {
            Some(name) => claims.get(name),
            None => claims.get("scope").or_else(|| claims.get("scp")),
        };
        let has = |wanted: &[String]| match claim {
            Some(Value::String(text)) => text
                .split_ascii_whitespace()
                .any(|scope| wanted.iter().any(|name| name == scope)),
            Some(Value::Array(scopes)) => scopes
                .iter()
                .filter_map(Value::as_str)
                .any(|scope| wanted.iter().any(|name| name == scope)),
            _ => false,
        };
        [
            (&self.admin, Scope::Admin),
            (&self.write, Scope::Write),
            (&self.read, Scope::Read),
        ]
        .into_iter()
        .find_map(|(wanted, scope)| has(wanted).then_some(scope))
    }

    fn reach(
        &self,
        issuer: &str,
        subject: Option<&str>,
        claims: &Map<String, Value>,
    ) -> Result<Reach, Refused> {
        let name = match &self.database {
            ClaimDatabase::All => return Ok(Reach::All),
            ClaimDatabase::Claim(claim) => claims
                .get(claim)
                .and_then(Value::as_str)
                .ok_or(Refused::Invalid(
                    "the token lacks the claim auth.claims.database_claim",
                ))?
                .to_owned(),
            ClaimDatabase::Subject { prefix } => {
                let subject = subject.ok_or(Refused::Invalid("the token has no subject"))?;
                subject_database(prefix, issuer, subject)
            }
        };
        DatabaseName::parse(&name)
            .map(Reach::One)
            .map_err(|_| Refused::Invalid("the token names a database that cannot be"))
    }

    fn role<'a>(&self, claims: &'a Map<String, Value>) -> Result<Option<&'a str>, Refused> {
        let Some(claim) = self.role.as_ref().and_then(|name| claims.get(name)) else {
            return Ok(None);
        };
        let role = claim.as_str();
        let role = role.filter(|role| self.roles.iter().any(|allowed| allowed == role));
        role.map(Some).ok_or(Refused::Insufficient(
            "the token names a role that auth.claims.roles does not have",
        ))
    }
}

/// Who it is among those of its issuer: the subject, or else the client that the token was given to (RFC 9068), or else
/// whoever has this very token.
fn identity(
    issuer: &str,
    subject: Option<&str>,
    claims: &Map<String, Value>,
    token: &str,
) -> Identity {
    if let Some(subject) = subject {
        return Identity::of("subject", &[issuer, subject]);
    }
    let client = ["client_id", "azp"]
        .iter()
        .find_map(|name| claims.get(*name)?.as_str());
    match client.filter(|client| !client.is_empty()) {
        Some(client) => Identity::of("client", &[issuer, client]),
        None => Identity::of("token of an issuer", &[issuer, token]),
    }
}

/// For logs: the subject and its issuer, without what would break a line.
fn name(issuer: &str, subject: Option<&str>) -> String {
    let clean = |text: &str| -> String {
        text.chars()
            .take(NAME_CHARACTERS_MAX)
            .map(|character| {
                if character.is_control() {
                    '?'
                } else {
                    character
                }
            })
            .collect()
    };
    match subject {
        Some(subject) => format!("{} of {}", clean(subject), clean(issuer)),
        None => format!("a token of {}", clean(issuer)),
    }
}

/// RFC 4648, in small letters and without padding.
fn base32(bytes: &[u8; 32]) -> String {
    // A number of 256 bits and four zero bits, five at a time.
    let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
    (0..SUBJECT_DIGITS)
        .map(|digit| (0..5).fold(0, |sum, step| sum << 1 | bit(digit * 5 + step)))
        .map(|digit| char::from(b"abcdefghijklmnopqrstuvwxyz234567"[usize::from(digit)]))
        .collect()
}

/// The claims of a token: an object of JSON.
pub(super) fn parse(json: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice(json) {
        Ok(Value::Object(claims)) => Some(claims),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
