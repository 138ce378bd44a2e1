//! Results that were sent before, for whoever asks the same while nothing has changed.
//!
//! A result is kept with the version that it is as of. It is given only for that version, which the caller asks the
//! database for first: so the cache is never what makes an answer old.

use std::time::{Duration, Instant};

use bytes::Bytes;
use database::{DatabaseId, QueryKey, ResultVersion};
use lru::LruCache;
use parking_lot::Mutex;

/// How much is kept, and for how long; any of them 0: nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResultCacheLimits {
    /// `http.result_cache_entries_max`: most results. Default 1,000.
    pub entries_max: usize,
    /// `http.result_cache_bytes_max`: most bytes of all together; a result that is larger than a quarter of it is not
    /// kept. Default 64 MiB.
    pub bytes_max: usize,
    /// `http.result_cache_ttl_ms`: longest time that one is kept. Default 5 minutes.
    pub ttl: Duration,
}

impl Default for ResultCacheLimits {
    fn default() -> Self {
        Self {
            entries_max: 1_000,
            bytes_max: 64 << 20,
            ttl: Duration::from_secs(300),
        }
    }
}

/// What has come of it since it was made, and what it holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResultCacheMetrics {
    /// Answers from it.
    pub hits: u64,
    /// Questions that it had no answer to.
    pub misses: u64,
    /// Results that went for want of room, not because they were old.
    pub evictions: u64,
    /// Results in it.
    pub entries: u64,
    /// Bytes of these, with what their keys take.
    pub bytes: u64,
}

/// What there was when an answer was sought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sought {
    /// The answer.
    Hit(Bytes),
    /// None.
    Miss,
    /// Nothing is ever kept.
    Off,
}

/// A query in a database, and the form of the answer.
type Place = (DatabaseId, QueryKey, String);

#[derive(Debug)]
struct Kept {
    version: ResultVersion,
    body: Bytes,
    bytes: usize,
    until: Instant,
}

#[derive(Debug)]
struct Inner {
    kept: LruCache<Place, Kept>,
    metrics: ResultCacheMetrics,
}

/// Results by query and version, those that were asked for last.
#[derive(Debug)]
pub struct ResultCache {
    limits: ResultCacheLimits,
    inner: Option<Mutex<Inner>>,
}

/// What an entry takes beside its body and the name of its form.
const ENTRY_BYTES: usize = 320;

impl ResultCache {
    /// An empty one.
    pub fn new(limits: ResultCacheLimits) -> Self {
        let is_on = limits.entries_max > 0 && limits.bytes_max > 0 && !limits.ttl.is_zero();
        let inner = is_on.then(|| {
            Mutex::new(Inner {
                // Its own limit would be a table of that size from the beginning.
                kept: LruCache::unbounded(),
                metrics: ResultCacheMetrics::default(),
            })
        });
        Self { limits, inner }
    }

    /// The answer as of `version`, which is the database's now, in a form with a name of its own.
    pub fn get(
        &self,
        version: ResultVersion,
        query: &QueryKey,
        form: &str,
        now: Instant,
    ) -> Sought {
        let Some(inner) = &self.inner else {
            return Sought::Off;
        };
        let mut inner = inner.lock();
        let place = (version.database(), *query, form.to_owned());
        match inner.kept.get(&place) {
            Some(kept) if kept.version == version && now < kept.until => {
                let body = kept.body.clone();
                inner.metrics.hits += 1;
                Sought::Hit(body)
            }
            Some(_old) => {
                inner.remove(&place);
                inner.metrics.misses += 1;
                Sought::Miss
            }
            None => {
                inner.metrics.misses += 1;
                Sought::Miss
            }
        }
    }

    /// Keeps an answer of a query that was run after `version` was asked for.
    pub fn insert(
        &self,
        version: ResultVersion,
        query: &QueryKey,
        form: &str,
        body: Bytes,
        now: Instant,
    ) {
        let Some(inner) = &self.inner else { return };
        let bytes = body.len() + form.len() + ENTRY_BYTES;
        let Some(until) = now.checked_add(self.limits.ttl) else {
            return;
        };
        if bytes > self.limits.bytes_max / 4 {
            return;
        }
        let place = (version.database(), *query, form.to_owned());
        let kept = Kept {
            version,
            body,
            bytes,
            until,
        };
        let mut inner = inner.lock();
        inner.remove(&place);
        inner.metrics.entries += 1;
        inner.metrics.bytes += bytes as u64;
        inner.kept.put(place, kept);
        while inner.metrics.bytes > self.limits.bytes_max as u64
            || inner.kept.len() > self.limits.entries_max
        {
            let Some((_, oldest)) = inner.kept.pop_lru() else {
                break;
            };
            inner.gone(&oldest);
            inner.metrics.evictions += 1;
        }
    }

