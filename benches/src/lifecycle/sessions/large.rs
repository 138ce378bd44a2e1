//! Large answers and large input: what they take, and whether they pass through memory or stay in it.

use super::peer::{self, Peer};
use crate::{
    lifecycle::{
        Run,
        crowd::{Crowd, query},
        server::IDLE_NEVER,
        table::{Table, goal, mib},
    },
    process::pause,
    session::{Result, Session as _},
};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Bytes of a row's text; with its number a row has about as many.
const ROW_BYTES: usize = 1_000;

/// Most memory, beyond what was taken before, that something of any size may take, bytes.
const GOAL: u64 = 128 << 20;

/// How long nobody reads an answer.
const UNREAD: Duration = Duration::from_secs(5);

/// What one of them took.
struct Taken {
    seconds: f64,
    /// Anonymous memory of all processes, bytes: before, and the most that was seen meanwhile.
    before: u64,
    most: u64,
}

pub(super) fn run(run: &Run) -> Result<String> {
    let megabytes = run.count(1_000, 20);
    let rows = megabytes * 1_000_000 / ROW_BYTES;
    let select =
        format!("select n, repeat('x', {ROW_BYTES}) as text from generate_series(1, {rows}) n");
    let mut table = Table::new(["what", "server", "MB/s", "MiB before", "MiB at most"]);
    let mut reached = true;
    for peer in [
        peer::ours(run, IDLE_NEVER, &[])?,
        peer::native(run, peer::CONNECTIONS)?,
    ] {
        eprintln!("  {}", peer.name);
        let mut client = peer.connect()?;
        client.execute("create table large (n int, text text)")?;
        let piece = |n: usize| format!("{n}\t{}\n", "x".repeat(ROW_BYTES)).into_bytes();
        let found = [
            (
                "`COPY TO STDOUT`",
                peer.taken(|| {
                    client
                        .execute(&format!("copy ({select}) to stdout"))
                        .map(drop)
                })?,
            ),
            (
                "a result",
                peer.taken(|| client.execute(&select).map(drop))?,
            ),
            (
                "`COPY FROM STDIN`",
                peer.taken(|| client.copy_in("copy large from stdin", (0..rows).map(piece)))?,
            ),
            (
                "a result that nobody reads",
                peer.taken(|| unread(&peer, &select))?,
            ),
        ];
        for (what, taken) in found {
            // The goal is ours.
            reached &= peer.name == "native" || taken.most.saturating_sub(taken.before) <= GOAL;
            let is_read = !what.ends_with("reads");
            table.row([
                what.to_owned(),
                peer.name.to_owned(),
                match is_read {
                    true => format!("{:.0}", megabytes as f64 / taken.seconds),
                    false => String::new(),
                },
                mib(taken.before),
                mib(taken.most),
            ]);
        }
        peer.stop();
    }
    Ok(format!(
        "### {megabytes} MB through one connection\n\n{table}\n\
         Anonymous memory of all processes, what they share counted once, looked at each 20 ms. The client \
         drops what it reads. Nobody reads for {} s. Nothing is pinned.\n\n{}\n",
        UNREAD.as_secs(),
        goal("Goal, at most 128 MiB more, whatever the size", reached)
    ))
}

/// Asks, reads nothing for a while, and goes.
fn unread(peer: &Peer, sql: &str) -> Result<()> {
    let mut crowd = Crowd::new(peer.address)?;
    peer.join(&mut crowd, 1)?;
    crowd.ask(0, &query(sql))?;
    pause(UNREAD);
    Ok(())
}

impl Peer {
    /// What something takes.
    fn taken(&self, work: impl FnOnce() -> Result<()>) -> Result<Taken> {
        let (before, id) = (self.anonymous()?, self.id);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let watching = scope.spawn(|| {
                let mut most = before;
                while !done.load(Ordering::Acquire) {
                    // A look that fails is one less.
                    most = most.max(peer::anonymous(id).unwrap_or(0));
                    pause(Duration::from_millis(20));
                }
                most
            });
            let start = Instant::now();
            let worked = work();
            let seconds = start.elapsed().as_secs_f64();
            done.store(true, Ordering::Release);
            let most = watching.join().map_err(|_| "BUG: the watcher panicked")?;
            worked?;
            Ok(Taken {
                seconds,
                before,
                most,
            })
        })
    }
}
