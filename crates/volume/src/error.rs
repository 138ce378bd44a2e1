//! What a volume answers when it cannot do what was asked. A variant exists only if somebody acts on it.

use std::io;
use std::path::{Path, PathBuf};

use store::{JournalError, SealedError};

use crate::id::Version;

/// The result of volume operations.
pub type Result<T, E = VolumeError> = std::result::Result<T, E>;

/// Why a volume refused. The engine maps the first seven to errno; the others end the backend.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// ENOENT: no such file, directory, inode, database or template.
    #[error("not found")]
    NotFound,
    /// EEXIST: the name, the database or the template exists already.
    #[error("exists already")]
    Exists,
    /// ENOTDIR: a directory was needed.
    #[error("not a directory")]
    NotDirectory,
    /// EISDIR: something other than a directory was needed.
    #[error("is a directory")]
    IsDirectory,
    /// ENOTEMPTY: the directory still has entries.
    #[error("directory not empty")]
    NotEmpty,
    /// ENOSPC: a limit of the volume is reached. Nothing is broken.
    #[error("the limit {limit} = {max} is reached: make room, or change the limit")]
    NoSpace {
        /// The limit's name, as in the configuration.
        limit: &'static str,
        /// Its number.
        max: u64,
    },
    /// EINVAL: the request makes no sense; the caller must change it.
    #[error("invalid: {0}")]
    Invalid(&'static str),
    /// EIO, or what the source says: the operating system refused. May pass when its cause passes.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file of the host.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Bytes on disk are not what was written. Never served; restore the file from a copy.
    #[error("{} is corrupt: {reason}", path.display())]
    Corrupt {
        /// The file of the host.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A flush failed. The last durable version is whole; opening shows it, or the new one if that
    /// reached the disk after all.
    #[error(
        "flush failed, version {kept} is the last one known to be durable: {source}; {}",
        if *must_reopen { "open the volume anew" } else { "the flush may be tried again" }
    )]
    FlushFailed {
        /// The version known to be durable.
        kept: Version,
        /// Whether this volume can flush no more: the disk's state is not known, open it anew.
        must_reopen: bool,
        /// What failed.
        source: Box<Self>,
    },
    /// A later generation has written the volume: this process may not.
    #[error(
        "the volume was written by generation {found}, this is generation {ours}: another node has it"
    )]
    Fenced {
        /// The generation in the volume.
        found: u64,
        /// The one that wanted to write.
        ours: u64,
    },
    /// The journal refused: it is broken, or closed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// ENOSPC: the host's disk is full. Nothing is broken.
    #[error("the disk is full: cannot {action} {}; give it room", path.display())]
    DiskFull {
        /// What was being done.
        action: &'static str,
        /// To which file of the host.
        path: PathBuf,
    },
    /// An earlier write or flush failed in a way that makes this volume's memory and disk differ.
    #[error("the volume cannot flush since {0}: drop it and open its last durable version")]
    Broken(&'static str),
}

impl VolumeError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { action, path }
            }
            _ => Self::Io {
                action,
                path,
                source,
            },
        }
    }

    /// Of an append to the journal.
    pub(crate) fn from_journal(error: JournalError) -> Self {
        match error {
            JournalError::Full { .. } => Self::DiskFull {
                action: "extend the journal in",
                path: PathBuf::from("journal"),
            },
            error => Self::Journal(error),
        }
    }

    pub(crate) fn corrupt(path: &Path, reason: impl Into<String>) -> Self {
        Self::Corrupt {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }

    /// Of a sealed file that was to be read: missing, unreadable, or refused.
    pub(crate) fn from_read(path: &Path, error: SealedError) -> Self {
        match error {
            SealedError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Self::NotFound
            }
            SealedError::Io {
                action,
                path,
                source,
            } => Self::Io {
                action,
                path,
                source,
            },
            refused => Self::corrupt(path, refused.to_string()),
        }
    }

    /// Of a sealed file that was to be written or removed.
    pub(crate) fn from_write(error: SealedError) -> Self {
        match error {
            SealedError::Io {
                action,
                path,
                source,
            } => Self::io(action, &path, source),
            SealedError::NotDurable { path, source } => {
                Self::io("sync the directory of", &path, source)
            }
            _ => unreachable!("BUG: only reading refuses a file for what is in it"),
        }
    }
}
