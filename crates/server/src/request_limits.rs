//! Limits of requests: how many a second, how many at once, and how large (which `http::sizes` looks at), for each token, or whoever else comes, and for each database.
//!
//! The rate is GCRA's: of each key only the moment is kept at which its requests so far would have been spread out evenly.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use axum::http::header::{HeaderName, RETRY_AFTER};
use database::DatabaseName;
use parking_lot::Mutex;
use wire::{PgError, sqlstate};

use crate::http::caller::{Caller, Identity};
use crate::http::error::ApiError;

/// The limits (`limits`); 0 is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestLimitOptions {
    /// `limits.token_requests_per_second`.
    pub token_requests_per_second: u32,
    /// `limits.database_requests_per_second`.
    pub database_requests_per_second: u32,
    /// `limits.requests_burst`: requests that may come at once before the rate counts. 0: as many as in a second.
    pub requests_burst: u32,
    /// `limits.token_concurrency_max`.
    pub token_concurrency_max: u32,
    /// `limits.database_concurrency_max`.
    pub database_concurrency_max: u32,
    /// `limits.token_body_bytes_max`: the most bytes of a body, or of a message in a WebSocket.
    pub token_body_bytes_max: usize,
    /// `limits.token_result_bytes_max`: the most bytes of a result, also of one that is streamed.
    pub token_result_bytes_max: usize,
    /// `limits.database_body_bytes_max`.
    pub database_body_bytes_max: usize,
    /// `limits.database_result_bytes_max`.
    pub database_result_bytes_max: usize,
    /// `limits.entries_max`: tokens and databases that are counted.
    pub entries_max: usize,
}

/// Counts requests.
#[derive(Default)]
pub(crate) struct RequestLimits {
    entries: Mutex<HashMap<Key, Entry>>,
}

/// A request is being served. Dropping it ends that.
#[must_use]
pub(crate) struct Permit {
    limits: Arc<RequestLimits>,
    held: Vec<Key>,
}

/// Whose requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Token(Identity),
    Database(DatabaseName),
}

struct Entry {
    /// When the requests so far would be spread out evenly.
    even: Instant,
    running: u32,
}

/// The limits of one key.
struct Allowed {
    what: &'static str,
    per_second: u32,
    concurrency: u32,
    rate_setting: &'static str,
    concurrency_setting: &'static str,
}

impl Default for RequestLimitOptions {
    fn default() -> Self {
        Self {
            token_requests_per_second: 0,
            database_requests_per_second: 0,
            requests_burst: 0,
            token_concurrency_max: 0,
            database_concurrency_max: 0,
            token_body_bytes_max: 0,
            token_result_bytes_max: 0,
            database_body_bytes_max: 0,
            database_result_bytes_max: 0,
            entries_max: 100_000,
        }
    }
}

impl RequestLimits {
    /// Lets a request begin; there is no permit where nothing is limited.
    ///
    /// # Errors
    /// 429 if it is one too many, saying which limit, and when to come again.
    pub(crate) fn enter(
        self: &Arc<Self>,
        options: &RequestLimitOptions,
        caller: &Caller,
        database: Option<&DatabaseName>,
    ) -> Result<Option<Permit>, ApiError> {
        self.enter_at(options, caller, database, Instant::now())
    }

    /// Refuses a request that comes too soon, so that nothing is looked up or read for it. It does not count yet; how many run
    /// at once is asked when it begins.
    ///
    /// # Errors
    /// 429 if it is one too many, saying which limit, and when to come again.
    pub(crate) fn expect_time(
        &self,
        options: &RequestLimitOptions,
        caller: &Caller,
        database: Option<&DatabaseName>,
    ) -> Result<(), ApiError> {
        self.expect_time_at(options, caller, database, Instant::now())
    }

    fn expect_time_at(
        &self,
        options: &RequestLimitOptions,
        caller: &Caller,
        database: Option<&DatabaseName>,
        now: Instant,
    ) -> Result<(), ApiError> {
        for (key, allowed) in options.of(caller, database) {
            if let Some(entry) = self.entries.lock().get(&key) {
                entry.expect_time(options, &allowed, now)?;
            }
        }
        Ok(())
    }

    fn enter_at(
        self: &Arc<Self>,
        options: &RequestLimitOptions,
        caller: &Caller,
        database: Option<&DatabaseName>,
        now: Instant,
    ) -> Result<Option<Permit>, ApiError> {
        let mut permit = Permit {
            limits: Arc::clone(self),
            held: Vec::new(),
        };
        for (key, allowed) in options.of(caller, database) {
            self.begin(options, &key, &allowed, now)?;
            permit.held.push(key);
        }
        Ok((!permit.held.is_empty()).then_some(permit))
    }

