//! Money moves; the sum stays.

use crate::op::Op;
use crate::random::Random;
use crate::state::ACCOUNTS;

/// Most that one transfer moves.
const AMOUNT_MAX: u64 = 500;

pub(super) fn propose(random: &mut Random) -> Op {
    let accounts = ACCOUNTS as u64;
    let from = random.below(accounts);
    let to = (from + random.within(1, accounts - 1)) % accounts;
    Op::Transfer {
        from: from as usize,
        to: to as usize,
        amount: random.within(1, AMOUNT_MAX) as i64,
    }
}
