//! How long a request to cancel takes.

use super::peer::{self, Peer};
use crate::{
    lifecycle::{
        Run,
        server::IDLE_NEVER,
        table::{Table, goal, ms, p50_p99},
    },
    pgwire::Client,
    samples::Round,
    session::{Result, Session as _},
};
use std::{io::Write as _, net::TcpStream, thread, time::Instant};

/// The p99 to reach, microseconds.
const GOAL_US: f64 = 20_000.0;

/// What is cancelled.
const STATEMENTS: [(&str, &str); 2] = [
    ("a wait", "select pg_sleep(60)"),
    (
        "a busy loop",
        "select count(*) from generate_series(1, 1e9)",
    ),
];

pub(super) fn run(run: &Run) -> Result<String> {
    let times = run.count(100, 5);
    let mut table = Table::new(["cancel of", "server", "p50 ms", "p99 ms", "most ms", "of"]);
    let mut reached = true;
    for peer in [
        peer::ours(run, IDLE_NEVER, &[])?,
        peer::native(run, peer::CONNECTIONS)?,
    ] {
        for (what, sql) in STATEMENTS {
            eprintln!("  {what}, {}", peer.name);
            let found = cancel(&peer, sql, times)?;
            let [p50, p99] = p50_p99(&found);
            let most = found.iter().copied().fold(0.0, f64::max);
            let p99_us = Round::of(found.clone()).map_or(f64::INFINITY, |round| round.p99);
            // The goal is ours.
            reached &= peer.name == "native" || p99_us <= GOAL_US;
            table.row([
                format!("{what}: `{sql}`"),
                peer.name.to_owned(),
                p50,
                p99,
                ms(most),
                found.len().to_string(),
            ]);
        }
        peer.stop();
    }
    Ok(format!(
        "### Cancel\n\n{table}\n\
         From the connection that brings the request to the error of the statement. Nothing is pinned.\n\n{}\n",
        goal("Goal, p99 at most 20 ms", reached)
    ))
}

/// Microseconds from the request to the error, each time.
fn cancel(peer: &Peer, sql: &str, times: usize) -> Result<Vec<f64>> {
    let mut client = peer.connect()?;
    let mut watch = peer.connect()?;
    let key = client.key.clone();
    let id = key.first_chunk().ok_or("a server without BackendKeyData")?;
    let id = i32::from_be_bytes(*id);
    let runs = format!("pg_stat_activity where pid = {id} and state = 'active'");
    let mut found = Vec::new();
    for _ in 0..times {
        found.push(once(peer, &mut client, sql, || {
            peer.until(&mut watch, &runs)?;
            let start = Instant::now();
            request(peer, &key)?;
            Ok(start)
        })?);
    }
    Ok(found)
}

/// Runs a statement in one client, and cancels it in another; microseconds.
fn once(
    peer: &Peer,
    client: &mut Client,
    sql: &str,
    cancel: impl FnOnce() -> Result<Instant>,
) -> Result<f64> {
    thread::scope(|scope| {
        let running = scope.spawn(|| (client.execute(sql), Instant::now()));
        let start = cancel()?;
        let (answer, end) = running.join().map_err(|_| "BUG: the client panicked")?;
        match answer {
            Err(error) if error.to_string().contains("57014") => {
                Ok((end - start).as_secs_f64() * 1e6)
            }
            Err(error) => Err(error),
            Ok(_) => Err(format!("{}: `{sql}` ended uncancelled", peer.name).into()),
        }
    })
}

/// Sends a CancelRequest.
fn request(peer: &Peer, key: &[u8]) -> Result<()> {
    let length = u32::try_from(8 + key.len())?;
    let mut packet = length.to_be_bytes().to_vec();
    packet.extend_from_slice(&80_877_102_u32.to_be_bytes());
    packet.extend_from_slice(key);
    Ok(TcpStream::connect(peer.address)?.write_all(&packet)?)
}
