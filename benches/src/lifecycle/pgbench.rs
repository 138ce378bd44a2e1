//! The tool `pgbench` as a client.

use super::Run;
use crate::{
    process::{Running, pause},
    session::Result,
};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant, SystemTime},
};

/// What a run may take beside the time that it was told: connecting, loading.
const MORE: Duration = Duration::from_secs(120);

/// How often a run looks whether it is over.
const LOOK: Duration = Duration::from_millis(20);

/// Whom it is a client of.
pub(super) struct Target {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    pub(super) user: String,
    /// Empty for none.
    pub(super) password: String,
    pub(super) database: String,
}

/// What a run found.
pub(super) struct Found {
    /// Transactions a second.
    pub(super) tps: f64,
    /// Microseconds of each transaction.
    pub(super) times: Vec<f64>,
    /// What was spent on each transaction, of what was looked at meanwhile.
    pub(super) spent: Option<f64>,
}

/// What had been spent at a moment.
struct Spent {
    /// Microseconds of Unix time.
    at: f64,
    spent: f64,
}

/// A transaction in pgbench's log: when it ended, microseconds of Unix time, and how many it took.
struct Transaction {
    end: f64,
    time: f64,
}

/// Makes the tables.
pub(super) fn load(run: &Run, target: &Target) -> Result<()> {
    eprintln!("  loading, {}", target.name);
    let scale = run.choose("10", "1");
    let options = ["-i", "-q", "-s", scale];
    finish(run, target, &options, Duration::ZERO, &mut || Ok(())).map(drop)
}

/// Runs transactions.
pub(super) fn throughput(
    run: &Run,
    target: &Target,
    options: &[&str],
    seconds: u64,
) -> Result<f64> {
    look_at(run, target, options, seconds, &mut || Ok(()))
}

/// The same, with a look at something else again and again.
fn look_at(
    run: &Run,
    target: &Target,
    options: &[&str],
    seconds: u64,
    look: &mut dyn FnMut() -> Result<()>,
) -> Result<f64> {
    let time = seconds.to_string();
    let options = [options, &["-n", "-T", &time]].concat();
    let text = finish(run, target, &options, Duration::from_secs(seconds), look)?;
    tps(&text).ok_or_else(|| format!("pgbench says no tps: {text}").into())
}

/// Runs transactions, and times each. Of what `spent` tells is taken what was spent while they ran, not while
/// clients logged in.
pub(super) fn latencies(
    run: &Run,
    target: &Target,
    options: &[&str],
    seconds: u64,
    spent: impl Fn() -> Result<f64>,
) -> Result<Found> {
    let folder = run.folder.join("pgbench");
    fs::create_dir(&folder)?;
    let prefix = folder.join("times");
    let prefix = prefix.to_str().ok_or("--work needs a name in UTF-8")?;
    let options = [options, &["-l", "--log-prefix", prefix]].concat();
    let mut looks = Vec::new();
    let tps = look_at(run, target, &options, seconds, &mut || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        looks.push(Spent {
            at: now.as_secs_f64() * 1e6,
            spent: spent()?,
        });
        Ok(())
    })?;
    let log = transactions(&folder)?;
    fs::remove_dir_all(&folder)?;
    Ok(Found {
        tps,
        spent: each(&looks, &log),
        times: log.into_iter().map(|one| one.time).collect(),
    })
}

/// What was spent on each transaction between the first look after one had ended and the last look before the last
/// one did.
fn each(looks: &[Spent], log: &[Transaction]) -> Option<f64> {
    let begin = log.iter().map(|one| one.end).reduce(f64::min)?;
    let end = log.iter().map(|one| one.end).reduce(f64::max)?;
    let mut within = looks.iter().filter(|look| (begin..=end).contains(&look.at));
    let (first, last) = (within.next()?, within.next_back()?);
    let count = log
        .iter()
        .filter(|one| first.at < one.end && one.end <= last.at)
        .count();
    (count > 0).then(|| (last.spent - first.spent) / count as f64)
}

/// Runs pgbench to its end; what it says.
fn finish(
    run: &Run,
    target: &Target,
    options: &[&str],
    time: Duration,
    look: &mut dyn FnMut() -> Result<()>,
) -> Result<String> {
    let log = run.folder.join("pgbench.log");
    let mut command = Command::new(program(run));
    command
        .args(["-h", &target.address.ip().to_string()])
        .args(["-p", &target.address.port().to_string()])
        .args(["-U", &target.user])
        .args(options)
        .arg(&target.database)
        .env("PGPASSWORD", &target.password)
        // One packet less for each connection, on both sides.
        .env("PGSSLMODE", "disable")
        .env("PGGSSENCMODE", "disable");
    let mut running = Running::start(&mut command, &log, false)?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = running.child.try_wait()? {
            break status;
        }
        if start.elapsed() > time + MORE {
            return Err(running.explain("pgbench did not end in time; killed".into()));
        }
        look()?;
        pause(LOOK);
    };
    let text = fs::read_to_string(&log)?;
    if status.success() {
        return Ok(text);
    }
    let first = text.lines().find(|line| line.contains("error:"));
    let first = first.unwrap_or("it said nothing");
    Err(format!("pgbench against {} ({status}): {first}", target.name).into())
}

fn program(run: &Run) -> PathBuf {
    run.tools.join("bin/pgbench")
}

/// The last `tps = NUMBER`.
fn tps(text: &str) -> Option<f64> {
    let line = text.lines().rfind(|line| line.starts_with("tps = "))?;
    line.split(' ').nth(2)?.parse().ok()
}

/// The transactions in all log files of a folder.
fn transactions(folder: &Path) -> Result<Vec<Transaction>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let text = fs::read_to_string(entry?.path())?;
        all.extend(text.lines().filter_map(transaction));
    }
    Ok(all)
}

/// A line: client, number, microseconds, script, and when it ended in seconds and microseconds.
fn transaction(line: &str) -> Option<Transaction> {
    let mut words = line.split(' ').skip(2);
    let time = words.next()?.parse().ok()?;
    let mut words = words.skip(1);
    let seconds: f64 = words.next()?.parse().ok()?;
    let us: f64 = words.next()?.parse().ok()?;
    Some(Transaction {
        end: seconds * 1e6 + us,
        time,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pgbench_says() {
        let text = "latency average = 0.5 ms\ntps = 1999.25 (without initial connection time)\n";
        assert_eq!(tps(text), Some(1999.25));
        assert_eq!(tps("pgbench: error"), None);
        let one = transaction("0 7 250 0 1700000000 500").unwrap();
        assert_eq!((one.time, one.end), (250.0, 1_700_000_000_000_500.0));
        assert!(transaction("0 7 250").is_none());
    }

    #[test]
    fn what_logins_take_is_no_transactions() {
        let one = |end| Transaction { end, time: 1.0 };
        let look = |at, spent| Spent { at, spent };
        let looks = [
            look(0.0, 0.0),
            look(10.0, 500.0),
            look(20.0, 520.0),
            look(30.0, 540.0),
            look(40.0, 999.0),
        ];
        let log = [
            one(9.0),
            one(15.0),
            one(16.0),
            one(25.0),
            one(26.0),
            one(31.0),
        ];
        assert_eq!(each(&looks, &log), Some(10.0));
        assert_eq!(each(&looks[..2], &log), None);
        assert_eq!(each(&looks, &[]), None);
    }
}
