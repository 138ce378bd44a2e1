//! What stands in a journal's directory: read, verified, and put in order.
//!
//! Only the last group can be torn: each is synced before the next is written. So a bad group ends the
//! log if nothing comes after it; if anything does, it was durable, and its damage is an error.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, OpenHow};

use super::JournalError;
use super::format::{
    BLOCK_BYTES, GROUP_HEADER_BYTES, GroupHeader, Link, SegmentHeader, encoded_entries,
};
use super::index::{Index, Place};
use super::segments::{Segment, is_spare, segment_number, segment_path};
use super::state::Batch;

/// Bytes read at once when looking for a later group.
const SEARCH_BYTES: u64 = 1 << 20;

/// A journal as it was found.
#[derive(Debug)]
pub(super) struct Recovered {
    /// None: there was no journal.
    pub(super) id: Option<u64>,
    /// Every entry but those of the last group, and the segments.
    pub(super) index: Index,
    /// The entries of the last group, if it has any. That it can be read does not prove that it is on
    /// the medium, so it is to be written again, in the next segment.
    pub(super) last: Option<Batch>,
    /// What the next group must carry: it takes the last one's place.
    pub(super) link: Link,
    /// Above every position in the journal.
    pub(super) position: u64,
    /// Above the number of every segment.
    pub(super) next_number: u64,
    /// Files that hold nothing anyone needs.
    pub(super) spares: Vec<PathBuf>,
    pub(super) idle_segments: Vec<PathBuf>,
}

/// One segment, verified by itself.
#[derive(Debug)]
struct Scan {
    segment: Segment,
    entries: Vec<(u64, Place)>,
    /// From which position on which generation; the last group's is not among them.
    generations: Vec<(u64, u64)>,
    last: Option<LastGroup>,
    /// What comes after the last group.
    link: Link,
    /// Where the groups end, and why there.
    end: u64,
    reason: &'static str,
    /// No group can begin between `end` and here.
    search_from: u64,
}

/// The last group of a segment.
#[derive(Debug)]
struct LastGroup {
    header: GroupHeader,
    /// What it carried itself.
    link: Link,
    offset: u64,
    /// How many entries are before its first.
    entries_before: usize,
}

/// The last group of the chain, as far as that has been followed, with its entries.
struct Last {
    group: LastGroup,
    entries: Vec<(u64, Place)>,
    segment: Arc<Segment>,
}

/// The segment before, where its groups end, and why there.
struct Previous {
    segment: Arc<Segment>,
    end: u64,
    reason: &'static str,
}

/// Reads the journal in `directory`, if there is one.
///
/// # Errors
/// [`JournalError::Io`], `Corrupt`, `MissingSegment`, `WrongJournal`, `WrongVersion`, `Fenced`.
pub(super) fn recover(
    disk: &dyn Disk,
    directory: &Path,
    generation: u64,
) -> Result<Recovered, JournalError> {
    let failed = |source| JournalError::io("list", directory, source);
    let names = disk.list(directory).map_err(failed)?;
    let spares = names.iter().filter(|name| is_spare(name));
    let mut spares: Vec<PathBuf> = spares.map(|name| directory.join(name)).collect();
    spares.sort_unstable();
    let mut numbers: Vec<u64> = names.iter().filter_map(|n| segment_number(n)).collect();
    numbers.sort_unstable();
    let next_number = numbers.last().map_or(1, |number| number.saturating_add(1));

    // From the newest one back: the newest group says which is the oldest that is needed.
    let mut scans: Vec<Scan> = Vec::new();
    let mut oldest = None;
    while let Some(number) = numbers.pop_if(|number| oldest.is_none_or(|oldest| *number >= oldest))
    {
        let segment = open_segment(disk, directory, number)?;
        if let Some(newest) = scans.first() {
            let (expected, found) = (newest.segment.header.id, segment.header.id);
            if expected != found {
                let path = segment.path;
                return Err(JournalError::WrongJournal {
                    path,
                    expected,
                    found,
                });
            }
        }
        if segment.header.generation > generation {
            return Err(JournalError::Fenced {
                directory: directory.to_owned(),
                ours: generation,
                found: segment.header.generation,
            });
        }
        let scan = scan(segment)?;
        if oldest.is_none() {
            refuse_later_group(&scan)?;
            oldest = scan.last.as_ref().map(|last| last.header.oldest);
        }
        scans.push(scan);
    }
    scans.reverse();
    if let (Some(oldest), Some(first)) = (oldest, scans.first())
        && first.segment.number() != oldest
    {
        let path = segment_path(directory, oldest);
        return Err(JournalError::MissingSegment { path });
    }
    let idle_segments = numbers.iter().map(|n| segment_path(directory, *n));
    let idle_segments = idle_segments.collect();
    let mut recovered = join(scans)?;
    recovered.next_number = next_number;
    recovered.spares = spares;
    recovered.idle_segments = idle_segments;
    Ok(recovered)
}

