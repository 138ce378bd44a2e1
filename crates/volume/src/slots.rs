//! Which slots of the own pages file are free, and which may be overwritten: shadow paging.
//!
//! Invariants
//! 1. A slot is in exactly one state: *free*, *fresh* (written since the last freeze; overwritten in
//!    place), *frozen* (a durable version or a running copy may refer to it; never overwritten), or
//!    *retired* (frozen, and the tree refers to it no more).
//! 2. A retired slot becomes free only when a version that does not refer to it has become durable.
//! 3. `live` counts the fresh and the frozen: what the tree refers to.

use crate::page::SLOTS_MAX;

#[derive(Debug, Default)]
pub(crate) struct Slots {
    /// Slots ever taken: the pages file is at most this many pages long.
    count: u32,
    /// Free slots that may have room in the file system.
    free: Vec<u32>,
    /// Free slots whose room was given back; taken last.
    punched: Vec<u32>,
    fresh: Bits,
    retired: Vec<u32>,
    live: u32,
    /// Slots taken since the last flush began.
    taken: u64,
}

/// What a flush takes along: freed when it succeeds, given back when it does not.
#[derive(Debug)]
pub(crate) struct Pending {
    retired: Vec<u32>,
    taken: u64,
}

impl Slots {
    /// The slots of a volume that was opened: `used` frozen, those between them free.
    pub(crate) fn opened(used: &[u32]) -> Self {
        let count = slot_count(used);
        let mut is_used = Bits::default();
        used.iter().for_each(|slot| is_used.set(*slot));
        // Downwards, for the last is taken first: low slots keep the file short.
        let free: Vec<u32> = (0..count)
            .rev()
            .filter(|slot| !is_used.get(*slot))
            .collect();
        Self {
            count,
            live: count - free.len() as u32,
            free,
            ..Self::default()
        }
    }

    /// The slots of the file that are not among `used`, ascending.
    pub(crate) fn unused(&self, used: &[u32]) -> Vec<u32> {
        let mut is_used = Bits::default();
        used.iter().for_each(|slot| is_used.set(*slot));
        (0..self.count).filter(|slot| !is_used.get(*slot)).collect()
    }

    /// A slot for a new page, fresh; `None` when the file can have no more.
    pub(crate) fn take(&mut self) -> Option<u32> {
        let slot = match self.free.pop().or_else(|| self.punched.pop()) {
            Some(slot) => slot,
            None if self.count < SLOTS_MAX => {
                self.count += 1;
                self.count - 1
            }
            None => return None,
        };
        self.fresh.set(slot);
        self.live += 1;
        self.taken += 1;
        Some(slot)
    }

    /// The tree refers to `slot` no more.
    pub(crate) fn release(&mut self, slot: u32) {
        self.live -= 1;
        if self.fresh.get(slot) {
            self.fresh.clear(slot);
            self.free.push(slot);
        } else {
            self.retired.push(slot);
        }
    }

    /// Whether `slot` may be overwritten in place.
    pub(crate) fn is_fresh(&self, slot: u32) -> bool {
        self.fresh.get(slot)
    }

    /// Protects every slot that the tree refers to now from being overwritten.
    pub(crate) fn freeze(&mut self) {
        self.fresh.clear_all();
    }

    /// Freezes for a flush, and hands over what only versions before it refer to.
    pub(crate) fn begin_flush(&mut self) -> Pending {
        self.freeze();
        let (retired, taken) = (
            std::mem::take(&mut self.retired),
            std::mem::take(&mut self.taken),
        );
        Pending { retired, taken }
    }

    /// Free slots beyond `kept` whose room is to be given back, ascending; each is named once.
    pub(crate) fn surplus(&mut self, kept: usize) -> Vec<u32> {
        // Not for a handful: each run costs a call.
        if self.free.len() < 2 * kept {
            return Vec::new();
        }
        self.free.sort_unstable_by(|a, b| b.cmp(a));
        // Downwards, for the last is taken first: the highest go.
        let mut surplus: Vec<u32> = self.free.drain(..self.free.len() - kept).collect();
        surplus.reverse();
        self.punched.extend(surplus.iter().rev());
        surplus
    }

    pub(crate) fn flush_done(&mut self, pending: Pending) {
        self.free.extend(pending.retired);
    }

    pub(crate) fn flush_failed(&mut self, pending: Pending) {
        self.retired.extend(pending.retired);
        self.taken += pending.taken;
    }

    /// Slots ever taken: nothing refers to any beyond.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn live(&self) -> u32 {
        self.live
    }

    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }
}

/// Slots that a pages file must have to hold all of `used`.
pub(crate) fn slot_count(used: &[u32]) -> u32 {
    used.iter().max().map_or(0, |slot| slot + 1)
}

/// A growing set of slots.
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn get(&self, slot: u32) -> bool {
        let word = self.0.get(slot as usize / 64).copied().unwrap_or_default();
        word >> (slot % 64) & 1 == 1
    }

    fn set(&mut self, slot: u32) {
        let at = slot as usize / 64;
        if at >= self.0.len() {
            self.0.resize(at + 1, 0);
        }
        self.0[at] |= 1 << (slot % 64);
    }

    fn clear(&mut self, slot: u32) {
        if let Some(word) = self.0.get_mut(slot as usize / 64) {
            *word &= !(1 << (slot % 64));
        }
    }

    fn clear_all(&mut self) {
        self.0.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frozen_slot_waits_for_the_next_version() {
        let mut slots = Slots::default();
        let first = slots.take().unwrap();
        let pending = slots.begin_flush();
        slots.flush_done(pending);
        assert!(!slots.is_fresh(first));

        let second = slots.take().unwrap();
        slots.release(first);
        assert_eq!(
            slots.take(),
            Some(2),
            "the durable version still refers to the first slot"
        );
        slots.release(2);
        assert_eq!(slots.take(), Some(2), "a fresh slot is free at once");
        assert_eq!((second, slots.live()), (1, 2));

        let pending = slots.begin_flush();
        slots.flush_failed(pending);
        assert_eq!(slots.take(), Some(3), "a failed flush frees nothing");
        let pending = slots.begin_flush();
        slots.flush_done(pending);
        assert_eq!(slots.take(), Some(first));
    }

    #[test]
    fn opened_slots_are_frozen() {
        let mut opened = Slots::opened(&[1]);
        assert_eq!(
            (opened.live(), opened.taken(), opened.is_fresh(1)),
            (1, 0, false)
        );
        assert_eq!(
            [opened.take(), opened.take(), opened.take()],
            [Some(0), Some(2), Some(3)]
        );
        assert_eq!(opened.unused(&[1, 3]), [0, 2]);
    }
}
