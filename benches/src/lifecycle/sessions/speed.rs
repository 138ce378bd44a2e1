//! What one database does for one client and for several.

use super::turns::{Rounds, Servers, Turn};
use crate::{
    lifecycle::{
        Run, pgbench,
        table::{Table, goal},
    },
    session::Result,
};

/// The share of the native throughput to reach with eight clients that select.
const GOAL: f64 = 0.7;

/// What is run, and pgbench's words for it.
const WORK: [(&str, &[&str]); 4] = [
    (
        "select-only, prepared, 1 client",
        &["-S", "-M", "prepared", "-c", "1"],
    ),
    (
        "select-only, prepared, 8 clients",
        &["-S", "-M", "prepared", "-c", "8"],
    ),
    ("TPC-B, prepared, 8 clients", &["-M", "prepared", "-c", "8"]),
    (
        "select-only, a connection each, 8 clients",
        &["-S", "-C", "-c", "8"],
    ),
];

/// The row of [`WORK`] that the goal is about.
const GOAL_ROW: usize = 1;

pub(super) fn run(run: &Run) -> Result<String> {
    let rounds = run.count(5, 1);
    let seconds = run.choose(3, 1);
    let servers = Servers::start(run)?;
    for peer in servers.both() {
        pgbench::load(run, &peer.target())?;
    }
    let mut found: [Rounds; WORK.len()] = Default::default();
    let mut cpu: [Rounds; WORK.len()] = Default::default();
    let mut failed = String::new();
    for round in 0..rounds {
        eprintln!("  round {} of {rounds}", round + 1);
        for (((what, options), found), cpu) in WORK.iter().zip(&mut found).zip(&mut cpu) {
            let mut turns = Turn::ALL;
            turns.rotate_left(round % Turn::ALL.len());
            for turn in turns {
                let peer = servers.ready(turn)?;
                let before = peer.cpu_us()?;
                let tps = pgbench::throughput(run, &peer.target(), options, seconds);
                if let Err(error) = &tps {
                    failed.push_str(&format!("\n- {what}, {}: {error}", turn.name()));
                }
                let spent = peer.cpu_us()? - before;
                let tps = tps.ok();
                cpu.note(round, turn, tps.map(|tps| spent / (tps * seconds as f64)));
                found.note(round, turn, tps);
            }
        }
    }
    servers.stop();

    let mut table = Table::new([
        "transactions a second",
        "native, one core",
        "Dormouse",
        "to native",
        "Dormouse, one core",
        "to native",
        "processor us each, native",
        "Dormouse",
    ]);
    for (((what, _), found), cpu) in WORK.iter().zip(&found).zip(&cpu) {
        let tps = |turn| number(found.median(turn), 0);
        let ratio = |turn| number(found.ratio(turn), 2);
        table.row([
            (*what).to_owned(),
            tps(Turn::Native),
            tps(Turn::Ours),
            ratio(Turn::Ours),
            tps(Turn::OursOnOne),
            ratio(Turn::OursOnOne),
            number(cpu.median(Turn::Native), 0),
            number(cpu.median(Turn::Ours), 0),
        ]);
    }
    let reached = found[GOAL_ROW]
        .ratio(Turn::Ours)
        .is_some_and(|ratio| ratio >= GOAL);
    Ok(format!(
        "### Speed of one database\n\n{table}\n\
         `pgbench` over TCP, {seconds} s a turn, medians of {rounds} rounds, ratios within a round. The native \
         server is pinned to one core, `pgbench` is not. Processor time is that of all of a server's processes, which a \
         machine that is shared with others distorts less than the rest.\n\n{}\n{failed}\n",
        goal(
            "Goal, select-only with 8 clients at least 0.7 of native",
            reached
        ),
    ))
}

/// A number with so many digits after the point, or a dash.
fn number(number: Option<f64>, digits: usize) -> String {
    number.map_or_else(|| "–".to_owned(), |number| format!("{number:.digits$}"))
}
