//! JSON Web Tokens of one issuer.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::claims::{self, ClaimOptions, Refused};
use super::jws::{Algorithm, Jws};
use super::keys::{KeySource, Keys, Missing, Pace};
use super::provider::{self, Provider};
use super::verdicts::Verdicts;
use crate::http::caller::Caller;

/// What tokens are accepted (`auth.jwt`).
#[derive(Debug, Clone)]
pub struct JwtOptions {
    /// `auth.jwt.issuer`: who must have issued them, exactly as in the claim `iss`.
    pub issuer: String,
    /// `auth.jwt.jwks`, `auth.jwt.secret_file`: where the keys are.
    pub keys: KeySource,
    /// `auth.provider_ca`: authorities of the provider's certificate, besides those of the system.
    pub ca: Option<PathBuf>,
    /// `auth.jwt.audience`: for whom they must be; one of these.
    pub audience: Vec<String>,
    /// `auth.jwt.algorithms`: how they may be signed.
    pub algorithms: Vec<String>,
    /// `auth.jwt.clock_skew_ms`: how far the issuer's clock may be from ours.
    pub clock_skew: Duration,
    /// `auth.cache_ms_max`: how long it is remembered that a token is good.
    pub cache_max: Duration,
    /// `auth.cache_entries_max`: how many tokens are remembered.
    pub cache_entries_max: usize,
    /// `auth.jwt.keys_ms_max`: how long keys are used without asking for others.
    pub keys_max: Duration,
    /// `auth.jwt.keys_stale_ms_max`: how much longer, while no others can be had.
    pub keys_stale_max: Duration,
    /// `auth.jwt.refetch_ms_min`: the shortest time between two fetches of keys.
    pub refetch_min: Duration,
    /// `auth.provider_timeout_ms`: how long the provider may take to answer.
    pub provider_timeout: Duration,
    /// What the claims mean.
    pub claims: ClaimOptions,
}

/// Checks tokens of one issuer.
pub struct Jwt {
    options: JwtOptions,
    algorithms: Vec<Algorithm>,
    keys: Arc<Keys>,
    verdicts: Verdicts<Caller>,
}

/// Why a token does not let anybody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotLet {
    Refused(Refused),
    /// Whoever could say does not answer.
    Unavailable(&'static str),
}

impl Jwt {
    /// Checks the options, and reads files that they name. Blocks for the disk.
    ///
    /// # Errors
    /// What is wrong, with the setting's name.
    pub fn new(options: JwtOptions) -> Result<Self, String> {
        options.claims.check()?;
        let algorithms = algorithms(&options)?;
        if options.audience.is_empty() {
            return Err(
                "auth.jwt.issuer needs auth.jwt.audience: tokens that the issuer made for others would be accepted".to_owned(),
            );
        }
        let address = match &options.keys {
            KeySource::Discovery => {
                provider::check("auth.jwt.issuer", &options.issuer)?;
                Some(&options.issuer)
            }
            KeySource::Url(url) => {
                provider::check("auth.jwt.jwks", url)?;
                Some(url)
            }
            KeySource::File(_) | KeySource::Secret(_) => None,
        };
        let secure = address.is_some_and(|address| address.starts_with("https:"));
        let provider = Provider::new(options.ca.as_deref(), options.provider_timeout, secure)?;
        let pace = Pace {
            age_max: options.keys_max,
            stale_max: options.keys_stale_max,
            refetch_min: options.refetch_min,
        };
        let keys = Keys::new(&options.issuer, options.keys.clone(), provider, pace);
        keys.check_file()
            .map_err(|error| format!("the keys of auth.jwt: {error}"))?;
        Ok(Self {
            algorithms,
            keys: Arc::new(keys),
            verdicts: Verdicts::new(options.cache_entries_max),
            options,
        })
    }

    /// Reads a file of keys again. Blocks for the disk.
    pub(crate) fn reload(&self) {
        self.keys.reload_file();
    }

    /// Whether the keys are in a file.
    pub(crate) fn has_file(&self) -> bool {
        self.keys.are_in_file()
    }

