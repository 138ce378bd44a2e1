//! Many databases awake at once: memory and mappings of each, and whether they answer.

use super::{
    Run,
    crowd::{Crowd, query},
    fill,
    server::{IDLE_MS, IDLE_NEVER, Server},
    table::{Table, each, mib, p50_p99},
    usage, wake,
};
use crate::session::Result;

/// Databases that are being woken at a time.
const AT_ONCE: usize = 8;

pub(super) fn run(run: &Run) -> Result<String> {
    let count = run.count(2_000, 100);
    let questions = run.choose(2_000, 200);
    let server = Server::start(run, &[(IDLE_MS, IDLE_NEVER)])?;
    fill::create(&server, count)?;
    // The first database also pays for what all share.
    wake::one(&server, "postgres", "select 1")?;
    let none = server.memory()?;
    let mappings_none = usage::mappings(server.id())?;
    let mut table = Table::new([
        "awake",
        "anonymous MiB",
        "each",
        "mappings each",
        "a request to any: p50 ms",
        "p99 ms",
    ]);
    let mut crowd = Crowd::new(server.pg)?;
    let mut joined = 0;
    let mut failed = None;
    let (write, read) = (query(fill::WRITE), query(wake::READ));
    for quarter in 1..=4 {
        let until = count * quarter / 4;
        match fill_up(&mut crowd, &mut joined, until, &write) {
            Ok(()) => {}
            Err(error) => {
                failed = Some(format!("Past {joined} a wake failed: {error}\n\n"));
                break;
            }
        }
        let mut times = Vec::new();
        for number in wake::some(until, questions) {
            crowd.ask(number, &read)?;
            times.push(crowd.answer(number)?.us);
        }
        let [p50, p99] = p50_p99(&times);
        let memory = server.memory()?;
        let mappings = usage::mappings(server.id())?.saturating_sub(mappings_none);
        table.row([
            until.to_string(),
            mib(memory.anonymous),
            each(memory.anonymous, none.anonymous, until),
            format!("{:.1}", mappings as f64 / until as f64),
            p50,
            p99,
        ]);
        eprintln!("  {until} awake, {} MiB", mib(memory.anonymous));
    }
    // Nobody needs what is in them: no time is spent on putting them to sleep.
    server.kill();
    Ok(format!(
        "### Databases awake at once\n\n{table}\n\
         Each has been written and has a client; without any, the server has {} MiB.\n\n{}",
        mib(none.anonymous),
        failed.unwrap_or_default(),
    ))
}

/// Joins and writes databases `joined` to `until`.
fn fill_up(crowd: &mut Crowd, joined: &mut usize, until: usize, write: &[u8]) -> Result<()> {
    let first = *joined;
    let mut written = vec![false; until - first];
    let mut under_way = 0;
    let mut next = first;
    loop {
        while under_way < AT_ONCE && next < until {
            if crowd.join(&fill::name(next))? != next {
                return Err("BUG: members are numbered like their databases".into());
            }
            next += 1;
            under_way += 1;
        }
        if under_way == 0 {
            return Ok(());
        }
        let member = crowd.next()?.checked()?.member;
        let written = written
            .get_mut(member - first)
            .ok_or("BUG: an answer to a request of before")?;
        if *written {
            under_way -= 1;
            *joined += 1;
        } else {
            *written = true;
            crowd.ask(member, write)?;
        }
    }
}
