use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why the journal could not be opened, or does not take or give something.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The operating system refused while the journal was being opened or read.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Something that was durable is damaged.
    #[error(
        "the journal is damaged: {} at byte {offset}: {reason}; commits that were acknowledged may \
         be lost: restore the data directory from a copy",
        path.display()
    )]
    Corrupt {
        /// The damaged segment.
        path: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// A segment that is needed is not there.
    #[error(
        "the journal's segment {} is missing: put it back, or restore the data directory from a copy",
        path.display()
    )]
    MissingSegment {
        /// What its name should be.
        path: PathBuf,
    },
    /// A segment of another journal.
    #[error(
        "{} belongs to journal {found:016x}, not {expected:016x}: put it back where it came from",
        path.display()
    )]
    WrongJournal {
        /// The refused segment.
        path: PathBuf,
        /// The id of the journal in this directory.
        expected: u64,
        /// The id in the segment.
        found: u64,
    },
    /// A whole segment, in a format this program does not know.
    #[error(
        "{} has format version {found}, this program reads {expected}: use the program that wrote it",
        path.display()
    )]
    WrongVersion {
        /// The refused segment.
        path: PathBuf,
        /// The format version that this program writes.
        expected: u16,
        /// The format version in the segment.
        found: u16,
    },
    /// Someone with a greater generation has written to the journal.
    #[error(
        "the journal in {} was written under generation {found}, ours is {ours}: another process \
         owns this data directory now",
        directory.display()
    )]
    Fenced {
        /// The journal's directory.
        directory: PathBuf,
        /// The generation that was given to `open`.
        ours: u64,
        /// The generation that was found.
        found: u64,
    },
    /// An entry is longer than [`ENTRY_BYTES_MAX`](super::ENTRY_BYTES_MAX).
    #[error("a journal entry of {bytes} bytes is longer than the limit of {limit}: split it")]
    EntryTooLarge {
        /// Its payload's length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// More is appended than the disk takes: wait for an earlier position, then append again.
    #[error(
        "{bytes} bytes wait to be written to the journal, and journal.buffer_bytes allows {limit}: \
         the disk is slower than the commits; try again, or raise it"
    )]
    BufferFull {
        /// Bytes that wait.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The disk has no room for more. Not broken: with room it goes on by itself.
    #[error(
        "no room for the journal in {}: {cause}; free space on its file system, or flush or drop \
         databases: it keeps {bytes} bytes for them",
        directory.display()
    )]
    Full {
        /// The journal's directory.
        directory: PathBuf,
        /// What the operating system said.
        cause: Arc<io::Error>,
        /// Bytes of the segments in use.
        bytes: u64,
    },
    /// A write or sync failed earlier. What it was to make durable may be lost, and trying again would
    /// prove nothing: the process must open the journal anew.
    #[error("the journal is broken since {action} {} failed: {cause}; restart", path.display())]
    Broken {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the operating system said.
        cause: Arc<io::Error>,
    },
    /// The journal's writer was stopped.
    #[error("the journal is closed: the server is stopping")]
    Closed,
}

impl JournalError {
    pub(super) fn corrupt(path: &Path, offset: u64, reason: &'static str) -> Self {
        Self::Corrupt {
            path: path.to_owned(),
            offset,
            reason,
        }
    }

    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

/// Why the writer could not write a group.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nothing is lost, trying again may help.
    Full(Arc<io::Error>),
    /// Nothing is known of the medium any more.
    Broken(Failure),
}

impl Trouble {
    /// A failed write: that the disk is full is no damage.
    pub(super) fn write(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full(Arc::new(source))
            }
            _ => Self::broken("writing", path, source),
        }
    }

    pub(super) fn broken(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Broken(Failure {
            action,
            path: path.to_owned(),
            cause: Arc::new(source),
        })
    }
}

/// The failure that broke a journal.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    action: &'static str,
    path: PathBuf,
    cause: Arc<io::Error>,
}

/// Why a journal takes nothing any more.
#[derive(Debug, Clone)]
pub(super) enum Ended {
    Broken(Failure),
    Closed,
}

impl From<Ended> for JournalError {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Broken(Failure {
                action,
                path,
                cause,
            }) => Self::Broken {
                action,
                path,
                cause,
            },
            Ended::Closed => Self::Closed,
        }
    }
}
