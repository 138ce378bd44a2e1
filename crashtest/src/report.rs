//! What a run says while it goes on, and at its end.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use crate::counters::Counters;
use crate::phase::Phase;

/// What the director counts.
#[derive(Debug)]
pub struct Report {
    seed: u64,
    begun: Instant,
    /// Kills in each phase.
    kills: BTreeMap<Phase, u64>,
    /// Servers that ended in order before they were killed.
    stops: u64,
    /// From a server's start to the first answer of a database.
    answers: Vec<Duration>,
    /// Servers that said where they listen.
    starts: u64,
}

impl Report {
    /// Nothing yet.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            begun: Instant::now(),
            kills: Phase::ALL.into_iter().map(|phase| (phase, 0)).collect(),
            stops: 0,
            answers: Vec::new(),
            starts: 0,
        }
    }

    /// How long the run has taken.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// How many kills there were.
    pub fn kills(&self) -> u64 {
        self.kills.values().sum()
    }

    /// A server was killed.
    pub fn killed(&mut self, phase: Phase) {
        *self.kills.entry(phase).or_default() += 1;
    }

    /// A server that was asked to stop did so before it was killed.
    pub fn stopped(&mut self) {
        self.stops += 1;
    }

    /// A server listens.
    pub fn started(&mut self) {
        self.starts += 1;
    }

    /// A database answered, this long after the server's start.
    pub fn answered(&mut self, after: Duration) {
        self.answers.push(after);
    }

    /// One line.
    pub fn progress(&self, counters: &Counters) -> String {
        format!(
            "{:6.0} s | kills {} | commits acknowledged {} | restarts {}, first answer after {} ms \
             | checked {}",
            self.elapsed().as_secs_f64(),
            self.kills(),
            counters.commits.get(),
            self.starts,
            self.mean_answer().as_millis(),
            counters.checks.get(),
        )
    }

    /// The whole.
    pub fn summary(&self, counters: &Counters) -> Summary {
        let mut answers = self.answers.clone();
        answers.sort_unstable();
        let in_doubt = (counters.in_doubt.get(), counters.in_doubt_done.get());
        Summary {
            seed: self.seed,
            elapsed: self.elapsed(),
            kills: self
                .kills
                .iter()
                .map(|(phase, count)| (*phase, *count))
                .collect(),
            stops: self.stops,
            starts: self.starts,
            mean_answer: self.mean_answer(),
            longest_answer: answers.last().copied().unwrap_or_default(),
            counts: vec![
                ("commits acknowledged", counters.commits.get()),
                ("rollbacks", counters.rollbacks.get()),
                ("settings altered", counters.settings.get()),
                ("VACUUM, CHECKPOINT and the like", counters.upkeep.get()),
                ("databases created", counters.created.get()),
                ("databases forked", counters.forked.get()),
                ("databases renamed", counters.renamed.get()),
                ("databases dropped", counters.dropped.get()),
                (
                    "looks at the last commit after a kill",
                    counters.counted.get(),
                ),
                ("full checks", counters.checks.get()),
                ("left in doubt by a kill", in_doubt.0),
                ("of those, done", in_doubt.1),
            ],
        }
    }

    fn mean_answer(&self) -> Duration {
        let count = u32::try_from(self.answers.len()).unwrap_or(u32::MAX);
        let sum: Duration = self.answers.iter().sum();
        sum.checked_div(count).unwrap_or_default()
    }
}

/// A run that broke no promise.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The run's seed.
    pub seed: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// Kills in each phase.
    pub kills: Vec<(Phase, u64)>,
    /// Servers that ended in order before they were killed.
    pub stops: u64,
    /// Servers that said where they listen.
    pub starts: u64,
    /// From a server's start to the first answer of a database.
    pub mean_answer: Duration,
    /// The longest of those.
    pub longest_answer: Duration,
    /// Everything else that was counted, by name.
    pub counts: Vec<(&'static str, u64)>,
}

impl Summary {
    /// What was counted under this name; 0 if nothing was.
    pub fn count(&self, name: &str) -> u64 {
        let mut counts = self.counts.iter();
        let found = counts.find(|(counted, _)| *counted == name);
        found.map_or(0, |(_, count)| *count)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kills: u64 = self.kills.iter().map(|(_, count)| count).sum();
        writeln!(
            formatter,
            "no promise broken: seed {}, {:.0} s",
            self.seed,
            self.elapsed.as_secs_f64()
        )?;
        writeln!(formatter, "{kills:>10}  kills")?;
        for (phase, count) in &self.kills {
            writeln!(formatter, "{count:>10}    {phase}")?;
        }
        writeln!(formatter, "{:>10}  stops in order", self.stops)?;
        writeln!(
            formatter,
            "{:>10}  restarts; first answer after {} ms (mean), {} ms (longest)",
            self.starts,
            self.mean_answer.as_millis(),
            self.longest_answer.as_millis()
        )?;
        for (name, count) in &self.counts {
            writeln!(formatter, "{count:>10}  {name}")?;
        }
        Ok(())
    }
}
