//! What a row of the log says: decided by the run's seed, the client and its number alone, so that
//! a byte from anywhere else is noticed.

use crate::random::Random;

/// Longest payload, in bytes.
pub const BYTES_MAX: u64 = 20_000;

/// Characters that need no quoting.
const ALPHABET: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";

/// The payload of a client's row. It begins with `client/seq:`, for whoever finds it elsewhere.
pub fn payload(seed: u64, client: u32, seq: u64) -> String {
    let mut random = Random::of(seed, &[0x7061_796C, u64::from(client), seq]);
    // Mostly small; some behind a pointer in the page, some in many chunks.
    let bytes = match random.below(10) {
        0..7 => random.within(0, 200),
        7..9 => random.within(200, 4_000),
        _ => random.within(4_000, BYTES_MAX - 40),
    } as usize;
    let mut text = format!("{client}/{seq}:");
    let end = text.len() + bytes;
    // Half of them can be compressed.
    let repeats = random.percent(50);
    let word = random.draw();
    while text.len() < end {
        let mut bits = if repeats { word } else { random.draw() };
        for _ in 0..10.min(end - text.len()) {
            text.push(char::from(ALPHABET[(bits & 63) as usize]));
            bits >>= 6;
        }
    }
    text
}

/// The checksum that stands beside a payload.
pub fn checksum(payload: &str) -> u32 {
    crc32c::crc32c(payload.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_differ_and_fit() {
        let mut lengths = Vec::new();
        for seq in 0..500 {
            let text = payload(1, 2, seq);
            assert_eq!(text, payload(1, 2, seq));
            assert_ne!(text, payload(1, 3, seq));
            assert!(text.starts_with(&format!("2/{seq}:")));
            lengths.push(text.len() as u64);
        }
        let long = lengths.iter().filter(|bytes| **bytes > 4_100).count();
        assert!((20..100).contains(&long), "{long}");
        assert!(lengths.iter().all(|bytes| *bytes <= BYTES_MAX));
    }
}
