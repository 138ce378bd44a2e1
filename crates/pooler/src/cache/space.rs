//! The memory that the caches of a node share.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::ledger::{Oid, Stamp};

/// Limits of the caches of a node, each by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheOptions {
    /// `cache_bytes_max`: answers of all bindings together, and those that are being taken down.
    pub cache_bytes_max: usize,
    /// `cache_entries_max`: answers of all bindings together.
    pub cache_entries_max: NonZeroUsize,
    /// `result_bytes_max`: of one answer.
    pub result_bytes_max: usize,
    /// `query_bytes_max`: of a text with its parameters.
    pub query_bytes_max: usize,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            cache_bytes_max: 128 << 20,
            cache_entries_max: NonZeroUsize::new(100_000).unwrap_or(NonZeroUsize::MIN),
            // Hyperdrive's.
            result_bytes_max: 50 << 20,
            query_bytes_max: 64 << 10,
        }
    }
}

/// How full it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheFilling {
    /// Answers.
    pub entries: usize,
    /// Bytes, those that are being taken down included.
    pub bytes: usize,
    /// Answers that had to go for others.
    pub evicted: u64,
}

/// What an answer is found by: whose cache, and all that it depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) cache: u64,
    pub(crate) content: Arc<[u8]>,
}

/// An answer that is kept.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The messages of it; nothing if they were too many.
    pub(crate) answer: Option<Bytes>,
    pub(crate) tables: Arc<[Oid]>,
    pub(crate) stamp: Stamp,
    pub(crate) asked: Instant,
}

/// What an entry costs beside its bytes, about.
const ENTRY_BYTES: usize = 256;

/// The memory that the caches of a node share. What was not used for the longest time goes first.
#[derive(Debug)]
pub struct CacheSpace {
    pub(crate) options: CacheOptions,
    entries: Mutex<Entries>,
    /// Of answers that are being taken down.
    taken: AtomicUsize,
    next_cache: AtomicU64,
}

#[derive(Debug)]
struct Entries {
    by_key: LruCache<Key, Entry>,
    bytes: usize,
    evicted: u64,
}

impl CacheSpace {
    /// Empty, with these limits.
    pub fn new(options: CacheOptions) -> Arc<Self> {
        Arc::new(Self {
            options,
            entries: Mutex::new(Entries {
                // Bounded here: so that what goes is counted.
                by_key: LruCache::unbounded(),
                bytes: 0,
                evicted: 0,
            }),
            taken: AtomicUsize::new(0),
            next_cache: AtomicU64::new(1),
        })
    }

    /// How full it is.
    pub fn filling(&self) -> CacheFilling {
        let entries = self.entries.lock();
        CacheFilling {
            entries: entries.by_key.len(),
            bytes: entries.bytes + self.taken.load(Ordering::Relaxed),
            evicted: entries.evicted,
        }
    }

