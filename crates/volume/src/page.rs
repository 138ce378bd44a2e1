//! The page, and where one is found.

/// Bytes of a page; Postgres' block size.
pub const PAGE_BYTES: usize = 8192;

/// Bytes of the longest file, the limit `volume.file_bytes_max`. Postgres cuts its own at 1 GiB.
pub const FILE_BYTES_MAX: u64 = 1 << 40;

/// Slots a pages file can have: what 30 bits number, 8 TiB of pages.
pub(crate) const SLOTS_MAX: u32 = 1 << SLOT_BITS;

/// Page numbers of a file must fit u32.
const _: () = assert!(FILE_BYTES_MAX / PAGE_BYTES as u64 <= u32::MAX as u64);

/// A page of zeros; such pages are never stored.
pub(crate) static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

const SLOT_BITS: u32 = 30;
const TAG_TEMPLATE: u32 = 1;
const TAG_OWN: u32 = 2;

/// Where a page is and what its checksum must be, in 8 bytes: the low 30 bits are the slot, the next
/// two the tag (0 hole, 1 template, 2 own), the high 32 the page's crc32c. A hole is all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageRef(u64);

/// A [`PageRef`] taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nowhere: the page is zeros.
    Hole,
    /// A slot of the template's pages file.
    Template(u32),
    /// A slot of the volume's own pages file.
    Own(u32),
}

impl PageRef {
    pub(crate) const HOLE: Self = Self(0);

    pub(crate) fn template(slot: u32, crc: u32) -> Self {
        Self::pack(TAG_TEMPLATE, slot, crc)
    }

    pub(crate) fn own(slot: u32, crc: u32) -> Self {
        Self::pack(TAG_OWN, slot, crc)
    }

    fn pack(tag: u32, slot: u32, crc: u32) -> Self {
        assert!(
            slot < SLOTS_MAX,
            "BUG: slot {slot} does not fit a page reference"
        );
        Self(u64::from(crc) << 32 | u64::from(tag << SLOT_BITS | slot))
    }

    pub(crate) fn place(self) -> Place {
        let slot = self.0 as u32 & (SLOTS_MAX - 1);
        match self.0 as u32 >> SLOT_BITS {
            TAG_TEMPLATE => Place::Template(slot),
            TAG_OWN => Place::Own(slot),
            _ => Place::Hole,
        }
    }

    /// The crc32c of the page's 8192 bytes. Kept apart from the page, so that a page lost, misplaced
    /// or of another database does not pass for this one.
    pub(crate) fn crc(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(crate) fn is_hole(self) -> bool {
        self == Self::HOLE
    }

    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    /// The reference of these bits; `None` for a hole and for bits that `to_bits` never gives.
    pub(crate) fn from_bits(bits: u64) -> Option<Self> {
        matches!(bits as u32 >> SLOT_BITS, TAG_TEMPLATE | TAG_OWN).then_some(Self(bits))
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
        for (reference, place) in [
            (PageRef::template(0, 0), Place::Template(0)),
            (PageRef::own(0, u32::MAX), Place::Own(0)),
            (PageRef::own(SLOTS_MAX - 1, 7), Place::Own(SLOTS_MAX - 1)),
        ] {
            assert_eq!(reference.place(), place);
            assert_eq!(PageRef::from_bits(reference.to_bits()), Some(reference));
            assert!(!reference.is_hole());
        }
        assert_eq!(PageRef::HOLE.place(), Place::Hole);
        assert_eq!(PageRef::from_bits(0), None);
        assert_eq!(PageRef::from_bits(3 << 30), None);
    }

    #[test]
    fn spans_round_up() {
        assert_eq!([0, 1, 8192, 8193].map(pages_spanned), [0, 1, 1, 2]);
        assert_eq!(pages_spanned(FILE_BYTES_MAX), 1 << 27);
    }
}
