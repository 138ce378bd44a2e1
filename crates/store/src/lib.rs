//! Bytes outside the process: the disk, the journal, sealed files, the data directory's lock. Knows no
//! pages.
//!
//! A sealed file is written whole and read whole, names its kind, format version and owner, and is
//! checksummed: whoever reads it gets exactly what was written, or an error that says why not.

#![forbid(unsafe_code)]

mod disk;
mod journal;
mod lock;
mod sealed;

pub use disk::{Disk, DiskFile, OpenHow, RealDisk};
pub use journal::{
    ENTRY_BYTES_MAX, Entry, Journal, JournalError, JournalOptions, JournalWriter, Position,
};
pub use lock::{DirectoryLock, LockError};
pub use sealed::{SealedError, read_sealed, remove_sealed, write_sealed, write_sealed_cache};
