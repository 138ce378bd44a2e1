//! The bytes of a journal: segment header, group header, entry. `JOURNAL.md` draws them.

use super::{JournalError, Position};
use std::path::Path;

/// Everything starts at a multiple of this many bytes, so that no write touches a block that holds
/// something durable.
pub(super) const BLOCK_BYTES: u64 = 4096;
pub(super) const GROUP_HEADER_BYTES: usize = 80;
pub(super) const ENTRY_HEADER_BYTES: usize = 16;
/// Entries start at a multiple of this many bytes.
pub(super) const ENTRY_ALIGN: usize = 8;

const SEGMENT_MAGIC: [u8; 8] = *b"DORMJRNL";
const GROUP_MAGIC: [u8; 8] = *b"DORMGRUP";
const FORMAT_VERSION: u16 = 1;
const SEGMENT_CHECKED_BYTES: usize = BLOCK_BYTES as usize - 4;
const GROUP_CHECKED_BYTES: usize = GROUP_HEADER_BYTES - 4;

/// Where a chain of groups goes on: what the next group must say of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    /// Its number.
    pub(super) group: u64,
    /// The lowest position its first entry may have.
    pub(super) position: u64,
    /// The checksum of its predecessor's header.
    pub(super) crc: u32,
}

impl Link {
    /// That of a journal's very first group.
    pub(super) const FIRST: Self = Self {
        group: 1,
        position: 1,
        crc: 0,
    };
}

/// The first block of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) id: u64,
    pub(super) segment: u64,
    pub(super) generation: u64,
    /// The segment's length.
    pub(super) bytes: u64,
    /// Its first group.
    pub(super) link: Link,
    /// Where the positions begin that whoever began it gave.
    pub(super) given_from: u64,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut block = vec![0; BLOCK_BYTES as usize];
        block[0..8].copy_from_slice(&SEGMENT_MAGIC);
        block[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        block[16..24].copy_from_slice(&self.id.to_le_bytes());
        block[24..32].copy_from_slice(&self.segment.to_le_bytes());
        block[32..40].copy_from_slice(&self.generation.to_le_bytes());
        block[40..48].copy_from_slice(&self.bytes.to_le_bytes());
        block[48..56].copy_from_slice(&self.link.group.to_le_bytes());
        block[56..64].copy_from_slice(&self.link.position.to_le_bytes());
        block[64..68].copy_from_slice(&self.link.crc.to_le_bytes());
        block[72..80].copy_from_slice(&self.given_from.to_le_bytes());
        let crc = crc32c::crc32c(&block[..SEGMENT_CHECKED_BYTES]);
        block[SEGMENT_CHECKED_BYTES..].copy_from_slice(&crc.to_le_bytes());
        block
    }

    /// `block` is [`BLOCK_BYTES`] long.
    pub(super) fn decode(path: &Path, block: &[u8]) -> Result<Self, JournalError> {
        if block[0..8] != SEGMENT_MAGIC {
            return Err(JournalError::corrupt(path, 0, "it has no segment header"));
        }
        // Before the fields: a flipped bit in the version is damage, not a format of the future.
        if u32_at(block, SEGMENT_CHECKED_BYTES) != crc32c::crc32c(&block[..SEGMENT_CHECKED_BYTES]) {
            let reason = "the segment header does not match its checksum";
            return Err(JournalError::corrupt(path, 0, reason));
        }
        let found = u16::from_le_bytes([block[8], block[9]]);
        if found != FORMAT_VERSION {
            return Err(JournalError::WrongVersion {
                path: path.to_owned(),
                expected: FORMAT_VERSION,
                found,
            });
        }
        Ok(Self {
            id: u64_at(block, 16),
            segment: u64_at(block, 24),
            generation: u64_at(block, 32),
            bytes: u64_at(block, 40),
            link: Link {
                group: u64_at(block, 48),
                position: u64_at(block, 56),
                crc: u32_at(block, 64),
            },
            given_from: u64_at(block, 72),
        })
    }
}

/// What stands before the entries of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupHeader {
    pub(super) id: u64,
    pub(super) segment: u64,
    pub(super) group: u64,
    /// Position of the first entry.
    pub(super) first: u64,
    /// Of whom the entries are.
    pub(super) generation: u64,
    /// Lowest number of a segment that is still needed.
    pub(super) oldest: u64,
    pub(super) entries: u32,
    pub(super) entries_bytes: u32,
    pub(super) previous_crc: u32,
    /// Of everything between the header and the end of the group's last block.
    pub(super) body_crc: u32,
}

