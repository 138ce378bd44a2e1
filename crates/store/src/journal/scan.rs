//! One segment read and verified by itself.

use std::io;
use std::path::Path;

use crate::disk::{Disk, OpenHow};

use super::JournalError;
use super::format::{
    BLOCK_BYTES, GROUP_HEADER_BYTES, GroupHeader, Link, SegmentHeader, encoded_entries,
};
use super::index::Place;
use super::segments::{Segment, segment_path};
use super::state::Batch;

/// Bytes read at once when looking for a later group.
const SEARCH_BYTES: u64 = 1 << 20;

/// One segment, verified by itself.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) segment: Segment,
    pub(super) groups: Vec<FoundGroup>,
    pub(super) entries: Vec<(u64, Place)>,
    /// What comes after the last group.
    pub(super) link: Link,
    /// Where the groups end, and why there.
    pub(super) end: u64,
    pub(super) reason: &'static str,
    /// No group can begin between `end` and here.
    pub(super) search_from: u64,
}

/// A whole group that follows the one before.
#[derive(Debug)]
pub(super) struct FoundGroup {
    pub(super) header: GroupHeader,
    /// What it carries.
    pub(super) link: Link,
    pub(super) offset: u64,
    /// How many entries of its segment are before its first.
    pub(super) entries_before: usize,
}

impl Scan {
    /// Drops the groups from this number on: a later segment begins with it.
    pub(super) fn cut(&mut self, number: u64) {
        let kept = self
            .groups
            .partition_point(|group| group.header.group < number);
        if let Some(first) = self.groups.get(kept) {
            self.link = first.link;
            self.end = first.offset;
            self.entries.truncate(first.entries_before);
            self.groups.truncate(kept);
        }
    }
}

pub(super) fn open_segment(
    disk: &dyn Disk,
    directory: &Path,
    number: u64,
) -> Result<Segment, JournalError> {
    let path = segment_path(directory, number);
    let failed = |source| JournalError::io("read", &path, source);
    let file = disk.open(&path, OpenHow::Write).map_err(failed)?;
    let bytes = file.len().map_err(failed)?;
    if bytes < BLOCK_BYTES {
        return Err(JournalError::corrupt(&path, bytes, "it is cut short"));
    }
    let mut block = vec![0; BLOCK_BYTES as usize];
    file.read_exact_at(&mut block, 0).map_err(failed)?;
    let header = SegmentHeader::decode(&path, &block)?;
    if header.segment != number {
        let reason = "its name is another segment's";
        return Err(JournalError::corrupt(&path, 0, reason));
    }
    if bytes < header.bytes {
        return Err(JournalError::corrupt(&path, bytes, "it is cut short"));
    }
    Ok(Segment { header, path, file })
}

/// Reads a segment's groups up to the first that is none, or does not follow the one before.
pub(super) fn scan(segment: Segment) -> Result<Scan, JournalError> {
    let header = segment.header;
    let mut scan = Scan {
        groups: Vec::new(),
        entries: Vec::new(),
        link: header.link,
        end: BLOCK_BYTES,
        reason: "no room for a group",
        search_from: BLOCK_BYTES,
        segment,
    };
    let mut body = Vec::new();
    while scan.end + BLOCK_BYTES <= header.bytes {
        let (group, crc) = match read_group(&scan.segment, scan.end, scan.link, &mut body)? {
            Read::Group(group, crc) => (group, crc),
            Read::None {
                reason,
                search_from,
            } => {
                scan.reason = reason;
                scan.search_from = search_from;
                return Ok(scan);
            }
        };
        let entries_before = scan.entries.len();
        let start = scan.end + GROUP_HEADER_BYTES as u64;
        let bytes = &body[..group.entries_bytes as usize];
        let (mut count, mut end) = (0, 0);
        for entry in encoded_entries(bytes) {
            let place = Place::new(
                group.first + count,
                header.segment,
                start + entry.offset as u64,
            );
            scan.entries.push((entry.owner, place));
            (count, end) = (count + 1, entry.end());
        }
        if count != u64::from(group.entries) || end != bytes.len() {
            let reason = "a group's checksum is right, but its entries are not";
            return Err(JournalError::corrupt(&scan.segment.path, scan.end, reason));
        }
        scan.groups.push(FoundGroup {
            header: group,
            link: scan.link,
            offset: scan.end,
            entries_before,
        });
        scan.link = group.link(crc);
        scan.end += group.group_bytes();
        scan.search_from = scan.end;
    }
    Ok(scan)
}

