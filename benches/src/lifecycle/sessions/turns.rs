//! Who is measured in a round, in turns, and what comes of it.

use super::peer::{self, Peer};
use crate::{
    lifecycle::{Run, server::IDLE_NEVER},
    samples::median,
    session::Result,
};

/// The turns of a round.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The native server on one core: what each other turn is compared with.
    Native,
    /// Ours on all cores.
    Ours,
    /// Ours on one core.
    OursOnOne,
}

impl Turn {
    pub(super) const ALL: [Self; 3] = [Self::Native, Self::Ours, Self::OursOnOne];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Native => "native, one core",
            Self::Ours => "Dormouse",
            Self::OursOnOne => "Dormouse, one core",
        }
    }
}

/// Both servers.
pub(super) struct Servers {
    ours: Peer,
    native: Peer,
}

impl Servers {
    /// Starts both.
    pub(super) fn start(run: &Run) -> Result<Self> {
        Ok(Self {
            ours: peer::ours(run, IDLE_NEVER, &[])?,
            native: peer::native(run, peer::CONNECTIONS)?,
        })
    }

    pub(super) fn both(&self) -> [&Peer; 2] {
        [&self.native, &self.ours]
    }

    /// The server of a turn, on the cores of the turn.
    pub(super) fn ready(&self, turn: Turn) -> Result<&Peer> {
        let peer = match turn {
            Turn::Native => &self.native,
            Turn::Ours | Turn::OursOnOne => &self.ours,
        };
        peer.pin(turn != Turn::Ours)?;
        Ok(peer)
    }

    pub(super) fn stop(self) {
        self.ours.stop();
        self.native.stop();
    }
}

/// One figure of each turn in each round; none where a turn failed.
#[derive(Default)]
pub(super) struct Rounds(Vec<[Option<f64>; Turn::ALL.len()]>);

impl Rounds {
    /// Notes a figure of a round, by its number.
    pub(super) fn note(&mut self, round: usize, turn: Turn, figure: Option<f64>) {
        if self.0.len() <= round {
            self.0.resize_with(round + 1, Default::default);
        }
        self.0[round][turn as usize] = figure;
    }

    /// The median of a turn.
    pub(super) fn median(&self, turn: Turn) -> Option<f64> {
        median(self.0.iter().filter_map(|round| round[turn as usize]))
    }

    /// The median of the ratios of a turn to the native server, each taken within a round.
    pub(super) fn ratio(&self, turn: Turn) -> Option<f64> {
        median(self.0.iter().filter_map(|round| {
            let native = round[Turn::Native as usize]?;
            Some(round[turn as usize]? / native)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_within_a_round() {
        let mut rounds = Rounds::default();
        for (round, (native, ours)) in [(100.0, 50.0), (10.0, 8.0), (1.0, 0.6)].iter().enumerate() {
            rounds.note(round, Turn::Native, Some(*native));
            rounds.note(round, Turn::Ours, Some(*ours));
        }
        rounds.note(3, Turn::Ours, None);
        assert_eq!(rounds.ratio(Turn::Ours), Some(0.6));
        assert_eq!(rounds.median(Turn::Ours), Some(8.0));
        assert_eq!(rounds.ratio(Turn::OursOnOne), None);
    }
}
