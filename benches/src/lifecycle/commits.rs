//! Durable commits per second, of one database and of many at once, against the disk's syncs.

use super::{
    Run,
    crowd::{Crowd, execute, prepare, query},
    disk::{self, Writes},
    fill,
    server::{IDLE_MS, IDLE_NEVER, Server},
    table::{Table, goal, ms, p50_p99},
    usage,
};
use crate::{samples::median, session::Result};
use std::time::{Duration, Instant};

/// Databases that commit at once.
const CROWDS: [usize; 3] = [1, 16, 256];

/// Commits for each sync of the disk, to reach with the most databases.
const GOAL: f64 = 20.0;

/// How a client commits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Commit {
    Insert,
    Update,
}

impl Commit {
    fn title(self) -> &'static str {
        match self {
            Self::Insert => "INSERT, simple protocol",
            Self::Update => "UPDATE by key, prepared",
        }
    }

    /// What prepares for the requests, and the request.
    fn requests(self) -> (Vec<u8>, Vec<u8>) {
        match self {
            Self::Insert => (
                query("create table if not exists note (what text not null)"),
                query("insert into note values ('a row in a transaction of its own')"),
            ),
            Self::Update => (
                prepare("update entry set value = value + 1 where id = 1"),
                execute(),
            ),
        }
    }
}

/// One measurement of one crowd.
struct Turn {
    commits: f64,
    latencies: Vec<f64>,
    server_us: f64,
    client_us: f64,
    flushes: Option<f64>,
}

/// Medians over the rounds.
#[derive(Default)]
struct Rounds {
    commits: Vec<f64>,
    /// Of the disk just before and after.
    appends: Vec<f64>,
    ratios: Vec<f64>,
    latencies: Vec<f64>,
    server_us: Vec<f64>,
    client_us: Vec<f64>,
    per_flush: Vec<f64>,
}

pub(super) fn run(run: &Run) -> Result<String> {
    let most = run.count.unwrap_or(256);
    let rounds = run.choose(9, 2);
    let time = Duration::from_millis(run.choose(2_000, 500));
    let probe_ms = run.choose(500, 200);
    let crowds = CROWDS.map(|crowd| crowd.min(most));
    let server = Server::start(run, &[(IDLE_MS, IDLE_NEVER)])?;
    fill::create(&server, most)?;
    fill::write(&server, 0..most, fill::WRITE)?;

    let mut table = Table::new([
        "commit",
        "databases",
        "commits/s",
        "appends with sync/s",
        "commits : syncs",
        "p50 ms",
        "p99 ms",
        "server CPU us",
        "client CPU us",
        "commits : flushes of the device",
    ]);
    let mut best = 0.0_f64;
    let mut overs = Vec::new();
    for commit in [Commit::Insert, Commit::Update] {
        let mut all = crowds.map(|_| Rounds::default());
        for round in 0..rounds {
            eprintln!("  {}, round {} of {rounds}", commit.title(), round + 1);
            overs.push(disk::rate(&disk::syncs(
                &run.folder,
                Writes::Over,
                probe_ms,
            )?));
            let mut before = appends(run, probe_ms)?;
            for (databases, rounds) in crowds.into_iter().zip(&mut all) {
                let turn = turn(run, &server, commit, databases, time)?;
                let after = appends(run, probe_ms)?;
                let syncs = f64::midpoint(before, after);
                rounds.ratios.push(turn.commits / syncs);
                rounds.commits.push(turn.commits);
                rounds.appends.push(syncs);
                rounds.latencies.extend(turn.latencies);
                rounds.server_us.push(turn.server_us);
                rounds.client_us.push(turn.client_us);
                rounds.per_flush.extend(turn.flushes);
                before = after;
            }
        }
        for (databases, rounds) in crowds.into_iter().zip(all) {
            let middle = |values: Vec<f64>| median(values).unwrap_or(f64::NAN);
            let ratio = middle(rounds.ratios);
            if databases == most {
                best = best.max(ratio);
            }
            let [p50, p99] = p50_p99(&rounds.latencies);
            table.row([
                commit.title().to_owned(),
                databases.to_string(),
                format!("{:.0}", middle(rounds.commits)),
                format!("{:.0}", middle(rounds.appends)),
                format!("{ratio:.2}"),
                p50,
                p99,
                format!("{:.0}", middle(rounds.server_us)),
                format!("{:.0}", middle(rounds.client_us)),
                median(rounds.per_flush).map_or_else(|| "–".to_owned(), |n| format!("{n:.1}")),
            ]);
        }
    }
    server.stop()?;
    let over = median(overs).unwrap_or(f64::NAN);
    Ok(format!(
        "### Durable commits\n\n{table}\n\
         One client for each database, each commit acknowledged before the next; durability `local`. \
         \"Appends with sync\" are writes of 8 KiB at the end of a file, each with `fdatasync`, one after \
         the other, just before and after each turn; over a file that does not grow it is {over:.0}/s \
         ({} ms each). \"CPU\" is processor time (user and system) for each commit, so {} processors can \
         do at most their number of seconds divided by the sum. Flushes are those of the device under the \
         folder, whoever asked for them. Medians of {rounds} rounds of {} s.\n\n\
         {} at {most} databases (here {best:.2})\n",
        ms(1e6 / over),
        std::thread::available_parallelism().map_or(0, usize::from),
        time.as_secs_f64(),
        goal("Goal, 20 commits for each sync", best >= GOAL),
    ))
}

fn appends(run: &Run, limit_ms: u64) -> Result<f64> {
    Ok(disk::rate(&disk::syncs(
        &run.folder,
        Writes::Append,
        limit_ms,
    )?))
}

fn turn(
    run: &Run,
    server: &Server,
    commit: Commit,
    databases: usize,
    time: Duration,
) -> Result<Turn> {
    let (first, request) = commit.requests();
    let mut crowd = Crowd::new(server.pg)?;
    // Joined, prepared, and once through before the clock starts.
    for number in 0..databases {
        let member = crowd.join(&fill::name(number))?;
        crowd.answer(member)?;
        for request in [&first, &request] {
            crowd.ask(member, request)?;
            crowd.answer(member)?;
        }
    }
    let own = std::process::id();
    let (server_cpu, client_cpu) = (server.cpu_seconds()?, usage::cpu_seconds(own)?);
    let flushes = disk::flushes(&run.folder);
    let mut latencies = Vec::new();
    let start = Instant::now();
    for member in 0..databases {
        crowd.ask(member, &request)?;
    }
    let mut busy = databases;
    let mut took = Duration::ZERO;
    while busy > 0 {
        let answer = crowd.next()?.checked()?;
        // What was under way when the time was up counts with the time that it took.
        took = start.elapsed();
        latencies.push(answer.us);
        if took < time {
            crowd.ask(answer.member, &request)?;
        } else {
            busy -= 1;
        }
    }
    let commits = latencies.len() as f64;
    let flushed = flushes
        .zip(disk::flushes(&run.folder))
        .map(|(before, after)| after.saturating_sub(before));
    let each = |seconds: f64| seconds * 1e6 / commits;
    let turn = Turn {
        commits: commits / took.as_secs_f64(),
        server_us: each(server.cpu_seconds()? - server_cpu),
        client_us: each(usage::cpu_seconds(own)? - client_cpu),
        flushes: flushed.filter(|&n| n > 0).map(|n| commits / n as f64),
        latencies,
    };
    for member in 0..databases {
        crowd.leave(member)?;
    }
    Ok(turn)
}
