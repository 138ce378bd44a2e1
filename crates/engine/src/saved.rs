//! A saved backend: an idle backend as its differences from the image that it was forked from.
//!
//! Bytes: a version, the image's id, the length of the memory, the host's state, and the memory's
//! delta up to the end. What is not trusted here is checked; a checksum and the fingerprint of the
//! engine are whoever stores it to add.

use std::ops::Range;

use crate::codec::{Reader, Writer};
use crate::delta::DeltaWriter;
use crate::image::{Image, ImageId, MEMORY_BYTES_MAX, read_id};
use crate::memory::HOST_PAGE_BYTES;
use crate::pagemap::own_pages;
use crate::state::HostState;

const VERSION: u32 = 1;

/// What [`encode`] wrote, read again.
pub(crate) struct Saved<'a> {
    pub(crate) image: ImageId,
    pub(crate) memory_bytes: usize,
    pub(crate) state: HostState,
    pub(crate) delta: &'a [u8],
}

/// Encodes a backend. `forked` says that its memory is `base` mapped copy-on-write; the bytes in
/// `dead` are nobody's, and become those of the base.
pub(crate) fn encode(
    base: &Image,
    forked: bool,
    memory: &[u8],
    dead: Range<usize>,
    state: &HostState,
) -> Vec<u8> {
    let own = forked.then(|| own_pages(memory));
    let ranges = match own {
        Some(Ok(ranges)) => ranges,
        Some(Err(error)) => {
            tracing::debug!(%error, "a backend's own pages are unknown; all are compared");
            std::iter::once(0..memory.len()).collect()
        }
        None => std::iter::once(0..memory.len()).collect(),
    };
    let mut delta = DeltaWriter::default();
    for range in ranges {
        for range in without(range, &dead) {
            delta.compare(memory, base.memory.bytes(), range);
        }
    }
    let mut writer = Writer::default();
    writer.u32(VERSION);
    writer.bytes(&base.id);
    writer.u64(memory.len() as u64);
    state.write(&mut writer);
    writer.bytes(&delta.finish());
    writer.finish()
}

/// The parts of `range` before and after `hole`.
fn without(range: Range<usize>, hole: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let before = range.start..range.end.min(hole.start);
    let after = range.start.max(hole.end)..range.end;
    [before, after].into_iter().filter(|part| !part.is_empty())
}

/// Reads what [`encode`] wrote, or says why it cannot be that.
pub(crate) fn decode(bytes: &[u8]) -> Result<Saved<'_>, String> {
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
    Ok(Saved {
        image,
        memory_bytes: memory_bytes as usize,
        state,
        delta: reader.bytes()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_is_cut_out() {
        let parts = |range, hole| {
            without(range, &hole)
                .map(|part| (part.start, part.end))
                .collect::<Vec<_>>()
        };
        assert_eq!(parts(0..10, 3..5), [(0, 3), (5, 10)]);
        assert_eq!(parts(3..5, 0..10), []);
        assert_eq!(parts(0..10, 20..30), [(0, 10)]);
        assert_eq!(parts(20..30, 0..10), [(20, 30)]);
        assert_eq!(parts(0..10, 8..20), [(0, 8)]);
    }
}
