//! The file system that a guest sees: one namespace over four places, and its open files.
//!
//! | path | place | writable |
//! |---|---|---|
//! | `/pglite/data/...` | the database's volume | yes |
//! | `/tmp/...`, `/dev/shm/...` | memory of this backend, gone with it | yes |
//! | `/dev/null`, `/dev/urandom`, ... | devices | as usual |
//! | everything else | the distribution, shared by all backends | no |
//!
//! Nothing of the host's own file system is reachable: there is no place that leads to it.

mod namespace;
mod open;
mod scratch;

pub(crate) use namespace::{Namespace, Place};
pub(crate) use open::{FileTable, OpenFlags, SavedFile, StandardStreams};
pub(crate) use scratch::Scratch;

use crate::errno::Errno;

/// Where the volume is mounted.
pub(crate) const DATA_DIRECTORY: &str = "/pglite/data";

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    Regular,
    Directory,
    Symlink,
    Device,
    Pipe,
}

/// What `stat` tells.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Status {
    pub(crate) kind: FileKind,
    pub(crate) ino: u64,
    /// Permission bits only.
    pub(crate) mode: u32,
    pub(crate) bytes: u64,
    /// Seconds and nanoseconds since the Unix epoch.
    pub(crate) mtime: (i64, u32),
    /// Distinguishes the places: inode numbers are unique only within one.
    pub(crate) device: u32,
}

impl Status {
    /// `st_mode`: file type and permissions.
    pub(crate) fn st_mode(&self) -> u32 {
        let kind = match self.kind {
            FileKind::Regular => 0o100_000,
            FileKind::Directory => 0o040_000,
            FileKind::Symlink => 0o120_000,
            FileKind::Device => 0o020_000,
            FileKind::Pipe => 0o010_000,
        };
        kind | (self.mode & 0o7777)
    }
}

impl From<volume::VolumeError> for Errno {
    fn from(error: volume::VolumeError) -> Self {
        use volume::VolumeError as E;
        match error {
            E::NotFound => Self::NOENT,
            E::Exists => Self::EXIST,
            E::NotDirectory => Self::NOTDIR,
            E::IsDirectory => Self::ISDIR,
            E::NotEmpty => Self::NOTEMPTY,
            E::Invalid(_) => Self::INVAL,
            E::NoSpace { .. } | E::DiskFull { .. } => {
                tracing::warn!(error = %error, "the guest sees ENOSPC");
                Self::NOSPC
            }
            other => {
                tracing::error!(error = %other, "the volume failed; the guest sees EIO");
                Self::IO
            }
        }
    }
}
