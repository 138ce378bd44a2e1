//! Pages with a known content, and the batches they are written in.

/// Bytes of a page.
pub(crate) const PAGE_BYTES: usize = volume::PAGE_BYTES;

/// The bytes of one page.
pub(crate) type Page = [u8; PAGE_BYTES];

/// Pages of one database that are to be written together: all of them or none.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    numbers: Vec<u32>,
    bytes: Vec<u8>,
}

impl Batch {
    /// The pages `numbers`, filled as [`fill`] does.
    pub(crate) fn filled(database: u64, numbers: Vec<u32>, sequence: u64) -> Self {
        let mut bytes = vec![0; numbers.len() * PAGE_BYTES];
        for (number, page) in numbers.iter().zip(bytes.chunks_exact_mut(PAGE_BYTES)) {
            fill(database, *number, sequence, page);
        }
        Self { numbers, bytes }
    }

    /// How many pages.
    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Page numbers and bytes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.numbers
            .iter()
            .copied()
            .zip(self.bytes.chunks_exact(PAGE_BYTES))
    }
}

/// Makes a page that names its database, its number and the write it comes from, and whose other
/// bytes follow from these: any foreign or damaged byte shows. It cannot be compressed.
pub(crate) fn fill(database: u64, number: u32, sequence: u64, page: &mut [u8]) {
    let name = [database, u64::from(number), sequence];
    let mut random = Random::new(
        database.rotate_left(48) ^ u64::from(number).rotate_left(24) ^ sequence.rotate_left(8),
    );
    let rest = std::iter::repeat_with(|| random.next());
    for (word, value) in page.chunks_exact_mut(8).zip(name.into_iter().chain(rest)) {
        word.copy_from_slice(&value.to_le_bytes());
    }
}

/// What is wrong with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damaged;

/// Which write a page of this place comes from: `None` if it is all zeros, as before the first.
pub(crate) fn sequence_of(
    database: u64,
    number: u32,
    page: &Page,
) -> std::result::Result<Option<u64>, Damaged> {
    let mut word = [0; 8];
    word.copy_from_slice(&page[16..24]);
    let sequence = u64::from_le_bytes(word);
    let mut expected = [0; PAGE_BYTES];
    if *page == expected {
        return Ok(None);
    }
    fill(database, number, sequence, &mut expected);
    if *page == expected {
        Ok(Some(sequence))
    } else {
        Err(Damaged)
    }
}

/// A small generator of numbers (SplitMix64): the same seed gives the same run.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not zero.
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        (self.next() % u64::from(end)) as u32
    }

    /// `count` different numbers below `end`, ascending; all of them if there are not more.
    pub(crate) fn distinct(&mut self, count: usize, end: u32) -> Vec<u32> {
        let mut chosen = std::collections::BTreeSet::new();
        while chosen.len() < count.min(end as usize) {
            chosen.insert(self.below(end));
        }
        chosen.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_tells_its_write_and_any_flip_shows() {
        let mut page = [0; PAGE_BYTES];
        assert_eq!(sequence_of(3, 7, &page), Ok(None));
        fill(3, 7, 11, &mut page);
        assert_eq!(sequence_of(3, 7, &page), Ok(Some(11)));
        assert_eq!(sequence_of(4, 7, &page), Err(Damaged));
        assert_eq!(sequence_of(3, 8, &page), Err(Damaged));
        for at in [0, 8, 16, 24, PAGE_BYTES - 1] {
            let mut flipped = page;
            flipped[at] ^= 1;
            assert_eq!(sequence_of(3, 7, &flipped), Err(Damaged), "byte {at}");
        }
    }

    #[test]
    fn distinct_numbers_are_distinct_and_enough() {
        let mut random = Random::new(1);
        assert_eq!(random.distinct(100, 5), [0, 1, 2, 3, 4]);
        assert_eq!(random.distinct(50, 64).len(), 50);
    }
}
