//! The bytes of a file, kept sparsely: what was never written reads as zeros and takes no memory.

use std::collections::BTreeMap;

/// What a disk writes whole or not at all, bytes.
pub(crate) const SECTOR_BYTES: u64 = 512;
/// What a file system gives room by, bytes.
pub(crate) const BLOCK_BYTES: u64 = 4096;
const SECTORS_A_BLOCK: u64 = BLOCK_BYTES / SECTOR_BYTES;

/// One sector's bytes.
pub(crate) type Sector = [u8; SECTOR_BYTES as usize];

/// Blocks by number; one that is missing is all zeros.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    blocks: BTreeMap<u64, Box<[u8; BLOCK_BYTES as usize]>>,
}

impl Content {
    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) {
        for piece in pieces(offset, buffer.len()) {
            let target = &mut buffer[piece.from..piece.from + piece.len];
            match self.blocks.get(&piece.block) {
                Some(block) => target.copy_from_slice(&block[piece.at..piece.at + piece.len]),
                None => target.fill(0),
            }
        }
    }

    pub(crate) fn write(&mut self, data: &[u8], offset: u64) {
        for piece in pieces(offset, data.len()) {
            let block = self.blocks.entry(piece.block);
            let block = block.or_insert_with(|| Box::new([0; BLOCK_BYTES as usize]));
            block[piece.at..piece.at + piece.len]
                .copy_from_slice(&data[piece.from..piece.from + piece.len]);
        }
    }

    pub(crate) fn sector(&self, number: u64) -> Sector {
        let mut sector = [0; SECTOR_BYTES as usize];
        self.read(&mut sector, number * SECTOR_BYTES);
        sector
    }

    pub(crate) fn set_sector(&mut self, number: u64, sector: &Sector) {
        let known = self.blocks.contains_key(&(number / SECTORS_A_BLOCK));
        if known || sector.iter().any(|&byte| byte != 0) {
            self.write(sector, number * SECTOR_BYTES);
        }
    }

    /// The sectors of a range of bytes that may hold something other than zeros, ascending.
    pub(crate) fn sectors_in(&self, from: u64, to: u64) -> Vec<u64> {
        if from >= to {
            return Vec::new();
        }
        let (first, last) = (from / SECTOR_BYTES, (to - 1) / SECTOR_BYTES);
        self.blocks
            .range(first / SECTORS_A_BLOCK..=last / SECTORS_A_BLOCK)
            .flat_map(|(block, _)| block * SECTORS_A_BLOCK..(block + 1) * SECTORS_A_BLOCK)
            .filter(|sector| (first..=last).contains(sector))
            .collect()
    }

    /// Makes a range of bytes zeros.
    pub(crate) fn zero(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        let touched: Vec<u64> = self
            .blocks
            .range(from / BLOCK_BYTES..=(to - 1) / BLOCK_BYTES)
            .map(|(&block, _)| block)
            .collect();
        for number in touched {
            let start = number * BLOCK_BYTES;
            let low = from.max(start) - start;
            let high = to.min(start + BLOCK_BYTES) - start;
            if high - low == BLOCK_BYTES {
                self.blocks.remove(&number);
            } else if let Some(block) = self.blocks.get_mut(&number) {
                block[low as usize..high as usize].fill(0);
            }
        }
    }

    /// The numbers of the blocks that may hold something other than zeros.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = u64> {
        self.blocks.keys().copied()
    }
}

/// The part of a buffer that falls into one block.
struct Piece {
    block: u64,
    /// Where in the block.
    at: usize,
    /// Where in the buffer.
    from: usize,
    len: usize,
}

fn pieces(offset: u64, len: usize) -> impl Iterator<Item = Piece> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let position = offset + from as u64;
        let at = (position % BLOCK_BYTES) as usize;
        let piece = Piece {
            block: position / BLOCK_BYTES,
            at,
            from,
            len: (BLOCK_BYTES as usize - at).min(len - from),
        };
        from += piece.len;
        (piece.len > 0).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn it_holds_what_a_plain_buffer_holds() {
        let mut random = Random::new(3);
        let (mut content, mut plain) = (Content::default(), vec![0; 20_000]);
        for _ in 0..500 {
            let from = random.index(plain.len());
            let to = from + random.index(plain.len() - from);
            if random.one_in(2) {
                let data = random.bytes(to - from);
                content.write(&data, from as u64);
                plain[from..to].copy_from_slice(&data);
            } else {
                content.zero(from as u64, to as u64);
                plain[from..to].fill(0);
            }
            let mut read = vec![1; plain.len()];
            content.read(&mut read, 0);
            assert_eq!(read, plain);
            let sectors = content.sectors_in(from as u64, to as u64);
            for at in (from..to).filter(|&at| plain[at] != 0) {
                assert!(sectors.contains(&(at as u64 / SECTOR_BYTES)));
            }
        }
    }
}
