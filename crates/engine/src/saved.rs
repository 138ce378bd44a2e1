//! A saved backend: an idle backend as its differences from the image that it was forked from.
//!
//! Bytes: a version, the image's id, the length of the memory, the host's state, the length of the
//! memory's delta, and that delta as one LZ4 block up to the end. What is not trusted here is checked; a checksum and the fingerprint of the
//! engine are whoever stores it to add.

use std::ops::Range;

use crate::codec::{Reader, Writer};
use crate::delta::{DeltaWriter, WORD};
use crate::image::{Image, ImageId, MEMORY_BYTES_MAX, read_id};
use crate::memory::HOST_PAGE_BYTES;
use crate::state::HostState;

const VERSION: u32 = 2;
/// Most bytes of a delta for each byte of memory: a run of one word takes two more for its place.
const DELTA_RATIO_MAX: usize = 2;

/// What [`encode`] wrote, read again.
pub(crate) struct Saved {
    pub(crate) image: ImageId,
    pub(crate) memory_bytes: usize,
    pub(crate) state: HostState,
    pub(crate) delta: Vec<u8>,
}

/// Encodes a backend. Outside the ranges `own`, if they are known, its memory is that of `base`; the
/// bytes in `dead`, which is in the order of its places, are nobody's, and become those of the base.
pub(crate) fn encode(
    base: &Image,
    own: Option<Vec<Range<usize>>>,
    memory: &[u8],
    dead: &[Range<usize>],
    state: &HostState,
) -> Vec<u8> {
    let ranges = own.unwrap_or_else(|| std::iter::once(0..memory.len()).collect());
    let mut delta = DeltaWriter::default();
    for range in ranges {
        without(range, dead, |range| {
            delta.compare(memory, base.memory.bytes(), range);
        });
    }
    let mut writer = Writer::default();
    writer.u32(VERSION);
    writer.bytes(&base.id);
    writer.u64(memory.len() as u64);
    state.write(&mut writer);
    let delta = delta.finish();
    writer.u64(delta.len() as u64);
    writer.bytes(&lz4_flex::block::compress(&delta));
    writer.finish()
}

/// Gives `visit` the parts of `range` outside all of `holes`, which are in the order of their
/// places. Its parts begin and end at whole words, if `range` does.
fn without(range: Range<usize>, holes: &[Range<usize>], mut visit: impl FnMut(Range<usize>)) {
    let mut start = range.start;
    let first = holes.partition_point(|hole| hole.end <= range.start);
    for hole in &holes[first..] {
        let hole = hole.start.next_multiple_of(WORD)..hole.end / WORD * WORD;
        if hole.start >= range.end {
            break;
        }
        if hole.is_empty() {
            continue;
        }
        if hole.start > start {
            visit(start..hole.start);
        }
        start = start.max(hole.end);
    }
    if start < range.end {
        visit(start..range.end);
    }
}

/// Reads what [`encode`] wrote, or says why it cannot be that.
pub(crate) fn decode(bytes: &[u8]) -> Result<Saved, String> {
    let mut reader = Reader::new(bytes);
    let version = reader.u32()?;
    if version != VERSION {
        return Err(format!("its version is {version}, not {VERSION}"));
    }
    let image = read_id(&mut reader)?;
    let memory_bytes = reader.u64()?;
    if memory_bytes > MEMORY_BYTES_MAX || memory_bytes % HOST_PAGE_BYTES as u64 != 0 {
        return Err("its memory cannot be so large".to_owned());
    }
    let state = HostState::read(&mut reader)?;
    let memory_bytes = memory_bytes as usize;
    let delta_bytes = reader.u64()?;
    let delta = reader.bytes()?;
    // LZ4 makes of a byte 255 at most.
    let possible = delta.len().saturating_mul(255);
    if delta_bytes > possible.min(memory_bytes * DELTA_RATIO_MAX) as u64 {
        return Err("its delta cannot be so long".to_owned());
    }
    let delta = lz4_flex::block::decompress(delta, delta_bytes as usize)
        .map_err(|error| format!("its delta: {error}"))?;
    if delta.len() as u64 != delta_bytes {
        return Err("its delta is cut short".to_owned());
    }
    Ok(Saved {
        image,
        memory_bytes,
        state,
        delta,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_cut_out() {
        let parts = |range, holes: &[Range<usize>]| {
            let mut parts = Vec::new();
            without(range, holes, |part| parts.push((part.start, part.end)));
            parts
        };
        assert_eq!(
            parts(0..80, std::slice::from_ref(&(24..40))),
            [(0, 24), (40, 80)]
        );
        assert_eq!(parts(24..40, std::slice::from_ref(&(0..80))), []);
        assert_eq!(parts(0..80, &[0..8, 16..24, 72..96]), [(8, 16), (24, 72)]);
        assert_eq!(
            parts(80..160, &[0..80, 96..104, 160..200]),
            [(80, 96), (104, 160)]
        );
        // A word that is only partly dead lives.
        assert_eq!(parts(0..80, &[17..33, 49..55]), [(0, 24), (32, 80)]);
        assert_eq!(parts(0..80, &[]), [(0, 80)]);
    }
}
