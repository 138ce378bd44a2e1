//! Waking: a request to a sleeping database, from the first packet of its connection to the first
//! row, one at a time and a thousand at once.

use super::{
    Run,
    crowd::{Crowd, query},
    disk::{self, Writes},
    fill,
    server::{IDLE_MS, IDLE_NEVER, Server, Wake, data},
    table::{Table, goal, mib, ms, p50, p50_p99},
    usage,
};
use crate::{
    pgwire::{Address, Client},
    session::{Result, Session as _, us},
};
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// The p50 and p99 to reach, microseconds.
const GOAL_US: (f64, f64) = (3_000.0, 15_000.0);

/// Falls asleep as soon as its session has gone.
const IDLE: u64 = 5;

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
    let burst = run.count(1_000, 100);
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
    fill::write(&server, times, fill::WRITE)?;
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
    let images = throw_away_images(&data(run).join("volumes"))?;
    if images == 0 {
        notes.push_str(
            "Skipped: a cold boot with the image thrown away, since there are no images in the volumes' \
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
    fs::remove_dir_all(data(run))?;
    let crowd = crowd(run, burst)?;
    let best = best.unwrap_or_default();
    let reached = crate::samples::Round::of(best)
        .is_some_and(|round| round.p50 <= GOAL_US.0 && round.p99 <= GOAL_US.1);
    Ok(format!(
        "### Waking\n\n{table}\n\
         From the first packet of a new TCP connection to the first row; one client, each database once, \
         the next only when the one before is asleep again. \"Connection\" is until the server is ready for \
         a query, \"inside\" what the server's log says of the wake alone. A sync is 8 KiB appended with \
         `fdatasync`: {} ms p50.\n\n{notes}{}\n\n{crowd}",
        ms(p50(&unit)),
        goal("Goal, written and slept: 3 ms p50, 15 ms p99", reached),
    ))
}

/// Wakes each of so many databases, one after the other, each asleep again before the next.
fn each(server: &Server, count: usize, sql: &str) -> Result<(Vec<Woken>, Vec<Wake>)> {
    let mut http = server.http("postgres")?;
    let lines = server.log_lines()?;
    let mut woken = Vec::new();
    for number in 0..count {
        let name = fill::name(number);
        woken.push(one(server, &name, sql)?);
        server.until_asleep(&mut http, &name)?;
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

/// Wakes many databases at once, while another client queries one that is awake.
fn crowd(run: &Run, count: usize) -> Result<String> {
    eprintln!("  {count} at once");
    let server = Server::start(run, &[(IDLE_MS, IDLE)])?;
    fill::create(&server, count + 1)?;
    fill::write(&server, count + 1, fill::WRITE)?;
    server.until_all_asleep()?;
    server.stop()?;

    // None of those that have answered may fall asleep while others still wake.
    let server = Server::start(run, &[(IDLE_MS, IDLE_NEVER)])?;
    let stop = AtomicBool::new(false);
    let calm = Duration::from_millis(run.choose(3_000, 500));
    let (asked, outcome) = thread::scope(|scope| {
        let awake = scope.spawn(|| ask_on(&server, &fill::name(count), &stop));
        let outcome = wake_all(&server, count, calm);
        stop.store(true, Ordering::Relaxed);
        let asked = awake.join();
        (asked, outcome)
    });
    let asked = asked.map_err(|_| "BUG: the client of the awake database panicked")??;
    let all = outcome?;
    server.kill();

    let part = |from: Instant, to: Instant| -> Vec<f64> {
        let within = asked.iter().filter(|(at, _)| *at >= from && *at < to);
        within.map(|(_, us)| *us).collect()
    };
    let before = part(all.begin - calm, all.begin);
    let during = part(all.begin, all.end);
    let mut table = Table::new(["what", "p50 ms", "p99 ms", "of"]);
    for (what, times) in [
        ("first row of a database woken in the crowd", &all.rows),
        ("a query of the awake one, before", &before),
        ("a query of the awake one, during", &during),
    ] {
        let [p50, p99] = p50_p99(times);
        table.row([what.to_owned(), p50, p99, times.len().to_string()]);
    }
    let failed = match &all.first_error {
        None => String::new(),
        Some(error) => format!(" {} failed, the first with: {error}.", all.failed),
    };
    Ok(format!(
        "#### {count} woken at once\n\n{table}\n\
         The last answer came after {} ms: {:.0} wakes a second.{failed} Resident memory: {} MiB before, \
         {} MiB at its peak, {} MiB after, of that {} MiB anonymous. The awake one's p99 is {:.1} times \
         what it was.\n",
        ms(all.took_us),
        all.rows.len() as f64 * 1e6 / all.took_us,
        mib(all.before.resident),
        mib(all.after.peak),
        mib(all.after.resident),
        mib(all.after.anonymous),
        p99(&during) / p99(&before),
    ))
}

fn p99(samples: &[f64]) -> f64 {
    crate::samples::Round::of(samples.to_vec()).map_or(f64::NAN, |round| round.p99)
}

/// Queries one database again and again; when each query began, and its microseconds.
fn ask_on(server: &Server, database: &str, stop: &AtomicBool) -> Result<Vec<(Instant, f64)>> {
    let mut client = Client::connect(&Address::Tcp(server.pg), database)?;
    let mut asked = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        client.execute(READ)?;
        asked.push((start, us(start)));
    }
    Ok(asked)
}

/// What waking all took.
struct All {
    begin: Instant,
    end: Instant,
    took_us: f64,
    rows: Vec<f64>,
    failed: usize,
    first_error: Option<String>,
    before: usage::Memory,
    after: usage::Memory,
}

/// Lets `calm` go by, then wakes databases 0 to `count`.
fn wake_all(server: &Server, count: usize, calm: Duration) -> Result<All> {
    crate::process::pause(calm);
    usage::reset_peak(server.id())?;
    let before = server.memory()?;
    let request = query(READ);
    let mut crowd = Crowd::new(server.pg)?;
    let begin = Instant::now();
    for number in 0..count {
        crowd.join(&fill::name(number))?;
    }
    let (mut rows, mut failed, mut first_error) = (Vec::new(), 0, None);
    let mut open = count;
    while open > 0 {
        let answer = crowd.next()?;
        if let Some(error) = answer.error {
            open -= 1;
            failed += 1;
            first_error.get_or_insert(error);
        } else if let Some(us) = answer.row_since_joining_us {
            open -= 1;
            rows.push(us);
        } else {
            crowd.ask(answer.member, &request)?;
        }
    }
    Ok(All {
        begin,
        end: Instant::now(),
        took_us: us(begin),
        rows,
        failed,
        first_error,
        before,
        after: server.memory()?,
    })
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
