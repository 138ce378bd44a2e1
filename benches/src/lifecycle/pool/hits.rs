//! The same queries again and again, which the result cache can answer.

use super::{
    figures::{Figure, Figures},
    peers::{Peers, Way},
};
use crate::{
    lifecycle::{Run, table::Table},
    session::Result,
};
use std::fs;

/// A thousand different queries.
const SCRIPT: &str = "\\set aid random(1, 1000)\n\
    SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n";

const WAYS: [Way; 4] = [Way::Direct, Way::PgBouncer, Way::Ours, Way::Cached];
const MODES: [&str; 3] = ["simple", "extended", "prepared"];

pub(super) fn run(run: &Run) -> Result<String> {
    let rounds = run.count(3, 1);
    let seconds = run.choose(2, 1);
    let clients = "50";
    let peers = Peers::start(run)?;
    let script = run.folder.join("script");
    fs::write(&script, SCRIPT)?;
    let script = script.to_str().ok_or("--work needs a name in UTF-8")?;
    let mut all = MODES.map(|mode| (mode, Figures::default()));
    for round in 0..rounds {
        for (mode, figures) in &mut all {
            eprintln!("  round {} of {rounds}: {mode}", round + 1);
            let options = ["-f", script, "-M", mode, "-c", clients];
            figures.round(run, &peers, &WAYS, &options, seconds)?;
        }
    }
    peers.stop();
    let mut table = Table::new([
        "50 clients, a thousand queries",
        "transactions a second",
        "p50 ms",
        "p99 ms",
        "processor us each, of the pooler",
    ]);
    for (mode, figures) in &all {
        for (way, name) in
            WAYS.into_iter()
                .zip(["the origin", "PgBouncer", "Dormouse", "Dormouse, cached"])
        {
            let cell = |figure| figures.cell(way, figure);
            table.row([
                format!("{mode}, {name}"),
                cell(Figure::Tps),
                cell(Figure::P50),
                cell(Figure::P99),
                cell(Figure::Cpu),
            ]);
        }
    }
    Ok(format!(
        "### Answers from the result cache\n\n\
         {seconds} s a turn, {rounds} rounds in turns: medians, and the best in brackets.\n\n{table}\n"
    ))
}
