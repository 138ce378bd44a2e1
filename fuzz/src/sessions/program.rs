//! Sessions' ops in one order.

use std::fmt;

use sim::Random;

use super::op::{Hold, Op, Until};
use super::{grammar, protocol_op};

/// All that sessions do, each op with the session whose it is.
#[derive(Debug, Clone)]
pub struct Program {
    /// Where it comes from.
    pub seed: u64,
    /// How many sessions there are.
    pub sessions: usize,
    /// What they do, one after the other.
    pub ops: Vec<(usize, Op)>,
}

/// What a session keeps its process by.
#[derive(Debug, Clone, Copy, Default)]
struct Holding {
    in_transaction: bool,
    bound: bool,
}

impl Holding {
    fn after(self, hold: Hold) -> Self {
        match hold {
            Hold::Nothing => self,
            Hold::Begin => Self {
                in_transaction: true,
                ..self
            },
            Hold::End => Self {
                in_transaction: false,
                ..self
            },
            Hold::Bind => Self {
                bound: true,
                ..self
            },
        }
    }

    fn is_any(self) -> bool {
        self.in_transaction || self.bound
    }
}

impl Program {
    /// The program of a seed. At no time do more than `holders_max` sessions keep a process.
    pub fn of(seed: u64, holders_max: usize) -> Self {
        let mut random = Random::new(seed);
        let sessions_max = if random.one_in(4) { 20 } else { 7 };
        let sessions = random.within(2..=sessions_max) as usize;
        let count = random.within(20..=120) as usize;
        let mut ops: Vec<(usize, Op)> = Vec::new();
        let mut pending: Vec<Vec<Op>> = vec![Vec::new(); sessions];
        let mut holding = vec![Holding::default(); sessions];
        // A session binds itself for good, so there is one at most.
        let binder = random.one_in(2).then(|| random.index(sessions));
        while ops.len() < count {
            let session = random.index(sessions);
            let others = holding.iter().enumerate();
            let others = others
                .filter(|(other, held)| *other != session && held.is_any())
                .count();
            let reserved = usize::from(
                binder.is_some_and(|binder| binder != session && !holding[binder].is_any()),
            );
            let may_hold = others + reserved < holders_max;
            let own = holding[session];
            if pending[session].is_empty() {
                let is_binder = binder == Some(session);
                let next = next(&mut random, session, own, is_binder, may_hold);
                // Parts come one by one, in their order.
                pending[session] = next;
            }
            let op = pending[session].remove(0);
            holding[session] = own.after(op.hold);
            ops.push((session, op));
        }
        let program = Self {
            seed,
            sessions,
            ops,
        };
        program.with_ends()
    }

    /// With every session brought to rest, and asked for what it has.
    fn with_ends(mut self) -> Self {
        const LAST: [&str; 3] = [
            "ROLLBACK",
            "SELECT current_setting('my.a', true), current_setting('search_path'), current_user, session_user",
            "SELECT name, statement, parameter_types, from_sql FROM pg_prepared_statements ORDER BY name",
        ];
        for session in 0..self.sessions {
            let sync = Op {
                messages: vec![crate::protocol::message::Message::sync()],
                until: Until::Ready,
                hold: Hold::Nothing,
            };
            self.ops.push((session, sync));
            for sql in LAST {
                self.ops.push((session, Op::query(sql, Hold::End)));
            }
        }
        self
    }

    /// Whether at no time more than so many sessions keep a process.
    pub fn is_fair(&self, holders_max: usize) -> bool {
        let mut holding = vec![Holding::default(); self.sessions];
        self.ops.iter().all(|(session, op)| {
            holding[*session] = holding[*session].after(op.hold);
            holding.iter().filter(|held| held.is_any()).count() <= holders_max
        })
    }
}

/// What a session does next.
fn next(
    random: &mut Random,
    session: usize,
    own: Holding,
    is_binder: bool,
    may_hold: bool,
) -> Vec<Op> {
    let word = format!("w{session}");
    let one = |op| vec![op];
    if own.in_transaction && random.one_in(3) {
        return one(grammar::amid(random, &word));
    }
    match random.below(100) {
        0..3 => one(Op::pause()),
        3..25 if is_binder && may_hold => one(grammar::binding(random, &word)),
        25..35 if may_hold && !own.in_transaction => one(grammar::begin(random)),
        35..42 if may_hold && !own.in_transaction => protocol_op::parts(random, &word),
        42..62 => one(protocol_op::whole(random, &word)),
        62..66 => one(protocol_op::copy(random, &word)),
        _ => one(grammar::free(random, &word)),
    }
}

impl fmt::Display for Program {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "program {}, {} sessions", self.seed, self.sessions)?;
        for (number, (session, op)) in self.ops.iter().enumerate() {
            writeln!(out, "{number:4} w{session}: {op}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_follow_from_their_seeds_and_are_fair() {
        for seed in 0..300 {
            let program = Program::of(seed, 2);
            assert!(program.is_fair(2), "{program}");
            assert_eq!(program.to_string(), Program::of(seed, 2).to_string());
        }
        assert!((0..300).any(|seed| !Program::of(seed, 2).is_fair(1)));
    }
}
