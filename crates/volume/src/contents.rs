//! The contents of one file: a length and a page table, read and written at any offset.
//!
//! Invariants
//! 1. No page of the table lies wholly beyond the length.
//! 2. Bytes of the last page beyond the length are zero: a file that grows shows zeros.

use crate::error::{Result, VolumeError};
use crate::page::{FILE_BYTES_MAX, PAGE_BYTES, PageRef, ZEROS, pages_spanned};
use crate::page_table::PageTable;
use crate::pages::Pages;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Contents {
    len: u64,
    table: PageTable,
}

impl Contents {
    /// The contents that a manifest names; `None` when that breaks (1) or a limit.
    pub(crate) fn from_parts(len: u64, table: PageTable) -> Option<Self> {
        let last = table.iter().last().map(|(page, _)| page);
        let fits = len <= FILE_BYTES_MAX && last.is_none_or(|last| last < pages_spanned(len));
        fits.then_some(Self { len, table })
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn table(&self) -> &PageTable {
        &self.table
    }

    /// The same contents with every page where `moved` says; `done` as in [`PageTable::moved`].
    pub(crate) fn moved(
        &self,
        moved: &dyn Fn(PageRef) -> PageRef,
        done: Option<(&Self, &Self)>,
    ) -> Self {
        let done = done.map(|(before, after)| (&before.table, &after.table));
        Self {
            len: self.len,
            table: self.table.moved(moved, done),
        }
    }

    /// Puts a page elsewhere; its bytes are the same.
    pub(crate) fn put(&mut self, page: u32, reference: PageRef) {
        self.table.set(page, reference);
    }

    /// Pages that it spans and that are holes.
    pub(crate) fn holes(&self) -> u64 {
        u64::from(pages_spanned(self.len) - self.table.count())
    }

    /// Whether the page at byte `page * 8192` is a hole.
    pub(crate) fn is_hole(&self, page: u64) -> bool {
        u32::try_from(page).is_ok_and(|page| self.table.get(page).is_hole())
    }

    /// Fills `buffer` from `offset` on, up to the end of the file; returns the bytes read.
    pub(crate) fn read(&self, pages: &Pages, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let left = self.len.saturating_sub(offset);
        let wanted = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut done = 0;
        while done < wanted {
            let (page, within) = position(offset + done as u64);
            let bytes = (PAGE_BYTES - within).min(wanted - done);
            let piece = &mut buffer[done..done + bytes];
            let reference = self.table.get(page);
            if bytes == PAGE_BYTES {
                pages.read(reference, piece)?;
            } else {
                read_part(pages, reference, within, piece)?;
            }
            done += bytes;
        }
        Ok(done)
    }

    /// Writes `data` at `offset`; returns the bytes written, fewer than all when a later page failed.
    /// On an error nothing has changed.
    pub(crate) fn write(&mut self, pages: &mut Pages, offset: u64, data: &[u8]) -> Result<usize> {
        let end = offset.checked_add(data.len() as u64);
        if end.is_none_or(|end| end > FILE_BYTES_MAX) {
            return Err(file_too_long());
        }
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let (page, within) = position(at);
            let bytes = (PAGE_BYTES - within).min(data.len() - done);
            let piece = &data[done..done + bytes];
            let old = self.table.get(page);
            let new = if bytes == PAGE_BYTES {
                pages.replace(old, piece)
            } else {
                pages.patch(old, within, piece)
            };
            match new {
                Ok(new) if new == old => {}
                Ok(new) => self.table.set(page, new),
                Err(error) if done == 0 => return Err(error),
                Err(error) => {
                    pages.cut_short = Some(error);
                    break;
                }
            }
            done += bytes;
            self.len = self.len.max(at + bytes as u64);
        }
        Ok(done)
    }

    /// Cuts the file, or lets it grow by zeros. On an error nothing has changed.
    pub(crate) fn set_len(&mut self, pages: &mut Pages, len: u64) -> Result<()> {
        if len > FILE_BYTES_MAX {
            return Err(file_too_long());
        }
        if len < self.len {
            let (last, kept) = position(len);
            let old = self.table.get(last);
            if kept > 0 && !old.is_hole() {
                let new = pages.patch(old, kept, &ZEROS[kept..])?;
                self.table.set(last, new);
            }
            for cut in self.table.cut(pages_spanned(len)) {
                pages.release(cut);
            }
        }
        self.len = len;
        Ok(())
    }
}

/// Page number and offset within it of a byte below [`FILE_BYTES_MAX`].
fn position(offset: u64) -> (u32, usize) {
    let page = pages_spanned(offset - offset % PAGE_BYTES as u64);
    (page, (offset % PAGE_BYTES as u64) as usize)
}

fn read_part(pages: &Pages, reference: PageRef, within: usize, piece: &mut [u8]) -> Result<()> {
    let mut page = [0; PAGE_BYTES];
    pages.read(reference, &mut page)?;
    piece.copy_from_slice(&page[within..within + piece.len()]);
    Ok(())
}

fn file_too_long() -> VolumeError {
    VolumeError::NoSpace {
        limit: "volume.file_bytes_max",
        max: FILE_BYTES_MAX,
    }
}
