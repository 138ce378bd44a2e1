//! Many databases awake at once: memory and mappings of each, and whether they answer.

use super::{
    Run,
    crowd::{Crowd, query},
    fill,
    server::{IDLE_MS, IDLE_NEVER, Server},
    table::{Table, each, mib, p50_p99},
    usage::{self, Watch},
    wake,
};
use crate::session::Result;

/// Databases that are being woken at a time.
const AT_ONCE: usize = 8;

/// How the databases came to be awake.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// Created, and written in their first wake.
    New,
    /// Written before, and asleep when the server started.
    Slept,
}

impl How {
    fn title(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Slept => "slept before",
        }
    }
}

pub(super) fn run(run: &Run) -> Result<String> {
    let count = run.count(5_000, 100);
    let mut table = Table::new([
        "databases",
        "awake",
        "anonymous MiB",
        "each",
        "mappings each",
        "a request to any: p50 ms",
        "p99 ms",
    ]);
    let mut notes = String::new();
    for how in [How::New, How::Slept] {
        if how == How::Slept {
            let server = Server::start(run, &[(IDLE_MS, wake::IDLE)])?;
            fill::write(&server, 0..count, fill::WRITE_AGAIN)?;
            server.until_all_asleep()?;
            server.stop()?;
        }
        let server = Server::start(run, &[(IDLE_MS, IDLE_NEVER)])?;
        if how == How::New {
            fill::create(&server, count)?;
        }
        let watch = Watch::start(server.id());
        let filled = fill_up(run, &server, how, count, &mut table);
        // If the memory ran out, that is the reason for every other error.
        if let Err(error) = watch.stop().and(filled) {
            notes.push_str(&format!("It ended with {}: {error}\n\n", how.title()));
        }
        // Nobody needs what is in them: no time is spent on putting them to sleep.
        server.kill();
    }
    Ok(format!(
        "### Databases awake at once\n\n{table}\n\
         Each has been written and has a client; \"each\" is what they add to a server that has had one \
         awake. Goal: 5,000 on 24 GiB.\n\n{notes}"
    ))
}

/// Wakes them by quarters, and measures after each.
fn fill_up(run: &Run, server: &Server, how: How, count: usize, table: &mut Table) -> Result<()> {
    let questions = run.choose(2_000, 200);
    // The first database also pays for what all share.
    wake::one(server, "postgres", "select 1")?;
    let none = server.memory()?;
    let mappings_none = usage::mappings(server.id())?;
    let first = query(match how {
        How::New => fill::WRITE,
        How::Slept => wake::READ,
    });
    let read = query(wake::READ);
    let mut crowd = Crowd::new(server.pg)?;
    let mut from = 0;
    for quarter in 1..=4 {
        let until = count * quarter / 4;
        wake_all(&mut crowd, from, until, &first)?;
        from = until;
        let mut times = Vec::new();
        for number in wake::some(until, questions) {
            crowd.ask(number, &read)?;
            times.push(crowd.answer(number)?.us);
        }
        let [p50, p99] = p50_p99(&times);
        let memory = server.memory()?;
        let mappings = usage::mappings(server.id())?.saturating_sub(mappings_none);
        table.row([
            how.title().to_owned(),
            until.to_string(),
            mib(memory.anonymous),
            each(memory.anonymous, none.anonymous, until),
            format!("{:.1}", mappings as f64 / until.max(1) as f64),
            p50,
            p99,
        ]);
        eprintln!("  {until} awake, {} MiB", mib(memory.anonymous));
    }
    Ok(())
}

/// Joins databases `from` to `until`, and sends each the request.
fn wake_all(crowd: &mut Crowd, from: usize, until: usize, request: &[u8]) -> Result<()> {
    let mut asked = vec![false; until - from];
    let mut under_way = 0;
    let mut next = from;
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
        let asked = asked
            .get_mut(member.wrapping_sub(from))
            .ok_or("BUG: an answer to a request of before")?;
        if *asked {
            under_way -= 1;
        } else {
            *asked = true;
            crowd.ask(member, request)?;
        }
    }
}
