//! Durable commits per second of a journal, beside the disk's own rate of syncs.
//!
//! `cargo run --release -p dormouse-store --example commits [DIRECTORY] [SECONDS]`: 1, 16 and 256
//! sessions append 200 bytes each and wait until they are durable, again and again. Before and after
//! each, one file is overwritten by 4 KiB at a time and synced, as fast as that goes.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dormouse_store::{Disk, Journal, JournalError, JournalOptions, OpenHow, Position, RealDisk};

const PAYLOAD: [u8; 200] = [0xA5; 200];
const FILE_BYTES: u64 = 64 << 20;

type Measure = fn(&Path, u64, Duration) -> Result<Commits, Box<dyn Error>>;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let seconds = arguments.next().map_or(Ok(5), |seconds| seconds.parse())?;
    let duration = Duration::from_secs(seconds);
    let directory = tempfile::tempdir_in(directory)?;
    println!("sessions     commits/s  p50 ms  p99 ms  syncs/s before, after  ratio");
    let mut before = syncs(directory.path(), duration)?;
    let runs: [(&str, u64, Measure); 5] = [
        ("thread", 1, threads),
        ("threads", 16, threads),
        ("threads", 256, threads),
        ("tasks", 16, tasks),
        ("tasks", 256, tasks),
    ];
    for (kind, count, measure) in runs {
        let (rate, p50, p99) = measure(directory.path(), count, duration)?;
        let after = syncs(directory.path(), duration)?;
        let ratio = rate / f64::midpoint(before, after);
        println!(
            "{count:3} {kind:7}  {rate:9.0}  {p50:6.2}  {p99:6.2}  {before:14.0}, {after:5.0}  {ratio:5.1}"
        );
        before = after;
    }
    Ok(())
}

/// How often a second a file that has all its room can be overwritten and synced.
fn syncs(directory: &Path, duration: Duration) -> Result<f64, Box<dyn Error>> {
    let path = directory.join("syncs");
    let file = RealDisk.open(&path, OpenHow::Create)?;
    file.write_all_at(&vec![1; FILE_BYTES as usize], 0)?;
    file.sync_data()?;
    let block = [2; 4096];
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < duration {
        file.write_all_at(&block, count * 4096 % FILE_BYTES)?;
        file.sync_data()?;
        count += 1;
    }
    let rate = count as f64 / start.elapsed().as_secs_f64();
    RealDisk.remove(&path)?;
    Ok(rate)
}

/// Commits a second, and the 50th and 99th percentile of a commit's milliseconds.
type Commits = (f64, f64, f64);

/// Opens a journal, lets `sessions` commit in it, and counts.
fn measured(
    directory: &Path,
    name: String,
    sessions: impl FnOnce(&Journal, Instant) -> Result<Vec<f64>, Box<dyn Error>>,
) -> Result<Commits, Box<dyn Error>> {
    let directory = directory.join(name);
    let options = JournalOptions::default();
    let journal = Journal::open(Arc::new(RealDisk), &directory, 7, 1, options)?;
    let writer = journal.start()?;
    let start = Instant::now();
    let mut times = sessions(&journal, start)?;
    let rate = times.len() as f64 / start.elapsed().as_secs_f64();
    drop(writer);
    times.sort_by(f64::total_cmp);
    let percentile = |p: usize| {
        times
            .get(times.len() * p / 100)
            .copied()
            .unwrap_or_default()
    };
    Ok((rate, percentile(50), percentile(99)))
}

/// Sessions that are threads.
fn threads(directory: &Path, count: u64, duration: Duration) -> Result<Commits, Box<dyn Error>> {
    let session = |journal: &Journal, owner, start: Instant| {
        let mut times = Vec::new();
        while start.elapsed() < duration {
            let begin = Instant::now();
            let position = journal.append(owner, &PAYLOAD, true)?;
            journal.wait_durable(position)?;
            times.push(begin.elapsed().as_secs_f64() * 1e3);
            flush(journal, owner, position, times.len());
        }
        Ok(times)
    };
    measured(directory, format!("threads-{count}"), |journal, start| {
        std::thread::scope(|scope| {
            let sessions: Vec<_> = (0..count)
                .map(|owner| scope.spawn(move || session(journal, owner, start)))
                .collect();
            let mut times = Vec::new();
            for session in sessions {
                let session: Result<Vec<f64>, JournalError> =
                    session.join().map_err(|_| "a session panicked")?;
                times.extend(session?);
            }
            Ok(times)
        })
    })
}

/// Sessions that are tasks, as those of a server are.
fn tasks(directory: &Path, count: u64, duration: Duration) -> Result<Commits, Box<dyn Error>> {
    let runtime = tokio::runtime::Runtime::new()?;
    measured(directory, format!("tasks-{count}"), |journal, start| {
        let session = |owner| {
            let journal = journal.clone();
            async move {
                let mut times = Vec::new();
                while start.elapsed() < duration {
                    let begin = Instant::now();
                    let position = journal.append(owner, &PAYLOAD, true)?;
                    journal.durable(position).await?;
                    times.push(begin.elapsed().as_secs_f64() * 1e3);
                    flush(&journal, owner, position, times.len());
                }
                Ok::<_, JournalError>(times)
            }
        };
        let sessions: Vec<_> = (0..count)
            .map(|owner| runtime.spawn(session(owner)))
            .collect();
        let mut times = Vec::new();
        for session in sessions {
            times.extend(runtime.block_on(session)??);
        }
        Ok(times)
    })
}

/// Like a database that now and then has flushed what it committed.
fn flush(journal: &Journal, owner: u64, position: Position, commits: usize) {
    if commits.is_multiple_of(100) {
        journal.release(owner, position);
    }
}
