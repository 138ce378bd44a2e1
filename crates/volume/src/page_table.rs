//! The page table of one file: page number to [`PageRef`], sparse.
//!
//! Invariants
//! 1. A page that is not in the table is a hole; a hole takes no memory, however far out a file is
//!    written. A table's memory is bounded by the pages it refers to.
//! 2. No chunk is all holes; so equal tables are equal chunk by chunk.
//! 3. A clone shares its chunks, and copies one only when it changes a page of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::page::PageRef;

/// Pages of one chunk: 512 KiB of file in 512 bytes of table.
const CHUNK_PAGES: u32 = 64;

type Chunk = [PageRef; CHUNK_PAGES as usize];

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PageTable {
    chunks: BTreeMap<u32, Arc<Chunk>>,
    /// Pages in it.
    count: u32,
}

impl PageTable {
    pub(crate) fn get(&self, page: u32) -> PageRef {
        match self.chunks.get(&(page / CHUNK_PAGES)) {
            Some(chunk) => chunk[(page % CHUNK_PAGES) as usize],
            None => PageRef::HOLE,
        }
    }

    pub(crate) fn set(&mut self, page: u32, reference: PageRef) {
        let (at, within) = (page / CHUNK_PAGES, (page % CHUNK_PAGES) as usize);
        self.count -= u32::from(!self.get(page).is_hole());
        self.count += u32::from(!reference.is_hole());
        if !reference.is_hole() {
            let chunk = self
                .chunks
                .entry(at)
                .or_insert_with(|| Arc::new(EMPTY_CHUNK));
            Arc::make_mut(chunk)[within] = reference;
        } else if let Some(chunk) = self.chunks.get_mut(&at) {
            Arc::make_mut(chunk)[within] = reference;
            if **chunk == EMPTY_CHUNK {
                self.chunks.remove(&at);
            }
        }
    }

    /// Makes holes of all pages from `page` on, and returns what they were.
    pub(crate) fn cut(&mut self, page: u32) -> Vec<PageRef> {
        let mut removed = Vec::new();
        let (first, within) = (page / CHUNK_PAGES, page % CHUNK_PAGES);
        for (at, chunk) in self.chunks.split_off(&first) {
            let kept = if at == first { within as usize } else { 0 };
            removed.extend(chunk[kept..].iter().copied().filter(|page| !page.is_hole()));
            if chunk[..kept].iter().any(|page| !page.is_hole()) {
                let mut rest = EMPTY_CHUNK;
                rest[..kept].copy_from_slice(&chunk[..kept]);
                self.chunks.insert(at, Arc::new(rest));
            }
        }
        self.count -= u32::try_from(removed.len()).expect("BUG: more pages than were counted");
        removed
    }

    /// How many pages are not holes.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The pages that are not holes, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, PageRef)> {
        self.iter_from(0)
    }

    /// Those from `page` on.
    pub(crate) fn iter_from(&self, page: u32) -> impl Iterator<Item = (u32, PageRef)> {
        let chunks = self.chunks.range(page / CHUNK_PAGES..);
        let pages = chunks.flat_map(|(at, chunk)| {
            let numbered = chunk.iter().enumerate();
            numbered
                .filter(|(_, reference)| !reference.is_hole())
                .map(move |(within, reference)| (at * CHUNK_PAGES + within as u32, *reference))
        });
        pages.skip_while(move |(at, _)| *at < page)
    }

    /// The table with every page where `moved` says. What `done` has at its first in the same chunk is
    /// taken from its second: the same table moved before.
    pub(crate) fn moved(
        &self,
        moved: &dyn Fn(PageRef) -> PageRef,
        done: Option<(&Self, &Self)>,
    ) -> Self {
        let chunk_of = |at: &u32, chunk: &Arc<Chunk>| {
            if let Some((before, after)) = done
                && let (Some(before), Some(after)) = (before.chunks.get(at), after.chunks.get(at))
                && Arc::ptr_eq(before, chunk)
            {
                return Arc::clone(after);
            }
            let new = chunk.map(|page| if page.is_hole() { page } else { moved(page) });
            match new == **chunk {
                true => Arc::clone(chunk),
                false => Arc::new(new),
            }
        };
        let chunks = self.chunks.iter();
        Self {
            chunks: chunks
                .map(|(at, chunk)| (*at, chunk_of(at, chunk)))
                .collect(),
            count: self.count,
        }
    }
}

const EMPTY_CHUNK: Chunk = [PageRef::HOLE; CHUNK_PAGES as usize];

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(table: &PageTable) -> Vec<u32> {
        table.iter().map(|(page, _)| page).collect()
    }

    #[test]
    fn holes_take_no_chunk() {
        let mut table = PageTable::default();
        table.set(1 << 26, PageRef::new(2, 1, 1));
        table.set(5, PageRef::HOLE);
        assert_eq!((table.chunks.len(), table.get(5)), (1, PageRef::HOLE));
        table.set(1 << 26, PageRef::HOLE);
        assert_eq!(table, PageTable::default());
    }

    #[test]
    fn cut_returns_what_was_beyond() {
        let mut table = PageTable::default();
        for page in [0, 3, 63, 64, 200] {
            table.set(page, PageRef::new(2, page, 0));
        }
        let before = table.clone();
        assert_eq!(table.cut(63).len(), 3);
        assert_eq!(pages(&table), [0, 3]);
        assert_eq!((table.count(), before.count()), (2, 5));
        assert_eq!(
            pages(&before),
            [0, 3, 63, 64, 200],
            "a clone is not disturbed"
        );
        assert_eq!(table.cut(0).len(), 2);
        assert_eq!(table, PageTable::default());
    }
}
