//! Waking: a request to a sleeping database, from the first packet of its connection to the first
//! row, one at a time; and, by `burst`, a thousand at once.

use super::{
    Run, burst,
    crowd::{Crowd, query},
    disk::{self, Writes},
    fill,
    server::{IDLE_MS, IDLE_NEVER, Server, Wake, data, put_data_aside},
    table::{Table, goal, ms, p50, p50_p99},
};
use crate::{samples::Round, session::Result};
use std::{collections::BTreeMap, fs, path::Path};

/// The p50 and p99 to reach, microseconds.
const GOAL_US: (f64, f64) = (3_000.0, 15_000.0);

/// Falls asleep as soon as its session has gone.
pub(super) const IDLE: u64 = 5;

/// In the names of hibernation images, and of no other files in the volumes' folder.
const IMAGE: &str = "image";

/// A row of a database that was written.
pub(super) const READ: &str = "select value from entry where id = 1";

/// One request to a sleeping database.
pub(super) struct Woken {
    /// Until the server was ready for a query, microseconds.
    connect_us: f64,
    /// Until the first row of the answer, the connection included, microseconds.
    pub(super) row_us: f64,
}

/// Connects, asks, and leaves.
pub(super) fn one(server: &Server, database: &str, sql: &str) -> Result<Woken> {
    let mut crowd = Crowd::new(server.pg)?;
    let request = query(sql);
    let member = crowd.join(database)?;
    let connect_us = crowd.answer(member)?.us;
    crowd.ask(member, &request)?;
    let row_us = crowd.answer(member)?.row_since_joining_us;
    crowd.leave(member)?;
    Ok(Woken {
        connect_us,
        row_us: row_us.ok_or("an answer without a row")?,
    })
}

/// Numbers below `count` in no order, the same in every run; some may come twice.
pub(super) fn some(count: usize, numbers: usize) -> impl Iterator<Item = usize> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..numbers).map(move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % count.max(1) as u64) as usize
    })
}

pub(super) fn run(run: &Run) -> Result<String> {
    let times = run.choose(200, 30);
    let at_once = run.count(1_000, 100);
    let unit = disk::syncs(&run.folder, Writes::Append, 300)?;
    let mut table = Table::new([
        "sleeping database",
        "p50 ms",
        "p99 ms",
        "connection p50 ms",
        "wake inside p50 ms",
        "p50 in syncs",
        "of",
        "the server says",
    ]);
    let mut notes = String::new();
    let mut best = None;
    let row = |table: &mut Table, what: &str, woken: &[Woken], inside: &[Wake]| {
        let rows: Vec<f64> = woken.iter().map(|woken| woken.row_us).collect();
        let connects: Vec<f64> = woken.iter().map(|woken| woken.connect_us).collect();
        let wakes: Vec<f64> = inside.iter().map(|wake| wake.us).collect();
        let [middle, p99] = p50_p99(&rows);
        table.row([
            what.to_owned(),
            middle,
            p99,
            ms(p50(&connects)),
            if wakes.is_empty() {
                "–".to_owned()
            } else {
                ms(p50(&wakes))
            },
            format!("{:.1}", p50(&rows) / p50(&unit)),
            rows.len().to_string(),
            ways(inside),
        ]);
        rows
    };

    let server = Server::start(run, &[(IDLE_MS, IDLE)])?;
    one(&server, "postgres", "select 1")?;
    fill::create(&server, times)?;
    server.until_all_asleep()?;
    eprintln!("  never written");
    let (woken, inside) = each(&server, times, "select 1")?;
    row(&mut table, "never written", &woken, &inside);
    fill::write(&server, 0..times, fill::WRITE)?;
    server.until_all_asleep()?;
    eprintln!("  written");
    let (woken, inside) = each(&server, times, READ)?;
    let rows = row(
        &mut table,
        "written, slept in this process",
        &woken,
        &inside,
    );
    best.get_or_insert(rows);

    eprintln!("  images thrown away");
    let images = throw_away_images(&data(run).join("images"))?;
    if images == 0 {
        notes.push_str(
            "Skipped: a cold boot with the image thrown away, since there are no images in the images' \
             folder; what was written boots anyway.\n\n",
        );
    } else {
        let (woken, inside) = each(&server, times, READ)?;
        row(&mut table, "written, image thrown away", &woken, &inside);
    }

    eprintln!("  after SIGKILL");
    recover(run, server, times, |woken, inside| {
        row(&mut table, "after SIGKILL: recovery", woken, inside);
    })?;
    put_data_aside(run)?;
    let burst = burst::run(run, at_once)?;
    let best = best.unwrap_or_default();
    let reached =
        Round::of(best).is_some_and(|round| round.p50 <= GOAL_US.0 && round.p99 <= GOAL_US.1);
    Ok(format!(
        "### Waking\n\n{table}\n\
         From the first packet of a new TCP connection to the first row; one client, each database once, \
         the next only when the one before is asleep again. \"Connection\" is until the server is ready for \
         a query, \"inside\" what the server's log says of the wake alone. A sync is 8 KiB appended with \
         `fdatasync`: {} ms p50.\n\n{notes}{}\n\n{burst}",
        ms(p50(&unit)),
        goal("Goal, written and slept: 3 ms p50, 15 ms p99", reached),
    ))
}

