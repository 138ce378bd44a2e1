//! The pages of one volume: those of its base, shared and read-only, and its own, in one file.
//!
//! Invariants
//! 1. The own pages file exists only once an own page was written; opening a volume costs no
//!    descriptor before that.
//! 2. A page of zeros is a hole and takes no slot.
//! 3. Only a fresh slot is overwritten ([`Slots`] says which); a new page is on its slot before any
//!    page table refers to it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use store::Disk;

use crate::base::Base;
use crate::error::{Result, VolumeError};
use crate::page::{PAGE_BYTES, PageRef, SLOTS_MAX, ZEROS};
use crate::pages_file::PagesFile;
use crate::slots::Slots;

#[derive(Debug)]
pub(crate) struct Pages {
    pub(crate) base: Arc<Base>,
    pub(crate) own: Option<Arc<PagesFile>>,
    pub(crate) own_path: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) slots: Slots,
    /// Of each layer, the lowest first, the pages that the tree refers to.
    pub(crate) layered: Vec<u64>,
    /// The file may be longer than its slots: a crash left pages that are in no version.
    pub(crate) leftover: bool,
    /// Why the last write stopped before its end, until somebody takes it.
    pub(crate) cut_short: Option<VolumeError>,
    /// Set when a page that the tree refers to may hold anything: such a tree must not be flushed.
    pub(crate) torn: bool,
}

impl Pages {
    /// The depth of own pages.
    pub(crate) fn own_depth(&self) -> u8 {
        self.base.depth() + 1
    }

    fn own(&self) -> &Arc<PagesFile> {
        self.own
            .as_ref()
            .expect("BUG: an own page without a pages file")
    }

    /// Reads one page whole. `page` is [`PAGE_BYTES`] long.
    pub(crate) fn read(&self, reference: PageRef, page: &mut [u8]) -> Result<()> {
        match reference.depth() {
            0 => {
                page.fill(0);
                Ok(())
            }
            depth if depth == self.own_depth() => {
                self.own().read(reference.slot(), reference.crc(), page)
            }
            _ => self.base.read(reference, page),
        }
    }

    /// Stores `page` in the place of `old`, which is given up, and returns where it is now.
    pub(crate) fn replace(&mut self, old: PageRef, page: &[u8]) -> Result<PageRef> {
        if page == ZEROS {
            self.release(old);
            return Ok(PageRef::HOLE);
        }
        let crc = crc32c::crc32c(page);
        if old.depth() == self.own_depth() && self.slots.is_fresh(old.slot()) {
            let own = Arc::clone(self.own());
            own.write(old.slot(), page)
                .inspect_err(|_| self.torn = true)?;
            return Ok(PageRef::new(old.depth(), old.slot(), crc));
        }
        let new = self.store(page, crc)?;
        self.release(old);
        Ok(new)
    }

    /// As [`Pages::replace`], with `piece` put at `within` of the page that `old` refers to.
    pub(crate) fn patch(&mut self, old: PageRef, within: usize, piece: &[u8]) -> Result<PageRef> {
        let mut page = [0; PAGE_BYTES];
        self.read(old, &mut page)?;
        page[within..within + piece.len()].copy_from_slice(piece);
        self.replace(old, &page)
    }

    /// Stores a page of a layer, which is given up, as an own one.
    pub(crate) fn copy_in(&mut self, old: PageRef, page: &[u8]) -> Result<PageRef> {
        let new = self.store(page, old.crc())?;
        self.release(old);
        Ok(new)
    }

    /// Removes what a crash before this opening left: it is in no version.
    pub(crate) fn cut_leftover(&mut self) -> Result<()> {
        if !self.leftover {
            return Ok(());
        }
        match &self.own {
            Some(own) => own.cut(self.slots.count())?,
            None => match self.disk.remove(&self.own_path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(VolumeError::io("remove", &self.own_path, source));
                }
                _ => {}
            },
        }
        self.leftover = false;
        Ok(())
    }

    /// No page table refers to `reference` any more.
    pub(crate) fn release(&mut self, reference: PageRef) {
        if reference.depth() == self.own_depth() {
            self.slots.release(reference.slot());
        } else if let Some(layer) = reference.layer() {
            self.layered[layer] -= 1;
        }
    }

    /// Pages that the tree refers to and that are not the template's.
    pub(crate) fn own_pages(&self) -> u64 {
        u64::from(self.slots.live()) + self.layered.iter().sum::<u64>()
    }

    fn store(&mut self, page: &[u8], crc: u32) -> Result<PageRef> {
        let own = match &self.own {
            Some(own) => Arc::clone(own),
            None => {
                let own = Arc::new(PagesFile::create(&self.disk, &self.own_path)?);
                Arc::clone(self.own.insert(own))
            }
        };
        let max = u64::from(SLOTS_MAX);
        let full = VolumeError::NoSpace {
            limit: "volume.slots_max",
            max,
        };
        let slot = self.slots.take().ok_or(full)?;
        own.write(slot, page)
            .inspect_err(|_| self.slots.release(slot))?;
        Ok(PageRef::new(self.own_depth(), slot, crc))
    }
}
