//! One file's bytes: as a process sees them, and what of them the medium is known to hold.
//!
//! Invariants
//! 1. Bytes past `len` are zeros in `content`.
//! 2. A sector that is neither in `dirty` nor in `lost` is on the medium as it is in `content`.
//! 3. After `crash` no sector is dirty or lost: what is seen is what the medium holds.

use std::collections::BTreeMap;

use crate::disk::content::{BLOCK_BYTES, Content, SECTOR_BYTES, Sector};
use crate::disk::ranges::Ranges;
use crate::random::Random;

/// Older versions kept of an unsynced sector, the durable one among them.
const OLDER_MAX: usize = 4;

/// A file without its names.
#[derive(Debug, Default)]
pub(crate) struct Inode {
    content: Content,
    len: u64,
    /// Lengths since the last sync without the current one; the durable one is the first.
    older_lens: Vec<u64>,
    dirty: BTreeMap<u64, Dirty>,
    /// Sectors that a failed sync marked clean without writing them: what the medium holds instead.
    lost: BTreeMap<u64, Sector>,
    /// Blocks that have room on the medium.
    room: Ranges,
    /// The same as of the last sync, if it was different.
    durable_room: Option<Ranges>,
    /// Names of the running system that lead here.
    pub(crate) links: u32,
    /// Open handles of living processes.
    pub(crate) opens: u32,
}

/// A sector that was written since the last sync.
#[derive(Debug)]
struct Dirty {
    /// Its content before each write, the durable one first.
    older: Vec<Sector>,
    /// The written bytes lie in `low..high`; a torn write harms no others.
    low: usize,
    high: usize,
}

/// What a power failure leaves of the unsynced sectors.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Survival {
    /// None of them.
    Nothing,
    /// All of them.
    Everything,
    /// Each by chance: of so many in a million an older version, one in sixteen of all torn.
    Some { older_per_million: u32 },
}

/// What became of the unsynced sectors of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Losses {
    pub(crate) older: u64,
    pub(crate) torn: u64,
}

impl Inode {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Blocks that it takes of the medium.
    pub(crate) fn blocks(&self) -> u64 {
        self.room.count()
    }

