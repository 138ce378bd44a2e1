//! What rounds found of one piece of work, for each who did it.

use super::peers::{Peers, Way};
use crate::{
    lifecycle::{Run, pgbench, table::ms},
    samples::{Round, median},
    session::Result,
};

/// One run.
#[derive(Clone, Copy)]
struct One {
    tps: f64,
    p50: f64,
    p99: f64,
    /// Microseconds of the pooler's processor time for each transaction.
    cpu: Option<f64>,
}

/// Runs of one piece of work, in rounds.
#[derive(Default)]
pub(super) struct Figures(Vec<Vec<(Way, One)>>);

/// What of a run is told.
#[derive(Clone, Copy)]
pub(super) enum Figure {
    Tps,
    P50,
    P99,
    Cpu,
}

impl One {
    fn get(&self, figure: Figure) -> Option<f64> {
        match figure {
            Figure::Tps => Some(self.tps),
            Figure::P50 => Some(self.p50),
            Figure::P99 => Some(self.p99),
            Figure::Cpu => self.cpu.filter(|cpu| *cpu > 0.0),
        }
    }
}

impl Figures {
    /// Lets each do its turn; who fails is named.
    pub(super) fn round(
        &mut self,
        run: &Run,
        peers: &Peers,
        ways: &[Way],
        options: &[&str],
        seconds: u64,
    ) -> Result<()> {
        let mut ways = ways.to_vec();
        let turn = self.0.len() % ways.len().max(1);
        ways.rotate_left(turn);
        let mut round = Vec::new();
        for way in ways {
            let Some(target) = peers.target(way) else {
                continue;
            };
            let spent = || peers.cpu_us(way);
            let found = match pgbench::latencies(run, target, options, seconds, spent) {
                Ok(found) => found,
                // What others cannot do is no figure, and no reason to stop.
                Err(error) if way == Way::Odyssey => {
                    eprintln!("  {error}");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let times = Round::of(found.times).ok_or("pgbench ran no transaction")?;
            round.push((
                way,
                One {
                    tps: found.tps,
                    p50: times.p50,
                    p99: times.p99,
                    cpu: found.spent,
                },
            ));
        }
        self.0.push(round);
        Ok(())
    }

    fn all(&self, way: Way, figure: Figure) -> impl Iterator<Item = f64> {
        let all = self.0.iter().flatten();
        all.filter(move |(whose, _)| *whose == way)
            .filter_map(move |(_, one)| one.get(figure))
    }

    pub(super) fn median(&self, way: Way, figure: Figure) -> Option<f64> {
        median(self.all(way, figure))
    }

    /// The best: the most transactions, the least of everything else.
    fn best(&self, way: Way, figure: Figure) -> Option<f64> {
        let all = self.all(way, figure);
        match figure {
            Figure::Tps => all.reduce(f64::max),
            _ => all.reduce(f64::min),
        }
    }

    /// The median of what `of` makes of two, each taken within a round.
    pub(super) fn both(
        &self,
        figure: Figure,
        [one, other]: [Way; 2],
        of: impl Fn(f64, f64) -> f64,
    ) -> Option<f64> {
        median(self.0.iter().filter_map(|round| {
            let get = |way| {
                let mut all = round.iter().filter(|(whose, _)| *whose == way);
                all.next().and_then(|(_, one)| one.get(figure))
            };
            Some(of(get(one)?, get(other)?))
        }))
    }

    /// The median and the best, for a table.
    pub(super) fn cell(&self, way: Way, figure: Figure) -> String {
        let text = |number: f64| match figure {
            Figure::Tps => format!("{number:.0}"),
            Figure::P50 | Figure::P99 => ms(number),
            Figure::Cpu => format!("{number:.1}"),
        };
        match (self.median(way, figure), self.best(way, figure)) {
            (Some(median), Some(best)) => format!("{} ({})", text(median), text(best)),
            _ => "–".to_owned(),
        }
    }
}

/// A ratio for a table.
pub(super) fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_bests_and_ratios() {
        let one = |tps, cpu| One {
            tps,
            p50: 20.0,
            p99: 50.0,
            cpu,
        };
        let figures = Figures(
            [(100.0, 10.0), (300.0, 30.0), (200.0, 40.0)]
                .map(|(tps, cpu)| {
                    vec![
                        (Way::Ours, one(tps, Some(10.0))),
                        (Way::PgBouncer, one(1.0, Some(cpu))),
                        (Way::Direct, one(1.0, Some(0.0))),
                    ]
                })
                .into(),
        );
        assert_eq!(figures.cell(Way::Ours, Figure::Tps), "200 (300)");
        assert_eq!(figures.cell(Way::PgBouncer, Figure::Cpu), "30.0 (10.0)");
        assert_eq!(figures.cell(Way::Direct, Figure::Cpu), "–");
        assert_eq!(figures.cell(Way::Cached, Figure::Tps), "–");
        let ways = [Way::PgBouncer, Way::Ours];
        let times = figures.both(Figure::Cpu, ways, |theirs, ours| theirs / ours);
        assert_eq!(times, Some(3.0));
    }
}
