//! Thousands of rows at once, so that checkpoints have something to write. A row has some 300 bytes.

use super::CLIENTS;
use crate::op::Op;
use crate::random::Random;
use crate::state::State;

/// Rows that come at once: 6 MB with their index.
pub(super) const BATCH_MAX: u64 = 15_000;
const BATCH_MIN: u64 = 500;
/// Rows past which some must go first.
pub(super) const ROWS_MAX: u64 = 20_000;

pub(super) fn propose(random: &mut Random, state: &State, clients: &[u32; CLIENTS]) -> Option<Op> {
    if random.percent(20) {
        return Some(Op::BulkIndex(!state.bulk_index));
    }
    if state.bulk_rows() > ROWS_MAX || (state.bulk_rows() > 0 && random.percent(15)) {
        return shrink(random, state);
    }
    let client = *random.pick(clients)?;
    let last = state.bulk.get(&client).map_or(0, |span| span.last);
    let most = if random.percent(30) {
        BATCH_MAX
    } else {
        BATCH_MAX / 5
    };
    Some(Op::Bulk {
        client,
        first: last + 1,
        last: last + random.within(BATCH_MIN, most),
    })
}

fn shrink(random: &mut Random, state: &State) -> Option<Op> {
    if random.percent(40) {
        return Some(Op::TruncateBulk);
    }
    let spans: Vec<_> = state
        .bulk
        .iter()
        .filter(|(_, span)| span.count() > 0)
        .collect();
    let (&client, span) = *random.pick(&spans)?;
    Some(Op::TrimBulk {
        client,
        below: random.within(span.first + 1, span.last + 1),
    })
}