    fn begin(
        &self,
        options: &RequestLimitOptions,
        key: &Key,
        allowed: &Allowed,
        now: Instant,
    ) -> Result<(), ApiError> {
        let mut entries = self.entries.lock();
        if !entries.contains_key(key) {
            if entries.len() >= options.entries_max {
                entries.retain(|_, entry| entry.running > 0 || entry.even > now);
            }
            if entries.len() >= options.entries_max {
                return Err(too_many(
                    "limits.entries_max",
                    options.entries_max as u64,
                    "tokens and databases",
                    Duration::from_secs(1),
                ));
            }
        }
        let entry = entries.entry(key.clone()).or_insert(Entry {
            even: now,
            running: 0,
        });
        entry.expect_room(allowed)?;
        entry.expect_time(options, allowed, now)?;
        if let Some(step) = allowed.step() {
            entry.even = entry.even.max(now) + step;
        }
        entry.running += 1;
        Ok(())
    }
}

impl Entry {
    /// # Errors
    /// 429 if one more is one too many at once.
    fn expect_room(&self, allowed: &Allowed) -> Result<(), ApiError> {
        if allowed.concurrency == 0 || self.running < allowed.concurrency {
            return Ok(());
        }
        Err(too_many(
            allowed.concurrency_setting,
            allowed.concurrency.into(),
            allowed.what,
            Duration::from_secs(1),
        ))
    }

    /// # Errors
    /// 429 if one more comes too soon.
    fn expect_time(
        &self,
        options: &RequestLimitOptions,
        allowed: &Allowed,
        now: Instant,
    ) -> Result<(), ApiError> {
        let Some(step) = allowed.step() else {
            return Ok(());
        };
        let burst = match options.requests_burst {
            0 => allowed.per_second,
            burst => burst,
        };
        let even = self.even.max(now);
        let ahead = (even - now).saturating_sub(step.saturating_mul(burst - 1));
        if ahead.is_zero() {
            return Ok(());
        }
        let error = too_many(
            allowed.rate_setting,
            allowed.per_second.into(),
            allowed.what,
            ahead,
        );
        Err(error
            .header(
                HeaderName::from_static("ratelimit-policy"),
                &format!("\"default\";q={};w=1", allowed.per_second),
            )
            .header(
                HeaderName::from_static("ratelimit"),
                &format!("\"default\";r=0;t={}", seconds(ahead)),
            ))
    }
}

impl Allowed {
    /// The time from one request to the next, where there is a rate.
    fn step(&self) -> Option<Duration> {
        (self.per_second > 0).then(|| Duration::from_secs(1) / self.per_second)
    }
}

impl RequestLimitOptions {
    /// What limits a request.
    fn of(
        &self,
        caller: &Caller,
        database: Option<&DatabaseName>,
    ) -> impl Iterator<Item = (Key, Allowed)> {
        let token = Key::Token(caller.identity);
        let database = database.cloned().map(Key::Database);
        let keys = std::iter::once(token).chain(database);
        let limited = keys.map(|key| {
            let allowed = self.allowed(&key);
            (key, allowed)
        });
        limited.filter(|(_, allowed)| allowed.per_second > 0 || allowed.concurrency > 0)
    }

    fn allowed(&self, key: &Key) -> Allowed {
        match key {
            Key::Token(_) => Allowed {
                what: "this token's requests",
                per_second: self.token_requests_per_second,
                concurrency: self.token_concurrency_max,
                rate_setting: "limits.token_requests_per_second",
                concurrency_setting: "limits.token_concurrency_max",
            },
            Key::Database(_) => Allowed {
                what: "this database's requests",
                per_second: self.database_requests_per_second,
                concurrency: self.database_concurrency_max,
                rate_setting: "limits.database_requests_per_second",
                concurrency_setting: "limits.database_concurrency_max",
            },
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut entries = self.limits.entries.lock();
        for key in &self.held {
            if let Some(entry) = entries.get_mut(key) {
                entry.running = entry.running.saturating_sub(1);
            }
        }
    }
}

fn too_many(setting: &str, limit: u64, what: &str, again: Duration) -> ApiError {
    let error = PgError::error(
        sqlstate::CONFIGURATION_LIMIT_EXCEEDED,
        format!("too many requests: {setting} is {limit}, and {what} are more"),
    )
    .hint(format!(
        "Come again in {} s, or raise {setting} in Dormouse's configuration.",
        seconds(again)
    ));
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, error)
        .header(RETRY_AFTER, &seconds(again).to_string())
}

