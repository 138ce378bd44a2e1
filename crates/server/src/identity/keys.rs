//! The keys of an issuer as they are now: fetched, kept, and fetched again when they rotate.
//!
//! 1. Nobody makes us ask a provider more often than `auth.jwt.refetch_ms_min`, whatever they show.
//! 2. Keys that are old are not used before others were asked for. Where there are none, as the provider is away, they are used for
//!    `auth.jwt.keys_stale_ms_max` more.
//! 3. Where there never were any, nobody comes in.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::jwk::KeySet;
use super::jws::{Jws, Key};
use super::provider::Provider;
use crate::secret_file;

/// Where keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// What the issuer says under `/.well-known/openid-configuration`.
    Discovery,
    /// A JWK set at this address.
    Url(String),
    /// A JWK set in a file.
    File(PathBuf),
    /// A secret that both sides know, in a file.
    Secret(PathBuf),
}

/// How often they are fetched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// How long keys are used without asking for others, whatever the provider says.
    pub(super) age_max: Duration,
    /// How much longer they are used while no others can be had.
    pub(super) stale_max: Duration,
    /// The shortest time between two fetches.
    pub(super) refetch_min: Duration,
}

/// The keys of an issuer as they are now.
pub(super) struct Keys {
    issuer: String,
    source: KeySource,
    provider: Provider,
    pace: Pace,
    current: RwLock<Option<Current>>,
    /// When it was last tried to fetch them, and what came of it.
    fetching: Mutex<Option<Attempt>>,
    /// Rises with every change of them.
    revision: AtomicU64,
}

#[derive(Clone)]
struct Current {
    keys: Arc<KeySet>,
    /// The document they are from.
    document: Arc<[u8]>,
    until: Instant,
}

struct Attempt {
    at: Instant,
    error: Option<String>,
}

/// What is read of a provider's configuration.
#[derive(Deserialize)]
struct Configuration {
    issuer: String,
    jwks_uri: String,
}

/// Why no key can be said to have signed a token.
pub(super) enum Missing {
    /// There are keys, and none is named so.
    Unknown,
    /// There are none: what went wrong is in the log.
    Unavailable,
}

impl Keys {
    pub(super) fn new(issuer: &str, source: KeySource, provider: Provider, pace: Pace) -> Self {
        Self {
            issuer: issuer.to_owned(),
            source,
            provider,
            pace,
            current: RwLock::default(),
            fetching: Mutex::default(),
            revision: AtomicU64::new(0),
        }
    }

