//! A client goes in the middle of its transaction: how long others wait for what it held.

use super::peer::{self, Peer};
use crate::{
    lifecycle::{
        Run,
        server::IDLE_NEVER,
        table::{Table, goal, ms, p50_p99},
    },
    session::{Result, Session as _},
};
use std::{thread, time::Instant};

/// The longest time to reach, microseconds.
const GOAL_US: f64 = 100_000.0;

pub(super) fn run(run: &Run) -> Result<String> {
    let times = run.count(50, 5);
    let mut table = Table::new(["server", "p50 ms", "p99 ms", "most ms", "of"]);
    let mut reached = true;
    for peer in [
        peer::ours(run, IDLE_NEVER, &[])?,
        peer::native(run, peer::CONNECTIONS)?,
    ] {
        eprintln!("  {}", peer.name);
        let mut client = peer.connect()?;
        client.execute("create table held (id int primary key, value int)")?;
        client.execute("insert into held values (1, 0)")?;
        let found: Vec<f64> = (0..times).map(|_| once(&peer)).collect::<Result<_>>()?;
        let [p50, p99] = p50_p99(&found);
        let most = found.iter().copied().fold(0.0, f64::max);
        // The goal is ours.
        reached &= peer.name == "native" || most <= GOAL_US;
        table.row([
            peer.name.to_owned(),
            p50,
            p99,
            ms(most),
            found.len().to_string(),
        ]);
        peer.stop();
    }
    Ok(format!(
        "### A client goes in mid-transaction\n\n{table}\n\
         From the end of the connection (without Terminate) of an idle session that has changed a row to the answer of \
         another, whose update of that row waits. Nothing is pinned.\n\n{}\n",
        goal("Goal, at most 100 ms", reached)
    ))
}

/// Microseconds from the end of one client to the answer of the other.
fn once(peer: &Peer) -> Result<f64> {
    let mut holder = peer.connect()?;
    let mut waiter = peer.connect()?;
    let mut watch = peer.connect()?;
    holder.execute("begin")?;
    holder.execute("update held set value = 1 where id = 1")?;
    thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            let answer = waiter.execute("update held set value = 2 where id = 1");
            (answer, Instant::now())
        });
        peer.until(&mut watch, "pg_locks where not granted")?;
        let start = Instant::now();
        drop(holder);
        let (answer, end) = waiting.join().map_err(|_| "BUG: the client panicked")?;
        answer?;
        Ok((end - start).as_secs_f64() * 1e6)
    })
}
