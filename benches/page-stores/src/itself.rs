//! What this process takes: memory, descriptors, threads, bytes written.

use crate::stores::Result;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::fs;

/// Descriptors that this program needs: SQLite takes three for each of a thousand databases.
const DESCRIPTORS: u64 = 8_192;

/// Lets this process have as many descriptors as it may.
pub(crate) fn raise_descriptors() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    if let Some(maximum) = limit.maximum
        && maximum < DESCRIPTORS
    {
        return Err(format!("{maximum} descriptors are too few: allow {DESCRIPTORS}").into());
    }
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// Resident memory in bytes.
pub(crate) fn memory() -> Result<u64> {
    Ok(number("/proc/self/status", "VmRSS:")? * 1024)
}

/// Threads, this one included.
pub(crate) fn threads() -> Result<u64> {
    number("/proc/self/status", "Threads:")
}

/// Open descriptors, without the one that counts them.
pub(crate) fn descriptors() -> Result<u64> {
    Ok(fs::read_dir("/proc/self/fd")?.count() as u64 - 1)
}

/// Bytes that this process has caused to be written to disks so far.
pub(crate) fn bytes_written() -> Result<u64> {
    // Beside it stands what was taken back, for example by cutting a file before it was on disk.
    let file = "/proc/self/io";
    let written = number(file, "\nwrite_bytes:")?;
    Ok(written.saturating_sub(number(file, "cancelled_write_bytes:")?))
}

fn number(file: &str, key: &str) -> Result<u64> {
    let text = fs::read_to_string(file)?;
    let value = text
        .split_once(key)
        .and_then(|(_, rest)| rest.split_whitespace().next());
    let value = value.ok_or_else(|| format!("{file} does not say {key}"))?;
    Ok(value.parse()?)
}

/// One line about the machine.
pub(crate) fn machine() -> Result<String> {
    let cores = std::thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = fs::read_to_string("/proc/loadavg")?;
    let load: Vec<&str> = load.split(' ').take(3).collect();
    Ok(format!(
        "{cores} cores, Linux {}, load average before {}",
        kernel.trim(),
        load.join(" ")
    ))
}
