//! Which databases have samples of their own: few, so that the page does not grow with the number of tenants.

use std::collections::HashMap;

use database::{Counts, NodeFigures};

/// The numbers that are told of a database.
const NUMBERS: usize = 9;

/// What all databases without samples of their own are called together.
const OTHER: &str = "other";

/// What is told of a database.
pub(super) type Numbers = [u64; NUMBERS];

/// Databases with samples of their own, which they keep for as long as they are used, and what was counted
/// before they got them: that was told as others'. So no sample ever goes down.
#[derive(Debug, Default)]
pub(crate) struct Labelled {
    own: HashMap<String, Own>,
    /// Told of databases that have no samples of their own any more.
    told: Numbers,
}

#[derive(Debug, Default)]
struct Own {
    before: Numbers,
    now: Numbers,
}

impl Labelled {
    /// What to tell now: of each database with samples of its own, and of all others.
    pub(super) fn tell(&mut self, figures: &NodeFigures, max: usize) -> Vec<(String, Numbers)> {
        let found: HashMap<&str, Numbers> = figures
            .databases
            .iter()
            .map(|one| (&*one.name, numbers(&one.counts)))
            .collect();
        let told = &mut self.told;
        self.own.retain(|name, own| {
            let stays = match found.get(&**name) {
                // Another database of that name begins anew.
                Some(now) => now.iter().zip(own.now).all(|(now, before)| *now >= before),
                None => false,
            };
            if !stays {
                add(told, &own.of_its_own());
            }
            stays
        });
        for one in &figures.databases {
            if self.own.len() >= max {
                break;
            }
            // That is what all the rest is called.
            if one.name == OTHER {
                continue;
            }
            let now = numbers(&one.counts);
            let own = Own { before: now, now };
            self.own.entry(one.name.clone()).or_insert(own);
        }
        let mut others = numbers(&figures.total);
        let mut all = Vec::with_capacity(self.own.len() + 1);
        for (name, own) in &mut self.own {
            own.now = found.get(&**name).copied().unwrap_or(own.now);
            let told = own.of_its_own();
            subtract(&mut others, &told);
            all.push((name.clone(), told));
        }
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        subtract(&mut others, &self.told);
        all.push((OTHER.to_owned(), others));
        all
    }
}

impl Own {
    fn of_its_own(&self) -> Numbers {
        let mut told = self.now;
        subtract(&mut told, &self.before);
        told
    }
}

fn numbers(counts: &Counts) -> Numbers {
    [
        counts.statements,
        counts.errors,
        counts.rows,
        counts.durations.sum().as_micros() as u64,
        counts.wal_bytes,
        counts.wakes.into(),
        counts.cache_hits,
        counts.cache_misses,
        counts.not_modified,
    ]
}

fn add(to: &mut Numbers, more: &Numbers) {
    for (to, more) in to.iter_mut().zip(more) {
        *to += more;
    }
}

fn subtract(from: &mut Numbers, less: &Numbers) {
    for (from, less) in from.iter_mut().zip(less) {
        *from = from.saturating_sub(*less);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use database::{DatabaseFigures, State};

    fn figures(databases: &[(&str, u64)], total: u64) -> NodeFigures {
        let counts = |statements| Counts {
            statements,
            ..Counts::default()
        };
        let one = |(name, statements): &(&str, u64)| DatabaseFigures {
            name: (*name).to_owned(),
            state: State::Awake,
            sessions: 0,
            memory_bytes: 0,
            own_bytes: None,
            idle_seconds: None,
            counts: counts(*statements),
        };
        NodeFigures {
            total: counts(total),
            databases: databases.iter().map(one).collect(),
            ..NodeFigures::default()
        }
    }

    fn told(labelled: &mut Labelled, databases: &[(&str, u64)], total: u64) -> Vec<(String, u64)> {
        let told = labelled.tell(&figures(databases, total), 2);
        told.into_iter()
            .map(|(name, numbers)| (name, numbers[0]))
            .collect()
    }

    #[test]
    fn no_sample_goes_down() {
        let mut labelled = Labelled::default();
        let named = |all: &[(&str, u64)]| {
            let all = all
                .iter()
                .map(|(name, number)| ((*name).to_owned(), *number));
            all.collect::<Vec<_>>()
        };
        let first = told(&mut labelled, &[("a", 10), ("b", 5), ("c", 1)], 16);
        assert_eq!(first, named(&[("a", 0), ("b", 0), ("other", 16)]));
        // A third one is busier now, but has to wait.
        let second = told(&mut labelled, &[("c", 90), ("a", 12), ("b", 5)], 107);
        assert_eq!(second, named(&[("a", 2), ("b", 0), ("other", 105)]));
        // One was deleted: its place is free, and what was told of it stays told.
        let third = told(&mut labelled, &[("c", 91), ("b", 6)], 109);
        assert_eq!(third, named(&[("b", 1), ("c", 0), ("other", 106)]));
        let fourth = told(&mut labelled, &[("c", 95), ("b", 6)], 113);
        assert_eq!(fourth, named(&[("b", 1), ("c", 4), ("other", 106)]));
    }
    #[test]
    fn a_database_that_is_called_like_the_rest_is_one_of_it() {
        let mut labelled = Labelled::default();
        told(&mut labelled, &[("other", 3), ("a", 1)], 4);
        let second = told(&mut labelled, &[("other", 5), ("a", 2)], 7);
        assert_eq!(second, [("a".to_owned(), 1), ("other".to_owned(), 6)]);
    }
}