    /// What is counted.
    pub fn metrics(&self) -> ResultCacheMetrics {
        self.inner
            .as_ref()
            .map(|inner| inner.lock().metrics)
            .unwrap_or_default()
    }
}

impl Inner {
    fn remove(&mut self, place: &Place) {
        if let Some(removed) = self.kept.pop(place) {
            self.gone(&removed);
        }
    }

    fn gone(&mut self, kept: &Kept) {
        self.metrics.entries -= 1;
        self.metrics.bytes -= kept.bytes as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(commit: u64) -> ResultVersion {
        ResultVersion::new(DatabaseId::new(1).unwrap(), 7, commit)
    }

    fn key(sql: &str) -> QueryKey {
        QueryKey::new("", [], sql, [])
    }

    fn cache(entries_max: usize, bytes_max: usize) -> ResultCache {
        ResultCache::new(ResultCacheLimits {
            entries_max,
            bytes_max,
            ttl: Duration::from_secs(1),
        })
    }

    #[test]
    fn only_the_same_is_given() {
        let (cache, now) = (cache(10, 1 << 20), Instant::now());
        let put = |sql: &str, commit| {
            let body = Bytes::from(format!("{sql} {commit}"));
            cache.insert(version(commit), &key(sql), "json", body, now);
        };
        let get = |sql: &str, commit, form, after| {
            let at = now + Duration::from_millis(after);
            cache.get(version(commit), &key(sql), form, at)
        };
        put("a", 1);
        assert_eq!(get("a", 1, "json", 999), Sought::Hit("a 1".into()));
        assert_eq!(get("b", 1, "json", 0), Sought::Miss);
        assert_eq!(get("a", 1, "other", 0), Sought::Miss);
        let other = ResultVersion::new(DatabaseId::new(2).unwrap(), 7, 1);
        assert_eq!(cache.get(other, &key("a"), "json", now), Sought::Miss);
        // What is old goes.
        assert_eq!(get("a", 2, "json", 0), Sought::Miss);
        assert_eq!(get("a", 1, "json", 0), Sought::Miss);
        put("a", 2);
        put("a", 2);
        assert_eq!(cache.metrics().entries, 1);
        assert_eq!(get("a", 2, "json", 1000), Sought::Miss);
        let metrics = cache.metrics();
        assert_eq!((metrics.hits, metrics.misses), (1, 6));
        assert_eq!(
            (metrics.entries, metrics.bytes, metrics.evictions),
            (0, 0, 0)
        );
    }

    #[test]
    fn there_is_no_more_than_may_be() {
        let now = Instant::now();
        let small = cache(2, 1 << 20);
        for sql in ["a", "b", "a", "c"] {
            if small.get(version(1), &key(sql), "", now) == Sought::Miss {
                small.insert(version(1), &key(sql), "", Bytes::from_static(b"x"), now);
            }
        }
        assert_ne!(small.get(version(1), &key("a"), "", now), Sought::Miss);
        assert_eq!(small.get(version(1), &key("b"), "", now), Sought::Miss);
        assert_eq!((small.metrics().entries, small.metrics().evictions), (2, 1));
        let short = cache(1000, 100_000);
        for n in 0..100 {
            let body = Bytes::from(vec![0; 10_000]);
            short.insert(version(1), &key(&n.to_string()), "", body, now);
            assert!(short.metrics().bytes <= 100_000);
        }
        assert_eq!(short.metrics().entries, 9);
        short.insert(
            version(1),
            &key("large"),
            "",
            Bytes::from(vec![0; 50_000]),
            now,
        );
        assert_eq!(short.get(version(1), &key("large"), "", now), Sought::Miss);
        for off in [cache(0, 1 << 20), cache(10, 0)] {
            off.insert(version(1), &key("a"), "", Bytes::new(), now);
            assert_eq!(off.get(version(1), &key("a"), "", now), Sought::Off);
        }
    }
}
