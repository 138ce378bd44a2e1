//! Many databases, each written, all asleep: what they take, and how soon the server is back.

use super::{
    Run,
    disk::Taken,
    fill,
    server::{IDLE_MS, Server, data},
    table::{Table, each, goal, mib, ms, p50_p99},
    wake,
};
use crate::session::{Result, us};

/// From the start of the program to the first answer, microseconds.
const GOAL_US: f64 = 1_000_000.0;

/// Falls asleep soon, but not between two requests.
const IDLE: u64 = 50;

pub(super) fn run(run: &Run) -> Result<String> {
    let count = run.count(10_000, 500);
    let wakes = run.choose(200, 20).min(count);
    let server = Server::start(run, &[(IDLE_MS, IDLE)])?;
    let (memory_none, taken_none) = none(run, &server)?;

    let create_us = fill::create(&server, count)?;
    // By halves: what the second adds is what a database takes, without what the server keeps once.
    let half = count / 2;
    let mut write_us = fill::write(&server, 0..half, fill::WRITE)?;
    server.until_all_asleep()?;
    let memory_half = server.memory()?;
    write_us += fill::write(&server, half..count, fill::WRITE)?;
    let settle_us = server.until_all_asleep()?;
    let memory_all = server.memory()?;
    let taken = Taken::by(&data(run))?;
    let stop = std::time::Instant::now();
    server.stop()?;
    let stop_us = us(stop);
    let taken_stopped = Taken::by(&data(run))?;

    let server = Server::start(run, &[(IDLE_MS, IDLE)])?;
    let memory_back = server.memory()?;
    wake::one(&server, &fill::name(count / 2), wake::READ)?;
    let first_us = us(server.started);
    let mut times = Vec::new();
    for number in wake::some(count, wakes) {
        times.push(wake::one(&server, &fill::name(number), wake::READ)?.row_us);
    }
    server.until_all_asleep()?;
    let memory_woken = server.memory()?;
    let ready_us = server.ready_us;
    server.stop()?;

    let [p50, p99] = p50_p99(&times);
    let mut table = Table::new(["what", "in all", "each database"]);
    let mut memory = |what: &str, bytes: u64| {
        table.row([
            what.to_owned(),
            format!("{} MiB", mib(bytes)),
            each(bytes, memory_none.anonymous, count),
        ]);
    };
    memory("anonymous memory, none created", memory_none.anonymous);
    memory("after a restart", memory_back.anonymous);
    memory("after some were woken", memory_woken.anonymous);
    memory("all written and asleep", memory_all.anonymous);
    table.row([
        "of that, by the second half".to_owned(),
        format!(
            "{} MiB",
            mib(memory_all.anonymous.saturating_sub(memory_half.anonymous))
        ),
        each(memory_all.anonymous, memory_half.anonymous, count - half),
    ]);
    for (what, taken) in [
        ("disk, all asleep", taken),
        ("disk, stopped", taken_stopped),
    ] {
        table.row([
            what.to_owned(),
            format!("{} MiB, {} files", mib(taken.bytes), taken.files),
            each(taken.bytes, taken_none.bytes, count),
        ]);
    }
    let rate = |us: f64| format!("{:.0} a second", count as f64 * 1e6 / us);
    table.row(["create".to_owned(), ms(create_us) + " ms", rate(create_us)]);
    table.row([
        "wake, write, leave".to_owned(),
        ms(write_us) + " ms",
        rate(write_us),
    ]);
    table.row([
        "last write to all asleep".to_owned(),
        ms(settle_us) + " ms",
        "–".to_owned(),
    ]);
    table.row(["stop".to_owned(), ms(stop_us) + " ms", "–".to_owned()]);
    table.row([
        "start, until it listens".to_owned(),
        ms(ready_us) + " ms",
        "–".to_owned(),
    ]);
    table.row([
        "start, until a database has answered".to_owned(),
        ms(first_us) + " ms",
        "–".to_owned(),
    ]);
    table.row([
        format!("wake one of {wakes} at random, p50 and p99"),
        format!("{p50} ms, {p99} ms"),
        "–".to_owned(),
    ]);
    Ok(format!(
        "### {count} databases, each written, all asleep\n\n{table}\n{}\n",
        goal("Goal, start with them within 1 s", first_us <= GOAL_US),
    ))
}

/// What the server and its folder take with nothing in it, after everything has been used once.
pub(super) fn none(run: &Run, server: &Server) -> Result<(super::usage::Memory, Taken)> {
    wake::one(server, "postgres", "select 1")?;
    server.until_all_asleep()?;
    Ok((server.memory()?, Taken::by(&data(run))?))
}
