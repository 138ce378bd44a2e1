//! Everything measured in a run.

use crate::{
    process::Memory,
    samples::{Round, median},
    session::{Error, Unsupported},
};
use std::collections::BTreeMap;

/// The unit's row.
pub(crate) const ECHO: &str = "TCP echo, 70 bytes";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Metric {
    StartCold,
    StartWarm,
    Open,
    Create,
    CreateFirst,
    Simple,
    Prepared,
    Select,
    Update,
    Inserts,
    Aggregate,
    AggregateParallel,
}

impl Metric {
    /// One statement at a time.
    pub(crate) const STATEMENTS: [Self; 4] =
        [Self::Simple, Self::Prepared, Self::Select, Self::Update];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::StartCold => "start, no data",
            Self::StartWarm => "start, data there",
            Self::Open => "open inside the process, data there",
            Self::Create => "create a database",
            Self::CreateFirst => "create and first answer",
            Self::Simple => "`select 1` simple",
            Self::Prepared => "`select 1` prepared",
            Self::Select => "select by primary key",
            Self::Update => "update by primary key",
            Self::Inserts => "inserts in one transaction",
            Self::Aggregate => "aggregate",
            Self::AggregateParallel => "aggregate, 2 parallel workers",
        }
    }

    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::StartCold => "start_cold",
            Self::StartWarm => "start_warm",
            Self::Open => "open",
            Self::Create => "create",
            Self::CreateFirst => "create_first_answer",
            Self::Simple => "select1_simple",
            Self::Prepared => "select1_prepared",
            Self::Select => "pk_select",
            Self::Update => "pk_update",
            Self::Inserts => "inserts",
            Self::Aggregate => "aggregate",
            Self::AggregateParallel => "aggregate_parallel",
        }
    }
}

#[derive(Default)]
pub(crate) struct Results {
    rounds: BTreeMap<(Metric, String), Vec<Round>>,
    /// The p50 of the echoes timed just before each of those rounds.
    echoes: BTreeMap<(Metric, String), Vec<f64>>,
    /// Of things that are done once at a time and rounds apart.
    samples: BTreeMap<(Metric, String), Vec<f64>>,
    process: BTreeMap<String, Memory>,
    one_more: BTreeMap<String, Memory>,
    pub(crate) versions: BTreeMap<String, String>,
    pub(crate) notes: Vec<String>,
}

impl Results {
    /// Adds a round.
    pub(crate) fn add(&mut self, metric: Metric, way: &str, samples: Vec<f64>) {
        if let Some(round) = Round::of(samples) {
            self.rounds
                .entry((metric, way.to_owned()))
                .or_default()
                .push(round);
        }
    }

    /// Adds a round of echoes, for the round of `way` that comes next.
    pub(crate) fn add_echo(&mut self, metric: Metric, way: &str, samples: Vec<f64>) {
        if let Some(round) = Round::of(samples) {
            self.rounds
                .entry((metric, ECHO.to_owned()))
                .or_default()
                .push(round);
            self.echoes
                .entry((metric, way.to_owned()))
                .or_default()
                .push(round.p50);
        }
    }

    /// Adds one sample of something whose rounds are one sample each, but whose spread counts.
    pub(crate) fn sample(&mut self, metric: Metric, way: &str, us: f64) {
        self.samples
            .entry((metric, way.to_owned()))
            .or_default()
            .push(us);
    }

    pub(crate) fn memory_of_process(&mut self, way: &str, memory: Memory) {
        self.process.insert(way.to_owned(), memory);
    }

    pub(crate) fn memory_of_one_more(&mut self, way: &str, memory: Memory) {
        self.one_more.insert(way.to_owned(), memory);
    }

    pub(crate) fn process(&self, way: &str) -> Option<Memory> {
        self.process.get(way).copied()
    }

    pub(crate) fn one_more(&self, way: &str) -> Option<Memory> {
        self.one_more.get(way).copied()
    }

    pub(crate) fn version(&mut self, host: &str, version: String) {
        self.versions.insert(host.to_owned(), version);
    }

    /// A whole peer that is not there.
    pub(crate) fn missing(&mut self, host: &str, error: &Error) {
        self.say(format!("{host} is left out: {error}"));
    }

    /// One thing that a peer could not do.
    pub(crate) fn note(&mut self, way: &str, what: &str, error: &Error) {
        let verb = if error.is::<Unsupported>() {
            "is not offered"
        } else {
            "failed"
        };
        self.say(format!("{way}: {what} {verb}: {error}"));
    }

    fn say(&mut self, note: String) {
        eprintln!("  {note}");
        self.notes.push(note);
    }

    pub(crate) fn rounds(&self, metric: Metric, way: &str) -> &[Round] {
        self.rounds
            .get(&(metric, way.to_owned()))
            .map_or(&[], Vec::as_slice)
    }

    /// Medians of the rounds' percentiles.
    pub(crate) fn summary(&self, metric: Metric, way: &str) -> Option<Round> {
        if let Some(samples) = self.samples.get(&(metric, way.to_owned())) {
            return Round::of(samples.clone());
        }
        let rounds = self.rounds(metric, way);
        Some(Round {
            p50: median(rounds.iter().map(|round| round.p50))?,
            p99: median(rounds.iter().map(|round| round.p99))?,
            samples: rounds.iter().map(|round| round.samples).sum(),
        })
    }

    /// How many times as long one takes as another, by the p50 of the same rounds.
    pub(crate) fn times(&self, metric: Metric, way: &str, unit: &str) -> Option<f64> {
        let pairs = self
            .rounds(metric, way)
            .iter()
            .zip(self.rounds(metric, unit));
        median(pairs.map(|(one, unit)| one.p50 / unit.p50))
    }

    /// How many echoes one takes, by the p50 of each round and of the echoes just before it.
    pub(crate) fn echoes(&self, metric: Metric, way: &str) -> Option<f64> {
        let echoes = self.echoes.get(&(metric, way.to_owned()))?;
        median(
            self.rounds(metric, way)
                .iter()
                .zip(echoes)
                .map(|(round, echo)| round.p50 / echo),
        )
    }

    /// Everything measured, by metric and way.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Metric, &str, Round)> {
        let keys = self.rounds.keys().chain(self.samples.keys());
        keys.filter_map(|(metric, way)| Some((*metric, way.as_str(), self.summary(*metric, way)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_within_rounds() {
        let mut results = Results::default();
        for (one, unit) in [(4.0, 2.0), (40.0, 10.0), (9.0, 3.0)] {
            results.add(Metric::Simple, "one", vec![one]);
            results.add(Metric::Simple, "unit", vec![unit]);
        }
        assert_eq!(results.times(Metric::Simple, "one", "unit"), Some(3.0));
        assert_eq!(results.times(Metric::Simple, "one", "nobody"), None);
        assert_eq!(results.summary(Metric::Simple, "one").unwrap().p50, 9.0);
    }
}
