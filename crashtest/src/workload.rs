//! What clients do in a database: transfers, appended lists, definitions, and much at once. Each
//! kind proposes operations that fit the content it is shown.

mod bulk;
mod definitions;
mod lists;
mod transfers;

use crate::op::Op;
use crate::random::Random;
use crate::state::State;

/// Clients of one database whose rows are told apart.
pub const CLIENTS: usize = 3;

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Money moves between accounts.
    Transfers,
    /// Rows are appended to lists.
    Lists,
    /// Tables, columns and indexes come and go.
    Definitions,
    /// Thousands of rows come or go at once.
    Bulk,
}

impl Kind {
    /// An operation of this kind for a database with this content; `None` if none fits.
    pub fn propose(
        self,
        random: &mut Random,
        state: &State,
        clients: &[u32; CLIENTS],
    ) -> Option<Op> {
        match self {
            Self::Transfers => Some(transfers::propose(random)),
            Self::Lists => lists::propose(random, state, clients),
            Self::Definitions => definitions::propose(random, state),
            Self::Bulk => bulk::propose(random, state, clients),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{ACCOUNTS, BALANCE};

    /// Whatever is proposed keeps the sum, leaves no gap, and stays within its bounds.
    #[test]
    fn proposals_fit() {
        let mut random = Random::of(3, &[]);
        let mut state = State::default();
        state.apply(&Op::SetUp);
        let mut kinds = Vec::new();
        for _ in 0..5_000 {
            let kind = [Kind::Transfers, Kind::Lists, Kind::Definitions, Kind::Bulk]
                [random.below(4) as usize];
            let Some(op) = kind.propose(&mut random, &state, &[7, 8, 9]) else {
                continue;
            };
            let before = state.clone();
            state.apply(&op);
            assert_ne!(before, state, "{op:?} does nothing");
            let spans = || state.log.iter().chain(&state.bulk);
            assert!(spans().all(|(client, span)| (7..=9).contains(client) && span.first >= 1));
            assert!(
                spans().all(|(_, span)| span.first <= span.last + 1),
                "{op:?}"
            );
            assert!(state.bulk_rows() <= bulk::ROWS_MAX + bulk::BATCH_MAX);
            assert_eq!(
                state.balances.iter().sum::<i64>(),
                BALANCE * ACCOUNTS as i64
            );
            kinds.push(std::mem::discriminant(&op));
        }
        for table in state.tables.values() {
            assert!(
                table
                    .indexes
                    .iter()
                    .all(|column| table.columns.contains_key(column))
            );
        }
        kinds.sort_by_key(|kind| format!("{kind:?}"));
        kinds.dedup();
        // Every operation but the first.
        assert_eq!(kinds.len(), 16, "{kinds:?}");
    }
}
