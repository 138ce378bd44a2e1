//! Numbers that one seed decides.

/// A stream of numbers: SplitMix64. Not for secrets.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The stream of this seed and these numbers: one a purpose, so that what one purpose draws
    /// does not move another's stream.
    pub fn of(seed: u64, purpose: &[u64]) -> Self {
        let mut random = Self { state: seed };
        for number in purpose {
            random.state = random.draw() ^ number;
        }
        random
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 if there is none.
    pub fn below(&mut self, end: u64) -> u64 {
        // The skew of a remainder is below 2^-32 for the small ranges of a test.
        self.draw() % end.max(1)
    }

    /// A number from `first` to `last`, both included.
    pub fn within(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last.saturating_sub(first).saturating_add(1))
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// One of them; `None` of none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        choices.get(self.below(choices.len() as u64) as usize)
    }

    /// One of them, each as often as its weight says; `None` if no weight is above 0.
    pub fn weighted<T: Copy>(&mut self, choices: &[(u64, T)]) -> Option<T> {
        let mut left = self.below(choices.iter().map(|(weight, _)| weight).sum());
        for (weight, choice) in choices {
            if left < *weight {
                return Some(*choice);
            }
            left -= weight;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_purpose_decide() {
        let draw = |seed, purpose: &[u64]| {
            let mut random = Random::of(seed, purpose);
            [random.draw(), random.draw(), random.draw()]
        };
        assert_eq!(draw(1, &[2, 3]), draw(1, &[2, 3]));
        assert_ne!(draw(1, &[2, 3]), draw(1, &[3, 2]));
        assert_ne!(draw(1, &[]), draw(2, &[]));
    }

    #[test]
    fn ranges_and_weights_are_kept() {
        let mut random = Random::of(7, &[]);
        let mut seen = [0_u32; 3];
        for _ in 0..1000 {
            assert!((5..=9).contains(&random.within(5, 9)));
            let choice = random.weighted(&[(1, 0_usize), (0, 1), (9, 2)]).unwrap();
            seen[choice] += 1;
        }
        assert!(seen[0] > 50 && seen[1] == 0 && seen[2] > 800, "{seen:?}");
        assert_eq!(random.weighted::<u8>(&[]), None);
        assert_eq!(random.pick::<u8>(&[]), None);
    }
}
