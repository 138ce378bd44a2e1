//! A set of numbers kept as ranges: which blocks of a file have room on the medium.

use std::collections::BTreeMap;
use std::ops::Range;

/// Disjoint ranges that do not touch, by their begin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    ends: BTreeMap<u64, u64>,
    count: u64,
}

impl Ranges {
    /// How many numbers are in the set.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// How many of the range are not in the set.
    pub(crate) fn missing(&self, range: &Range<u64>) -> u64 {
        let mut missing = range.end.saturating_sub(range.start);
        for (start, end) in self.overlapping(range) {
            missing -= end.min(range.end) - start.max(range.start);
        }
        missing
    }

    /// Puts a range in.
    pub(crate) fn insert(&mut self, range: &Range<u64>) {
        if range.is_empty() || self.missing(range) == 0 {
            return;
        }
        self.count += self.missing(range);
        let (mut low, mut high) = (range.start, range.end);
        let widened = low.saturating_sub(1)..high + 1;
        for (start, end) in self.overlapping(&widened) {
            self.ends.remove(&start);
            (low, high) = (low.min(start), high.max(end));
        }
        self.ends.insert(low, high);
    }

    /// Takes a range out.
    pub(crate) fn remove(&mut self, range: &Range<u64>) {
        for (start, end) in self.overlapping(range) {
            self.ends.remove(&start);
            self.count -= end - start;
            for rest in [start..range.start, range.end..end] {
                if !rest.is_empty() {
                    self.count += rest.end - rest.start;
                    self.ends.insert(rest.start, rest.end);
                }
            }
        }
    }

    fn overlapping(&self, range: &Range<u64>) -> Vec<(u64, u64)> {
        if range.is_empty() {
            return Vec::new();
        }
        let before = self.ends.range(..range.start).next_back();
        before
            .into_iter()
            .chain(self.ends.range(range.clone()))
            .filter(|&(_, &end)| end > range.start)
            .map(|(&start, &end)| (start, end))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use std::collections::BTreeSet;

    #[test]
    fn it_is_a_set() {
        let mut random = Random::new(7);
        let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
        for _ in 0..5_000 {
            let start = random.below(60);
            let range = start..start + random.below(12);
            let missing = range.clone().filter(|n| !set.contains(n)).count();
            assert_eq!(ranges.missing(&range), missing as u64);
            if random.one_in(2) {
                ranges.insert(&range);
                set.extend(range);
            } else {
                ranges.remove(&range);
                set.retain(|n| !range.contains(n));
            }
            assert_eq!(ranges.count(), set.len() as u64);
            assert!((0..80).all(|n| (ranges.missing(&(n..n + 1)) == 0) == set.contains(&n)));
            let starts: Vec<_> = ranges.ends.iter().collect();
            assert!(
                starts.windows(2).all(|pair| pair[0].1 < pair[1].0),
                "they touch"
            );
        }
    }
}
