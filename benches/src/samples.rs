//! Times of single operations, and what is said of them.

/// How much of one thing to measure at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Runs before the clock starts.
    pub(crate) warmup: usize,
    /// Timed runs, unless the time is up before.
    pub(crate) iterations: usize,
    /// The time for timed runs, in milliseconds.
    pub(crate) limit_ms: u64,
}

impl Budget {
    /// Runs `once` with a running number, and gives the microseconds of each timed run.
    pub(crate) fn run<E>(
        self,
        mut once: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Vec<f64>, E> {
        for i in 0..self.warmup {
            once(i)?;
        }
        let mut samples = Vec::with_capacity(self.iterations);
        let start = std::time::Instant::now();
        for i in 0..self.iterations {
            let before = std::time::Instant::now();
            once(self.warmup + i)?;
            samples.push(before.elapsed().as_secs_f64() * 1e6);
            if start.elapsed().as_millis() >= u128::from(self.limit_ms) {
                break;
            }
        }
        Ok(samples)
    }

    /// The most runs that this budget can take.
    pub(crate) fn runs(self) -> usize {
        self.warmup + self.iterations
    }
}

/// One round's samples in short.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) samples: usize,
}

impl Round {
    pub(crate) fn of(mut samples: Vec<f64>) -> Option<Self> {
        samples.sort_by(f64::total_cmp);
        Some(Self {
            p50: percentile(&samples, 0.50)?,
            p99: percentile(&samples, 0.99)?,
            samples: samples.len(),
        })
    }
}

/// The nearest-rank percentile of sorted samples.
fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// The middle one; of an even number, the mean of the two in the middle.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let samples: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let round = Round::of(samples).unwrap();
        assert_eq!((round.p50, round.p99, round.samples), (50.0, 99.0, 100));
        assert!(Round::of(Vec::new()).is_none());
        assert_eq!(Round::of(vec![3.0]).unwrap().p99, 3.0);
    }

    #[test]
    fn median_of_odd_even_and_none() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([]), None);
    }

    #[test]
    fn budget_stops_at_its_time() {
        let budget = Budget {
            warmup: 2,
            iterations: 1_000_000_000,
            limit_ms: 1,
        };
        let mut runs = 0;
        let samples = budget
            .run(|_| {
                runs += 1;
                Ok::<(), ()>(())
            })
            .unwrap();
        assert_eq!(runs, samples.len() + 2);
    }
}