/// Makes one chain of the segments, which are ascending.
fn join(scans: Vec<Scan>) -> Result<Recovered, JournalError> {
    let mut chain = Recovered {
        id: scans.first().map(|scan| scan.segment.header.id),
        index: Index::default(),
        last: None,
        link: scans.first().map_or(Link::FIRST, |s| s.segment.header.link),
        position: Link::FIRST.position,
        next_number: 0,
        spares: Vec::new(),
        idle_segments: Vec::new(),
    };
    // The chain's end: what comes next, the last group, and its segment.
    let mut link = chain.link;
    let mut last: Option<Last> = None;
    let mut previous: Option<Previous> = None;

    for mut scan in scans {
        let begins = scan.segment.header.link;
        if begins.group > link.group {
            // The header was durable before its segment was used, and it knows of more groups.
            return Err(lost(previous, &scan.segment));
        }
        let replaces = last.as_ref().is_some_and(|last| last.group.link == begins);
        if begins != link && !replaces {
            let reason = "its first group does not follow the segments before it";
            return Err(JournalError::corrupt(&scan.segment.path, 0, reason));
        }
        let segment = Arc::new(scan.segment);
        chain
            .index
            .push_segment(Arc::clone(&segment), segment.header.bytes);
        if let Some(found) = scan.last {
            if !replaces {
                keep(&mut chain.index, last.take());
            }
            let last_entries = scan.entries.split_off(found.entries_before);
            for (position, generation) in scan.generations {
                chain.index.set_generation(position, generation);
            }
            for (owner, place) in scan.entries {
                chain.index.add(owner, place);
            }
            last = Some(Last {
                group: found,
                entries: last_entries,
                segment: Arc::clone(&segment),
            });
            link = scan.link;
        }
        previous = Some(Previous {
            segment,
            end: scan.end,
            reason: scan.reason,
        });
    }

    chain.position = link.position;
    chain.link = link;
    if let Some(Last { group, segment, .. }) = last {
        chain.link = group.link;
        let bytes = read_body(&segment, &group)?;
        chain.last = (group.header.entries > 0).then(|| Batch {
            first: group.header.first,
            count: u64::from(group.header.entries),
            generation: group.header.generation,
            bytes,
        });
    }
    Ok(chain)
}

/// Indexes a segment's last group, since it is not the chain's.
fn keep(index: &mut Index, last: Option<Last>) {
    let Some(Last { group, entries, .. }) = last else {
        return;
    };
    if !entries.is_empty() {
        index.set_generation(group.header.first, group.header.generation);
    }
    for (owner, place) in entries {
        index.add(owner, place);
    }
}

/// Groups are missing between a segment and the next one.
fn lost(previous: Option<Previous>, segment: &Segment) -> JournalError {
    match previous {
        Some(previous) if previous.segment.number() + 1 == segment.number() => {
            JournalError::corrupt(&previous.segment.path, previous.end, previous.reason)
        }
        _ => {
            let directory = segment.path.parent().unwrap_or_else(|| Path::new("."));
            let path = segment_path(directory, segment.number().saturating_sub(1));
            JournalError::MissingSegment { path }
        }
    }
}

fn open_segment(disk: &dyn Disk, directory: &Path, number: u64) -> Result<Segment, JournalError> {
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
fn scan(segment: Segment) -> Result<Scan, JournalError> {
    let header = segment.header;
    let mut scan = Scan {
        entries: Vec::new(),
        generations: Vec::new(),
        last: None,
        link: header.link,
        end: BLOCK_BYTES,
        reason: "no room for a group",
        search_from: BLOCK_BYTES,
        segment,
    };
    let mut body = Vec::new();
    while scan.end + BLOCK_BYTES <= header.bytes {
        let found = match read_group(&scan.segment, scan.end, scan.link, &mut body)? {
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
        let (group, crc) = found;
        if let Some(last) = &scan.last
            && last.header.entries > 0
        {
            let (first, generation) = (last.header.first, last.header.generation);
            scan.generations.push((first, generation));
        }
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
        scan.last = Some(LastGroup {
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

/// Reads the group at `offset`, which must carry `link`, and what follows its header into `body`.
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
    body.resize(group.group_bytes() as usize - GROUP_HEADER_BYTES, 0);
    read(segment, body, offset + GROUP_HEADER_BYTES as u64)?;
    if crc32c::crc32c(body) != group.body_crc {
        return Ok(Read::None {
            reason: "a group does not match its checksum",
            search_from: end,
        });
    }
    Ok(Read::Group(group, crc))
}

/// The encoded entries of a group that was found whole.
fn read_body(segment: &Segment, group: &LastGroup) -> Result<Vec<u8>, JournalError> {
    let mut bytes = vec![0; group.header.entries_bytes as usize];
    let start = group.offset + GROUP_HEADER_BYTES as u64;
    read(segment, &mut bytes, start)?;
    Ok(bytes)
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
fn refuse_later_group(scan: &Scan) -> Result<(), JournalError> {
    let Scan { segment, link, .. } = scan;
    let mut at = scan.search_from;
    let mut blocks = Vec::new();
    while at < segment.header.bytes {
        let bytes = SEARCH_BYTES.min(segment.header.bytes - at);
        blocks.resize(bytes as usize, 0);
        read(segment, &mut blocks, at)?;
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
