//! Which pages of an image's forks are most likely to be written.
//!
//! Learned from the pages that backends have of their own when they are saved. A spare gets these
//! pages before anybody waits for it.

use std::ops::Range;

use parking_lot::Mutex;

use crate::memory::{HOST_PAGE_BYTES, join};

/// A page is hot if one in so many backends had it.
const SHARE: u32 = 3;
/// Backends after which each counts half: what is learned follows what is done.
const BACKENDS_MAX: u32 = 100;
/// Most bytes of hot pages.
const HOT_BYTES_MAX: usize = 8 << 20;

/// How many backends had each page.
#[derive(Debug)]
pub(crate) struct HotPages(Mutex<Seen>);

#[derive(Debug)]
struct Seen {
    backends: u32,
    pages: Vec<u8>,
}

impl HotPages {
    /// For a memory of `bytes` bytes, of which nothing is known.
    pub(crate) fn new(bytes: usize) -> Self {
        let pages = vec![0; bytes.div_ceil(HOST_PAGE_BYTES)];
        Self(Mutex::new(Seen { backends: 0, pages }))
    }

    /// A backend had the pages that `own` lies in.
    pub(crate) fn saw(&self, own: &[Range<usize>]) {
        let mut seen = self.0.lock();
        if seen.backends >= BACKENDS_MAX {
            seen.backends /= 2;
            seen.pages.iter_mut().for_each(|count| *count /= 2);
        }
        seen.backends += 1;
        for range in own {
            let pages = range.start / HOST_PAGE_BYTES..range.end.div_ceil(HOST_PAGE_BYTES);
            let known = seen.pages.len();
            for count in &mut seen.pages[pages.start.min(known)..pages.end.min(known)] {
                *count = count.saturating_add(1);
            }
        }
    }

    /// The hot pages as ranges of bytes, in order, neighbours joined.
    pub(crate) fn ranges(&self) -> Vec<Range<usize>> {
        let seen = self.0.lock();
        let hot = |count: u8| count > 0 && u32::from(count) * SHARE >= seen.backends;
        let pages = seen.pages.iter().enumerate();
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for (page, _) in pages
            .filter(|(_, count)| hot(**count))
            .take(HOT_BYTES_MAX / HOST_PAGE_BYTES)
        {
            let start = page * HOST_PAGE_BYTES;
            join(&mut ranges, start..start + HOST_PAGE_BYTES);
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_many_are_hot() {
        const PAGE: usize = HOST_PAGE_BYTES;
        let hot = HotPages::new(10 * PAGE);
        let pages = || {
            let ranges = hot.ranges().into_iter();
            ranges
                .map(|range| (range.start / PAGE, range.end / PAGE))
                .collect::<Vec<_>>()
        };
        assert_eq!(pages(), []);
        hot.saw(&[PAGE..3 * PAGE, 9 * PAGE..12 * PAGE]);
        assert_eq!(pages(), [(1, 3), (9, 10)]);
        for _ in 0..3 {
            hot.saw(&[2 * PAGE..3 * PAGE, 3 * PAGE..4 * PAGE]);
        }
        assert_eq!(pages(), [(2, 4)]);
        // What was usual once is forgotten.
        for _ in 0..10 * BACKENDS_MAX {
            hot.saw(&[0..1, 20 * PAGE..30 * PAGE]);
        }
        assert_eq!(pages(), [(0, 1)]);
    }
}