enum Read {
    /// A group and its header's checksum.
    Group(GroupHeader, u32),
    /// Why there is none, and from where on there might be another.
    None {
        reason: &'static str,
        search_from: u64,
    },
}

/// Reads the group at `offset`, which must carry `link`, and what follows its header into the front of `body`.
fn read_group(
    segment: &Segment,
    offset: u64,
    link: Link,
    body: &mut Vec<u8>,
) -> Result<Read, JournalError> {
    let none = |reason| Read::None {
        reason,
        search_from: offset + BLOCK_BYTES,
    };
    let mut bytes = [0; GROUP_HEADER_BYTES];
    read(segment, &mut bytes, offset)?;
    let Some((group, crc)) = GroupHeader::decode(&bytes) else {
        return Ok(none("a group's header is damaged"));
    };
    let is_ours = group.id == segment.header.id
        && group.segment == segment.number()
        && group.generation <= segment.header.generation;
    if !is_ours {
        return Ok(none("a group is of another segment"));
    }
    let follows =
        group.group == link.group && group.previous_crc == link.crc && group.first >= link.position;
    if !follows {
        return Ok(none("a group does not follow the one before"));
    }
    let end = offset.saturating_add(group.group_bytes());
    if end > segment.header.bytes || group.first.checked_add(group.entries.into()).is_none() {
        return Ok(none("a group is longer than its segment"));
    }
    let body_bytes = group.group_bytes() as usize - GROUP_HEADER_BYTES;
    if body.len() < body_bytes {
        *body = vec![0; body_bytes];
    }
    let body = &mut body[..body_bytes];
    read(segment, body, offset + GROUP_HEADER_BYTES as u64)?;
    if crc32c::crc32c(body) != group.body_crc {
        return Ok(Read::None {
            reason: "a group does not match its checksum",
            search_from: end,
        });
    }
    Ok(Read::Group(group, crc))
}

/// The entries of a group that was found whole.
pub(super) fn read_batch(
    segment: &Segment,
    group: &FoundGroup,
) -> Result<Option<Batch>, JournalError> {
    let header = group.header;
    if header.entries == 0 {
        return Ok(None);
    }
    let mut bytes = vec![0; header.entries_bytes as usize];
    read(
        segment,
        &mut bytes,
        group.offset + GROUP_HEADER_BYTES as u64,
    )?;
    Ok(Some(Batch {
        first: header.first,
        count: u64::from(header.entries),
        generation: header.generation,
        bytes,
    }))
}

fn read(segment: &Segment, buffer: &mut [u8], offset: u64) -> Result<(), JournalError> {
    let result = segment.file.read_exact_at(buffer, offset);
    result.map_err(|source| match source.kind() {
        io::ErrorKind::UnexpectedEof => {
            JournalError::corrupt(&segment.path, offset, "it is cut short")
        }
        _ => JournalError::io("read", &segment.path, source),
    })
}

/// Refuses a segment with a group after its end: whatever stood between was durable when that group was
/// written. The headers are enough to tell, and a damaged body must not hide it.
pub(super) fn refuse_later_group(scan: &Scan) -> Result<(), JournalError> {
    let Scan { segment, link, .. } = scan;
    let mut at = scan.search_from;
    let end = segment.header.bytes;
    let mut buffer = vec![0; SEARCH_BYTES.min(end.saturating_sub(at)) as usize];
    while at < end {
        let bytes = SEARCH_BYTES.min(end - at);
        let blocks = &mut buffer[..bytes as usize];
        read(segment, blocks, at)?;
        for block in blocks.chunks(BLOCK_BYTES as usize) {
            let Some((group, _)) = GroupHeader::decode(block) else {
                continue;
            };
            if group.id == segment.header.id
                && group.segment == segment.number()
                && group.group > link.group
            {
                let reason = scan.reason;
                return Err(JournalError::corrupt(&segment.path, scan.end, reason));
            }
        }
        at += bytes;
    }
    Ok(())
}