impl GroupHeader {
    /// The header's bytes and their checksum, which the next group carries.
    pub(super) fn encode(&self) -> ([u8; GROUP_HEADER_BYTES], u32) {
        let mut header = [0; GROUP_HEADER_BYTES];
        header[0..8].copy_from_slice(&GROUP_MAGIC);
        header[8..16].copy_from_slice(&self.id.to_le_bytes());
        header[16..24].copy_from_slice(&self.segment.to_le_bytes());
        header[24..32].copy_from_slice(&self.group.to_le_bytes());
        header[32..40].copy_from_slice(&self.first.to_le_bytes());
        header[40..48].copy_from_slice(&self.generation.to_le_bytes());
        header[48..56].copy_from_slice(&self.oldest.to_le_bytes());
        header[56..60].copy_from_slice(&self.entries.to_le_bytes());
        header[60..64].copy_from_slice(&self.entries_bytes.to_le_bytes());
        header[64..68].copy_from_slice(&self.previous_crc.to_le_bytes());
        header[68..72].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = crc32c::crc32c(&header[..GROUP_CHECKED_BYTES]);
        header[GROUP_CHECKED_BYTES..].copy_from_slice(&crc.to_le_bytes());
        (header, crc)
    }

    /// The header at the start of `bytes` and its checksum, if there is a whole one.
    pub(super) fn decode(bytes: &[u8]) -> Option<(Self, u32)> {
        let bytes = bytes.get(..GROUP_HEADER_BYTES)?;
        if bytes[0..8] != GROUP_MAGIC {
            return None;
        }
        let crc = u32_at(bytes, GROUP_CHECKED_BYTES);
        if crc != crc32c::crc32c(&bytes[..GROUP_CHECKED_BYTES]) {
            return None;
        }
        let header = Self {
            id: u64_at(bytes, 8),
            segment: u64_at(bytes, 16),
            group: u64_at(bytes, 24),
            first: u64_at(bytes, 32),
            generation: u64_at(bytes, 40),
            oldest: u64_at(bytes, 48),
            entries: u32_at(bytes, 56),
            entries_bytes: u32_at(bytes, 60),
            previous_crc: u32_at(bytes, 64),
            body_crc: u32_at(bytes, 68),
        };
        Some((header, crc))
    }

    /// Bytes of the whole group, a multiple of [`BLOCK_BYTES`].
    pub(super) fn group_bytes(&self) -> u64 {
        group_bytes(self.entries_bytes as usize)
    }

    /// Where the chain goes on after this group, whose header has this checksum.
    pub(super) fn link(&self, crc: u32) -> Link {
        Link {
            group: self.group.saturating_add(1),
            position: self.first.saturating_add(u64::from(self.entries)),
            crc,
        }
    }
}

/// Bytes of a group with so many bytes of entries.
pub(super) fn group_bytes(entries_bytes: usize) -> u64 {
    ((GROUP_HEADER_BYTES + entries_bytes) as u64).next_multiple_of(BLOCK_BYTES)
}

/// Bytes of an entry with such a payload.
pub(super) fn entry_bytes(payload_bytes: usize) -> usize {
    ENTRY_HEADER_BYTES + payload_bytes.next_multiple_of(ENTRY_ALIGN)
}

/// The header of an entry; the payload is less than 4 GiB long.
pub(super) fn entry_header(owner: u64, payload: &[u8]) -> [u8; ENTRY_HEADER_BYTES] {
    let mut header = [0; ENTRY_HEADER_BYTES];
    header[0..8].copy_from_slice(&owner.to_le_bytes());
    header[8..12].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..12]), payload);
    header[12..16].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Owner and payload length that an entry's header speaks of.
pub(super) fn entry_parts(header: &[u8; ENTRY_HEADER_BYTES]) -> (u64, usize) {
    (u64_at(header, 0), u32_at(header, 8) as usize)
}

/// An entry among the encoded ones of a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct EncodedEntry<'a> {
    /// Where its header is, from the first entry's.
    pub(super) offset: usize,
    pub(super) owner: u64,
    pub(super) payload: &'a [u8],
}

impl EncodedEntry<'_> {
    /// Where the next one begins.
    pub(super) fn end(&self) -> usize {
        self.offset + entry_bytes(self.payload.len())
    }
}

/// Walks encoded entries; ends early, before `bytes` do, if they are malformed.
pub(super) fn encoded_entries(bytes: &[u8]) -> impl Iterator<Item = EncodedEntry<'_>> {
    let mut offset = 0;
    std::iter::from_fn(move || {
        let header = bytes.get(offset..)?.first_chunk()?;
        let (owner, payload_bytes) = entry_parts(header);
        let start = offset + ENTRY_HEADER_BYTES;
        let payload = bytes.get(start..start.checked_add(payload_bytes)?)?;
        let entry = EncodedEntry {
            offset,
            owner,
            payload,
        };
        offset = entry.end();
        Some(entry)
    })
}

/// An entry that its owner still needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the journal.
    pub position: Position,
    /// The generation under which it was appended.
    pub generation: u64,
    /// The bytes that were appended.
    pub payload: Vec<u8>,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(
        bytes[at..at + 4]
            .try_into()
            .expect("BUG: a u32 has 4 bytes"),
    )
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(
        bytes[at..at + 8]
            .try_into()
            .expect("BUG: a u64 has 8 bytes"),
    )
}
