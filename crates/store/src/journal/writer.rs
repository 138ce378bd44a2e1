//! Writes groups: one write, one sync each. Whoever holds the [`Writer`] is the only one that writes.

use std::path::PathBuf;
use std::sync::Arc;

use super::error::Trouble;
use super::format::{
    BLOCK_BYTES, GROUP_HEADER_BYTES, GroupHeader, Link, encoded_entries, group_bytes,
};
use super::segments::{Segment, Segments, room};
use super::state::{Batch, Cursor};

/// A group buffer that has grown past this is not kept, in bytes.
const GROUP_BYTES_KEPT: usize = 8 << 20;

#[derive(Debug)]
pub(super) struct Writer {
    pub(super) segments: Segments,
    found: Found,
    /// None until the first group of this opening is written.
    current: Option<Current>,
    /// What the next group carries.
    link: Link,
    generation: u64,
    /// The oldest segment that is needed, as the last group has it.
    recorded_oldest: u64,
    /// The group being written, reused.
    group: Vec<u8>,
}

/// What an opening found, to be tidied up once what it found is durable.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Segments that nobody needs.
    pub(super) idle_segments: Vec<PathBuf>,
    /// Where the groups of the others end.
    pub(super) ends: Vec<(Arc<Segment>, u64)>,
}

#[derive(Debug)]
struct Current {
    segment: Arc<Segment>,
    /// Where the next group goes.
    end: u64,
}

/// A group that is durable.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) segment: u64,
    /// Where its first entry is.
    pub(super) offset: u64,
}

impl Writer {
    pub(super) fn new(segments: Segments, link: Link, generation: u64, found: Found) -> Self {
        Self {
            segments,
            found,
            current: None,
            link,
            generation,
            recorded_oldest: 0,
            group: Vec::new(),
        }
    }

    /// Gives back the room of what was found and is not needed; after the first group. Only tidiness: the
    /// next opening does it again.
    pub(super) fn tidy_found(&mut self) {
        let Found {
            idle_segments,
            ends,
        } = std::mem::take(&mut self.found);
        for path in idle_segments {
            self.segments.discard(&path);
        }
        for (segment, end) in ends {
            if end == segment.header.bytes {
                continue;
            }
            let _ = segment.file.punch(end, segment.header.bytes - end);
        }
    }

    /// Whether no group was written since the journal was opened.
    pub(super) fn is_new(&self) -> bool {
        self.current.is_none()
    }

    pub(super) fn recorded_oldest(&self) -> u64 {
        self.recorded_oldest
    }

    /// Number of the segment that is being written.
    pub(super) fn current_number(&self) -> Option<u64> {
        Some(self.current.as_ref()?.segment.number())
    }

    /// Room for groups in the segment that is being written, in bytes.
    pub(super) fn room(&self) -> u64 {
        self.current.as_ref().map_or(0, |current| {
            (BLOCK_BYTES + room(current.segment.header.bytes)).saturating_sub(current.end)
        })
    }

    /// Whether a mark fits, be it in the block that is kept for one.
    pub(super) fn has_room_for_mark(&self) -> bool {
        self.current
            .as_ref()
            .is_some_and(|current| current.end + group_bytes(0) <= current.segment.header.bytes)
    }

    /// Room for groups without a new file, in bytes.
    pub(super) fn room_in_all(&self) -> u64 {
        self.room() + self.segments.room_of_spares()
    }

    /// How much of `batch` from `cursor` on makes the next group, and whether that needs a new segment.
    pub(super) fn choose(&self, batch: &Batch, cursor: Cursor) -> (Cursor, bool) {
        let all = Cursor {
            entries: batch.count,
            bytes: batch.bytes.len(),
        };
        let fits = |cut: Cursor, room| group_bytes(cut.bytes - cursor.bytes) <= room;
        // The first group after opening may stand for the journal's last one: never in two.
        if self.is_new() {
            return (all, true);
        }
        let (here, next) = (self.room(), self.segments.room_of_one());
        if fits(all, here) || fits(all, next) {
            return (all, !fits(all, here));
        }
        let (mut in_here, mut in_next) = (cursor, cursor);
        for entry in encoded_entries(&batch.bytes[cursor.bytes..]) {
            let cut = Cursor {
                entries: in_next.entries + 1,
                bytes: cursor.bytes + entry.end(),
            };
            if fits(cut, here) {
                in_here = cut;
            }
            // One that is longer than a segment gets a longer segment for itself.
            if !fits(cut, next) && in_next != cursor {
                break;
            }
            in_next = cut;
        }
        if in_here == cursor {
            (in_next, true)
        } else {
            (in_here, false)
        }
    }

    /// Begins the next segment, with room for at least this group.
    pub(super) fn begin_segment(&mut self, group_bytes: u64) -> Result<Arc<Segment>, Trouble> {
        let segment = Arc::new(self.segments.next(self.link, group_bytes)?);
        self.current = Some(Current {
            segment: Arc::clone(&segment),
            end: BLOCK_BYTES,
        });
        Ok(segment)
    }

    /// Writes one group into the segment that was begun, and syncs it.
    pub(super) fn write(
        &mut self,
        (first, generation): (u64, u64),
        count: u64,
        entries: &[u8],
        oldest: Option<u64>,
    ) -> Result<Written, Trouble> {
        let current = self.current.as_mut();
        let current = current.expect("BUG: what does not fit begins a segment");
        let segment = &current.segment;
        let bytes = group_bytes(entries.len());
        self.group.clear();
        self.group.reserve(bytes as usize);
        self.group.resize(GROUP_HEADER_BYTES, 0);
        self.group.extend_from_slice(entries);
        self.group.resize(bytes as usize, 0);
        let header = GroupHeader {
            id: self.segments.id(),
            segment: segment.number(),
            group: self.link.group,
            first,
            generation,
            oldest: oldest.unwrap_or_else(|| segment.number()),
            entries: count as u32,
            entries_bytes: entries.len() as u32,
            previous_crc: self.link.crc,
            body_crc: crc32c::crc32c(&self.group[GROUP_HEADER_BYTES..]),
        };
        let (encoded, crc) = header.encode();
        self.group[..GROUP_HEADER_BYTES].copy_from_slice(&encoded);

        let failed = |source| Trouble::write(&segment.path, source);
        let written = segment.file.write_all_at(&self.group, current.end);
        written.map_err(failed)?;
        let failed = |source| Trouble::broken("syncing", &segment.path, source);
        segment.file.sync_data().map_err(failed)?;

        let written = Written {
            segment: segment.number(),
            offset: current.end + GROUP_HEADER_BYTES as u64,
        };
        current.end += bytes;
        self.link = header.link(crc);
        self.recorded_oldest = header.oldest;
        if self.group.capacity() > GROUP_BYTES_KEPT {
            self.group = Vec::new();
        }
        Ok(written)
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }
}
