//! The pages of one volume: the template's, shared and read-only, and its own, in one file.
//!
//! Invariants
//! 1. The own pages file exists only once an own page was written; opening a volume costs no
//!    descriptor before that.
//! 2. A page of zeros is a hole and takes no slot.
//! 3. Only a fresh slot is overwritten ([`Slots`] says which); a new page is on its slot before any
//!    page table refers to it.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Result, VolumeError};
use crate::page::{PAGE_BYTES, PageRef, Place, SLOTS_MAX, ZEROS};
use crate::pages_file::PagesFile;
use crate::slots::Slots;
use crate::template::Template;

#[derive(Debug)]
pub(crate) struct Pages {
    pub(crate) template: Arc<Template>,
    pub(crate) own: Option<Arc<PagesFile>>,
    pub(crate) own_path: PathBuf,
    pub(crate) slots: Slots,
    pub(crate) bytes_max: u64,
    /// Set when a page that the tree refers to may hold anything: such a tree must not be flushed.
    pub(crate) torn: bool,
}

impl Pages {
    /// Reads one page whole. `page` is [`PAGE_BYTES`] long.
    pub(crate) fn read(&self, reference: PageRef, page: &mut [u8]) -> Result<()> {
        match reference.place() {
            Place::Hole => {
                page.fill(0);
                Ok(())
            }
            Place::Template(slot) => self.template.read_page(slot, reference.crc(), page),
            Place::Own(slot) => {
                let own = self
                    .own
                    .as_ref()
                    .expect("BUG: an own page without a pages file");
                own.read(slot, reference.crc(), page)
            }
        }
    }

    /// Stores `page` in the place of `old`, which is given up, and returns where it is now.
    pub(crate) fn replace(&mut self, old: PageRef, page: &[u8]) -> Result<PageRef> {
        if page == ZEROS {
            self.release(old);
            return Ok(PageRef::HOLE);
        }
        let crc = crc32c::crc32c(page);
        if let Place::Own(slot) = old.place()
            && self.slots.is_fresh(slot)
        {
            let own = self
                .own
                .as_ref()
                .expect("BUG: an own page without a pages file");
            own.write(slot, page).inspect_err(|_| self.torn = true)?;
            return Ok(PageRef::own(slot, crc));
        }
        let new = self.store(old, page, crc)?;
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

    /// No page table refers to `reference` any more.
    pub(crate) fn release(&mut self, reference: PageRef) {
        if let Place::Own(slot) = reference.place() {
            self.slots.release(slot);
        }
    }

    /// Bytes of the own pages that the tree refers to.
    pub(crate) fn own_bytes(&self) -> u64 {
        u64::from(self.slots.live()) * PAGE_BYTES as u64
    }

    fn store(&mut self, old: PageRef, page: &[u8], crc: u32) -> Result<PageRef> {
        // A page that is own already takes no more room in the end: it passes at the limit too.
        let grows = !matches!(old.place(), Place::Own(_));
        if grows && self.own_bytes() + PAGE_BYTES as u64 > self.bytes_max {
            return Err(VolumeError::NoSpace {
                limit: "volume.bytes_max",
                max: self.bytes_max,
            });
        }
        let own = match &self.own {
            Some(own) => Arc::clone(own),
            None => {
                let own = Arc::new(PagesFile::create(&self.own_path)?);
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
        Ok(PageRef::own(slot, crc))
    }
}
