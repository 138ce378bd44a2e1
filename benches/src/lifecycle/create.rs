//! Creating and forking, against one sync of the disk and a native PostgreSQL.

use super::{
    Run,
    crowd::{Crowd, query},
    disk::{self, Writes},
    fill,
    server::{IDLE_MS, IDLE_NEVER, Server, put_data_aside},
    table::{Table, goal, p50, p50_p99},
};
use crate::{
    hosts::{Host as _, Native},
    pgwire::{Address, Client},
    session::{Result, Session as _, us},
};
use std::{fs, time::Instant};

/// The p50 to reach for any create or fork, microseconds.
const GOAL_US: f64 = 1_000.0;

/// The table that makes a parent large: one row for each page of 8 KiB.
const PAD: &str = "create table pad (id int primary key, pad text not null); \
                   alter table pad alter pad set storage plain";

pub(super) fn run(run: &Run) -> Result<String> {
    let creates = run.count(300, 50);
    let forks = run.choose(100, 20);
    let parents_mib = run.choose([10_u64, 1024], [10, 128]);
    let probe_ms = run.choose(500, 300);
    let syncs = || disk::syncs(&run.folder, Writes::Append, probe_ms);
    let mut unit = syncs()?;
    let (mut found, mut opened) = (Vec::new(), Vec::new());

    let server = Server::start(run, &[(IDLE_MS, IDLE_NEVER)])?;
    let mut http = server.http("postgres")?;
    let pg = Address::Tcp(server.pg);
    let mut sql = Client::connect(&pg, "postgres")?;
    found.push((
        "create, HTTP".to_owned(),
        repeat(creates, |i| http.create(&format!("h{i}")))?,
    ));
    found.push((
        "create, `CREATE DATABASE`".to_owned(),
        repeat(creates, |i| {
            sql.execute(&format!("create database s{i}")).map(drop)
        })?,
    ));
    unit.extend(syncs()?);

    for parent_mib in parents_mib {
        let parent = format!("parent{parent_mib}");
        eprintln!("  a parent of {parent_mib} MiB");
        server.http(&parent)?.create(&parent)?;
        let mut inside = Client::connect(&pg, &parent)?;
        inside.execute(PAD)?;
        // A plain value is never compressed or moved out: rows of 7,900 bytes, one on a page.
        inside.execute(&format!(
            "insert into pad select g, repeat('x', 7900) from generate_series(1, {}) g",
            parent_mib * 128
        ))?;
        inside.execute(fill::WRITE)?;
        // The server ends a connection that was quiet for as long as that may take.
        http = server.http("postgres")?;
        for (how, prefix) in [("HTTP", "fh"), ("`TEMPLATE`", "fs")] {
            let times = repeat(forks, |i| {
                let name = format!("{prefix}{parent_mib}_{i}");
                if how == "HTTP" {
                    return http.fork(&name, &parent);
                }
                sql.execute(&format!("create database {name} template {parent}"))
                    .map(drop)
            })?;
            found.push((format!("fork of {parent_mib} MiB, {how}"), times));
        }
        drop(inside);
        // The busy fork's client takes its place: a database may have one session at a time.
        drop(sql);
        let busy = fork_busy(&server, &parent, parent_mib, forks)?;
        sql = Client::connect(&pg, "postgres")?;
        found.push((
            format!(
                "fork of {parent_mib} MiB while it commits ({:.1} commits a fork)",
                busy.commits_each
            ),
            busy.times,
        ));
        opened.push((
            format!("first answer of such a fork of {parent_mib} MiB"),
            busy.opened,
        ));
        unit.extend(syncs()?);
    }

    let start = Instant::now();
    let many = run.choose(4_000, 500);
    let all_us = fill::create(&server, many)?;
    eprintln!("  {many} at once: {:.1} s", us(start) / 1e6);
    server.stop()?;
    put_data_aside(run)?;

    let native = native(run, run.choose(50, 10));
    let unit_us = p50(&unit);
    let mut table = Table::new(["what", "p50 ms", "p99 ms", "most ms", "p50 in syncs", "of"]);
    let mut row = |what: &str, times: &[f64]| {
        let [middle, p99] = p50_p99(times);
        let most = times.iter().copied().fold(0.0, f64::max);
        table.row([
            what.to_owned(),
            middle,
            p99,
            super::table::ms(most),
            format!("{:.2}", p50(times) / unit_us),
            times.len().to_string(),
        ]);
    };
    row("8 KiB appended, with sync", &unit);
    for (what, times) in found.iter().chain(&opened) {
        row(what, times);
    }
    let peer = match &native {
        Ok(times) => {
            row("native PostgreSQL, `CREATE DATABASE`", times);
            let create = found.first().map_or(f64::NAN, |(_, times)| p50(times));
            format!(
                "A native `CREATE DATABASE` takes {:.0} times as long as ours by HTTP.",
                p50(times) / create
            )
        }
        Err(error) => format!("No native PostgreSQL beside it: {error}"),
    };
    let slowest = found
        .iter()
        .map(|(_, times)| p50(times))
        .fold(0.0, f64::max);
    Ok(format!(
        "### Create and fork\n\n{table}\n\
         {many} databases over 64 HTTP connections at once: {:.0} a second, {:.1} for each sync of the \
         disk. {peer}\n\n{}\n",
        many as f64 * 1e6 / all_us,
        many as f64 * 1e6 / all_us / disk::rate(&unit),
        goal(
            "Goal, p50 of every create and fork at most 1 ms, whatever the size",
            slowest <= GOAL_US
        ),
    ))
}