    /// Blocks that the range would take beside those the file has.
    pub(crate) fn blocks_missing(&self, offset: u64, len: u64) -> u64 {
        self.room.missing(&blocks_of(offset, offset + len))
    }

    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let len = self.len.saturating_sub(offset).min(buffer.len() as u64) as usize;
        self.content.read(&mut buffer[..len], offset);
        len
    }

    pub(crate) fn write(&mut self, data: &[u8], offset: u64) {
        let end = offset + data.len() as u64;
        if data.is_empty() {
            return;
        }
        for sector in offset / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES {
            self.remember(sector, offset, end);
        }
        self.content.write(data, offset);
        self.take_room(offset, end);
        if end > self.len {
            self.change_len(end);
        }
    }

    pub(crate) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.zero(len, self.len);
            self.give_room(len.div_ceil(BLOCK_BYTES)..u64::MAX);
        }
        if len != self.len {
            self.change_len(len);
        }
    }

    /// Takes room for the first `len` bytes; the file is at least so long then.
    pub(crate) fn allocate(&mut self, len: u64) {
        self.take_room(0, len);
        if len > self.len {
            self.change_len(len);
        }
    }

    pub(crate) fn punch(&mut self, offset: u64, len: u64) {
        let end = (offset + len).min(self.len);
        self.zero(offset.min(end), end);
        // Only whole blocks give room back.
        self.give_room(offset.div_ceil(BLOCK_BYTES)..end / BLOCK_BYTES);
    }

    pub(crate) fn sync(&mut self) {
        self.dirty.clear();
        self.older_lens.clear();
        self.durable_room = None;
    }

    /// A sync that failed. Of the unsynced sectors some reached the medium, some are gone from the
    /// cache as well, some are still seen and will never be written. The length stays unsynced.
    pub(crate) fn fail_sync(&mut self, random: &mut Random) {
        for (sector, dirty) in std::mem::take(&mut self.dirty) {
            let Some(durable) = dirty.older.into_iter().next() else {
                continue;
            };
            match random.below(4) {
                0 => {}
                1 => self.content.set_sector(sector, &durable),
                _ => {
                    self.lost.insert(sector, durable);
                }
            }
        }
        self.content.zero(self.len, u64::MAX);
    }

    /// The cache forgets clean sectors by chance: a lost one is seen then as the medium has it.
    pub(crate) fn evict(&mut self, random: &mut Random) {
        if self.lost.is_empty() {
            return;
        }
        for (sector, durable) in std::mem::take(&mut self.lost) {
            if random.one_in(2) {
                self.content.set_sector(sector, &durable);
            } else {
                self.lost.insert(sector, durable);
            }
        }
        self.content.zero(self.len, u64::MAX);
    }

    /// Power loss: what is seen becomes what the medium holds.
    pub(crate) fn crash(&mut self, survival: Survival, random: &mut Random) -> Losses {
        let mut losses = Losses::default();
        for (sector, durable) in std::mem::take(&mut self.lost) {
            self.content.set_sector(sector, &durable);
        }
        for (sector, mut dirty) in std::mem::take(&mut self.dirty) {
            let (older, torn) = match survival {
                Survival::Nothing => (true, false),
                Survival::Everything => (false, false),
                Survival::Some { older_per_million } => {
                    (random.per_million(older_per_million), random.one_in(16))
                }
            };
            if older {
                losses.older += 1;
                let version = match survival {
                    Survival::Some { .. } if random.one_in(2) => random.index(dirty.older.len()),
                    _ => 0,
                };
                self.content
                    .set_sector(sector, &dirty.older.swap_remove(version));
            }
            if torn {
                losses.torn += 1;
                let mut torn = self.content.sector(sector);
                let written = &mut torn[dirty.low..dirty.high];
                match random.one_in(2) {
                    true => written.fill(0),
                    false => random.fill(written),
                }
                self.content.set_sector(sector, &torn);
            }
        }
        self.older_lens.push(self.len);
        self.len = match survival {
            Survival::Nothing => self.older_lens[0],
            Survival::Everything => self.len,
            Survival::Some { .. } => *random.pick(&self.older_lens),
        };
        self.older_lens.clear();
        self.content.zero(self.len, u64::MAX);
        self.crash_room(survival, random);
        losses
    }

    fn crash_room(&mut self, survival: Survival, random: &mut Random) {
        if let Some(durable) = self.durable_room.take() {
            let back = match survival {
                Survival::Nothing => true,
                Survival::Everything => false,
                Survival::Some { .. } => random.one_in(2),
            };
            if back {
                self.room = durable;
            }
        }
        for block in self.content.blocks() {
            self.room.insert(&(block..block + 1));
        }
        self.room
            .remove(&(self.len.div_ceil(BLOCK_BYTES)..u64::MAX));
    }

    /// Flips a bit on the medium, and in the cache. False if the file ends before.
    pub(crate) fn flip(&mut self, offset: u64, bit: u8) -> bool {
        if offset >= self.len {
            return false;
        }
        let (sector, at) = (offset / SECTOR_BYTES, (offset % SECTOR_BYTES) as usize);
        let mut seen = self.content.sector(sector);
        seen[at] ^= 1 << (bit % 8);
        self.content.set_sector(sector, &seen);
        let durable = match self.dirty.get_mut(&sector) {
            Some(dirty) => dirty.older.first_mut(),
            None => self.lost.get_mut(&sector),
        };
        if let Some(durable) = durable {
            durable[at] ^= 1 << (bit % 8);
        }
        true
    }

    /// Keeps a sector's content from before a write of the bytes `from..to`.
    fn remember(&mut self, sector: u64, from: u64, to: u64) {
        let start = sector * SECTOR_BYTES;
        let low = (from.max(start) - start) as usize;
        let high = (to.min(start + SECTOR_BYTES) - start) as usize;
        let before = match self.lost.remove(&sector) {
            Some(durable) => durable,
            None => self.content.sector(sector),
        };
        let dirty = self.dirty.entry(sector).or_insert_with(|| Dirty {
            older: Vec::new(),
            low,
            high,
        });
        (dirty.low, dirty.high) = (dirty.low.min(low), dirty.high.max(high));
        if dirty.older.len() == OLDER_MAX {
            dirty.older.remove(1);
        }
        dirty.older.push(before);
    }

    fn zero(&mut self, from: u64, to: u64) {
        for sector in self.content.sectors_in(from, to) {
            self.remember(sector, from, to);
        }
        self.content.zero(from, to);
    }

    fn change_len(&mut self, len: u64) {
        if self.older_lens.len() == OLDER_MAX {
            self.older_lens.remove(1);
        }
        self.older_lens.push(self.len);
        self.len = len;
    }

    fn take_room(&mut self, from: u64, to: u64) {
        let blocks = blocks_of(from, to);
        if self.room.missing(&blocks) > 0 {
            self.keep_durable_room();
            self.room.insert(&blocks);
        }
    }

    fn give_room(&mut self, blocks: std::ops::Range<u64>) {
        self.keep_durable_room();
        self.room.remove(&blocks);
    }

    fn keep_durable_room(&mut self) {
        if self.durable_room.is_none() {
            self.durable_room = Some(self.room.clone());
        }
    }
}

/// The blocks that the bytes `from..to` lie in.
fn blocks_of(from: u64, to: u64) -> std::ops::Range<u64> {
    from / BLOCK_BYTES..to.div_ceil(BLOCK_BYTES)
}
