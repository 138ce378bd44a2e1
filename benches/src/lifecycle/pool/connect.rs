//! A connection for each transaction.

use super::{
    CONNECTIONS,
    figures::{Figure, Figures, ratio},
    peers::{Peers, Way},
};
use crate::{
    lifecycle::{Run, table::Table},
    session::Result,
};

const CLIENTS: [usize; 3] = [1, 10, 50];
const WAYS: [Way; 4] = [Way::Direct, Way::PgBouncer, Way::Odyssey, Way::Ours];

pub(super) fn run(run: &Run) -> Result<String> {
    let rounds = run.count(3, 1);
    let seconds = run.choose(2, 1);
    let peers = Peers::start(run)?;
    let mut all = CLIENTS.map(|clients| (clients, Figures::default()));
    for round in 0..rounds {
        for (clients, figures) in &mut all {
            eprintln!("  round {} of {rounds}: {clients} clients", round + 1);
            let clients = clients.to_string();
            let options = ["-S", "-C", "-c", &clients];
            figures.round(run, &peers, &WAYS, &options, seconds)?;
        }
    }
    peers.stop();
    let mut table = Table::new([
        "clients",
        "connections a second, the origin",
        "PgBouncer",
        "Odyssey",
        "Dormouse",
        "processor us each, PgBouncer",
        "Odyssey",
        "Dormouse",
        "throughput per core, to PgBouncer",
    ]);
    for (clients, figures) in &all {
        let ways = [Way::PgBouncer, Way::Ours];
        let mut cells = vec![clients.to_string()];
        cells.extend(WAYS.map(|way| figures.cell(way, Figure::Tps)));
        cells.extend(WAYS[1..].iter().map(|way| figures.cell(*way, Figure::Cpu)));
        cells.push(ratio(
            figures.both(Figure::Cpu, ways, |theirs, ours| theirs / ours),
        ));
        table.row(cells);
    }
    Ok(format!(
        "### A connection for each transaction\n\n\
         `pgbench -S -C`, {CONNECTIONS} connections to the origin, {seconds} s a turn, {rounds} rounds in turns: medians, and the \
         best in brackets. Clients of both pools log in by SCRAM, which costs pgbench more than anybody; the origin asks \
         for no password.\n\n{table}\n"
    ))
}
