//! What of a database's WAL the journal must hold: the bytes that differ, as Postgres writes them.
//!
//! Postgres writes its log in whole 8 KiB pages, the last one again and again as it fills. Here each
//! write is compared with what its page held, and only what is new is kept, as *chunks*, until a sync
//! hands them to the journal. Replaying the chunks of all entries since a version, in order, over that
//! version's files gives the log as it was at the last sync; Postgres' own recovery does the rest.
//!
//! Invariants
//! 1. A chunk left out is one that replay would give anyway: the page is known to be a hole, or is the
//!    last one written.
//! 2. Chunks are handed over in the order of the writes.
//!
//! An entry of the journal (all integers little endian):
//! ```text
//! bytes
//!     1  kind: 1, WAL
//!     4  bytes of a segment, u32
//!   per chunk:
//!     4  timeline, u32
//!     8  number of the segment's file: its two last groups of 8 hex digits, u64
//!     4  offset within it, u32
//!     4  bytes, u32, at least 1
//!     …  the bytes
//! ```

use std::collections::HashMap;
use std::fmt;
use std::sync::Weak;

use crate::node::Ino;
use crate::page::{PAGE_BYTES, ZEROS};

/// How names begin of files that become segments when they are full of zeros.
pub(crate) const NEW_SEGMENT_PREFIX: &str = "xlogtemp.";

/// The directory of the log, in the root of the volume.
pub(crate) const WAL_DIRECTORY: &str = "pg_wal";

const KIND_WAL: u8 = 1;
const ENTRY_HEADER_BYTES: usize = 5;
const CHUNK_HEADER_BYTES: usize = 20;

/// Bytes of chunks after which they go to the journal without a sync, so that a long statement does
/// not gather them in memory.
pub(crate) const CHUNK_BYTES_HIGH: usize = 256 << 10;

/// A file of the log: its timeline and the two numbers in its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    timeline: u32,
    number: u64,
}

impl Segment {
    /// The segment of a file's name: 24 hexadecimal digits in capitals; `None` for other files.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let digits = |byte: u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte);
        if name.len() != 24 || !name.bytes().all(digits) {
            return None;
        }
        let (timeline, number) = name.split_at(8);
        Some(Self {
            timeline: u32::from_str_radix(timeline, 16).ok()?,
            number: u64::from_str_radix(number, 16).ok()?,
        })
    }

    pub(crate) fn name(self) -> String {
        format!("{:08X}{:016X}", self.timeline, self.number)
    }

    /// The LSN of a byte, in a log whose segments are `bytes` long.
    fn lsn(self, bytes: u64, offset: u64) -> u64 {
        let (log, segment) = (self.number >> 32, self.number & u64::from(u32::MAX));
        (log << 32)
            .saturating_add(segment.saturating_mul(bytes))
            .saturating_add(offset)
    }
}

/// Who is told of all that is written into the log of a volume.
pub trait LogReader: fmt::Debug + Send + Sync {
    /// `bytes` are at `lsn` from now on, in a log with segments of `segment_bytes`. It is called while the volume is
    /// locked, before anything tells that they are written: it must be quick, and must not use the volume.
    fn wrote(&self, lsn: u64, bytes: &[u8], segment_bytes: u64);

    /// A name in the root directory was given to a file, as when settings are replaced. Called as [`wrote`](Self::wrote)
    /// is.
    fn named_in_root(&self);
}

/// The page that was written last, as it is now.
#[derive(Debug)]
struct Tail {
    ino: Ino,
    page: u64,
    bytes: Box<[u8; PAGE_BYTES]>,
}

/// One volume's log, from the journal's point of view.
#[derive(Debug, Default)]
pub(crate) struct Wal {
    /// The directory, once it is there.
    directory: Option<Ino>,
    /// The segments in it.
    segments: HashMap<Ino, Segment>,
    tail: Option<Tail>,
    /// An entry in the making: header and chunks.
    entry: Vec<u8>,
    /// LSN past the last byte that was written and is not zero.
    end: u64,
    reader: Option<Weak<dyn LogReader>>,
}

impl Wal {
    /// From now on `reader` is told of what is written, for as long as it lives, and no other.
    pub(crate) fn set_reader(&mut self, reader: Weak<dyn LogReader>) {
        self.reader = Some(reader);
    }

    pub(crate) fn named_in_root(&self) {
        if let Some(reader) = self.reader.as_ref().and_then(Weak::upgrade) {
            reader.named_in_root();
        }
    }

    pub(crate) fn set_directory(&mut self, directory: Ino) {
        self.directory = Some(directory);
    }

    pub(crate) fn is_directory(&self, ino: Ino) -> bool {
        self.directory == Some(ino)
    }

    /// `name` in the log's directory leads to `ino` now.
    pub(crate) fn named(&mut self, name: &str, ino: Ino) {
        match Segment::parse(name) {
            Some(segment) => drop(self.segments.insert(ino, segment)),
            None => drop(self.segments.remove(&ino)),
        }
    }

