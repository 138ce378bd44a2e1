//! Figures by name, what is made of many, and how they cross a pipe.

use crate::stores::Result;
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// What one turn of one store found out: name, number. Units are in the names.
pub(crate) type Figures = BTreeMap<String, f64>;

pub(crate) fn to_line(figures: &Figures) -> String {
    let pairs = figures
        .iter()
        .map(|(name, value)| (name.clone(), Value::from(*value)));
    Value::Object(pairs.collect::<Map<_, _>>()).to_string()
}

pub(crate) fn from_line(line: &str) -> Result<Figures> {
    let pairs: Map<String, Value> = serde_json::from_str(line)?;
    pairs
        .into_iter()
        .map(|(name, value)| match value.as_f64() {
            Some(value) => Ok((name, value)),
            None => Err(format!("{name} is not a number").into()),
        })
        .collect()
}

/// Times of single operations, in microseconds.
#[derive(Debug, Default)]
pub(crate) struct Times {
    each_us: Vec<f64>,
    sum: Duration,
}

impl Times {
    /// Runs `work` and notes how long it took.
    pub(crate) fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.note(start.elapsed());
        result
    }

    pub(crate) fn note(&mut self, time: Duration) {
        self.each_us.push(time.as_secs_f64() * 1e6);
        self.sum += time;
    }

    pub(crate) fn count(&self) -> usize {
        self.each_us.len()
    }

    /// All of them together.
    pub(crate) fn sum(&self) -> Duration {
        self.sum
    }

    /// The nearest-rank percentile, in microseconds; zero of nothing.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        let mut sorted = self.each_us.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
    }
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
    fn figures_survive_their_line() {
        let figures = Figures::from([("a_us".to_owned(), 1.5), ("b".to_owned(), 1e9)]);
        assert_eq!(from_line(&to_line(&figures)).unwrap(), figures);
        assert!(from_line("{\"a\": null}").is_err());
    }

    #[test]
    fn medians_and_percentiles() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([]), None);
        let mut times = Times::default();
        (1..=100)
            .rev()
            .for_each(|us| times.note(Duration::from_micros(us)));
        assert_eq!(times.sum(), Duration::from_micros(5_050));
        assert_eq!(
            (times.percentile(0.5), times.percentile(0.99)),
            (50.0, 99.0)
        );
    }
}
