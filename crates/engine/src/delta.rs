//! What a memory differs in from an image's, in words of 8 bytes.
//!
//! Encoded as runs in the order of their places, each three parts: the words since the end of the
//! run before (varint), the words of the run (varint), and its bytes. A page of which Postgres
//! changed one counter costs a dozen bytes.

use std::ops::Range;

/// Unit of comparison.
pub(crate) const WORD: usize = 8;
/// Equal words between two changed ones that are kept with them: the run costs less than another.
const GAP_WORDS: usize = 1;

/// Finds the runs; feed it ranges in order, then take the bytes.
#[derive(Debug, Default)]
pub(crate) struct DeltaWriter {
    bytes: Vec<u8>,
    /// Where the last run that was written ended, in words.
    end: usize,
}

impl DeltaWriter {
    /// Compares `memory` with `base` in `range`, which begins and ends at whole words. Past the end
    /// of `base`, the memory is compared with zeros.
    pub(crate) fn compare(&mut self, memory: &[u8], base: &[u8], range: Range<usize>) {
        let split = range.end.clamp(range.start, base.len().max(range.start));
        let of_base = range.start..split;
        let (words, _) = memory[of_base.clone()].as_chunks::<WORD>();
        let (others, _) = base.get(of_base).unwrap_or_default().as_chunks::<WORD>();
        self.runs(range.start / WORD, words, |index| &others[index]);
        let (words, _) = memory[split..range.end].as_chunks::<WORD>();
        self.runs(split / WORD, words, |_| &[0; WORD]);
    }

    fn runs<'a>(
        &mut self,
        first: usize,
        words: &[[u8; WORD]],
        other: impl Fn(usize) -> &'a [u8; WORD],
    ) {
        let mut at = 0;
        while at < words.len() {
            if words[at] == *other(at) {
                at += 1;
                continue;
            }
            let start = at;
            let mut end = at + 1;
            at = end;
            while at < words.len() && at - end <= GAP_WORDS {
                if words[at] != *other(at) {
                    end = at + 1;
                }
                at += 1;
            }
            self.write(first + start, &words[start..end]);
            at = end;
        }
    }

    fn write(&mut self, start: usize, words: &[[u8; WORD]]) {
        self.varint(start - self.end);
        self.varint(words.len());
        self.bytes.extend_from_slice(words.as_flattened());
        self.end = start + words.len();
    }

    fn varint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// The runs of a delta for a memory of `len` bytes, places in bytes. All are checked first, so that
/// an error leaves the memory alone.
pub(crate) fn runs(delta: &[u8], len: usize) -> Result<Vec<(usize, &[u8])>, String> {
    let mut rest = delta;
    let mut end = 0usize;
    let mut runs = Vec::new();
    while !rest.is_empty() {
        let gap = varint(&mut rest)?;
        let words = varint(&mut rest)?;
        let outside = || "a run lies outside the memory".to_owned();
        let start = gap
            .checked_mul(WORD)
            .and_then(|gap| gap.checked_add(end))
            .ok_or_else(outside)?;
        let bytes = words.checked_mul(WORD).ok_or_else(outside)?;
        let (run, tail) = rest.split_at_checked(bytes).ok_or("a run is cut short")?;
        end = start.checked_add(bytes).ok_or_else(outside)?;
        if end > len {
            return Err(outside());
        }
        runs.push((start, run));
        rest = tail;
    }
    Ok(runs)
}

fn varint(bytes: &mut &[u8]) -> Result<usize, String> {
    let mut value = 0usize;
    for shift in (0..usize::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or("a number is cut short")?;
        *bytes = rest;
        value |= usize::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number is too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(delta: &[u8], memory: &mut [u8]) {
        for (start, run) in runs(delta, memory.len()).expect("own bytes") {
            memory[start..start + run.len()].copy_from_slice(run);
        }
    }

    #[test]
    fn a_delta_turns_the_base_into_the_memory() {
        let mut seed = 1u64;
        let mut random = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize
        };
        for round in 0..200 {
            let base: Vec<u8> = (0..8192).map(|_| random() as u8).collect();
            let mut memory = base.clone();
            memory.resize(3 * 4096, 0);
            for _ in 0..round {
                let at = random() % memory.len();
                memory[at] = random() as u8;
            }
            let mut writer = DeltaWriter::default();
            writer.compare(&memory, &base, 0..4096);
            writer.compare(&memory, &base, 4096..memory.len());
            let delta = writer.finish();
            let mut again = base.clone();
            again.resize(memory.len(), 0);
            apply(&delta, &mut again);
            assert_eq!(again, memory);
        }
    }

    #[test]
    fn one_changed_word_is_small() {
        let base = vec![5; 8192];
        let mut memory = base.clone();
        memory[5000] = 6;
        let mut writer = DeltaWriter::default();
        writer.compare(&memory, &base, 4096..8192);
        assert_eq!(writer.finish().len(), 11);
    }

    #[test]
    fn foreign_bytes_are_refused() {
        assert!(runs(&[0x80], 4096).is_err());
        assert!(runs(&[0xFF; 20], 4096).is_err());
        assert!(runs(&[0, 1, 0, 0], 4096).is_err());
        let mut past = vec![0xFF, 3, 2];
        past.extend_from_slice(&[1; 16]);
        assert!(runs(&past, 4096).is_err());
        assert!(runs(&past, 8192).is_ok());
    }
}