    /// `ino` has no name in the log's directory any more.
    pub(crate) fn unnamed(&mut self, ino: Ino) {
        self.segments.remove(&ino);
        self.tail.take_if(|tail| tail.ino == ino);
    }

    pub(crate) fn contains(&self, ino: Ino) -> bool {
        self.segments.contains_key(&ino)
    }

    pub(crate) fn directory(&self) -> Option<Ino> {
        self.directory
    }

    /// LSN past the last byte that was written and is not zero; 0 if none was.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    pub(crate) fn restore_end(&mut self, end: u64) {
        self.end = end;
    }

    /// Takes note of a write to a segment, which is `file_bytes` long now. `was_hole` tells of the page
    /// that a byte is in whether it was a hole before.
    pub(crate) fn wrote(
        &mut self,
        ino: Ino,
        file_bytes: u64,
        mut offset: u64,
        mut data: &[u8],
        was_hole: &dyn Fn(u64) -> bool,
    ) {
        let Some(segment) = self.segments.get(&ino).copied() else {
            return;
        };
        if let Some(reader) = &self.reader {
            match reader.upgrade() {
                Some(reader) => reader.wrote(segment.lsn(file_bytes, offset), data, file_bytes),
                None => self.reader = None,
            }
        }
        while !data.is_empty() {
            let page = offset / PAGE_BYTES as u64;
            let within = (offset % PAGE_BYTES as u64) as usize;
            let (piece, rest) = data.split_at(data.len().min(PAGE_BYTES - within));
            self.wrote_page(ino, segment, file_bytes, page, within, piece, was_hole);
            offset += piece.len() as u64;
            data = rest;
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one place calls it")]
    fn wrote_page(
        &mut self,
        ino: Ino,
        segment: Segment,
        file_bytes: u64,
        page: u64,
        within: usize,
        piece: &[u8],
        was_hole: &dyn Fn(u64) -> bool,
    ) {
        let known = self
            .tail
            .as_ref()
            .is_some_and(|tail| (tail.ino, tail.page) == (ino, page));
        let (from, to) = if known {
            let before = &self.tail.as_ref().map_or(&ZEROS, |tail| &*tail.bytes)[within..];
            difference(before, piece)
        } else if was_hole(page) {
            difference(&ZEROS, piece)
        } else {
            (0, piece.len())
        };
        if from < to {
            let at = page * PAGE_BYTES as u64 + (within + from) as u64;
            self.put(segment, file_bytes, at, &piece[from..to]);
        }
        if let Some(last) = piece.iter().rposition(|byte| *byte != 0) {
            let at = page * PAGE_BYTES as u64 + (within + last + 1) as u64;
            self.end = self.end.max(segment.lsn(file_bytes, at));
        }
        if known || was_hole(page) || piece.len() == PAGE_BYTES {
            let tail = match &mut self.tail {
                Some(tail) if known => tail,
                tail => tail.insert(Tail {
                    ino,
                    page,
                    bytes: Box::new(ZEROS),
                }),
            };
            tail.bytes[within..within + piece.len()].copy_from_slice(piece);
        } else {
            self.tail.take_if(|tail| tail.ino == ino);
        }
    }

    fn put(&mut self, segment: Segment, file_bytes: u64, offset: u64, bytes: &[u8]) {
        if self.entry.is_empty() {
            self.entry.push(KIND_WAL);
            self.entry.extend((file_bytes as u32).to_le_bytes());
        }
        self.entry.extend(segment.timeline.to_le_bytes());
        self.entry.extend(segment.number.to_le_bytes());
        self.entry.extend((offset as u32).to_le_bytes());
        self.entry.extend((bytes.len() as u32).to_le_bytes());
        self.entry.extend(bytes);
    }

    /// What was not handed to the journal yet.
    pub(crate) fn entry(&self) -> &[u8] {
        &self.entry
    }

    /// The journal has it.
    pub(crate) fn handed_over(&mut self) {
        self.entry.clear();
        self.entry.shrink_to(CHUNK_BYTES_HIGH / 4);
    }
}

/// The range in which `after` differs from `before`, empty if it does not. `before` is at least as long.
fn difference(before: &[u8], after: &[u8]) -> (usize, usize) {
    let differs = |(a, b): (&u8, &u8)| a != b;
    // By words first: most of a page has not changed.
    const WORD: usize = 64;
    let same = before
        .chunks(WORD)
        .zip(after.chunks(WORD))
        .take_while(|(a, b)| a[..b.len()] == **b)
        .count();
    let start = (same * WORD).min(after.len());
    let Some(first) = before[start..]
        .iter()
        .zip(&after[start..])
        .position(differs)
    else {
        return (0, 0);
    };
    let from = start + first;
    let before = &before[..after.len()];
    let last = before[from..].iter().zip(&after[from..]).rposition(differs);
    (from, from + last.map_or(0, |last| last + 1))
}

/// One chunk of an entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chunk<'a> {
    pub(crate) segment: Segment,
    pub(crate) offset: u32,
    pub(crate) bytes: &'a [u8],
}

