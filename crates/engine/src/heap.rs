//! The guest's heap (dlmalloc's, of Emscripten's C library), walked from outside.
//!
//! From `__heap_base` to the end of what `sbrk` gave lies one chunk after another, each with its
//! length and with two flags: whether it is in use, and whether the one before it is. So the whole
//! walk can be checked, and what does not fit at one place is trusted at none.

use std::collections::HashMap;
use std::ops::Range;

use crate::host::read_u32;

/// Flags in a chunk's length.
const BEFORE_IN_USE: usize = 1;
const IN_USE: usize = 2;
const FLAGS: usize = 7;
/// Bytes at the start of a free chunk that link it to others.
const LINKS_BYTES: usize = 32;
const ALIGN: usize = 8;
const FIRST_ALIGN: usize = 16;
/// Bytes after the last chunk, the "top", which is always free; they are written as its length.
const FOOT_BYTES: usize = 40;

/// The insides of free chunks, in order: `malloc` has given them to nobody. Empty if the heap is
/// not as expected.
pub(crate) fn free(memory: &[u8], symbols: &HashMap<String, u32>) -> Vec<Range<usize>> {
    let Some(base) = symbols.get("__heap_base") else {
        return Vec::new();
    };
    let start = (*base as usize).next_multiple_of(FIRST_ALIGN);
    walk(memory, start).unwrap_or_else(|at| {
        tracing::debug!(at, "the heap is not as expected");
        Vec::new()
    })
}

/// `Err` has the place where it does not fit.
fn walk(memory: &[u8], start: usize) -> Result<Vec<Range<usize>>, usize> {
    let mut free = Vec::new();
    let mut at = start;
    let mut before_in_use = true;
    loop {
        let head = read_u32(memory, at as u32 + 4) as usize;
        let len = head & !FLAGS;
        let end = at + len;
        if len < 2 * ALIGN || end + ALIGN > memory.len() {
            return Err(at);
        }
        if (head & BEFORE_IN_USE != 0) != before_in_use {
            return Err(at);
        }
        before_in_use = head & IN_USE != 0;
        if !before_in_use {
            if at + LINKS_BYTES < end {
                free.push(at + LINKS_BYTES..end);
            }
            // A free chunk's length is repeated after it; but after the top stands the foot's.
            let next = read_u32(memory, end as u32 + 4) as usize;
            if next == FOOT_BYTES {
                return Ok(free);
            }
            if read_u32(memory, end as u32) as usize != len {
                return Err(at);
            }
        }
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chunks of these lengths from 64, in use or not; the last is the top.
    fn heap(chunks: &[(usize, bool)]) -> Vec<u8> {
        let mut memory = vec![0; 4096];
        let mut at = 64;
        let mut before = (0, true);
        let mut put = |at: usize, value: usize| {
            memory[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
        };
        for (len, used) in chunks {
            let (before_len, before_used) = before;
            if !before_used {
                put(at, before_len);
            }
            let flags = usize::from(*used) * IN_USE + usize::from(before_used);
            put(at + 4, len + flags);
            before = (*len, *used);
            at += len;
        }
        put(at + 4, FOOT_BYTES);
        memory
    }

    #[test]
    fn the_insides_of_free_chunks_are_found() {
        let memory = heap(&[
            (32, true),
            (128, false),
            (64, true),
            (16, false),
            (24, true),
            (512, false),
        ]);
        let symbols = [("__heap_base".to_owned(), 50)].into();
        assert_eq!(free(&memory, &symbols), [128..224, 360..840]);
    }

    #[test]
    fn a_heap_that_does_not_fit_has_nothing_free() {
        let chunks = [(32, true), (128, false), (64, true), (512, false)];
        let symbols = [("__heap_base".to_owned(), 64)].into();
        for (at, byte) in [
            (100, 0),
            (100, 131),
            (224, 120),
            (228, 67),
            (292, 0),
            (294, 255),
        ] {
            let mut memory = heap(&chunks);
            assert_eq!(free(&memory, &symbols).len(), 2);
            memory[at] = byte;
            assert_eq!(free(&memory, &symbols), [], "{at}");
        }
        assert_eq!(free(&[0; 64], &symbols), []);
        assert_eq!(free(&heap(&chunks), &HashMap::new()), []);
    }
}
