//! Postgres' hash tables (`dynahash.c`), read from outside.

use crate::host::read_u32;

/// Offsets in `HTAB`.
const HEADER: u32 = 0;
const DIRECTORY: u32 = 4;
/// Offsets in `HASHHDR`, behind 32 lists of free entries of 12 bytes each.
const SEGMENTS: u32 = 388;
const BUCKET_MAX: u32 = 392;
const SEGMENT_SHIFT: u32 = 424;
/// Where an entry is in its element, behind the link and the hash.
const ENTRY: u32 = 8;

/// More entries than a session has: a table that claims them is not one.
const ENTRIES_MAX: usize = 1 << 20;

/// Addresses of the entries of the table to which the word at `pointer` points; none if it is null.
pub(crate) fn entries(memory: &[u8], pointer: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let table = read_u32(memory, pointer);
    if table == 0 {
        return found;
    }
    let header = read_u32(memory, table + HEADER);
    let directory = read_u32(memory, table + DIRECTORY);
    let shift = read_u32(memory, header + SEGMENT_SHIFT).min(31);
    let segments = read_u32(memory, header + SEGMENTS);
    let last = read_u32(memory, header + BUCKET_MAX);
    for bucket in 0..=last {
        let segment = bucket >> shift;
        if segment >= segments || found.len() > ENTRIES_MAX {
            break;
        }
        let segment = read_u32(memory, directory + 4 * segment);
        let mut element = read_u32(memory, segment + 4 * (bucket & ((1 << shift) - 1)));
        while element != 0 && found.len() <= ENTRIES_MAX {
            found.push(element + ENTRY);
            element = read_u32(memory, element);
        }
    }
    found
}
