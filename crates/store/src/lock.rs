//! The lock of a data directory: one process at a time.
//!
//! Invariants
//! 1. Whoever holds a [`DirectoryLock`] is the only process with one for that directory.
//! 2. The lock is the kernel's and lives with the open file: a crashed owner's lock never sticks.
//!    The pid in the file is for people; nothing decides by it.
//! 3. The lock file is never deleted. Deleting it would let two processes lock two files of one name.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Name of the lock file inside the data directory.
const LOCK_FILE_NAME: &str = "lock";

/// Bytes of the lock file that are read to name its holder; a pid is shorter.
const HOLDER_BYTES_MAX: u64 = 32;

/// An exclusively locked data directory; dropping it gives the directory free.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

/// Why a data directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has the directory.
    #[error(
        "the data directory {} is in use by {holder}: stop it, or choose another data directory",
        directory.display()
    )]
    Held {
        /// The directory that was asked for.
        directory: PathBuf,
        /// The holder in words, `process 1234` where its pid could be read.
        holder: String,
    },
    /// The lock file could not be opened, locked or written.
    #[error(
        "cannot lock {}: {source}; the data directory must exist and be writable",
        path.display()
    )]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl DirectoryLock {
    /// Locks `directory`, which must exist, and writes this process' id into its lock file.
    ///
    /// # Errors
    /// [`LockError::Held`] at once, without waiting, when another process has it;
    /// [`LockError::Io`] when the lock file cannot be opened or written.
    pub fn acquire(directory: &Path) -> Result<Self, LockError> {
        let path = directory.join(LOCK_FILE_NAME);
        let failed = |source| LockError::Io {
            path: path.clone(),
            source,
        };
        // Not truncated here: until the lock is ours the content belongs to the holder.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = holder(&file);
                return Err(LockError::Held {
                    directory: directory.to_owned(),
                    holder,
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_len(0).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// The holder in words. The pid may be missing for a moment after the holder has locked.
fn holder(file: &File) -> String {
    let mut text = String::new();
    match file.take(HOLDER_BYTES_MAX).read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => format!("process {}", text.trim()),
        _ => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_owner_is_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirectoryLock::acquire(dir.path()).unwrap();
        let error = DirectoryLock::acquire(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        drop(first);
        DirectoryLock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn content_left_by_a_crash_does_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("lock"), "4294967295 and more words").unwrap();
        let _lock = DirectoryLock::acquire(dir.path()).unwrap();
        let text = std::fs::read_to_string(dir.path().join("lock")).unwrap();
        assert_eq!(text.trim(), std::process::id().to_string());
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = DirectoryLock::acquire(&dir.path().join("none")).unwrap_err();
        assert!(matches!(error, LockError::Io { .. }));
    }
}
