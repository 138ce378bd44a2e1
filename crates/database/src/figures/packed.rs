//! Counts in few bytes: most numbers of most databases are small.

use super::Counts;
use super::histogram::{BUCKETS, Durations};

/// The numbers of [`Counts`].
const NUMBERS: usize = BUCKETS + 14;

/// Counts as bytes, seven bits in each, the least first; the eighth bit says that there is more of the number. Zeros at the
/// end are left out.
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
        Self(bytes.into_boxed_slice())
    }

    pub(super) fn counts(&self) -> Counts {
        let mut numbers = [0; NUMBERS];
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
            prop_assert_eq!(packed.counts(), counts);
            prop_assert!(packed.0.len() <= NUMBERS * 10);
        }
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
