//! Opaque tokens, which only their provider can read: it is asked (RFC 7662).
//!
//! A provider that does not answer lets nobody in: whoever it has not spoken for within `auth.cache_ms_max` is told to come again.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::claims::{self, ClaimOptions, Refused};
use super::jwt::NotLet;
use super::provider::{self, Provider, Trouble};
use super::queue::Queue;
use super::verdicts::Verdicts;
use crate::http::caller::Caller;
use crate::secret_file;

/// After so many failures in a row the provider is left alone for a while.
const FAILURES_MAX: u32 = 5;
const REST: Duration = Duration::from_secs(5);

/// How long it is remembered that a token is not good: it may become so.
const INACTIVE: u64 = 10;

const BUSY: &str =
    "too many tokens wait for the provider that knows them: auth.introspection.queue_max";

const AWAY: &str = "the provider that knows the token does not answer";

/// Whom to ask (`auth.introspection`).
#[derive(Debug, Clone)]
pub struct IntrospectionOptions {
    /// `auth.introspection.url`.
    pub url: String,
    /// `auth.introspection.client_id`: who asks.
    pub client_id: Option<String>,
    /// `auth.introspection.client_secret_file`: a file with the asker's secret.
    pub client_secret_file: Option<PathBuf>,
    /// `DORMOUSE_INTROSPECTION_SECRET`: the secret itself, which wins.
    pub client_secret: Option<Zeroizing<String>>,
    /// `auth.introspection.audience`: for whom tokens must be, if this is not empty.
    pub audience: Vec<String>,
    /// `auth.introspection.concurrency_max`: questions at once.
    pub concurrency_max: usize,
    /// `auth.introspection.queue_max`: tokens that wait for their question's turn.
    pub queue_max: usize,
    /// `auth.provider_ca`: authorities of the provider's certificate, besides those of the system.
    pub ca: Option<PathBuf>,
    /// `auth.provider_timeout_ms`: how long an answer may take, and before it the wait for its turn.
    pub timeout: Duration,
    /// `auth.cache_ms_max`: how long an answer is remembered.
    pub cache_max: Duration,
    /// `auth.cache_entries_max`: how many answers are remembered.
    pub cache_entries_max: usize,
    /// What the claims mean.
    pub claims: ClaimOptions,
}

/// Asks a provider about tokens.
pub struct Introspection {
    options: IntrospectionOptions,
    secret: Option<Zeroizing<String>>,
    provider: Provider,
    verdicts: Verdicts<Result<Caller, Refused>>,
    turns: Semaphore,
    queue: Queue,
    health: Mutex<Health>,
}

/// How the provider has answered.
#[derive(Default)]
struct Health {
    failures: u32,
    /// Until then it is left alone.
    rest: Option<Instant>,
}

impl Introspection {
    /// Checks the options, and reads the secret. Blocks for the disk.
    ///
    /// # Errors
    /// What is wrong, with the setting's name.
    pub fn new(options: IntrospectionOptions) -> Result<Self, String> {
        provider::check("auth.introspection.url", &options.url)?;
        options.claims.check()?;
        let secret = match (&options.client_secret, &options.client_secret_file) {
            (Some(secret), _) => Some(secret.clone()),
            (None, Some(path)) => Some(read_secret(path)?),
            (None, None) => None,
        };
        if secret.is_some() != options.client_id.is_some() {
            return Err(
                "auth.introspection.client_id and a secret (auth.introspection.client_secret_file or DORMOUSE_INTROSPECTION_SECRET) go together".to_owned(),
            );
        }
        if options.concurrency_max == 0 {
            return Err(
                "auth.introspection.concurrency_max is 0: nobody could be asked".to_owned(),
            );
        }
        Ok(Self {
            secret,
            provider: Provider::new(
                options.ca.as_deref(),
                options.timeout,
                options.url.starts_with("https:"),
            )?,
            verdicts: Verdicts::new(options.cache_entries_max),
            turns: Semaphore::new(options.concurrency_max.min(Semaphore::MAX_PERMITS)),
            queue: Queue::default(),
            health: Mutex::default(),
            options,
        })
    }

    /// Who shows this token at this second since 1970.
    pub(super) async fn caller(&self, token: &str, now: u64) -> Result<Caller, NotLet> {
        let name = self.verdicts.name(&[token.as_bytes()]);
        if let Some(verdict) = self.verdicts.get(&name, now) {
            return verdict.map_err(NotLet::Refused);
        }
        // Waiting says nothing of the provider: anybody can make others wait.
        let _turn = self.turn().await.ok_or(NotLet::Unavailable(BUSY))?;
        if !self.may_ask() {
            return Err(NotLet::Unavailable(AWAY));
        }
        let asked = timeout(self.options.timeout, self.ask(token)).await;
        let answer = asked.unwrap_or_else(|_| {
            Err("it took longer than auth.provider_timeout_ms"
                .to_owned()
                .into())
        });
        let claims = match answer {
            Ok(claims) => claims,
            Err(Trouble { reason, is_there }) => {
                self.failed(&reason, is_there);
                return Err(NotLet::Unavailable(AWAY));
            }
        };
        *self.health.lock() = Health::default();
        let cache_max = self.options.cache_max.as_secs();
        let (verdict, until) = match self.judge(token, &claims, now) {
            Ok((caller, expires)) => (Ok(caller), expires.min(now.saturating_add(cache_max))),
            Err(refused) => (Err(refused), now.saturating_add(INACTIVE.min(cache_max))),
        };
        self.verdicts.keep(name, verdict.clone(), now, until);
        verdict.map_err(NotLet::Refused)
    }

