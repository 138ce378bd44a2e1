//! Who still needs which entries, and which segments they are in.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::format::ENTRY_ALIGN;
use super::segments::Segment;

/// Where a written entry is. 16 bytes: a node has millions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) position: u64,
    /// The segment's number, its lower half.
    segment: u32,
    /// In units of [`ENTRY_ALIGN`] bytes from the segment's start.
    offset: u32,
}

impl Place {
    /// `offset` in bytes, a multiple of [`ENTRY_ALIGN`].
    pub(super) fn new(position: u64, segment: u64, offset: u64) -> Self {
        Self {
            position,
            segment: segment as u32,
            offset: (offset / ENTRY_ALIGN as u64) as u32,
        }
    }

    /// In bytes.
    pub(super) fn offset(self) -> u64 {
        u64::from(self.offset) * ENTRY_ALIGN as u64
    }
}

/// Where an entry is to be read, and under which generation it was appended.
#[derive(Debug)]
pub(super) struct WrittenEntry {
    pub(super) place: Place,
    pub(super) generation: u64,
    pub(super) segment: Arc<Segment>,
}

/// A segment and how many needed entries it holds.
#[derive(Debug)]
pub(super) struct SegmentInUse {
    pub(super) segment: Arc<Segment>,
    /// Bytes of disk it takes.
    pub(super) bytes: u64,
    needed: u64,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    /// Oldest first; no owner without entries.
    owners: HashMap<u64, VecDeque<Place>>,
    /// Ascending by number, in the order of the chain; the last one is being written.
    segments: VecDeque<SegmentInUse>,
    /// Entries from the key on were appended under the value.
    generations: BTreeMap<u64, u64>,
    /// What was released before it was written: its entries below the position need not be remembered.
    ahead: HashMap<u64, u64>,
}

impl Index {
    /// The chain goes on in `segment`.
    pub(super) fn push_segment(&mut self, segment: Arc<Segment>, bytes: u64) {
        self.segments.push_back(SegmentInUse {
            segment,
            bytes,
            needed: 0,
        });
    }

    /// Says that entries from `position` on are of `generation`.
    pub(super) fn set_generation(&mut self, position: u64, generation: u64) {
        let known = self.generations.range(..=position).next_back();
        if known.map(|(_, known)| *known) != Some(generation) {
            self.generations.insert(position, generation);
        }
    }

    fn generation(&self, position: u64) -> u64 {
        let known = self.generations.range(..=position).next_back();
        known.map_or(0, |(_, generation)| *generation)
    }

    /// Remembers a written entry, later than all of its owner's. Its segment is in use.
    pub(super) fn add(&mut self, owner: u64, place: Place) {
        if self.is_released_ahead(owner, place.position) {
            return;
        }
        if let Some(at) = self.segment_at(place) {
            self.segments[at].needed += 1;
            self.owners.entry(owner).or_default().push_back(place);
        }
    }

    /// Whether an entry that was not yet written is needed no more.
    pub(super) fn is_released_ahead(&self, owner: u64, position: u64) -> bool {
        self.ahead
            .get(&owner)
            .is_some_and(|before| position < *before)
    }

    /// Forgets the owner's entries before a position. `written` is the position up to which all
    /// entries have been added; later ones that are released are skipped when they come.
    pub(super) fn release(&mut self, owner: u64, before: u64, written: u64) {
        if before > written {
            let known = self.ahead.entry(owner).or_default();
            *known = before.max(*known);
        }
        let Some(mut places) = self.owners.remove(&owner) else {
            return;
        };
        while let Some(place) = places.pop_front_if(|place| place.position < before) {
            if let Some(at) = self.segment_at(place) {
                self.segments[at].needed -= 1;
            }
        }
        if !places.is_empty() {
            self.owners.insert(owner, places);
        }
    }

    /// All entries before this position have been added.
    pub(super) fn settle(&mut self, written: u64) {
        if !self.ahead.is_empty() {
            self.ahead.retain(|_, before| *before > written);
        }
    }

    /// The owner's written entries, oldest first.
    pub(super) fn entries(&self, owner: u64) -> Vec<WrittenEntry> {
        let places = self.owners.get(&owner).into_iter().flatten();
        places
            .filter_map(|place| {
                let segment = &self.segments[self.segment_at(*place)?].segment;
                Some(WrittenEntry {
                    place: *place,
                    generation: self.generation(place.position),
                    segment: Arc::clone(segment),
                })
            })
            .collect()
    }

    pub(super) fn owners(&self) -> impl Iterator<Item = u64> {
        self.owners.keys().copied()
    }

    /// Number of the first segment with a needed entry.
    pub(super) fn oldest_needed(&self) -> Option<u64> {
        let needed = self.segments.iter().find(|segment| segment.needed > 0)?;
        Some(needed.segment.number())
    }

    /// Whether the first segment is needed by nobody and not the one that is being written.
    pub(super) fn has_idle_segment(&self) -> bool {
        self.segments.len() > 1 && self.segments[0].needed == 0
    }

    /// The owner of the oldest needed entry, if that is not in the segment that is being written.
    pub(super) fn oldest_owner(&self) -> Option<u64> {
        let oldest = self.oldest_needed()?;
        if self.segments.back()?.segment.number() == oldest {
            return None;
        }
        let firsts = self.owners.iter();
        let first = firsts
            .filter_map(|(owner, places)| Some((places.front()?.position, *owner)))
            .min()?;
        Some(first.1)
    }

    /// Takes the segments before this number that nobody is reading.
    pub(super) fn take_before(&mut self, number: u64) -> Vec<Segment> {
        let mut taken = Vec::new();
        while let Some(first) = self.segments.pop_front_if(|first| {
            first.needed == 0
                && first.segment.number() < number
                && Arc::strong_count(&first.segment) == 1
        }) {
            // Under the lock nobody else can have got hold of it since the count was read.
            taken.extend(Arc::into_inner(first.segment));
        }
        taken
    }

    /// Bytes of disk that the segments take.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    fn segment_at(&self, place: Place) -> Option<usize> {
        let first = self.segments.front()?.segment.number();
        // Numbers ascend from the first, so the lower halves tell all segments in use apart.
        let number = first + u64::from(place.segment.wrapping_sub(first as u32));
        let found = self
            .segments
            .binary_search_by_key(&number, |segment| segment.segment.number());
        found.ok()
    }
}