/// An entry's bytes of a segment and its chunks; `None` if the entry is none of ours.
pub(crate) fn decode(entry: &[u8]) -> Option<(u32, Vec<Chunk<'_>>)> {
    let (header, mut rest) = entry.split_first_chunk::<ENTRY_HEADER_BYTES>()?;
    let [KIND_WAL, a, b, c, d] = *header else {
        return None;
    };
    let segment_bytes = u32::from_le_bytes([a, b, c, d]);
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        let (header, tail) = rest.split_first_chunk::<CHUNK_HEADER_BYTES>()?;
        let word = |at: usize| {
            let bytes = header[at..].first_chunk::<4>();
            u32::from_le_bytes(*bytes.expect("BUG: a chunk's header has five words"))
        };
        let (bytes, tail) = tail.split_at_checked(word(16) as usize)?;
        let offset = word(12);
        let end = u64::from(offset) + bytes.len() as u64;
        if bytes.is_empty() || end > u64::from(segment_bytes) {
            return None;
        }
        chunks.push(Chunk {
            segment: Segment {
                timeline: word(0),
                number: u64::from(word(8)) << 32 | u64::from(word(4)),
            },
            offset,
            bytes,
        });
        rest = tail;
    }
    Some((segment_bytes, chunks))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "000000010000000000000003";
    const INO: Ino = Ino::new(9);
    const SEGMENT_BYTES: u64 = 1 << 20;

    fn wal() -> Wal {
        let mut wal = Wal::default();
        wal.named(NAME, INO);
        wal
    }

    fn page(bytes: &[u8]) -> Vec<u8> {
        let mut page = bytes.to_vec();
        page.resize(PAGE_BYTES, 0);
        page
    }

    #[test]
    fn only_what_is_new_is_kept() {
        let mut wal = wal();
        let hole = |_| true;
        let full = |_| false;
        wal.wrote(INO, SEGMENT_BYTES, 8192, &page(b"one"), &hole);
        wal.wrote(INO, SEGMENT_BYTES, 8192, &page(b"one two"), &full);
        wal.wrote(INO, SEGMENT_BYTES, 8192, &page(b"one two"), &full);
        let (bytes, chunks) = decode(wal.entry()).unwrap();
        assert_eq!(u64::from(bytes), SEGMENT_BYTES);
        let found: Vec<_> = chunks.iter().map(|c| (c.offset, c.bytes)).collect();
        assert_eq!(found, [(8192, &b"one"[..]), (8195, &b" two"[..])]);
        assert_eq!(chunks[0].segment.name(), NAME);
        assert_eq!(wal.end(), 3 * SEGMENT_BYTES + 8199);
        wal.handed_over();
        assert!(wal.entry().is_empty());
        // A page that is neither known nor a hole is kept whole.
        wal.wrote(INO, SEGMENT_BYTES, 0, &page(b"x"), &full);
        let (_, chunks) = decode(wal.entry()).unwrap();
        assert_eq!((chunks.len(), chunks[0].bytes.len()), (1, PAGE_BYTES));
    }

    #[test]
    fn other_files_are_not_segments() {
        for name in [
            "xlogtemp.42",
            "00000002.history",
            "00000001000000000000000g",
        ] {
            assert_eq!(Segment::parse(name), None, "{name}");
        }
        let mut wal = wal();
        wal.wrote(Ino::new(1), SEGMENT_BYTES, 0, b"x", &|_| true);
        assert!(wal.entry().is_empty());
        wal.unnamed(INO);
        assert!(!wal.contains(INO));
    }

    proptest::proptest! {
        #[test]
        fn replay_gives_what_was_written(
            writes in proptest::collection::vec(
                (0u64..4, 0usize..8192, proptest::collection::vec(0u8..3, 1..3000)), 1..30),
        ) {
            let mut wal = wal();
            let mut file = vec![0u8; 5 * PAGE_BYTES];
            let mut touched = [false; 5];
            for (page, within, data) in &writes {
                let at = *page as usize * PAGE_BYTES + within;
                let before = touched;
                file[at..at + data.len()].copy_from_slice(data);
                wal.wrote(INO, SEGMENT_BYTES, at as u64, data, &|page| !before[page as usize]);
                for byte in at..at + data.len() {
                    touched[byte / PAGE_BYTES] = true;
                }
            }
            let mut replayed = vec![0u8; 5 * PAGE_BYTES];
            if !wal.entry().is_empty() {
                for chunk in decode(wal.entry()).unwrap().1 {
                    let at = chunk.offset as usize;
                    replayed[at..at + chunk.bytes.len()].copy_from_slice(chunk.bytes);
                }
            }
            proptest::prop_assert_eq!(replayed, file);
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let mut entry = vec![KIND_WAL];
            entry.extend(&bytes);
            let _ = decode(&entry);
            let _ = decode(&bytes);
        }
    }
}
