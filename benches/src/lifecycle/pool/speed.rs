//! Many clients over few connections.

use super::{
    CONNECTIONS,
    figures::{Figure, Figures, ratio},
    peers::{DIRECT_MAX, Peers, Way},
};
use crate::{
    lifecycle::{
        Run,
        table::{Table, goal},
    },
    session::Result,
};

const MODES: [&str; 3] = ["simple", "extended", "prepared"];
const CLIENTS: [usize; 5] = [1, 10, 50, 100, 1_000];
const CLIENTS_QUICK: [usize; 2] = [1, 50];

/// What one client may wait more, microseconds.
const ADDED_MAX_US: f64 = 50.0;

const WAYS: [Way; 4] = [Way::Direct, Way::PgBouncer, Way::Odyssey, Way::Ours];

/// One piece of work.
struct Work {
    mode: &'static str,
    clients: usize,
    figures: Figures,
}

impl Work {
    fn name(&self) -> String {
        let s = if self.clients == 1 { "" } else { "s" };
        format!("{}, {} client{s}", self.mode, self.clients)
    }

    /// The share of PgBouncer's processor time that ours takes, turned around: throughput per core to PgBouncer's.
    fn per_core(&self) -> Option<f64> {
        let ways = [Way::PgBouncer, Way::Ours];
        self.figures
            .both(Figure::Cpu, ways, |theirs, ours| theirs / ours)
    }

    /// How much longer half of the transactions take than without a pool, microseconds.
    fn added(&self, way: Way) -> Option<f64> {
        let ways = [way, Way::Direct];
        self.figures
            .both(Figure::P50, ways, |pooled, direct| pooled - direct)
    }
}

pub(super) fn run(run: &Run) -> Result<String> {
    let rounds = run.count(3, 1);
    let seconds = run.choose(2, 1);
    let peers = Peers::start(run)?;
    let counts: &[usize] = if run.quick { &CLIENTS_QUICK } else { &CLIENTS };
    let mut all: Vec<Work> = Vec::new();
    for mode in MODES {
        for &clients in counts {
            all.push(Work {
                mode,
                clients,
                figures: Figures::default(),
            });
        }
    }
    for round in 0..rounds {
        for work in &mut all {
            eprintln!("  round {} of {rounds}: {}", round + 1, work.name());
            let clients = work.clients.to_string();
            // pgbench counts the time in which its clients log in, some milliseconds each.
            let seconds = seconds + work.clients as u64 / 100;
            let options = ["-S", "-M", work.mode, "-c", &clients];
            let ways: &[Way] = match work.clients > DIRECT_MAX {
                true => &WAYS[1..],
                false => &WAYS,
            };
            work.figures.round(run, &peers, ways, &options, seconds)?;
        }
    }
    let versions = peers.versions();
    peers.stop();
    Ok(format!(
        "### Many clients over {CONNECTIONS} connections\n\n\
         {versions}. `pgbench -S` over TCP, logins by SCRAM, {seconds} s a turn and one more for each hundred clients, {rounds} rounds in turns: medians, and the best in \
         brackets. Processor time is that of the pooler's process, user and system, while transactions run; \
         throughput per core is its inverse, the ratio is taken within a round. Our cache is off.\n\n{}\n{}\n{}\n",
        throughput(&all),
        latency(&all),
        goals(&all),
    ))
}

fn throughput(all: &[Work]) -> Table {
    let mut table = Table::new([
        "transactions a second",
        "the origin",
        "PgBouncer",
        "Odyssey",
        "Dormouse",
        "processor us each, PgBouncer",
        "Odyssey",
        "Dormouse",
        "throughput per core, to PgBouncer",
    ]);
    for work in all {
        let tps = |way| work.figures.cell(way, Figure::Tps);
        let cpu = |way| work.figures.cell(way, Figure::Cpu);
        table.row([
            work.name(),
            tps(Way::Direct),
            tps(Way::PgBouncer),
            tps(Way::Odyssey),
            tps(Way::Ours),
            cpu(Way::PgBouncer),
            cpu(Way::Odyssey),
            cpu(Way::Ours),
            ratio(work.per_core()),
        ]);
    }
    table
}

fn latency(all: &[Work]) -> Table {
    let mut table = Table::new([
        "ms",
        "p50, the origin",
        "PgBouncer",
        "Odyssey",
        "Dormouse",
        "p99, the origin",
        "PgBouncer",
        "Odyssey",
        "Dormouse",
    ]);
    for work in all {
        let mut cells = vec![work.name()];
        for figure in [Figure::P50, Figure::P99] {
            cells.extend(WAYS.map(|way| work.figures.cell(way, figure)));
        }
        table.row(cells);
    }
    table
}

fn goals(all: &[Work]) -> String {
    let mut lines = Vec::new();
    for work in all.iter().filter(|work| work.clients == 1) {
        let us = |way| work.added(way).map_or(f64::NAN, |us| us);
        lines.push(format!(
            "- {}; PgBouncer adds {:.0}",
            goal(
                &format!(
                    "Goal, {}: p50 at most 50 us above the origin's; {:.0}",
                    work.name(),
                    us(Way::Ours)
                ),
                us(Way::Ours) <= ADDED_MAX_US
            ),
            us(Way::PgBouncer),
        ));
    }
    let reached = all
        .iter()
        .filter(|work| work.per_core().is_some_and(|ratio| ratio >= 1.0));
    lines.push(format!(
        "- Goal, at least PgBouncer's throughput per core: reached in {} of {}",
        reached.count(),
        all.len()
    ));
    lines.join("\n")
}
