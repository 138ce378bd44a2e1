//! When each server is killed: decided by the seed.

use std::time::Duration;

use crate::phase::Phase;
use crate::random::Random;

/// How often each phase is chosen, and how long after its beginning the kill comes at most. That
/// of a startup is relative to how long startups take.
const CHOICES: [(u64, Phase, Duration); 9] = [
    (9, Phase::Startup, Duration::ZERO),
    (10, Phase::Recovery, Duration::from_millis(200)),
    (8, Phase::FirstWake, Duration::from_millis(30)),
    (33, Phase::Load, Duration::from_millis(1_500)),
    (12, Phase::Bulk, Duration::from_millis(200)),
    (12, Phase::Directory, Duration::from_millis(20)),
    (8, Phase::Hibernating, Duration::from_millis(40)),
    (3, Phase::Asleep, Duration::from_millis(50)),
    (5, Phase::Stop, Duration::from_millis(300)),
];

/// One kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// When it comes.
    pub phase: Phase,
    /// How long after the phase's beginning.
    pub delay: Duration,
}

/// The kills of a run.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    seed: u64,
}

impl Schedule {
    /// That of this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The kill of this number, from 1. `startup` is how long the last startup took.
    pub fn plan(&self, kill: u64, startup: Duration) -> Plan {
        let mut random = Random::of(self.seed, &[0x6B69_6C6C, kill]);
        let choices = CHOICES.map(|(weight, phase, most)| (weight, (phase, most)));
        // The first server makes what the later ones need.
        let chosen = if kill == 1 {
            None
        } else {
            random.weighted(&choices)
        };
        let (phase, most) = chosen.unwrap_or((Phase::Load, Duration::from_secs(1)));
        let most = match phase {
            Phase::Startup => startup.mul_f64(1.2),
            _ => most,
        };
        let delay = most.mul_f64(random.below(1_000) as f64 / 1_000.0);
        Plan { phase, delay }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_comes_and_a_seed_decides() {
        let startup = Duration::from_millis(100);
        let plans = |seed| -> Vec<Plan> {
            let schedule = Schedule::new(seed);
            (1..400).map(|kill| schedule.plan(kill, startup)).collect()
        };
        let first = plans(5);
        assert_eq!(first, plans(5));
        assert_ne!(first, plans(6));
        assert_eq!(first[0].phase, Phase::Load);
        for phase in Phase::ALL {
            assert!(first.iter().any(|plan| plan.phase == phase), "{phase}");
        }
    }
}