/// Microseconds of each time.
fn repeat(times: usize, mut once: impl FnMut(usize) -> Result<()>) -> Result<Vec<f64>> {
    (0..times)
        .map(|i| {
            let start = Instant::now();
            once(i)?;
            Ok(us(start))
        })
        .collect()
}

/// Forks of a database that was changed meanwhile.
struct Busy {
    /// Microseconds of each fork.
    times: Vec<f64>,
    /// Commits of the parent for each fork.
    commits_each: f64,
    /// Microseconds until the first and the last fork had answered.
    opened: Vec<f64>,
}

/// Forks a database that another client changes without a pause. The first and the last fork are
/// opened, and must show a count between those before and after them.
fn fork_busy(server: &Server, parent: &str, mib: u64, forks: usize) -> Result<Busy> {
    let mut crowd = Crowd::new(server.pg)?;
    let update = query("update entry set value = value + 1 where id = 1");
    let writer = crowd.join(parent)?;
    crowd.answer(writer)?;
    let forker = crowd.join("postgres")?;
    crowd.answer(forker)?;
    let (mut commits, mut times, mut bounds) = (0_u64, Vec::new(), Vec::new());
    crowd.ask(writer, &update)?;
    for i in 0..forks {
        let before = commits;
        let sql = format!("create database busy{mib}_{i} template {parent}");
        crowd.ask(forker, &query(&sql))?;
        loop {
            let answer = crowd.next()?.checked()?;
            if answer.member == writer {
                commits += 1;
                crowd.ask(writer, &update)?;
            } else {
                times.push(answer.us);
                // One more may have been under way.
                bounds.push((before, commits + 1));
                break;
            }
        }
    }
    drop(crowd);
    // The first and the last alone: an opened fork may take as much of the disk as its parent.
    let mut opened = Vec::new();
    for i in [0, forks.saturating_sub(1)] {
        let (least, most) = bounds.get(i).ok_or("BUG: as many bounds as forks")?;
        let sql =
            format!("select 1 / (value between {least} and {most})::int from entry where id = 1");
        let start = Instant::now();
        Client::connect(&Address::Tcp(server.pg), &format!("busy{mib}_{i}"))?
            .execute(&sql)
            .map_err(|error| format!("fork {i} is not between {least} and {most}: {error}"))?;
        opened.push(us(start));
    }
    Ok(Busy {
        times,
        commits_each: commits as f64 / forks.max(1) as f64,
        opened,
    })
}

/// The same of a native server.
fn native(run: &Run, creates: usize) -> Result<Vec<f64>> {
    let mut native = Native::new(&run.tools, &run.folder, true)?;
    native.check()?;
    let home = run.folder.join("native");
    fs::create_dir(&home)?;
    native.start(&home.join("data"))?;
    let way = "PostgreSQL, TCP";
    let times = (0..creates)
        .map(|i| {
            let created = native.create(way, &format!("created{i}"))?;
            native.release()?;
            Ok(created.create_us)
        })
        .collect();
    // Its figures stand, however it ends; it is killed if it does not.
    if let Err(error) = native.stop() {
        eprintln!("  the native PostgreSQL: {error}");
    }
    times
}
