//! The disk as the unit: how long it takes to make 8 KiB durable, and what folders take on it.

use crate::{samples::Budget, session::Result};
use std::{
    fs::{self, File},
    io::{self, Seek as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

/// Where each write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writes {
    /// After the one before: the file grows, and its length has to become durable, too.
    Append,
    /// Over the one before.
    Over,
}

/// Microseconds of writes of 8 KiB with `fdatasync`, one after the other, for up to `limit_ms`.
pub(super) fn syncs(folder: &Path, writes: Writes, limit_ms: u64) -> Result<Vec<f64>> {
    let path = folder.join("syncs");
    let mut file = File::create(&path)?;
    let page = [7; 8192];
    let budget = Budget {
        warmup: 5,
        iterations: 1_000_000,
        limit_ms,
    };
    let times = budget.run(|_| {
        if writes == Writes::Over {
            file.rewind()?;
        }
        file.write_all(&page)?;
        file.sync_data()
    })?;
    fs::remove_file(&path)?;
    Ok(times)
}

/// Syncs a second: the rate that goes with their times.
pub(super) fn rate(times: &[f64]) -> f64 {
    let sum: f64 = times.iter().sum();
    times.len() as f64 * 1e6 / sum.max(1.0)
}

/// How often anybody had the device under a folder flush its cache, if it counts that.
pub(super) fn flushes(folder: &Path) -> Option<u64> {
    let device = fs::metadata(folder).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stat = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    stat.split_whitespace().nth(15)?.parse().ok()
}

/// What was found, unless it is gone: a server that runs removes files of its own.
fn there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// What is in a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Bytes of blocks: what the disk gives for it, directories included.
    pub(super) bytes: u64,
    /// Files that are no directories.
    pub(super) files: u64,
}

impl Taken {
    /// Counts a folder and all in it.
    pub(super) fn by(folder: &Path) -> Result<Self> {
        let mut taken = Self::default();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            let (Some(own), Some(entries)) =
                (there(fs::metadata(&folder))?, there(fs::read_dir(&folder))?)
            else {
                continue;
            };
            taken.bytes += own.blocks() * 512;
            for entry in entries {
                let entry = entry?;
                let Some(metadata) = there(entry.metadata())? else {
                    continue;
                };
                if metadata.is_dir() {
                    folders.push(entry.path());
                } else {
                    taken.bytes += metadata.blocks() * 512;
                    taken.files += 1;
                }
            }
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_sizes() {
        assert_eq!(rate(&[500.0, 1500.0]), 1000.0);
        let folder = std::env::temp_dir().join(format!("lifecycle-disk-{}", std::process::id()));
        fs::create_dir_all(folder.join("in")).unwrap();
        fs::write(folder.join("in/file"), [1; 100_000]).unwrap();
        let taken = Taken::by(&folder).unwrap();
        assert_eq!(taken.files, 1);
        assert!(taken.bytes >= 4096, "{taken:?}");
        assert!(!syncs(&folder, Writes::Append, 1).unwrap().is_empty());
        fs::remove_dir_all(&folder).unwrap();
    }
}