    /// A turn to ask; none if too many wait already, or it does not come in time.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(turn) = self.turns.try_acquire() {
            return Some(turn);
        }
        let _place = self.queue.enter(self.options.queue_max)?;
        let turn = timeout(self.options.timeout, self.turns.acquire()).await;
        turn.ok()?.ok()
    }

    async fn ask(&self, token: &str) -> Result<Map<String, Value>, Trouble> {
        let form = [("token", token), ("token_type_hint", "access_token")];
        let mut request = self.provider.post(&self.options.url).form(&form);
        if let (Some(id), Some(secret)) = (&self.options.client_id, &self.secret) {
            // RFC 6749, 2.3.1: as in a form.
            request = request.basic_auth(&*form_encoded(id), Some(&*form_encoded(secret)));
        }
        let document = self.provider.send(request).await?;
        claims::parse(&document.body)
            .ok_or_else(|| "it did not answer with an object of JSON".to_owned().into())
    }

    /// Who the provider says it is, and until when.
    fn judge(
        &self,
        token: &str,
        claims: &Map<String, Value>,
        now: u64,
    ) -> Result<(Caller, u64), Refused> {
        if claims.get("active") != Some(&Value::Bool(true)) {
            return Err(Refused::Invalid(
                "the token is unknown to its provider, or is not active any more",
            ));
        }
        let expires = claims
            .get("exp")
            .and_then(Value::as_u64)
            .unwrap_or(u64::MAX);
        if now >= expires {
            return Err(Refused::Invalid("the token has expired"));
        }
        if !self.is_for_us(claims.get("aud")) {
            return Err(Refused::Invalid("the token is for another audience"));
        }
        let issuer = claims.get("iss").and_then(Value::as_str);
        let issuer = issuer.unwrap_or(&self.options.url);
        let caller = self.options.claims.caller(issuer, claims, token)?;
        Ok((caller, expires))
    }

    fn is_for_us(&self, audience: Option<&Value>) -> bool {
        let ours = |value: &Value| {
            let text = value.as_str();
            text.is_some_and(|text| self.options.audience.iter().any(|own| own == text))
        };
        self.options.audience.is_empty()
            || match audience {
                Some(Value::Array(audiences)) => audiences.iter().any(ours),
                Some(audience) => ours(audience),
                None => false,
            }
    }

    /// Whether the provider may be asked now. After a rest one is let through, to try.
    fn may_ask(&self) -> bool {
        let mut health = self.health.lock();
        match health.rest {
            Some(rest) if Instant::now() < rest => false,
            Some(_) => {
                health.rest = Some(Instant::now() + REST);
                true
            }
            None => true,
        }
    }

    /// A provider that is there is not left alone for what it was asked.
    fn failed(&self, error: &str, is_there: bool) {
        let mut health = self.health.lock();
        health.failures = match is_there {
            true => 0,
            false => health.failures + 1,
        };
        tracing::warn!(
            url = self.options.url,
            error,
            failures = health.failures,
            "token introspection failed"
        );
        if health.failures >= FAILURES_MAX {
            health.rest = Some(Instant::now() + REST);
        }
    }
}

impl std::fmt::Debug for Introspection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Introspection")
            .field("url", &self.options.url)
            .finish_non_exhaustive()
    }
}

fn read_secret(path: &std::path::Path) -> Result<Zeroizing<String>, String> {
    let failed = |reason: String| {
        let path = path.display();
        format!("auth.introspection.client_secret_file = \"{path}\": {reason}")
    };
    let bytes = secret_file::read(path).map_err(|error| failed(error.to_string()))?;
    let text =
        std::str::from_utf8(&bytes).map_err(|_| failed("it is not text in UTF-8".to_owned()))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Zeroizing::new(line.to_owned())),
        _ => Err(failed("it is empty".to_owned())),
    }
}

/// As in a form of HTML.
fn form_encoded(text: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(text.len() * 3));
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            byte if byte.is_ascii_alphanumeric() || b"*-._".contains(&byte) => {
                out.push(char::from(byte))
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert_eq!(*form_encoded("a b:c/ü*-._"), "a+b%3Ac%2F%C3%BC*-._");
    }
}
