//! What names a request: who asks, in which database, with which claims, by which key.

use axum::http::{HeaderMap, StatusCode};
use database::{DatabaseName, Databases};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use wire::{PgError, sqlstate};

use super::seal::Seal;
use crate::http::Configured;
use crate::http::caller::{Caller, Scope};
use crate::http::error::ApiError;
use crate::http::tenant::Tenant;

/// The header that names a request.
const HEADER: &str = "idempotency-key";

/// The longest key.
const KEY_BYTES_MAX: usize = 255;

/// Claims that every token has others of, though it is given to the same for the same: when it was made and for how
/// long, and numbers of its own (those of RFC 7519, of OpenID Connect, and of Microsoft's tokens).
const PASSING: [&str; 10] = [
    "exp", "nbf", "iat", "jti", "nonce", "at_hash", "c_hash", "uti", "aio", "rh",
];

/// A request that has a key.
pub(in crate::http) struct Once {
    /// Names it: a keyed hash, which no tenant's SQL can make up.
    pub(super) key: [u8; 32],
    /// Tells what was asked, without showing it.
    pub(super) request: [u8; 32],
    /// How long its answer is kept, in hours.
    pub(super) hours: u32,
    /// Of its answer.
    pub(super) seal: Seal,
}

impl Configured {
    /// The key of a request that is to be done once, if it has one.
    pub(in crate::http) async fn once(
        &self,
        headers: &HeaderMap,
        tenant: &Tenant,
        kind: &[u8],
        body: &[u8],
    ) -> Result<Option<Once>, ApiError> {
        let hours = self.options.idempotency_hours;
        let (name, caller) = (&tenant.name, &tenant.caller);
        let asked = [kind, body];
        let databases = self.databases().by(tenant.doer());
        Once::of(headers, &databases, name, caller, &asked, hours).await
    }
}

impl Once {
    /// The key of a request, if it has one. Who may only read has nothing to do twice.
    ///
    /// # Errors
    /// 400 for a header that is no key.
    async fn of(
        headers: &HeaderMap,
        databases: &Databases,
        database: &DatabaseName,
        caller: &Caller,
        body: &[&[u8]],
        hours: u32,
    ) -> Result<Option<Self>, ApiError> {
        let mut values = headers.get_all(HEADER).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        let bytes = value.as_bytes();
        if bytes.is_empty() || bytes.len() > KEY_BYTES_MAX || values.next().is_some() {
            let message =
                format!("the header Idempotency-Key must be one, of 1 to {KEY_BYTES_MAX} bytes");
            return Err(ApiError::request(StatusCode::BAD_REQUEST, message));
        }
        if caller.scope == Scope::Read {
            return Ok(None);
        }
        let id = databases.ensure(database).await?.to_string();
        let secret = databases.mock_secret();
        let claims = lasting(caller.claims.as_deref())?;
        let parts = [
            id.as_bytes(),
            caller.identity.as_bytes(),
            caller.role().as_bytes(),
            claims.as_bytes(),
            bytes,
        ];
        let key = hash(secret, "idempotency key", &parts)?;
        let mut asked = vec![&key[..]];
        asked.extend(body);
        let request = hash(secret, "idempotency request", &asked)?;
        let sealing = hash(secret, "idempotency answer", &[])?;
        Ok(Some(Self {
            key,
            request,
            hours,
            seal: Seal::new(&sealing, &[&key[..], &request[..]].concat())?,
        }))
    }
}

/// The claims by which row-level security may tell what somebody sees, in an order that is always the same.
fn lasting(claims: Option<&str>) -> Result<String, PgError> {
    let Some(claims) = claims else {
        return Ok(String::new());
    };
    let unreadable = |error: serde_json::Error| {
        PgError::error(sqlstate::INTERNAL_ERROR, format!("claims: {error}"))
    };
    let mut claims: Value = serde_json::from_str(claims).map_err(unreadable)?;
    if let Value::Object(claims) = &mut claims {
        claims.retain(|name, _| !PASSING.contains(&&**name));
    }
    claims.sort_all_objects();
    Ok(claims.to_string())
}

/// A keyed hash of parts, which are told apart by their lengths, for one purpose.
fn hash(secret: &[u8; 32], purpose: &str, parts: &[&[u8]]) -> Result<[u8; 32], PgError> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret)
        .map_err(|error| PgError::error(sqlstate::INTERNAL_ERROR, error.to_string()))?;
    for part in std::iter::once(&purpose.as_bytes()).chain(parts) {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    Ok(mac.finalize().into_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_that_pass_do_not_count_and_others_do() {
        let of = |claims| lasting(Some(claims)).unwrap();
        assert_eq!(
            of(r#"{"sub":"anna","exp":1,"jti":"x","org":{"a":1,"b":2}}"#),
            of(r#"{"org":{"b":2,"a":1},"iat":2,"sub":"anna"}"#)
        );
        assert_ne!(of(r#"{"org":{"a":1}}"#), of(r#"{"org":{"a":2}}"#));
        assert_ne!(of(r#"{"org":{"exp":1}}"#), of(r#"{"org":{"exp":2}}"#));
        assert_ne!(of("{}"), lasting(None).unwrap());
    }

    #[test]
    fn parts_are_told_apart() {
        let of = |purpose, parts: &[&[u8]]| hash(&[1; 32], purpose, parts).unwrap();
        assert_eq!(of("a", &[b"b"]), of("a", &[b"b"]));
        assert_ne!(of("a", &[b"bc"]), of("a", &[b"b", b"c"]));
        assert_ne!(of("ab", &[b"c"]), of("a", &[b"bc"]));
        assert_ne!(of("a", &[]), hash(&[2; 32], "a", &[]).unwrap());
    }
}
