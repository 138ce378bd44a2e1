//! Rows are appended, and a list that has grown long loses its beginning.

use super::CLIENTS;
use crate::op::Op;
use crate::random::Random;
use crate::state::State;

/// Rows of one client past which the oldest are removed.
const ROWS_MAX: u64 = 150;

pub(super) fn propose(random: &mut Random, state: &State, clients: &[u32; CLIENTS]) -> Option<Op> {
    let long = state.log.iter().find(|(_, span)| span.count() > ROWS_MAX);
    if let Some((&client, span)) = long {
        return Some(Op::TrimLog {
            client,
            below: random.within(span.first + 1, span.last + 1),
        });
    }
    // A fork has its ancestors' lists; one that nobody appends to goes after a while.
    let mut others = state.log.iter();
    let other = others.find(|(client, span)| !clients.contains(client) && span.count() > 0);
    if let Some((&client, span)) = other
        && random.percent(2)
    {
        return Some(Op::TrimLog {
            client,
            below: span.last + 1,
        });
    }
    let client = *random.pick(clients)?;
    let last = state.log.get(&client).map_or(0, |span| span.last);
    Some(Op::Append {
        client,
        seq: last + 1,
    })
}
