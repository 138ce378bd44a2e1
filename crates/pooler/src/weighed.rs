//! What is remembered of things of different weight.

use std::borrow::Borrow;
use std::hash::Hash;
use std::num::NonZeroUsize;

use lru::LruCache;

/// What an entry costs beside the bytes that it is said to have, about.
const ENTRY_BYTES: usize = 512;

/// At most so many entries, of at most so many bytes together: those go that were not used for the longest time.
#[derive(Debug)]
pub(crate) struct Weighed<K: Hash + Eq, V> {
    entries: LruCache<K, (usize, V)>,
    bytes: usize,
    bytes_max: usize,
}

impl<K: Hash + Eq, V> Weighed<K, V> {
    pub(crate) fn new(max: NonZeroUsize, bytes_max: usize) -> Self {
        Self {
            entries: LruCache::new(max),
            bytes: 0,
            bytes_max,
        }
    }

    /// One, which is used by that.
    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key).map(|(_, value)| value)
    }

    /// One, which is not used by that.
    pub(crate) fn peek<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.peek(key).map(|(_, value)| value)
    }

    /// Remembers one that has so many bytes.
    pub(crate) fn put(&mut self, key: K, value: V, bytes: usize) {
        let bytes = bytes + ENTRY_BYTES;
        self.bytes += bytes;
        if let Some((_, (gone, _))) = self.entries.push(key, (bytes, value)) {
            self.bytes -= gone;
        }
        while self.bytes > self.bytes_max
            && let Some((_, (gone, _))) = self.entries.pop_lru()
        {
            self.bytes -= gone;
        }
    }

    /// Forgets one.
    pub(crate) fn pop<Q: Hash + Eq + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        if let Some((gone, _)) = self.entries.pop(key) {
            self.bytes -= gone;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weighed(max: usize, bytes_max: usize) -> Weighed<u32, ()> {
        let max = NonZeroUsize::new(max).unwrap();
        Weighed::new(max, bytes_max + 2 * ENTRY_BYTES)
    }

    fn there(weighed: &Weighed<u32, ()>) -> Vec<u32> {
        (0..9).filter(|key| weighed.peek(key).is_some()).collect()
    }

    #[test]
    fn the_least_used_goes_by_number() {
        let mut weighed = weighed(2, 1000);
        weighed.put(1, (), 1);
        weighed.put(2, (), 1);
        weighed.get(&1).unwrap();
        weighed.put(3, (), 1);
        assert_eq!(there(&weighed), [1, 3]);
        assert_eq!(weighed.bytes, 2 + 2 * ENTRY_BYTES);
    }

    #[test]
    fn the_least_used_go_by_weight() {
        let mut weighed = weighed(9, 1000);
        weighed.put(1, (), 400);
        weighed.put(2, (), 500);
        assert_eq!(there(&weighed), [1, 2]);
        // Instead of itself.
        weighed.put(2, (), 600);
        assert_eq!(there(&weighed), [1, 2]);
        weighed.put(3, (), 100);
        assert_eq!(there(&weighed), [2, 3]);
        weighed.pop(&2);
        assert_eq!(weighed.bytes, 100 + ENTRY_BYTES);
        // Too heavy for everything.
        weighed.put(4, (), 5000);
        assert!(there(&weighed).is_empty());
        assert_eq!(weighed.bytes, 0);
    }
}
