//! What the numbers were measured on.

use crate::{
    samples::{Budget, Round},
    session::Result,
};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{Seek as _, Write as _},
    path::Path,
    thread,
};

pub(crate) struct Machine {
    cores: usize,
    cpu: String,
    memory_gib: f64,
    kernel: String,
    load: String,
    file_system: String,
    /// Writes of 8 KiB with `fdatasync`, in microseconds.
    syncs: Vec<f64>,
}

impl Machine {
    /// Looks at this machine; `folder` is where data goes.
    pub(crate) fn look(folder: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let after = |text: &str, key: &str| {
            text.lines()
                .find(|line| line.starts_with(key))
                .and_then(|line| line.split_once(':'))
                .map_or_else(String::new, |(_, value)| value.trim().to_owned())
        };
        let memory = after(&read("/proc/meminfo"), "MemTotal");
        let memory: f64 = memory
            .split(' ')
            .next()
            .and_then(|kib| kib.parse().ok())
            .unwrap_or(0.0);
        let load: Vec<String> = read("/proc/loadavg")
            .split(' ')
            .take(3)
            .map(str::to_owned)
            .collect();
        Self {
            cores: thread::available_parallelism().map_or(0, usize::from),
            cpu: after(&read("/proc/cpuinfo"), "model name"),
            memory_gib: memory / 1024.0 / 1024.0,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: load.join(" "),
            file_system: file_system(folder, &read("/proc/mounts")),
            syncs: Vec::new(),
        }
    }

    /// Times the disk that `folder` is on, once more: its speed changes within a run.
    pub(crate) fn time_disk(&mut self, folder: &Path) {
        match sync_times(folder) {
            Ok(times) => self.syncs.extend(times),
            Err(error) => eprintln!("  timing the disk failed: {error}"),
        }
    }

    pub(crate) fn json(&self) -> Value {
        let sync = Round::of(self.syncs.clone());
        json!({
            "cores": self.cores,
            "cpu": self.cpu,
            "memory_gib": self.memory_gib,
            "kernel": self.kernel,
            "load_average_before": self.load,
            "file_system": self.file_system,
            "fdatasync_p50_us": sync.map(|sync| sync.p50),
            "fdatasync_p99_us": sync.map(|sync| sync.p99),
        })
    }

    /// Lines of a Markdown list.
    pub(crate) fn markdown(&self) -> String {
        let sync = Round::of(self.syncs.clone()).map_or_else(
            || "not measured".to_owned(),
            |Round { p50, p99, samples }| {
                format!(
                    "{:.2} ms p50, {:.2} ms p99 of {samples} spread over the run",
                    p50 / 1000.0,
                    p99 / 1000.0
                )
            },
        );
        format!(
            "- Machine: {} cores ({}), {:.0} GiB, Linux {}, load average before {}\n\
             - Disk: {}; 8 KiB written and `fdatasync`: {sync}\n",
            self.cores, self.cpu, self.memory_gib, self.kernel, self.load, self.file_system
        )
    }
}

/// The type of the file system that a folder is on, by the longest mount point above it.
fn file_system(folder: &Path, mounts: &str) -> String {
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (_, point, kind) = (words.next()?, words.next()?, words.next()?);
            folder.starts_with(point).then_some((point.len(), kind))
        })
        .max_by_key(|(length, _)| *length)
        .map_or_else(
            || "unknown file system".to_owned(),
            |(_, kind)| kind.to_owned(),
        )
}

fn sync_times(folder: &Path) -> Result<Vec<f64>> {
    let path = folder.join("sync-time");
    let mut file = File::create(&path)?;
    let page = [7; 8192];
    file.write_all(&page)?;
    let times = Budget {
        warmup: 5,
        iterations: 50,
        limit_ms: 250,
    }
    .run(|_| {
        file.rewind()?;
        file.write_all(&page)?;
        file.sync_data()
    })?;
    fs::remove_file(&path)?;
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mount_point_counts() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n";
        assert_eq!(file_system(Path::new("/tmp/x"), mounts), "tmpfs");
        assert_eq!(file_system(Path::new("/tmpx"), mounts), "ext4");
    }
}
