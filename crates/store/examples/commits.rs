//! Durable commits per second of a journal, beside the disk's own rate of syncs.
//!
//! `cargo run --release -p dormouse-store --example commits [DIRECTORY] [SECONDS]`: 1, 16 and 256
//! threads append 200 bytes each and wait until they are durable, again and again. Before and after
//! each, one file is overwritten by 4 KiB at a time and synced, as fast as that goes.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dormouse_store::{Disk, Journal, JournalError, JournalOptions, OpenHow, RealDisk};

const PAYLOAD: [u8; 200] = [0xA5; 200];
const FILE_BYTES: u64 = 64 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let seconds = arguments.next().map_or(Ok(5), |seconds| seconds.parse())?;
    let duration = Duration::from_secs(seconds);
    let directory = tempfile::tempdir_in(directory)?;
    println!("threads  commits/s  p50 ms  p99 ms  syncs/s before, after  ratio");
    let mut before = syncs(directory.path(), duration)?;
    for threads in [1, 16, 256] {
        let (rate, p50, p99) = commits(directory.path(), threads, duration)?;
        let after = syncs(directory.path(), duration)?;
        let ratio = rate / f64::midpoint(before, after);
        println!(
            "{threads:7}  {rate:9.0}  {p50:6.2}  {p99:6.2}  {before:14.0}, {after:5.0}  {ratio:5.1}"
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
fn commits(
    directory: &Path,
    threads: u64,
    duration: Duration,
) -> Result<(f64, f64, f64), Box<dyn Error>> {
    let directory = directory.join(format!("journal-{threads}"));
    let options = JournalOptions::default();
    let journal = Journal::open(Arc::new(RealDisk), &directory, 7, 1, options)?;
    let writer = journal.start()?;
    let stop = AtomicBool::new(false);
    let commits = AtomicU64::new(0);
    let start = Instant::now();
    let mut times = std::thread::scope(|scope| -> Result<Vec<f64>, JournalError> {
        let session = |owner| {
            let (journal, stop, commits) = (&journal, &stop, &commits);
            move || -> Result<Vec<f64>, JournalError> {
                let mut times = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let begin = Instant::now();
                    let position = journal.append(owner, &PAYLOAD, true)?;
                    journal.wait_durable(position)?;
                    times.push(begin.elapsed().as_secs_f64() * 1e3);
                    // Like a database that flushes now and then.
                    if commits.fetch_add(1, Ordering::Relaxed).is_multiple_of(100) {
                        for owner in 0..threads {
                            journal.release(owner, position);
                        }
                    }
                }
                Ok(times)
            }
        };
        let sessions: Vec<_> = (0..threads)
            .map(|owner| scope.spawn(session(owner)))
            .collect();
        while start.elapsed() < duration {
            std::thread::park_timeout(duration.saturating_sub(start.elapsed()));
        }
        stop.store(true, Ordering::Relaxed);
        let mut times = Vec::new();
        for session in sessions {
            times.extend(session.join().map_err(|_| JournalError::Closed)??);
        }
        Ok(times)
    })?;
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
