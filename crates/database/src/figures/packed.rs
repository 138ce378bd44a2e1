//! Counts in few bytes: most numbers of most databases are small.

use super::Counts;
use super::histogram::{BUCKETS, Durations};

/// The numbers of [`Counts`].
const NUMBERS: usize = BUCKETS + 14;

/// Bytes of a number that is rounded.
const ROUNDED_BYTES: usize = 5;

/// Bits of it that are its first ones; the others say how many follow.
const FIRST_BITS: u32 = 34;

/// The most bytes that counts take.
pub(super) const BYTES_MAX: usize = NUMBERS * ROUNDED_BYTES;

/// Counts as bytes, seven bits in each, the least first; the eighth bit says that there is more of the number. Zeros at the
/// end are left out. Where that is too long all numbers are rounded, and there are [`BYTES_MAX`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packed(Box<[u8]>);

impl Packed {
    pub(super) fn of(counts: &Counts) -> Self {
        let numbers = numbers(counts);
        let last = numbers.iter().rposition(|number| *number > 0);
        let mut bytes = Vec::with_capacity(NUMBERS * 2);
        for number in &numbers[..last.map_or(0, |last| last + 1)] {
            let mut left = *number;
            while left >= 0x80 {
                bytes.push(left as u8 | 0x80);
                left >>= 7;
            }
            bytes.push(left as u8);
        }
        if bytes.len() >= BYTES_MAX {
            bytes.clear();
            let rounded = numbers.into_iter().map(round);
            bytes.extend(
                rounded.flat_map(|word| word.to_le_bytes().into_iter().take(ROUNDED_BYTES)),
            );
        }
        Self(bytes.into_boxed_slice())
    }

    pub(super) fn counts(&self) -> Counts {
        let mut numbers = [0; NUMBERS];
        if self.0.len() == BYTES_MAX {
            for (number, bytes) in numbers.iter_mut().zip(self.0.chunks(ROUNDED_BYTES)) {
                let mut word = [0; 8];
                word[..ROUNDED_BYTES].copy_from_slice(bytes);
                *number = of_rounded(u64::from_le_bytes(word));
            }
            return of_numbers(&numbers);
        }
        let (mut at, mut shift) = (0, 0);
        for byte in &self.0 {
            numbers[at] |= u64::from(byte & 0x7f) << shift;
            match byte & 0x80 {
                0 => (at, shift) = (at + 1, 0),
                _ => shift += 7,
            }
        }
        of_numbers(&numbers)
    }
}

/// The first bits of a number, and how many follow. Never less than it is: what was counted goes up alone.
fn round(number: u64) -> u64 {
    let bits = u64::BITS - number.leading_zeros();
    let following = bits.saturating_sub(FIRST_BITS);
    let first = number.div_ceil(1 << following);
    // It may have become one bit longer.
    match first >> FIRST_BITS {
        0 => u64::from(following) << FIRST_BITS | first,
        _ => u64::from(following + 1) << FIRST_BITS | first >> 1,
    }
}

