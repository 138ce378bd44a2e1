//! Many sleeping databases asked at once, while another one is queried all the time.

use super::{
    Run,
    crowd::{Crowd, query},
    fill,
    server::{IDLE_MS, IDLE_NEVER, Server},
    table::{Table, mib, ms, p50_p99},
    usage::{self, Watch},
    wake::{IDLE, READ},
};
use crate::{
    pgwire::{Address, Client},
    process::pause,
    samples::Round,
    session::{Result, Session as _, us},
};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Wakes many databases at once, while another client queries one that is awake.
pub(super) fn run(run: &Run, count: usize) -> Result<String> {
    eprintln!("  {count} at once");
    let server = Server::start(run, &[(IDLE_MS, IDLE)])?;
    fill::create(&server, count + 1)?;
    fill::write(&server, 0..count + 1, fill::WRITE)?;
    server.until_all_asleep()?;
    server.stop()?;

    // None of those that have answered may fall asleep while others still wake.
    let server = Server::start(run, &[(IDLE_MS, IDLE_NEVER)])?;
    let stop = AtomicBool::new(false);
    let calm = Duration::from_millis(run.choose(3_000, 500));
    let (asked, outcome) = thread::scope(|scope| {
        let awake = scope.spawn(|| ask_on(&server, &fill::name(count), &stop));
        let watch = Watch::start(server.id());
        let outcome = wake_all(&server, count, calm);
        // If the memory ran out, that is the reason for every other error.
        let outcome = watch.stop().and(outcome);
        stop.store(true, Ordering::Relaxed);
        let asked = awake.join();
        (asked, outcome)
    });
    let asked = asked.map_err(|_| "BUG: the client of the awake database panicked")??;
    let all = outcome?;
    server.kill();

    // Without its own first query, which waited for a wake.
    let settled = asked.get(1).map_or(all.begin, |(start, _)| *start);
    let before = arrivals(&asked, settled.max(all.begin - calm), all.begin);
    let during = arrivals(&asked, all.begin, all.end);
    let mut table = Table::new(["what", "p50 ms", "p99 ms", "most ms", "of"]);
    for (what, times) in [
        ("first row of a database woken in the crowd", &all.rows),
        ("a query of the awake one, before", &before),
        ("a query of the awake one, during", &during),
    ] {
        let [p50, p99] = p50_p99(times);
        let most = times.iter().copied().fold(0.0, f64::max);
        table.row([what.to_owned(), p50, p99, ms(most), times.len().to_string()]);
    }
    let failed = match &all.first_error {
        None => String::new(),
        Some(error) => format!(" {} failed, the first with: {error}.", all.failed),
    };
    Ok(format!(
        "#### {count} woken at once\n\n{table}\n\
         The last answer came after {} ms: {:.0} wakes a second.{failed} Resident memory: {} MiB before, \
         {} MiB at its peak, {} MiB after, of that {} MiB anonymous. The awake one's p99 is {:.1} times \
         what it was. Its client asks without a pause; the times are those of requests that arrive every \
         millisecond, so that a long one counts for all that would have waited behind it.\n",
        ms(all.took_us),
        all.rows.len() as f64 * 1e6 / all.took_us,
        mib(all.before.resident),
        mib(all.after.peak),
        mib(all.after.resident),
        mib(all.after.anonymous),
        p99(&during) / p99(&before),
    ))
}

/// What a request that arrives at each millisecond of a span would have taken, by those that were
/// asked one after the other: it waits for the one under way, and then takes as long as the next.
fn arrivals(asked: &[(Instant, f64)], from: Instant, to: Instant) -> Vec<f64> {
    let mut times = Vec::new();
    let mut at = from;
    while at < to {
        let next = asked.partition_point(|(start, _)| *start < at);
        let Some((start, us)) = asked.get(next) else {
            break;
        };
        times.push((*start - at).as_secs_f64() * 1e6 + us);
        at += Duration::from_millis(1);
    }
    times
}

fn p99(samples: &[f64]) -> f64 {
    Round::of(samples.to_vec()).map_or(f64::NAN, |round| round.p99)
}

/// Queries one database again and again; when each query began, and its microseconds.
fn ask_on(server: &Server, database: &str, stop: &AtomicBool) -> Result<Vec<(Instant, f64)>> {
    let mut client = Client::connect(&Address::Tcp(server.pg), database)?;
    let mut asked = Vec::new();
    loop {
        // One more after the end: what arrived during the one before would have been it.
        let last = stop.load(Ordering::Relaxed);
        let start = Instant::now();
        client.execute(READ)?;
        asked.push((start, us(start)));
        if last {
            return Ok(asked);
        }
    }
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
    pause(calm);
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
    fn a_long_request_counts_for_those_behind_it() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let asked = [(at(0), 500.0), (at(1), 4_000.0), (at(5), 500.0)];
        let times = arrivals(&asked, at(0), at(6));
        let whole: Vec<f64> = times.iter().map(|us| us.round()).collect();
        assert_eq!(whole, [500.0, 4_000.0, 3_500.0, 2_500.0, 1_500.0, 500.0]);
        assert!(arrivals(&[], at(0), at(6)).is_empty());
    }
}
