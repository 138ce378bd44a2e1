//! Durations, counted by how long they were.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The longest duration that each bucket but the last takes, in microseconds.
const BOUNDS: [u64; 13] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 1_000_000,
    5_000_000,
];
/// Of which one has no end.
pub(super) const BUCKETS: usize = BOUNDS.len() + 1;

/// How many durations fell into each bucket, and their sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Durations {
    pub(super) buckets: [u64; BUCKETS],
    pub(super) micros: u64,
}

impl Durations {
    /// The longest duration that each bucket takes, in seconds, but for the last one, which takes all others.
    pub fn bounds() -> [f64; BOUNDS.len()] {
        BOUNDS.map(|micros| micros as f64 / 1e6)
    }

    /// How many there are in each bucket.
    pub fn buckets(&self) -> &[u64] {
        &self.buckets
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// All of them together.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.micros)
    }

    /// A duration that this share of them does not exceed, from 0 to 1: the bound of the bucket in which it is,
    /// or the last bound if it is beyond that. Zero if there are none.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = (self.count() as f64 * share.clamp(0.0, 1.0)).ceil() as u64;
        let mut seen = 0;
        for (bucket, bound) in self.buckets.iter().zip(BOUNDS) {
            seen += bucket;
            if seen >= rank.max(1) {
                return Duration::from_micros(bound);
            }
        }
        let last = BOUNDS[BOUNDS.len() - 1];
        Duration::from_micros(if seen == 0 && self.count() == 0 {
            0
        } else {
            last
        })
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (own, more) in self.buckets.iter_mut().zip(other.buckets) {
            *own += more;
        }
        self.micros += other.micros;
    }
}

/// Durations that are counted from many threads.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    micros: AtomicU64,
}

impl Histogram {
    /// Counts a duration.
    pub fn took(&self, elapsed: Duration) {
        let micros = elapsed.as_micros() as u64;
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn get(&self) -> Durations {
        Durations {
            buckets: std::array::from_fn(|at| self.buckets[at].load(Ordering::Relaxed)),
            micros: self.micros.load(Ordering::Relaxed),
        }
    }

    pub(super) fn of(durations: &Durations) -> Self {
        Self {
            buckets: durations.buckets.map(AtomicU64::new),
            micros: AtomicU64::new(durations.micros),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_their_buckets() {
        let histogram = Histogram::default();
        assert_eq!(histogram.get().quantile(0.5), Duration::ZERO);
        for micros in [0, 100, 101, 3_000, 9_000_000] {
            histogram.took(Duration::from_micros(micros));
        }
        let durations = histogram.get();
        assert_eq!(durations.count(), 5);
        assert_eq!(durations.sum(), Duration::from_micros(9_003_201));
        assert_eq!(durations.buckets()[..2], [2, 1]);
        assert_eq!(durations.quantile(0.4), Duration::from_micros(100));
        assert_eq!(durations.quantile(0.8), Duration::from_micros(5_000));
        assert_eq!(durations.quantile(1.0), Duration::from_secs(5));
    }
}
