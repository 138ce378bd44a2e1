//! Clients that run statements beside many more that are idle, all in one database.

use super::turns::{Rounds, Servers, Turn};
use crate::{
    lifecycle::{
        Run,
        crowd::Crowd,
        pgbench,
        table::{Table, ms},
    },
    samples::Round,
    session::Result,
};

/// Idle connections.
const IDLE: usize = 800;

pub(super) fn run(run: &Run) -> Result<String> {
    let rounds = run.count(3, 1);
    let seconds = run.choose(5, 1);
    let servers = Servers::start(run)?;
    let mut idle = Vec::new();
    for peer in servers.both() {
        pgbench::load(run, &peer.target())?;
        eprintln!("  {IDLE} idle connections, {}", peer.name);
        let mut crowd = Crowd::new(peer.address)?;
        peer.join(&mut crowd, IDLE)?;
        idle.push(crowd);
    }
    let options = ["-S", "-M", "prepared", "-c", "200", "-j", "2"];
    let mut tps = Rounds::default();
    let (mut p50, mut p99, mut most) = (Rounds::default(), Rounds::default(), Rounds::default());
    let mut failed = String::new();
    for round in 0..rounds {
        eprintln!("  round {} of {rounds}", round + 1);
        let mut turns = Turn::ALL;
        turns.rotate_left(round % Turn::ALL.len());
        for turn in turns {
            let target = servers.ready(turn)?.target();
            let found = pgbench::latencies(run, &target, &options, seconds, || Ok(0.0));
            match found {
                Ok(found) => {
                    tps.note(round, turn, Some(found.tps));
                    let worst = found.times.iter().copied().reduce(f64::max);
                    most.note(round, turn, worst);
                    let times = Round::of(found.times);
                    p50.note(round, turn, times.map(|times| times.p50));
                    p99.note(round, turn, times.map(|times| times.p99));
                }
                Err(error) => failed.push_str(&format!("\n- {}: {error}", turn.name())),
            }
        }
    }
    drop(idle);
    servers.stop();

    let mut table = Table::new([
        "",
        "transactions a second",
        "to native",
        "p50 ms",
        "p99 ms",
        "most ms",
    ]);
    for turn in Turn::ALL {
        let time = |rounds: &Rounds| rounds.median(turn).map_or_else(|| "–".into(), ms);
        let digits = |number: Option<f64>, digits: usize| {
            number.map_or_else(|| "–".into(), |number| format!("{number:.digits$}"))
        };
        table.row([
            turn.name().to_owned(),
            digits(tps.median(turn), 0),
            digits(tps.ratio(turn), 2),
            time(&p50),
            time(&p99),
            time(&most),
        ]);
    }
    Ok(format!(
        "### 200 active clients of 1,000\n\n{table}\n\
         `pgbench -S -M prepared -c 200 -j 2` beside {IDLE} connections that have asked one query each, {seconds} s \
         a turn, medians of {rounds} rounds, ratios within a round. The native server is pinned to one core.\n{failed}\n"
    ))
}
