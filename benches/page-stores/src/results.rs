//! Everything that was found out, by figure, store and round.

use crate::{
    crash::Kills,
    figures::{Figures, median},
    rot::Flips,
    sizes::Sizes,
    stores::Candidate,
};
use std::{collections::BTreeMap, time::Duration};

/// What a run found out.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) sizes: Sizes,
    pub(crate) machine: String,
    pub(crate) took: Duration,
    /// How many rounds there were of each kind.
    pub(crate) rounds: BTreeMap<&'static str, usize>,
    figures: BTreeMap<String, BTreeMap<Candidate, BTreeMap<usize, f64>>>,
    pub(crate) kills: BTreeMap<Candidate, Kills>,
    pub(crate) flips: BTreeMap<Candidate, Flips>,
    /// What could not be measured, and why.
    pub(crate) notes: Vec<String>,
}

impl Results {
    pub(crate) fn new(sizes: Sizes, machine: String) -> Self {
        Self {
            sizes,
            machine,
            took: Duration::ZERO,
            rounds: BTreeMap::new(),
            figures: BTreeMap::new(),
            kills: BTreeMap::new(),
            flips: BTreeMap::new(),
            notes: Vec::new(),
        }
    }

    /// Takes the figures of a store's turn in a round; each name gets `prefix` before it.
    pub(crate) fn add(
        &mut self,
        prefix: &str,
        candidate: Candidate,
        round: usize,
        figures: Figures,
    ) {
        for (name, value) in figures {
            let of_name = self.figures.entry(format!("{prefix}{name}")).or_default();
            let rounds = of_name.entry(candidate).or_default();
            rounds.insert(round, value);
        }
    }

    /// The median of the rounds.
    pub(crate) fn median(&self, name: &str, candidate: Candidate) -> Option<f64> {
        let rounds = self.figures.get(name)?.get(&candidate)?;
        median(rounds.values().copied())
    }

    /// The median of the ratios to `base`, each taken within a round. `None` without rounds in which
    /// both were measured, and `base` was not zero.
    pub(crate) fn ratio(&self, name: &str, candidate: Candidate, base: Candidate) -> Option<f64> {
        let all = self.figures.get(name)?;
        let (rounds, bases) = (all.get(&candidate)?, all.get(&base)?);
        let ratios = rounds.iter().filter_map(|(round, value)| {
            let base = bases.get(round).filter(|base| **base != 0.0)?;
            Some(value / base)
        });
        median(ratios)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_within_a_round() {
        let mut results = Results::new(Sizes::QUICK, String::new());
        let mut add = |candidate, round, value| {
            let figures = Figures::from([("x".to_owned(), value)]);
            results.add("of_", candidate, round, figures);
        };
        // The machine is ten times slower in the second round; a third knows only one of them.
        for (round, own, plain) in [(0, 2.0, 1.0), (1, 30.0, 10.0)] {
            add(Candidate::Own, round, own);
            add(Candidate::Plain, round, plain);
        }
        add(Candidate::Own, 2, 1_000.0);
        let ratio = results.ratio("of_x", Candidate::Own, Candidate::Plain);
        assert_eq!(ratio, Some(2.5));
        assert_eq!(results.median("of_x", Candidate::Own), Some(30.0));
        assert_eq!(
            results.ratio("of_x", Candidate::Own, Candidate::RedbOne),
            None
        );
    }
}
