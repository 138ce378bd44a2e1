//! Durations, counted by how long they were.

use std::time::Duration;

/// The longest duration that each bucket but the last takes, in microseconds: to the limits that a wait and a statement
/// begin with, 15 s and a minute.
const BOUNDS: [u64; 15] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 1_000_000,
    5_000_000, 15_000_000, 60_000_000,
];

/// How many durations fell into each bucket, and their sum. Whoever counts has the lock of what they are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Durations {
    /// The last has no end.
    buckets: [u64; BOUNDS.len() + 1],
    micros: u64,
}

impl Durations {
    /// The longest duration that each bucket takes, in seconds, but for the last one, which takes all others.
    pub fn bounds() -> impl Iterator<Item = f64> {
        BOUNDS.into_iter().map(|micros| micros as f64 / 1e6)
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

    /// Those of another are counted here too.
    pub fn add(&mut self, other: &Self) {
        for (own, more) in self.buckets.iter_mut().zip(other.buckets) {
            *own += more;
        }
        self.micros += other.micros;
    }

    pub(super) fn took(&mut self, elapsed: Duration) {
        let micros = elapsed.as_micros() as u64;
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        self.buckets[bucket] += 1;
        self.micros += micros;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_their_buckets() {
        let mut durations = Durations::default();
        for micros in [0, 100, 101, 60_000_000, 60_000_001] {
            durations.took(Duration::from_micros(micros));
        }
        assert_eq!(durations.buckets()[..3], [2, 1, 0]);
        assert_eq!(durations.buckets()[14..], [1, 1]);
        assert_eq!(Durations::bounds().count() + 1, durations.buckets().len());
        let mut twice = durations;
        twice.add(&durations);
        assert_eq!(twice.count(), 10);
        assert_eq!(twice.sum(), Duration::from_micros(240_000_404));
    }
}
