//! What a process uses, by `/proc`.

use crate::session::Result;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use std::{
    fs,
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::Duration,
};

/// Memory of a process, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// All that is resident, shared files included.
    pub(super) resident: u64,
    /// Resident and nobody else's.
    pub(super) anonymous: u64,
    /// The most that was ever resident, or since [`reset_peak`].
    pub(super) peak: u64,
}

impl Memory {
    /// Of a process that runs.
    pub(super) fn of(id: u32) -> Result<Self> {
        let path = format!("/proc/{id}/status");
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        Self::from_status(&text).ok_or_else(|| format!("{path} does not tell the memory").into())
    }

    fn from_status(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
            Some(kib * 1024)
        };
        Some(Self {
            resident: field("VmRSS:")?,
            anonymous: field("RssAnon:")?,
            peak: field("VmHWM:")?,
        })
    }
}

/// What must stay free on the machine while a server is watched, bytes: others work on it, too.
const FREE_BYTES_MIN: u64 = 2 << 30;

/// Memory that the machine has left, bytes.
fn available() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: u64 = line
        .and_then(|line| line.split_whitespace().next())
        .ok_or("a /proc/meminfo without MemAvailable")?
        .parse()?;
    Ok(kib * 1024)
}

/// Makes the peak the memory of now.
pub(super) fn reset_peak(id: u32) -> Result<()> {
    let path = format!("/proc/{id}/clear_refs");
    fs::write(&path, "5").map_err(|error| format!("{path}: {error}").into())
}

/// How many mappings a process has.
pub(super) fn mappings(id: u32) -> Result<usize> {
    Ok(fs::read_to_string(format!("/proc/{id}/maps"))?
        .lines()
        .count())
}

/// Seconds of processor time that a process has had, in itself and in the kernel.
pub(super) fn cpu_seconds(id: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let ticks = ticks(&stat).ok_or("a /proc/PID/stat without times")?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// The user and system time in a `/proc/PID/stat`.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Every connection is an open file: takes as many as the system lets us.
pub(super) fn raise_file_limit() -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )?;
    Ok(())
}

/// Looks at a process' memory again and again, beside other work. A process that leaves too little
/// for the machine is killed, before the system kills somebody else's.
pub(super) struct Watch {
    stop: Sender<()>,
    thread: JoinHandle<Result<u64>>,
}

impl Watch {
    /// Begins to look every 5 ms; `id` is a child that nobody waits for meanwhile.
    pub(super) fn start(id: u32) -> Self {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut most = 0;
            loop {
                most = most.max(Memory::of(id)?.anonymous);
                if available()? < FREE_BYTES_MIN {
                    kill(id)?;
                    return Err(format!(
                        "killed at {} MiB, which left the machine less than {} MiB",
                        most >> 20,
                        FREE_BYTES_MIN >> 20
                    )
                    .into());
                }
                match stopped.recv_timeout(Duration::from_millis(5)) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(most),
                }
            }
        });
        Self { stop, thread }
    }

    /// The most anonymous memory that was seen, bytes.
    pub(super) fn stop(self) -> Result<u64> {
        drop(self.stop);
        self.thread
            .join()
            .map_err(|_| "BUG: the watch of the memory panicked")?
    }
}

fn kill(id: u32) -> Result<()> {
    let id = i32::try_from(id).ok().and_then(Pid::from_raw);
    let id = id.ok_or("BUG: the number of a process")?;
    Ok(kill_process(id, Signal::KILL)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_stat() {
        let status = "Name:\tx\nVmHWM:\t     300 kB\nVmRSS:\t     200 kB\nRssAnon:\t     100 kB\n";
        let memory = Memory::from_status(status).unwrap();
        assert_eq!(memory.resident, 200 << 10);
        assert_eq!(memory.anonymous, 100 << 10);
        assert_eq!(memory.peak, 300 << 10);
        assert!(Memory::from_status("Name:\tx\n").is_none());
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0";
        assert_eq!(ticks(stat), Some(300));
    }

    #[test]
    fn this_process() {
        let id = std::process::id();
        let watch = Watch::start(id);
        assert!(mappings(id).unwrap() > 5);
        assert!(cpu_seconds(id).unwrap() >= 0.0);
        assert!(watch.stop().unwrap() > 0);
        assert!(available().unwrap() > 0);
    }
}