/// Wakes each of so many databases, one after the other, each asleep again before the next.
fn each(server: &Server, count: usize, sql: &str) -> Result<(Vec<Woken>, Vec<Wake>)> {
    let lines = server.log_lines()?;
    let mut woken = Vec::new();
    for number in 0..count {
        let name = fill::name(number);
        woken.push(one(server, &name, sql)?);
        server.until_asleep(&name)?;
    }
    Ok((woken, server.wakes(lines)?))
}

/// What the server said of the wakes, each way with its number.
fn ways(wakes: &[Wake]) -> String {
    let mut ways: BTreeMap<&str, usize> = BTreeMap::new();
    for wake in wakes {
        *ways.entry(&wake.how).or_default() += 1;
    }
    let ways: Vec<String> = ways
        .into_iter()
        .map(|(how, count)| format!("{how} ({count})"))
        .collect();
    if ways.is_empty() {
        return "nothing".to_owned();
    }
    ways.join(", ")
}

/// Removes the hibernation images below a folder; how many there were.
fn throw_away_images(folder: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            count += throw_away_images(&entry.path())?;
        } else if entry.file_name().to_string_lossy().contains(IMAGE) {
            fs::remove_file(entry.path())?;
            count += 1;
        }
    }
    Ok(count)
}

/// Kills the server while all databases are awake and have commits in the journal alone; wakes them
/// on the next start.
fn recover(
    run: &Run,
    server: Server,
    count: usize,
    mut report: impl FnMut(&[Woken], &[Wake]),
) -> Result<()> {
    server.stop()?;
    let server = Server::start(run, &[(IDLE_MS, IDLE_NEVER)])?;
    let update = query("update entry set value = value + 1 where id = 1");
    let mut crowd = Crowd::new(server.pg)?;
    for number in 0..count {
        let member = crowd.join(&fill::name(number))?;
        crowd.answer(member)?;
        for _ in 0..100 {
            crowd.ask(member, &update)?;
            crowd.answer(member)?;
        }
    }
    server.kill();
    let server = Server::start(run, &[(IDLE_MS, IDLE)])?;
    // The check is the division: a lost commit is an error.
    let read = "select value / (value >= 100)::int from entry where id = 1";
    let (woken, inside) = each(&server, count, read)?;
    report(&woken, &inside);
    server.stop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_counted() {
        let wake = |how: &str| Wake {
            us: 1.0,
            how: how.into(),
        };
        let wakes = [wake("a=1"), wake("b=2"), wake("a=1")];
        assert_eq!(ways(&wakes), "a=1 (2), b=2 (1)");
        assert_eq!(ways(&[]), "nothing");
    }

    #[test]
    fn some_are_below_the_count() {
        let numbers: Vec<usize> = some(10, 100).collect();
        assert!(numbers.iter().all(|&number| number < 10));
        assert!((0..10).all(|number| numbers.contains(&number)));
    }
}
