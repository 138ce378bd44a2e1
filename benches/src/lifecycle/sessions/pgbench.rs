//! The tool `pgbench` as a client.

use super::peer::{DATABASE, Peer};
use crate::{
    lifecycle::Run,
    process::{Running, pause},
    session::Result,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// What a run may take beside the time that it was told: connecting, loading.
const MORE: Duration = Duration::from_secs(120);

/// What a run found.
pub(super) struct Found {
    /// Transactions a second.
    pub(super) tps: f64,
    /// Microseconds of each transaction, if they were asked for.
    pub(super) times: Vec<f64>,
}

/// Makes the tables.
pub(super) fn load(run: &Run, peer: &Peer) -> Result<()> {
    eprintln!("  loading, {}", peer.name);
    let scale = run.choose("10", "1");
    finish(run, peer, &["-i", "-q", "-s", scale], Duration::ZERO).map(drop)
}

/// Runs transactions.
pub(super) fn throughput(run: &Run, peer: &Peer, options: &[&str], seconds: u64) -> Result<f64> {
    let time = seconds.to_string();
    let text = finish(
        run,
        peer,
        &[options, &["-n", "-T", &time]].concat(),
        Duration::from_secs(seconds),
    )?;
    tps(&text).ok_or_else(|| format!("pgbench says no tps: {text}").into())
}

/// Runs transactions, and times each.
pub(super) fn latencies(run: &Run, peer: &Peer, options: &[&str], seconds: u64) -> Result<Found> {
    let folder = run.folder.join("pgbench");
    fs::create_dir(&folder)?;
    let prefix = folder.join("times");
    let prefix = prefix.to_str().ok_or("--work needs a name in UTF-8")?;
    let options = [options, &["-l", "--log-prefix", prefix]].concat();
    let tps = throughput(run, peer, &options, seconds)?;
    let times = times(&folder)?;
    fs::remove_dir_all(&folder)?;
    Ok(Found { tps, times })
}

/// Runs pgbench to its end; what it says.
fn finish(run: &Run, peer: &Peer, options: &[&str], time: Duration) -> Result<String> {
    let log = run.folder.join("pgbench.log");
    let mut command = Command::new(program(run));
    command
        .args(["-h", &peer.address.ip().to_string()])
        .args(["-p", &peer.address.port().to_string()])
        .args(["-U", "postgres"])
        .args(options)
        .arg(DATABASE)
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
        pause(Duration::from_millis(20));
    };
    let text = fs::read_to_string(&log)?;
    if status.success() {
        return Ok(text);
    }
    let first = text.lines().find(|line| line.contains("error:"));
    let first = first.unwrap_or("it said nothing");
    Err(format!("pgbench against {} ({status}): {first}", peer.name).into())
}

fn program(run: &Run) -> PathBuf {
    run.tools.join("bin/pgbench")
}

/// The last `tps = NUMBER`.
fn tps(text: &str) -> Option<f64> {
    let line = text.lines().rfind(|line| line.starts_with("tps = "))?;
    line.split(' ').nth(2)?.parse().ok()
}

/// The times in all log files of a folder: microseconds are the third word of a line.
fn times(folder: &Path) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for entry in fs::read_dir(folder)? {
        let text = fs::read_to_string(entry?.path())?;
        let words = text.lines().filter_map(|line| line.split(' ').nth(2));
        times.extend(words.filter_map(|word| word.parse::<f64>().ok()));
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pgbench_says() {
        let text = "latency average = 0.5 ms\ntps = 1999.25 (without initial connection time)\n";
        assert_eq!(tps(text), Some(1999.25));
        assert_eq!(tps("pgbench: error"), None);
    }
}