    pub(crate) fn new_cache(&self) -> u64 {
        self.next_cache.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Entry> {
        self.entries.lock().by_key.get(key).cloned()
    }

    pub(crate) fn put(&self, key: Key, entry: Entry) {
        let bytes = cost(&key, &entry);
        let max = self.options.cache_bytes_max;
        if bytes > max {
            return;
        }
        let mut entries = self.entries.lock();
        if let Some(known) = entries.by_key.peek(&key)
            && known.stamp > entry.stamp
        {
            // Somebody has asked later, and was told sooner.
            return;
        }
        entries.bytes += bytes;
        if let Some((key, old)) = entries.by_key.push(key, entry) {
            entries.bytes -= cost(&key, &old);
        }
        let taken = self.taken.load(Ordering::Relaxed);
        while entries.bytes + taken > max
            || entries.by_key.len() > self.options.cache_entries_max.get()
        {
            if !entries.evict() {
                return;
            }
        }
    }

    pub(crate) fn remove(&self, key: &Key) {
        let mut entries = self.entries.lock();
        if let Some((key, old)) = entries.by_key.pop_entry(key) {
            entries.bytes -= cost(&key, &old);
        }
    }

    /// Drops all of one cache.
    pub(crate) fn remove_all(&self, cache: u64) {
        let mut entries = self.entries.lock();
        let of_it = |(key, _): &(&Key, &Entry)| key.cache == cache;
        let keys = entries.by_key.iter().filter(of_it);
        let keys: Vec<Key> = keys.map(|(key, _)| key.clone()).collect();
        for key in keys {
            if let Some((key, old)) = entries.by_key.pop_entry(&key) {
                entries.bytes -= cost(&key, &old);
            }
        }
    }

    /// Takes room for bytes of an answer that comes in: whether there is some. Older answers go for it.
    pub(crate) fn take(&self, bytes: usize) -> bool {
        let max = self.options.cache_bytes_max;
        let taken = self.taken.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if taken > max {
            self.give_back(bytes);
            return false;
        }
        let mut entries = self.entries.lock();
        while entries.bytes + taken > max && entries.evict() {}
        true
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Entries {
    fn evict(&mut self) -> bool {
        let Some((key, old)) = self.by_key.pop_lru() else {
            return false;
        };
        self.bytes -= cost(&key, &old);
        self.evicted += 1;
        true
    }
}

fn cost(key: &Key, entry: &Entry) -> usize {
    let answer = entry.answer.as_ref().map_or(0, Bytes::len);
    key.content.len() + answer + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::ledger::Ledger;
    use proptest::prelude::*;

    fn key(cache: u64, name: u8) -> Key {
        Key {
            cache,
            content: Arc::new([name]),
        }
    }

    fn entry(bytes: usize) -> Entry {
        Entry {
            answer: Some(Bytes::from(vec![0; bytes])),
            tables: Arc::new([]),
            stamp: Ledger::default().stamp(&[]).unwrap(),
            asked: Instant::now(),
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Put(u8, usize),
        Get(u8),
        Remove(u8),
        RemoveAll(u64),
        Take(usize),
        GiveBack,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..20_u8, 0..2000_usize).prop_map(|(name, bytes)| Step::Put(name, bytes)),
            2 => (0..20_u8).prop_map(Step::Get),
            1 => (0..20_u8).prop_map(Step::Remove),
            1 => (0..2_u64).prop_map(Step::RemoveAll),
            1 => (0..4000_usize).prop_map(Step::Take),
            1 => Just(Step::GiveBack),
        ]
    }

    proptest! {
        #[test]
        fn it_keeps_its_limits(steps in proptest::collection::vec(step(), 1..80)) {
            let space = CacheSpace::new(CacheOptions {
                cache_bytes_max: 6_000,
                cache_entries_max: NonZeroUsize::new(7).unwrap(),
                ..CacheOptions::default()
            });
            let mut taken = Vec::new();
            for step in steps {
                match step {
                    Step::Put(name, bytes) => {
                        let key = key(u64::from(name % 2), name);
                        space.put(key.clone(), entry(bytes));
                        let is_room = bytes + 1 + ENTRY_BYTES + taken.iter().sum::<usize>() <= 6_000;
                        prop_assert_eq!(space.get(&key).is_some(), is_room);
                    }
                    Step::Get(name) => drop(space.get(&key(u64::from(name % 2), name))),
                    Step::Remove(name) => space.remove(&key(u64::from(name % 2), name)),
                    Step::RemoveAll(cache) => {
                        space.remove_all(cache);
                        let left = (0..20_u8).filter(|name| u64::from(name % 2) == cache);
                        prop_assert!(left.into_iter().all(|name| space.get(&key(cache, name)).is_none()));
                    }
                    Step::Take(bytes) => {
                        if space.take(bytes) {
                            taken.push(bytes);
                        }
                    }
                    Step::GiveBack => {
                        if let Some(bytes) = taken.pop() {
                            space.give_back(bytes);
                        }
                    }
                }
                let filling = space.filling();
                prop_assert!(filling.entries <= 7 && filling.bytes <= 6_000, "{:?}", filling);
            }
            for bytes in taken {
                space.give_back(bytes);
            }
            space.remove_all(0);
            space.remove_all(1);
            let filling = space.filling();
            prop_assert_eq!((filling.entries, filling.bytes), (0, 0));
        }
    }
}