    /// Who shows this token at this second since 1970.
    pub(super) async fn caller(&self, token: &str, now: u64) -> Result<Caller, NotLet> {
        let unavailable = NotLet::Unavailable("the keys of the issuer cannot be had now");
        // What is remembered is worth as much as the keys.
        self.keys.current().await.ok_or(unavailable)?;
        // With other keys nothing of before is found: one that is gone may have been stolen.
        let revision = self.keys.revision().to_be_bytes();
        let name = self.verdicts.name(&[&revision, token.as_bytes()]);
        if let Some(caller) = self.verdicts.get(&name, now) {
            return Ok(caller);
        }
        let (claims, expires) = self.claims(token, now).await?;
        let options = &self.options;
        let caller = options.claims.caller(&options.issuer, &claims, token);
        let caller = caller.map_err(NotLet::Refused)?;
        let until = expires.min(now.saturating_add(self.options.cache_max.as_secs()));
        self.verdicts.keep(name, caller.clone(), now, until);
        Ok(caller)
    }

    /// The claims of a token that this issuer has made for us, and the second from which on it is not accepted.
    pub(super) async fn claims(
        &self,
        token: &str,
        now: u64,
    ) -> Result<(Map<String, Value>, u64), NotLet> {
        let unavailable = NotLet::Unavailable("the keys of the issuer cannot be had now");
        let invalid = |why| NotLet::Refused(Refused::Invalid(why));
        let jws = Jws::parse(token).map_err(invalid)?;
        if !self.algorithms.contains(&jws.algorithm) {
            return Err(invalid("the token's algorithm is not one that is allowed"));
        }
        let keys = self
            .keys
            .for_token(&jws)
            .await
            .map_err(|missing| match missing {
                Missing::Unknown => {
                    invalid("the token is signed with a key that the issuer does not have")
                }
                Missing::Unavailable => unavailable,
            })?;
        if !keys.has_signed(&jws) {
            return Err(invalid("the token's signature is wrong"));
        }
        let claims = claims::parse(&jws.payload)
            .ok_or_else(|| invalid("the token's claims are no object"))?;
        let expires = self.check(&claims, now).map_err(invalid)?;
        Ok((claims, expires))
    }

    /// Checks times, issuer and audience: the second from which on it is not accepted.
    fn check(&self, claims: &Map<String, Value>, now: u64) -> Result<u64, &'static str> {
        let skew = self.options.clock_skew.as_secs();
        let expires = seconds(claims, "exp")?.ok_or("the token has no time at which it expires")?;
        let expires = expires.saturating_add(skew);
        if now >= expires {
            return Err("the token has expired");
        }
        if seconds(claims, "nbf")?.is_some_and(|begins| now.saturating_add(skew) < begins) {
            return Err("the token is not valid yet");
        }
        if claims.get("iss").and_then(Value::as_str) != Some(&self.options.issuer) {
            return Err("the token is of another issuer");
        }
        let ours = |audience: &Value| {
            let audience = audience.as_str();
            audience.is_some_and(|text| self.options.audience.iter().any(|own| own == text))
        };
        let for_us = match claims.get("aud") {
            Some(Value::Array(audiences)) => audiences.iter().any(ours),
            Some(audience) => ours(audience),
            None => false,
        };
        if !for_us {
            return Err("the token is for another audience");
        }
        Ok(expires)
    }
}

impl std::fmt::Debug for Jwt {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Jwt")
            .field("issuer", &self.options.issuer)
            .finish_non_exhaustive()
    }
}

/// A moment of a claim, in whole seconds since 1970.
fn seconds(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, &'static str> {
    let wrong = "a time in the token is not a number of seconds since 1970";
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => {
            let number = number.as_f64().filter(|number| *number >= 0.0);
            // Beyond what fits it is as good as never.
            number.map(|number| Some(number as u64)).ok_or(wrong)
        }
        Some(_) => Err(wrong),
    }
}

fn algorithms(options: &JwtOptions) -> Result<Vec<Algorithm>, String> {
    let symmetric = matches!(options.keys, KeySource::Secret(_));
    let mut algorithms = Vec::new();
    for name in &options.algorithms {
        let algorithm = Algorithm::parse(name).ok_or_else(|| {
            format!(
                "auth.jwt.algorithms has \"{name}\": there are RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 and EdDSA, and with auth.jwt.secret_file HS256, HS384 and HS512"
            )
        })?;
        if algorithm.is_symmetric() != symmetric {
            return Err(format!(
                "auth.jwt.algorithms has \"{name}\": HS256, HS384 and HS512 go with auth.jwt.secret_file, and no others do"
            ));
        }
        algorithms.push(algorithm);
    }
    if algorithms.is_empty() {
        return Err("auth.jwt.algorithms is empty: no token could be accepted".to_owned());
    }
    Ok(algorithms)
}

#[cfg(test)]
mod tests;