    /// Reads a file now, so that one that cannot be used is noticed at the start. Blocks for the disk.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn check_file(&self) -> Result<(), String> {
        match read_file(&self.source) {
            Some(read) => {
                let (keys, document) = read?;
                self.put(keys, document, None);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// How often they have changed.
    pub(super) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Reads a file of keys again: if it cannot be used, the log says why, and those from before stay. Blocks for the disk.
    pub(super) fn reload_file(&self) {
        match read_file(&self.source) {
            Some(Ok((keys, document))) => self.put(keys, document, None),
            Some(Err(error)) => {
                tracing::error!(
                    error,
                    "keys of auth.jwt cannot be read; those from before stay"
                );
            }
            None => {}
        }
    }

    pub(super) fn are_in_file(&self) -> bool {
        matches!(self.source, KeySource::File(_) | KeySource::Secret(_))
    }

    /// The keys as they are now: where it is time to ask for others, once they were asked for.
    pub(super) async fn current(self: &Arc<Self>) -> Option<Arc<KeySet>> {
        let (known, is_due) = self.known();
        if !is_due {
            return known;
        }
        self.fetch().await;
        self.known().0
    }

    /// Keys among which there is one for this token.
    pub(super) async fn for_token(self: &Arc<Self>, jws: &Jws<'_>) -> Result<Arc<KeySet>, Missing> {
        match self.current().await {
            Some(keys) if keys.has_key_for(jws) => return Ok(keys),
            _ => self.fetch().await,
        }
        let keys = self.known().0.ok_or(Missing::Unavailable)?;
        if keys.has_key_for(jws) {
            Ok(keys)
        } else {
            Err(Missing::Unknown)
        }
    }

    /// Those that may be used, and whether others are to be asked for first. A file is read again by whoever looks at files.
    fn known(&self) -> (Option<Arc<KeySet>>, bool) {
        let current = self.current.read();
        let Some(current) = &*current else {
            return (None, true);
        };
        let age = Instant::now().saturating_duration_since(current.until);
        let is_due = !self.are_in_file() && Instant::now() >= current.until;
        let is_usable = !is_due || age < self.pace.stale_max;
        (is_usable.then(|| Arc::clone(&current.keys)), is_due)
    }

    /// Fetches them, unless that was tried just now.
    async fn fetch(self: &Arc<Self>) {
        let mut last = self.fetching.lock().await;
        if last
            .as_ref()
            .is_some_and(|last| last.at.elapsed() < self.pace.refetch_min)
        {
            return;
        }
        let fetched = self.fetched().await;
        let error = match fetched {
            Ok((keys, document, age)) => {
                self.put(keys, document, age);
                None
            }
            Err(error) => Some(error),
        };
        if let Some(error) = &error {
            let before = last.as_ref().and_then(|last| last.error.as_ref());
            if before != Some(error) {
                tracing::warn!(
                    issuer = self.issuer,
                    error,
                    "the keys of an issuer cannot be had; those from before stay for auth.jwt.keys_stale_ms_max"
                );
            }
        }
        *last = Some(Attempt {
            at: Instant::now(),
            error,
        });
    }

    fn put(&self, keys: KeySet, document: Vec<u8>, age: Option<Duration>) {
        let age = age.unwrap_or(self.pace.age_max);
        let age = age.clamp(
            self.pace.refetch_min.min(self.pace.age_max),
            self.pace.age_max,
        );
        let mut current = self.current.write();
        let same = current
            .as_ref()
            .is_some_and(|current| *current.document == *document);
        *current = Some(Current {
            keys: Arc::new(keys),
            document: document.into(),
            until: Instant::now() + age,
        });
        if !same {
            self.revision.fetch_add(1, Ordering::Release);
            tracing::info!(issuer = self.issuer, "there are new keys of an issuer");
        }
    }

    async fn fetched(&self) -> Result<(KeySet, Vec<u8>, Option<Duration>), String> {
        let url = match &self.source {
            KeySource::Url(url) => url.clone(),
            KeySource::Discovery => self.discover().await?,
            KeySource::File(_) | KeySource::Secret(_) => {
                let source = self.source.clone();
                let read = tokio::task::spawn_blocking(move || read_file(&source)).await;
                let read = read.map_err(|error| error.to_string())?;
                let (keys, document) = read.unwrap_or_else(|| Err("it is no file".to_owned()))?;
                return Ok((keys, document, None));
            }
        };
        let document = self.provider.get(&url).await;
        let document = document.map_err(|error| format!("{url}: {error}"))?;
        let keys = KeySet::parse(&document.body).map_err(|error| format!("{url}: {error}"))?;
        Ok((keys, document.body, document.max_age))
    }

    async fn discover(&self) -> Result<String, String> {
        let base = self.issuer.trim_end_matches('/');
        let url = format!("{base}/.well-known/openid-configuration");
        let failed = |error: String| format!("{url}: {error}");
        let document = self.provider.get(&url).await.map_err(failed)?;
        let found: Configuration = serde_json::from_slice(&document.body)
            .map_err(|error| failed(format!("it is no configuration: {error}")))?;
        if found.issuer != self.issuer {
            return Err(failed(
                "it is that of another issuer: auth.jwt.issuer must be written as the provider does".to_owned(),
            ));
        }
        super::provider::check("jwks_uri", &found.jwks_uri).map_err(failed)?;
        Ok(found.jwks_uri)
    }
}

/// The keys of a file, and what it held; none if they are not in one.
fn read_file(source: &KeySource) -> Option<Result<(KeySet, Vec<u8>), String>> {
    let (path, is_secret) = match source {
        KeySource::File(path) => (path, false),
        KeySource::Secret(path) => (path, true),
        KeySource::Discovery | KeySource::Url(_) => return None,
    };
    let failed = |error: String| format!("{}: {error}", path.display());
    if is_secret {
        return Some(
            secret_file::read(path)
                .map_err(|error| failed(error.to_string()))
                .and_then(|bytes| of_secret(bytes.trim_ascii()).map_err(failed)),
        );
    }
    let read = std::fs::read(path).map_err(|error| failed(error.to_string()));
    Some(read.and_then(|bytes| {
        let keys = KeySet::parse(&bytes).map_err(failed)?;
        Ok((keys, bytes))
    }))
}

/// A secret must have as many bits as the hash (RFC 7518), or tokens could be guessed.
fn of_secret(secret: &[u8]) -> Result<(KeySet, Vec<u8>), String> {
    if secret.len() < 32 {
        return Err("a secret for HS256 must have at least 32 bytes".to_owned());
    }
    let hash = super::token::hash_bytes(secret);
    let key = Key::Secret(Arc::new(zeroize::Zeroizing::new(secret.to_vec())));
    Ok((KeySet::of_secret(key), hash.to_vec()))
}
