//! A file of the host that is nothing but pages: slot n at byte n * 8192.
//!
//! Invariants
//! 1. A page is read whole and given out only if its checksum is the one its [`PageRef`] names.
//! 2. A page is written whole.
//! 3. After `sync` returns Ok, the pages written before it and the file's own name survive a crash.
//!
//! [`PageRef`]: crate::page::PageRef

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use store::{Disk, DiskFile, OpenHow};

use crate::error::{Result, VolumeError};
use crate::page::PAGE_BYTES;

#[derive(Debug)]
pub(crate) struct PagesFile {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    file: Arc<dyn DiskFile>,
    /// Whether the directory is known to hold the file's name durably.
    name_synced: AtomicBool,
}

impl PagesFile {
    /// An empty file; content left there by a version that never became durable is thrown away.
    pub(crate) fn create(disk: &Arc<dyn Disk>, path: &Path) -> Result<Self> {
        let file = disk
            .open(path, OpenHow::Create)
            .map_err(|source| VolumeError::io("create", path, source))?;
        Ok(Self {
            path: path.to_owned(),
            disk: Arc::clone(disk),
            file,
            name_synced: AtomicBool::new(false),
        })
    }

    /// The existing file, which must hold at least `pages` pages.
    pub(crate) fn open(
        disk: &Arc<dyn Disk>,
        path: &Path,
        how: OpenHow,
        pages: u32,
    ) -> Result<Self> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => VolumeError::corrupt(path, "the pages file is missing"),
            _ => VolumeError::io("open", path, source),
        };
        let file = disk.open(path, how).map_err(failed)?;
        let found = file.len().map_err(failed)?;
        let expected = offset(pages);
        if found < expected {
            let reason = format!("cut short, {found} of {expected} bytes");
            return Err(VolumeError::corrupt(path, reason));
        }
        Ok(Self {
            path: path.to_owned(),
            disk: Arc::clone(disk),
            file,
            name_synced: AtomicBool::new(true),
        })
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

    /// Gives the room of slots back that nothing refers to. Ascending; neighbours go in one call.
    pub(crate) fn punch(&self, slots: &[u32]) -> Result<()> {
        let failed = |source| VolumeError::io("give back room of", &self.path, source);
        for run in slots.chunk_by(|a, b| a + 1 == *b) {
            let bytes = (run.len() * PAGE_BYTES) as u64;
            self.file.punch(offset(run[0]), bytes).map_err(failed)?;
        }
        Ok(())
    }

    /// Gives the room beyond `pages` pages back, if there is more.
    pub(crate) fn cut(&self, pages: u32) -> Result<()> {
        let failed = |source| VolumeError::io("cut", &self.path, source);
        if self.file.len().map_err(failed)? > offset(pages) {
            self.file.set_len(offset(pages)).map_err(failed)?;
        }
        Ok(())
    }

    pub(crate) fn sync(&self) -> Result<()> {
        let failed = |source| VolumeError::io("sync", &self.path, source);
        self.file.sync_data().map_err(failed)?;
        if !self.name_synced.load(Ordering::Acquire) {
            let directory = self.path.parent().unwrap_or_else(|| Path::new("."));
            self.disk.sync_directory(directory).map_err(failed)?;
            self.name_synced.store(true, Ordering::Release);
        }
        Ok(())
    }
}

fn offset(slot: u32) -> u64 {
    u64::from(slot) * PAGE_BYTES as u64
}
