//! The page, and where one is found.

/// Bytes of a page; Postgres' block size.
pub const PAGE_BYTES: usize = 8192;

/// Bytes of the longest file, the limit `volume.file_bytes_max`. Postgres cuts its own at 1 GiB.
pub const FILE_BYTES_MAX: u64 = 1 << 40;

/// Slots a pages file can have: what 26 bits number, 512 GiB of pages.
pub(crate) const SLOTS_MAX: u32 = 1 << SLOT_BITS;

/// Depth of the template's pages in every chain of pages files; the layers follow, then the own file.
pub(crate) const TEMPLATE_DEPTH: u8 = 1;

/// Greatest depth that a page reference can name.
pub(crate) const DEPTH_MAX: u8 = u8::MAX >> 2;

/// Page numbers of a file must fit u32.
const _: () = assert!(FILE_BYTES_MAX / PAGE_BYTES as u64 <= u32::MAX as u64);

/// A page of zeros; such pages are never stored.
pub(crate) static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

const SLOT_BITS: u32 = 26;

/// Where a page is and what its checksum must be, in 8 bytes: the low 26 bits are the slot, the next
/// six the depth of its pages file (0 hole, 1 template, then layers, then own), the high 32 the page's
/// crc32c. A hole is all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageRef(u64);

impl PageRef {
    pub(crate) const HOLE: Self = Self(0);

    pub(crate) fn new(depth: u8, slot: u32, crc: u32) -> Self {
        assert!(
            slot < SLOTS_MAX && (TEMPLATE_DEPTH..=DEPTH_MAX).contains(&depth),
            "BUG: slot {slot} at depth {depth} does not fit a page reference"
        );
        Self(u64::from(crc) << 32 | u64::from(u32::from(depth) << SLOT_BITS | slot))
    }

    /// The depth of the pages file that it is in; 0 for a hole.
    pub(crate) fn depth(self) -> u8 {
        (self.0 as u32 >> SLOT_BITS) as u8
    }

    /// Its slot of that file.
    pub(crate) fn slot(self) -> u32 {
        self.0 as u32 & (SLOTS_MAX - 1)
    }

    /// The crc32c of the page's 8192 bytes. Kept apart from the page, so that a page lost, misplaced
    /// or of another database does not pass for this one.
    pub(crate) fn crc(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The same slot of the file at another depth.
    pub(crate) fn at_depth(self, depth: u8) -> Self {
        Self::new(depth, self.slot(), self.crc())
    }

    /// The layer that it is in, counted from the lowest, 0; one more than all layers for an own page.
    /// `None` for the template's and for holes.
    pub(crate) fn layer(self) -> Option<usize> {
        usize::from(self.depth()).checked_sub(usize::from(TEMPLATE_DEPTH) + 1)
    }

    pub(crate) fn is_hole(self) -> bool {
        self == Self::HOLE
    }

    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    /// The reference of these bits; `None` for a hole and for bits that `to_bits` never gives.
    pub(crate) fn from_bits(bits: u64) -> Option<Self> {
        (Self(bits).depth() != 0).then_some(Self(bits))
    }
}

/// Pages that a file of `len` bytes spans, the last one perhaps in part. `len` <= [`FILE_BYTES_MAX`].
pub(crate) fn pages_spanned(len: u64) -> u32 {
    u32::try_from(len.div_ceil(PAGE_BYTES as u64)).expect("BUG: a file beyond FILE_BYTES_MAX")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_survive_their_bits() {
        for (depth, slot, crc) in [(1, 0, 0), (2, 0, u32::MAX), (DEPTH_MAX, SLOTS_MAX - 1, 7)] {
            let reference = PageRef::new(depth, slot, crc);
            assert_eq!(
                (reference.depth(), reference.slot(), reference.crc()),
                (depth, slot, crc)
            );
            assert_eq!(PageRef::from_bits(reference.to_bits()), Some(reference));
            assert!(!reference.is_hole());
        }
        assert_eq!(PageRef::HOLE.depth(), 0);
        assert_eq!(PageRef::from_bits(0), None);
        assert_eq!(PageRef::from_bits(3), None);
    }

    #[test]
    fn spans_round_up() {
        assert_eq!([0, 1, 8192, 8193].map(pages_spanned), [0, 1, 1, 2]);
        assert_eq!(pages_spanned(FILE_BYTES_MAX), 1 << 27);
    }
}
