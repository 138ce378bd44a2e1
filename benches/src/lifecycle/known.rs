//! A million databases that were created and never used: what it takes to know them.

use super::{
    Run, asleep,
    disk::Taken,
    fill,
    server::{IDLE_MS, Server, data, directory_bytes},
    table::{Table, each, goal, mib, ms, p50_p99},
    wake,
};
use crate::session::{Result, us};

/// What the server may take with a million, bytes.
const GOAL_BYTES: u64 = 256 << 20;

/// Falls asleep soon, but not between two requests.
const IDLE: u64 = 50;

pub(super) fn run(run: &Run) -> Result<String> {
    let count = run.count(1_000_000, 10_000);
    let wakes = run.choose(500, 20).min(count);
    let server = Server::start(run, &[(IDLE_MS, IDLE)])?;
    let (memory_none, taken_none) = asleep::none(run, &server)?;
    let create_us = fill::create(&server, count)?;
    let memory_made = server.memory()?;
    server.stop()?;
    let directory = directory_bytes(&data(run))?;
    let taken = Taken::by(&data(run))?;

    let server = Server::start(run, &[(IDLE_MS, IDLE)])?;
    let memory_back = server.memory()?;
    wake::one(&server, &fill::name(count / 2), "select 1")?;
    let first_us = us(server.started);
    let mut times = Vec::new();
    for number in wake::some(count, wakes) {
        times.push(wake::one(&server, &fill::name(number), "select 1")?.row_us);
    }
    server.until_all_asleep()?;
    let memory_woken = server.memory()?;
    let ready_us = server.ready_us;
    server.stop()?;

    let mut table = Table::new(["what", "in all", "each database"]);
    for (what, memory) in [
        ("memory, none created", memory_none),
        ("memory, all just created", memory_made),
        ("memory, after a restart", memory_back),
        ("memory, after some were woken", memory_woken),
    ] {
        table.row([
            format!("{what} (resident; anonymous)"),
            format!("{}; {} MiB", mib(memory.resident), mib(memory.anonymous)),
            each(memory.anonymous, memory_none.anonymous, count),
        ]);
    }
    table.row([
        "the directory's file".to_owned(),
        format!("{} MiB", mib(directory)),
        each(directory, 0, count),
    ]);
    table.row([
        "disk".to_owned(),
        format!("{} MiB, {} files", mib(taken.bytes), taken.files),
        each(taken.bytes, taken_none.bytes, count),
    ]);
    table.row([
        "create, over 64 connections".to_owned(),
        format!("{:.0} s", create_us / 1e6),
        format!("{:.0} a second", count as f64 * 1e6 / create_us),
    ]);
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
    let [p50, p99] = p50_p99(&times);
    table.row([
        format!("wake one of {wakes} at random, p50 and p99"),
        format!("{p50} ms, {p99} ms"),
        "–".to_owned(),
    ]);
    let most = memory_made.resident.max(memory_woken.resident);
    Ok(format!(
        "### {count} known databases\n\n{table}\n{}\n",
        goal(
            "Goal, a million known in 256 MiB resident",
            count >= 1_000_000 && most <= GOAL_BYTES
        ),
    ))
}
