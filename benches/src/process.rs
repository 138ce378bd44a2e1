//! Processes of peers: started, waited for, measured and ended.

use crate::session::{Error, Result};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A running peer; killed when dropped, if it has not been stopped.
pub(crate) struct Running {
    pub(crate) child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts a command; its standard error (and output, unless it is piped) go to `log`.
    pub(crate) fn start(command: &mut Command, log: &Path, piped: bool) -> Result<Self> {
        let file = File::create(log)?;
        command.stderr(file.try_clone()?);
        if piped {
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        } else {
            command.stdin(Stdio::null()).stdout(file);
        }
        let child = command
            .spawn()
            .map_err(|error| format!("starting {}: {error}", command.get_program().display()))?;
        Ok(Self {
            child,
            log: log.to_owned(),
        })
    }

    /// Tries `connect` until it works, the process ends, or three minutes have gone.
    pub(crate) fn until_ready<T>(&mut self, mut connect: impl FnMut() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        loop {
            let error = match connect() {
                Ok(ready) => return Ok(ready),
                Err(error) => error,
            };
            if let Some(status) = self.child.try_wait()? {
                return Err(self.explain(format!("ended before it was ready ({status})").into()));
            }
            // Long enough for a first start that has to compile something.
            if start.elapsed() > Duration::from_secs(180) {
                return Err(self.explain(format!("not ready after 180 s: {error}").into()));
            }
            pause(Duration::from_millis(1));
        }
    }

    /// Asks the process to end by a signal, and kills it if it has not after ten seconds.
    pub(crate) fn stop(self, signal: &str) -> Result<()> {
        let id = self.child.id().to_string();
        Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(id)
            .status()?;
        self.wait()
    }

    /// Waits for a process that has a reason to end, and kills it if it has not after ten seconds.
    pub(crate) fn wait(mut self) -> Result<()> {
        let start = Instant::now();
        while self.child.try_wait()?.is_none() {
            if start.elapsed() > Duration::from_secs(10) {
                return Err(self.explain("did not end in ten seconds; killed".into()));
            }
            pause(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Adds the last lines of the log to an error.
    pub(crate) fn explain(&self, error: Error) -> Error {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        match lines.get(lines.len().saturating_sub(3)..) {
            Some(last) if !last.is_empty() => format!("{error}: {}", last.join(" | ")).into(),
            _ => error,
        }
    }

    /// Memory of the process and all that it started.
    pub(crate) fn memory(&self) -> Result<Memory> {
        let mut total = Memory::default();
        for id in tree(self.child.id())? {
            // A child that ends meanwhile has no memory.
            if let Ok(text) = fs::read_to_string(format!("/proc/{id}/smaps_rollup")) {
                total.add(&text);
            }
        }
        if total.rss_kib == 0 {
            return Err("no /proc/PID/smaps_rollup to read".into());
        }
        Ok(total)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing can be done about a process that cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a port that opens is no event to wait for"
)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// A process and its descendants.
pub(crate) fn tree(root: u32) -> Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if let Ok(stat) = fs::read_to_string(format!("/proc/{id}/stat"))
            && let Some(parent) = parent(&stat)
        {
            parents.push((id, parent));
        }
    }
    let mut tree = vec![root];
    let mut at = 0;
    while let Some(&id) = tree.get(at) {
        tree.extend(
            parents
                .iter()
                .filter(|(_, parent)| *parent == id)
                .map(|(child, _)| child),
        );
        at += 1;
    }
    Ok(tree)
}

/// The parent in a `/proc/PID/stat`, whose second field may contain anything.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Memory {
    pub(crate) rss_kib: u64,
    pub(crate) pss_kib: u64,
    pub(crate) private_dirty_kib: u64,
}

impl Memory {
    fn add(&mut self, smaps_rollup: &str) {
        for line in smaps_rollup.lines() {
            let mut words = line.split_whitespace();
            let field = match words.next() {
                Some("Rss:") => &mut self.rss_kib,
                Some("Pss:") => &mut self.pss_kib,
                Some("Private_Dirty:") => &mut self.private_dirty_kib,
                _ => continue,
            };
            *field += words
                .next()
                .and_then(|number| number.parse::<u64>().ok())
                .unwrap_or(0);
        }
    }

    /// The share of one, when there were `count` more than before.
    pub(crate) fn each(self, before: Self, count: u64) -> Self {
        let each = |now: u64, then: u64| now.saturating_sub(then) / count.max(1);
        Self {
            rss_kib: each(self.rss_kib, before.rss_kib),
            pss_kib: each(self.pss_kib, before.pss_kib),
            private_dirty_kib: each(self.private_dirty_kib, before.private_dirty_kib),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parent_of_a_strange_name() {
        assert_eq!(parent("12 (a) S 7) R 34 12 12"), Some(34));
        assert_eq!(parent("12 (sh) S 1 12"), Some(1));
    }

    #[test]
    fn memory_adds_up() {
        let text = "0-1 ---p 0 00:00 0 [rollup]\nRss:  100 kB\nPss:   50 kB\nPrivate_Dirty: 7 kB\n";
        let mut memory = Memory::default();
        memory.add(text);
        memory.add(text);
        assert_eq!(
            memory,
            Memory {
                rss_kib: 200,
                pss_kib: 100,
                private_dirty_kib: 14
            }
        );
        assert_eq!(memory.each(Memory::default(), 2).rss_kib, 100);
    }
}
