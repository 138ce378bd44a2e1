//! Postgres' shared buffers, as the host sees them in the memory of an idle backend.
//!
//! A block counts only while its descriptor says that it is valid: Postgres reads or zeroes the
//! whole block before it says so. What is in the others is nobody's.

use std::collections::HashMap;
use std::ops::Range;

use crate::host::read_u32;

/// Bytes of a buffer, and of its descriptor, which is padded to a cache line.
pub(crate) const BLOCK_BYTES: usize = 8192;
const DESCRIPTOR_BYTES: usize = 64;
/// Places in a descriptor: the buffer's number, and its state.
const NUMBER: usize = 20;
const STATE: usize = 24;
/// Bits of the state: how often it is pinned, and flags.
const PINS: u32 = (1 << 18) - 1;
const LOCKED: u32 = 1 << 22;
const DIRTY: u32 = 1 << 23;
const VALID: u32 = 1 << 24;
const READING: u32 = 1 << 26;

/// The buffers of one memory.
pub(crate) struct Buffers<'a> {
    memory: &'a [u8],
    blocks: usize,
    descriptors: usize,
    count: usize,
}

impl<'a> Buffers<'a> {
    /// Finds them by the module's exported `symbols`. If anything there is not as this build of
    /// Postgres has it, there are none.
    pub(crate) fn of(memory: &'a [u8], symbols: &HashMap<String, u32>) -> Self {
        let variable = |name: &str| {
            let address = symbols.get(name).copied().unwrap_or_default();
            read_u32(memory, address) as usize
        };
        let mut buffers = Self {
            memory,
            blocks: variable("BufferBlocks"),
            descriptors: variable("BufferDescriptors"),
            count: variable("NBuffers"),
        };
        let inside = |start: usize, each: usize| {
            let end = buffers.count.checked_mul(each)?.checked_add(start)?;
            (start != 0 && end <= memory.len()).then_some(())
        };
        let found = inside(buffers.blocks, BLOCK_BYTES)
            .and_then(|()| inside(buffers.descriptors, DESCRIPTOR_BYTES));
        let numbered = |index| buffers.field(index, NUMBER) as usize == index;
        if found.is_none() || !(0..buffers.count).all(numbered) {
            tracing::debug!("the buffers are not where they were expected");
            buffers.count = 0;
        }
        buffers
    }

    fn field(&self, index: usize, place: usize) -> u32 {
        let at = self.descriptors + index * DESCRIPTOR_BYTES + place;
        read_u32(self.memory, at as u32)
    }

    fn block(&self, index: usize) -> Range<usize> {
        let start = self.blocks + index * BLOCK_BYTES;
        start..start + BLOCK_BYTES
    }

    /// Blocks that hold nothing.
    pub(crate) fn empty(&self) -> impl Iterator<Item = Range<usize>> {
        let empty = |index: &usize| {
            let state = self.field(*index, STATE);
            state & (PINS | LOCKED | VALID | READING) == 0
        };
        (0..self.count).filter(empty).map(|index| self.block(index))
    }

    /// The numbers, from 0, and the blocks of buffers that hold what the data files hold too, and
    /// that nobody uses.
    pub(crate) fn clean(&self) -> impl Iterator<Item = (u32, Range<usize>)> {
        let clean = |index: &usize| {
            let state = self.field(*index, STATE);
            state & (PINS | LOCKED | DIRTY | VALID | READING) == VALID
        };
        (0..self.count)
            .filter(clean)
            .map(|index| (index as u32, self.block(index)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two buffers at 16384, their descriptors at 64, the variables at 8.
    fn memory() -> (Vec<u8>, HashMap<String, u32>) {
        let mut memory = vec![0; 32_768];
        let mut put = |at: usize, value: u32| {
            memory[at..at + 4].copy_from_slice(&value.to_le_bytes());
        };
        put(8, 16_384);
        put(12, 64);
        put(16, 2);
        put(64 + NUMBER, 0);
        put(128 + NUMBER, 1);
        let symbols = [
            ("BufferBlocks", 8),
            ("BufferDescriptors", 12),
            ("NBuffers", 16),
        ];
        let symbols = symbols.map(|(name, at)| (name.to_owned(), at)).into();
        (memory, symbols)
    }

    fn set_state(memory: &mut [u8], index: usize, state: u32) {
        let at = 64 + index * DESCRIPTOR_BYTES + STATE;
        memory[at..at + 4].copy_from_slice(&state.to_le_bytes());
    }

    #[test]
    fn a_block_is_empty_clean_or_neither() {
        let (mut memory, symbols) = memory();
        let seen = |memory: &[u8]| {
            let buffers = Buffers::of(memory, &symbols);
            let clean: Vec<u32> = buffers.clean().map(|(number, _)| number).collect();
            let empty: Vec<usize> = buffers.empty().map(|block| block.start).collect();
            (clean, empty)
        };
        assert_eq!(seen(&memory), (vec![], vec![16_384, 24_576]));
        set_state(&mut memory, 0, VALID);
        assert_eq!(seen(&memory), (vec![0], vec![24_576]));
        set_state(&mut memory, 0, VALID | DIRTY);
        set_state(&mut memory, 1, 1);
        assert_eq!(seen(&memory), (vec![], vec![]));
        set_state(&mut memory, 0, VALID | 3);
        set_state(&mut memory, 1, READING);
        assert_eq!(seen(&memory), (vec![], vec![]));
    }

    #[test]
    fn what_looks_otherwise_is_left_alone() {
        let (mut memory, symbols) = memory();
        memory[128 + NUMBER] = 7;
        assert_eq!(Buffers::of(&memory, &symbols).empty().count(), 0);
        memory[128 + NUMBER] = 1;
        memory[16] = 3;
        assert_eq!(Buffers::of(&memory, &symbols).empty().count(), 0);
        assert_eq!(Buffers::of(&memory, &HashMap::new()).empty().count(), 0);
    }
}