fn of_rounded(word: u64) -> u64 {
    let first = word & ((1 << FIRST_BITS) - 1);
    let number = u128::from(first) << (word >> FIRST_BITS);
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Those that are likely to be zero are last.
fn numbers(counts: &Counts) -> [u64; NUMBERS] {
    // Named one by one, so that none can be left out.
    let Counts {
        durations: Durations { buckets, micros },
        statements,
        errors,
        rows,
        bytes_in,
        bytes_out,
        wal_bytes,
        waits,
        wait_micros,
        wakes,
        sleeps,
        cache_hits,
        cache_misses,
        not_modified,
    } = *counts;
    let mut numbers = [0; NUMBERS];
    let first = [
        micros,
        statements,
        rows,
        bytes_in,
        bytes_out,
        wal_bytes,
        wakes.into(),
        sleeps.into(),
    ];
    let last = [
        errors,
        waits,
        wait_micros,
        cache_hits,
        cache_misses,
        not_modified,
    ];
    let all = first.into_iter().chain(buckets).chain(last);
    for (to, number) in numbers.iter_mut().zip(all) {
        *to = number;
    }
    numbers
}

fn of_numbers(numbers: &[u64; NUMBERS]) -> Counts {
    let [
        micros,
        statements,
        rows,
        bytes_in,
        bytes_out,
        wal_bytes,
        wakes,
        sleeps,
        rest @ ..,
    ] = *numbers;
    let mut buckets = [0; BUCKETS];
    buckets.copy_from_slice(&rest[..BUCKETS]);
    let last = &rest[BUCKETS..];
    Counts {
        durations: Durations { buckets, micros },
        statements,
        errors: last[0],
        rows,
        bytes_in,
        bytes_out,
        wal_bytes,
        waits: last[1],
        wait_micros: last[2],
        wakes: wakes as u32,
        sleeps: sleeps as u32,
        cache_hits: last[3],
        cache_misses: last[4],
        not_modified: last[5],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_packed_is_found_again(
            sparse in proptest::collection::vec((0..NUMBERS, any::<u64>(), 0_u32..64), 0..NUMBERS * 2),
        ) {
            let mut numbers = [0; NUMBERS];
            for (at, number, shift) in sparse {
                numbers[at] = number >> shift;
            }
            for at in [6, 7] {
                numbers[at] &= u64::from(u32::MAX);
            }
            let counts = of_numbers(&numbers);
            prop_assert_eq!(super::numbers(&counts), numbers);
            let packed = Packed::of(&counts);
            prop_assert!(packed.0.len() <= BYTES_MAX);
            let found = packed.counts();
            if packed.0.len() < BYTES_MAX {
                prop_assert_eq!(found, counts);
            }
            // Again and again, it stays what it is.
            prop_assert_eq!(Packed::of(&found).counts(), found);
            for (found, number) in super::numbers(&found).into_iter().zip(numbers) {
                prop_assert!(found >= number && found - number <= number >> (FIRST_BITS - 1));
            }
        }
    }

    #[test]
    fn the_largest_are_rounded_and_no_others() {
        for number in [
            0,
            1,
            (1 << FIRST_BITS) - 1,
            1 << FIRST_BITS,
            5 << 61,
            u64::MAX,
        ] {
            assert_eq!(of_rounded(round(number)), number);
        }
        let odd = (1 << FIRST_BITS) + 1;
        assert_eq!(of_rounded(round(odd)), odd + 1);
        assert_eq!(
            of_rounded(round(u64::MAX - (1 << 40))),
            u64::MAX - (1 << 40) + 1
        );
        let mut numbers = [1 << (FIRST_BITS + 2); NUMBERS];
        (numbers[6], numbers[7]) = (u32::MAX.into(), 3);
        let packed = Packed::of(&of_numbers(&numbers));
        assert_eq!(packed.0.len(), BYTES_MAX);
        assert_eq!(packed.counts(), of_numbers(&numbers));
    }

    #[test]
    fn the_ends() {
        for number in [0, 1, 0x7f, 0x80, u64::MAX] {
            let mut numbers = [number; NUMBERS];
            (numbers[6], numbers[7]) = (number as u32 as u64, number as u32 as u64);
            let counts = of_numbers(&numbers);
            assert_eq!(Packed::of(&counts).counts(), counts);
        }
        assert_eq!(Packed::of(&Counts::default()).0.len(), 0);
    }

    #[test]
    fn a_database_that_was_used_a_little_takes_little() {
        let mut counts = Counts {
            statements: 10_000,
            rows: 1_000_000,
            bytes_in: 2_000_000,
            bytes_out: 200_000_000,
            wal_bytes: 50_000_000,
            errors: 100,
            waits: 100,
            wait_micros: 1_000_000,
            wakes: 200,
            sleeps: 200,
            cache_hits: 10_000,
            cache_misses: 100,
            not_modified: 100,
            ..Counts::default()
        };
        counts.durations.micros = 100_000_000;
        counts.durations.buckets = [1_000; BUCKETS];
        assert!(
            Packed::of(&counts).0.len() <= 72,
            "{}",
            Packed::of(&counts).0.len()
        );
    }
}
