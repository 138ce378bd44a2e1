//! Memory of connections that do nothing.

use super::peer::{self, Peer};
use crate::{
    lifecycle::{
        Run,
        crowd::Crowd,
        server::{IDLE_NEVER, put_data_aside},
        table::{Table, each, goal, mib},
    },
    session::Result,
};

/// Connections that are there before the memory is first looked at: they make the server start the
/// processes that it will have, which are no connection's.
const FIRST: usize = 100;

/// The memory of one connection to stay below, bytes.
const GOAL: u64 = 16 << 10;

/// How long the database that sleeps was quiet before, milliseconds.
const SLEEPS_MS: u64 = 2_000;

/// Anonymous memory at two times, bytes.
struct Memory {
    before: u64,
    after: u64,
}

pub(super) fn run(run: &Run) -> Result<String> {
    let count = run.count(1_000, 200).max(FIRST + 1);
    let ours = peer::ours(run, IDLE_NEVER, &[])?;
    let awake = memory(&ours, count, false)?;
    ours.stop();
    put_data_aside(run)?;

    let ours = peer::ours(run, SLEEPS_MS, &[])?;
    let asleep = memory(&ours, count, true)?;
    ours.stop();

    let native = peer::native(run, count + FIRST)?;
    let beside = memory(&native, count, false)?;
    native.stop();

    let mut table = Table::new(["anonymous memory", "MiB before", "MiB with all", "each"]);
    for (what, memory) in [
        ("Dormouse, awake", &awake),
        ("Dormouse, fallen asleep", &asleep),
        ("native", &beside),
    ] {
        table.row([
            what.to_owned(),
            mib(memory.before),
            mib(memory.after),
            each(memory.after, memory.before, count - FIRST),
        ]);
    }
    let most = [&awake, &asleep]
        .map(|memory| memory.after.saturating_sub(memory.before) / (count - FIRST) as u64)
        .into_iter()
        .max();
    Ok(format!(
        "### {count} idle connections\n\n{table}\n\
         Each has asked `select 1`. Memory of all processes, what they share counted once. \"Before\" is \
         with {FIRST} of them.\n\n{}\n",
        goal(
            "Goal, at most 16 KiB each, awake and asleep",
            most.is_some_and(|most| most <= GOAL)
        )
    ))
}

fn memory(peer: &Peer, count: usize, asleep: bool) -> Result<Memory> {
    let how = if asleep { "asleep" } else { "awake" };
    eprintln!("  {count} connections, {how}, {}", peer.name);
    let mut crowd = Crowd::new(peer.address)?;
    let mut with = |more: usize| {
        peer.join(&mut crowd, more)?;
        if asleep {
            peer.until_asleep()?;
        }
        peer.anonymous()
    };
    Ok(Memory {
        before: with(FIRST)?,
        after: with(count - FIRST)?,
    })
}
