//! A file of the host that is nothing but pages: slot n at byte n * 8192.
//!
//! Invariants
//! 1. A page is read whole and given out only if its checksum is the one its [`PageRef`] names.
//! 2. A page is written whole.
//! 3. After `sync` returns Ok, the pages written before it and the file's own name survive a crash.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Result, VolumeError};
use crate::page::PAGE_BYTES;

#[derive(Debug)]
pub(crate) struct PagesFile {
    path: PathBuf,
    file: File,
    /// Whether the directory is known to hold the file's name durably.
    name_synced: AtomicBool,
}

impl PagesFile {
    /// An empty file; content left there by a volume that was never flushed is thrown away.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let file = options
            .open(path)
            .map_err(|source| VolumeError::io("create", path, source))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            name_synced: AtomicBool::new(false),
        })
    }

    /// The existing file, which must hold at least `pages` pages.
    pub(crate) fn open(path: &Path, writable: bool, pages: u32) -> Result<Self> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => VolumeError::corrupt(path, "the pages file is missing"),
            _ => VolumeError::io("open", path, source),
        };
        let file = OpenOptions::new()
            .read(true)
            .write(writable)
            .open(path)
            .map_err(failed)?;
        let found = file.metadata().map_err(failed)?.len();
        let expected = offset(pages);
        if found < expected {
            let reason = format!("cut short, {found} of {expected} bytes");
            return Err(VolumeError::corrupt(path, reason));
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            name_synced: AtomicBool::new(true),
        })
    }

    /// Copies the first `pages` slots of `from` into a new file; the file system may share the blocks.
    pub(crate) fn copy(from: &Self, pages: u32, path: &Path) -> Result<Self> {
        let to = Self::create(path)?;
        // A descriptor of its own: copying moves the file position.
        let source = File::open(&from.path).map_err(|e| VolumeError::io("open", &from.path, e))?;
        io::copy(&mut io::Read::take(&source, offset(pages)), &mut &to.file)
            .map_err(|e| VolumeError::io("copy pages into", path, e))?;
        Ok(to)
    }

    /// Reads the page in `slot`. `page` is [`PAGE_BYTES`] long.
    pub(crate) fn read(&self, slot: u32, crc: u32, page: &mut [u8]) -> Result<()> {
        assert_eq!(page.len(), PAGE_BYTES, "BUG: a page is read whole");
        self.file
            .read_exact_at(page, offset(slot))
            .map_err(|source| match source.kind() {
                io::ErrorKind::UnexpectedEof => {
                    VolumeError::corrupt(&self.path, format!("cut short before page {slot}"))
                }
                _ => VolumeError::io("read", &self.path, source),
            })?;
        let found = crc32c::crc32c(page);
        if found != crc {
            let reason = format!("page {slot} has checksum {found:08x}, not {crc:08x}");
            return Err(VolumeError::corrupt(&self.path, reason));
        }
        Ok(())
    }

    /// Writes the page in `slot`. `page` is [`PAGE_BYTES`] long. On an error the slot may hold anything.
    pub(crate) fn write(&self, slot: u32, page: &[u8]) -> Result<()> {
        assert_eq!(page.len(), PAGE_BYTES, "BUG: a page is written whole");
        self.file
            .write_all_at(page, offset(slot))
            .map_err(|source| VolumeError::io("write", &self.path, source))
    }

    pub(crate) fn sync(&self) -> Result<()> {
        let failed = |source| VolumeError::io("sync", &self.path, source);
        self.file.sync_data().map_err(failed)?;
        if !self.name_synced.load(Ordering::Acquire) {
            let directory = self.path.parent().unwrap_or_else(|| Path::new("."));
            store::Disk::sync_directory(&store::RealDisk, directory).map_err(failed)?;
            self.name_synced.store(true, Ordering::Release);
        }
        Ok(())
    }
}

fn offset(slot: u32) -> u64 {
    u64::from(slot) * PAGE_BYTES as u64
}
