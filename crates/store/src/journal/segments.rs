//! The files of a journal: segments in use, and spares that wait to be the next ones.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, OpenHow};

use super::error::Trouble;
use super::format::{BLOCK_BYTES, Link, SegmentHeader};

const SEGMENT_SUFFIX: &str = ".journal";
const SPARE_PREFIX: &str = "spare-";

/// A segment that is in use.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) header: SegmentHeader,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
}

impl Segment {
    pub(super) fn number(&self) -> u64 {
        self.header.segment
    }
}

/// An allocated file that holds nothing anyone needs.
#[derive(Debug)]
struct Spare {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
}

/// Makes, recycles and removes the files of one journal.
#[derive(Debug)]
pub(super) struct Segments {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    id: u64,
    generation: u64,
    /// Where the positions of this opening begin.
    given_from: u64,
    segment_bytes: u64,
    reserve: usize,
    /// Above every segment's number so far.
    next_number: u64,
    spares: Vec<Spare>,
}

impl Segments {
    /// `next_number` is above the number of every segment in the directory.
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        directory: &Path,
        (id, generation, given_from): (u64, u64, u64),
        (segment_bytes, reserve): (u64, usize),
        next_number: u64,
    ) -> Self {
        Self {
            disk,
            directory: directory.to_owned(),
            id,
            generation,
            given_from,
            segment_bytes,
            reserve,
            next_number,
            spares: Vec::new(),
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Room for groups in a new segment of the usual length, in bytes.
    pub(super) fn room_of_one(&self) -> u64 {
        room(self.segment_bytes)
    }

    /// Room for groups in the spares, in bytes.
    pub(super) fn room_of_spares(&self) -> u64 {
        self.room_of_one() * self.spares.len() as u64
    }

    /// Begins the next segment, with room for at least `group_bytes`. Its name and header are durable.
    pub(super) fn next(&mut self, link: Link, group_bytes: u64) -> Result<Segment, Trouble> {
        let usual = self.segment_bytes;
        let bytes = usual.max(group_bytes + (usual - self.room_of_one()));
        if self.spares.is_empty() {
            let spare = self.make_spare().map_err(full)?;
            self.spares.push(spare);
        }
        let spare = self.spares.last().expect("BUG: it was pushed above");
        size(&*spare.file, bytes).map_err(full)?;
        let header = SegmentHeader {
            id: self.id,
            segment: self.next_number,
            generation: self.generation,
            bytes,
            link,
            given_from: self.given_from,
        };
        // Header first, name after: a file with a segment's name has that segment's header.
        let failed = |source| Trouble::write(&spare.path, source);
        spare
            .file
            .write_all_at(&header.encode(), 0)
            .map_err(failed)?;
        let failed = |source| Trouble::broken("syncing", &spare.path, source);
        spare.file.sync_data().map_err(failed)?;
        let path = segment_path(&self.directory, self.next_number);
        self.disk.rename(&spare.path, &path).map_err(full)?;
        let failed = |source| Trouble::broken("syncing", &self.directory, source);
        self.disk.sync_directory(&self.directory).map_err(failed)?;
        let spare = self.spares.pop().expect("BUG: it was there above");
        self.next_number += 1;
        Ok(Segment {
            header,
            path,
            file: spare.file,
        })
    }

    /// Makes a spare of a segment that nobody needs, or removes it. Neither need be durable: its number
    /// is below all that are needed, so an opening that finds it there again discards it.
    pub(super) fn recycle(&mut self, segment: Segment) {
        if !self.has_spares() {
            let path = self.free_spare_path();
            if self.disk.rename(&segment.path, &path).is_ok() {
                self.spares.push(Spare {
                    path,
                    file: segment.file,
                });
                return;
            }
        }
        self.discard(&segment.path);
    }

    /// Takes over a spare that an earlier process left, so that a full disk leaves us room to begin; or
    /// removes it.
    pub(super) fn adopt(&mut self, path: PathBuf) {
        if !self.has_spares()
            && let Ok(file) = self.disk.open(&path, OpenHow::Write)
        {
            // Its last sync may have failed. Then even its length is not on the medium, and will not be
            // unless it changes.
            let sized = file
                .set_len(self.segment_bytes - BLOCK_BYTES)
                .and_then(|()| size(&*file, self.segment_bytes));
            if sized.is_ok() {
                self.spares.push(Spare { path, file });
                return;
            }
        }
        self.discard(&path);
    }

    /// Removes a file that nobody needs. If it stays, a segment is below all that are needed, and a spare
    /// is overwritten or taken over.
    pub(super) fn discard(&self, path: &Path) {
        let _ = self.disk.remove(path);
    }

    pub(super) fn has_spares(&self) -> bool {
        self.spares.len() >= self.reserve
    }

    /// Sees to it that all spares are there.
    pub(super) fn make_spares(&mut self) -> io::Result<()> {
        while !self.has_spares() {
            let spare = self.make_spare()?;
            self.spares.push(spare);
        }
        Ok(())
    }

    fn make_spare(&self) -> io::Result<Spare> {
        let path = self.free_spare_path();
        let file = self.disk.open(&path, OpenHow::Create)?;
        if let Err(error) = size(&*file, self.segment_bytes) {
            drop(file);
            // What room it got is wanted elsewhere; if it stays, the next one made takes it over.
            let _ = self.disk.remove(&path);
            return Err(error);
        }
        Ok(Spare { path, file })
    }

    fn free_spare_path(&self) -> PathBuf {
        let mut paths =
            (0..=self.spares.len()).map(|n| self.directory.join(format!("{SPARE_PREFIX}{n}")));
        paths
            .find(|path| self.spares.iter().all(|spare| spare.path != *path))
            .expect("BUG: more paths than spares")
    }
}

/// Room for groups in a segment so long: its first block is the header, and the last is kept for the
/// mark that records what may be recycled, so that a full disk cannot stand in the way of that.
pub(super) fn room(segment_bytes: u64) -> u64 {
    segment_bytes.saturating_sub(2 * BLOCK_BYTES)
}

pub(super) fn segment_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:016x}{SEGMENT_SUFFIX}"))
}

/// The number in a segment's name.
pub(super) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SEGMENT_SUFFIX)?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    (format!("{number:016x}") == digits).then_some(number)
}

pub(super) fn is_spare(name: &str) -> bool {
    name.starts_with(SPARE_PREFIX)
}

/// Gives a file exactly this length, allocated as far as the file system can.
fn size(file: &dyn DiskFile, bytes: u64) -> io::Result<()> {
    file.allocate(bytes)?;
    if file.len()? != bytes {
        file.set_len(bytes)?;
    }
    Ok(())
}

/// Nothing was to be durable yet: whatever went wrong may be tried again.
fn full(source: io::Error) -> Trouble {
    Trouble::Full(Arc::new(source))
}