/// Whole seconds, rounded up.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse as _;

    fn caller(name: &str) -> Caller {
        Caller {
            name: "the same for all".into(),
            identity: Identity::of("token", &[name]),
            ..Caller::anyone()
        }
    }

    /// Limits with options of their own.
    struct Limited(Arc<RequestLimits>, RequestLimitOptions);

    impl Limited {
        fn enter(
            &self,
            caller: &Caller,
            database: Option<&DatabaseName>,
        ) -> Result<Option<Permit>, ApiError> {
            self.enter_at(caller, database, Instant::now())
        }

        fn enter_at(
            &self,
            caller: &Caller,
            database: Option<&DatabaseName>,
            now: Instant,
        ) -> Result<Option<Permit>, ApiError> {
            self.0.enter_at(&self.1, caller, database, now)
        }
    }

    fn limits(change: impl FnOnce(&mut RequestLimitOptions)) -> Limited {
        let mut options = RequestLimitOptions::default();
        change(&mut options);
        Limited(Arc::default(), options)
    }

    #[test]
    fn a_rate_with_a_burst() {
        let limits = limits(|options| {
            options.token_requests_per_second = 10;
            options.requests_burst = 3;
        });
        let start = Instant::now();
        let at = |milliseconds| {
            let now = start + Duration::from_millis(milliseconds);
            limits.enter_at(&caller("a"), None, now).is_ok()
        };
        assert_eq!([at(0), at(0), at(0), at(0)], [true, true, true, false]);
        assert_eq!([at(100), at(100)], [true, false]);
        assert_eq!(
            [at(1_000), at(1_000), at(1_000), at(1_000)],
            [true, true, true, false]
        );
        assert!(limits.enter_at(&caller("b"), None, start).is_ok());
    }

    #[test]
    fn the_answer_says_when_to_come_again() {
        let limits = limits(|options| options.token_requests_per_second = 1);
        let now = Instant::now();
        drop(limits.enter_at(&caller("a"), None, now).unwrap());
        let refused = limits.enter_at(&caller("a"), None, now).err().unwrap();
        let response = refused.into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(response.headers()["ratelimit"], "\"default\";r=0;t=1");
        assert_eq!(
            response.headers()["ratelimit-policy"],
            "\"default\";q=1;w=1"
        );
    }

    #[test]
    fn requests_at_once() {
        let limits = limits(|options| options.database_concurrency_max = 2);
        let name = DatabaseName::parse("shop").unwrap();
        let enter = || limits.enter(&caller("a"), Some(&name));
        let first = enter().unwrap();
        let _second = enter().unwrap();
        assert!(enter().is_err());
        drop(first);
        assert!(enter().is_ok());
        let other = DatabaseName::parse("other").unwrap();
        assert!(limits.enter(&caller("a"), Some(&other)).is_ok());
    }

    #[test]
    fn who_comes_too_soon_is_told_before_it_counts() {
        let limits = limits(|options| {
            options.token_requests_per_second = 1;
            options.requests_burst = 2;
            options.database_concurrency_max = 1;
        });
        let name = DatabaseName::parse("shop").unwrap();
        let now = Instant::now();
        let time = |who: &str| {
            let (limits, options) = (&limits.0, &limits.1);
            let time = limits.expect_time_at(options, &caller(who), Some(&name), now);
            time.is_ok()
        };
        let enter = |who: &str| limits.enter_at(&caller(who), Some(&name), now);
        assert!(time("a") && time("a") && limits.0.entries.lock().is_empty());
        let first = enter("a").unwrap();
        // That another runs may be over when its body is here.
        assert!(time("a") && time("b") && enter("b").is_err());
        drop(first);
        drop(enter("a").unwrap());
        assert!(!time("a") && time("b"));
    }

    #[test]
    fn what_runs_counts_under_other_limits_too() {
        let mut limits = limits(|options| options.token_concurrency_max = 2);
        let enter = |limits: &Limited| limits.enter(&caller("a"), None);
        let first = enter(&limits).unwrap();
        limits.1.token_concurrency_max = 1;
        assert!(enter(&limits).is_err());
        limits.1.token_concurrency_max = 0;
        assert!(enter(&limits).unwrap().is_none());
        drop(first);
        limits.1.token_concurrency_max = 1;
        assert!(enter(&limits).is_ok());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let limits = limits(|options| {
            options.token_requests_per_second = 1_000;
            options.entries_max = 2;
        });
        let start = Instant::now();
        let enter = |name: &str, at| limits.enter_at(&caller(name), None, start + at);
        drop(enter("a", Duration::ZERO).unwrap());
        drop(enter("b", Duration::ZERO).unwrap());
        assert!(enter("c", Duration::ZERO).is_err());
        assert!(enter("c", Duration::from_secs(1)).is_ok());
        assert_eq!(limits.0.entries.lock().len(), 1);
    }

    #[test]
    fn without_limits_nothing_is_kept() {
        let limits = limits(|_| {});
        assert!(limits.enter(&caller("a"), None).unwrap().is_none());
        assert!(limits.0.entries.lock().is_empty());
    }
}
