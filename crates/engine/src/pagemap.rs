//! Which pages of a memory are its own, and no longer those of the image mapped under it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::memory::{HOST_PAGE_BYTES, join};

/// Entries that are read at once.
const ENTRIES: usize = 8192;
const ENTRY_BYTES: usize = 8;
/// Bits of an entry of `/proc/self/pagemap`: the page is in memory, is swapped out, belongs to a
/// file or to shared memory.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const OF_FILE: u64 = 1 << 61;

/// The ranges of `memory`, a private mapping at a page's border, that hold pages of its own, in
/// order, neighbours joined. Every byte outside them is the mapped file's, or zero where there is
/// none.
///
/// # Errors
///
/// If `/proc/self/pagemap` cannot be read: then nothing is known.
pub(crate) fn own_pages(memory: &[u8]) -> io::Result<Vec<Range<usize>>> {
    let pagemap = File::open("/proc/self/pagemap")?;
    let first = memory.as_ptr().addr() / HOST_PAGE_BYTES;
    let count = memory.len().div_ceil(HOST_PAGE_BYTES);
    let mut entries = vec![0; ENTRIES.min(count) * ENTRY_BYTES];
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut page = 0;
    while page < count {
        let wanted = ENTRIES.min(count - page);
        let buffer = &mut entries[..wanted * ENTRY_BYTES];
        pagemap.read_exact_at(buffer, ((first + page) * ENTRY_BYTES) as u64)?;
        for entry in buffer.as_chunks::<ENTRY_BYTES>().0 {
            let entry = u64::from_le_bytes(*entry);
            if entry & (PRESENT | SWAPPED) != 0 && entry & OF_FILE == 0 {
                let start = page * HOST_PAGE_BYTES;
                let end = (start + HOST_PAGE_BYTES).min(memory.len());
                join(&mut ranges, start..end);
            }
            page += 1;
        }
    }
    Ok(ranges)
}
