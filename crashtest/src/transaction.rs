//! One transaction: its operations, how it ends, and how it is sent.

use crate::op::Op;
use crate::random::Random;
use crate::state::State;
use crate::workload::{CLIENTS, Kind};

/// Most operations in one transaction.
const STEPS_MAX: u64 = 4;

/// Operations that are sent together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    steps: Vec<Step>,
    /// How it ends.
    pub end: End,
    /// How it is sent.
    pub style: Style,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// An operation.
    Plain(Op),
    /// One within a savepoint that is released.
    Released(Op),
    /// One that is rolled back to a savepoint.
    Undone(Op),
}

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It is committed.
    Commit,
    /// It is rolled back.
    Rollback,
    /// A statement fails, and the commit rolls it back.
    Failure,
}

/// How a transaction is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Statement by statement, each by the extended protocol.
    Extended,
    /// Statement by statement, each by the simple protocol.
    Simple,
    /// `BEGIN; ...; COMMIT` as one message.
    Block,
    /// As one message, without `BEGIN` and `COMMIT`.
    Implicit,
}

impl Transaction {
    /// The first of a database: makes its tables.
    pub fn set_up() -> Self {
        Self::committed(vec![Op::SetUp], Style::Block)
    }

    /// Any transaction of such operations, for a database with this content.
    pub fn any(
        random: &mut Random,
        kinds: &[(u64, Kind)],
        state: &State,
        clients: &[u32; CLIENTS],
    ) -> Self {
        let end = random.weighted(&[(86, End::Commit), (9, End::Rollback), (5, End::Failure)]);
        let end = end.unwrap_or(End::Commit);
        let mut state = state.clone();
        let mut steps = Vec::new();
        for _ in 0..random.within(1, STEPS_MAX) {
            let kind = random.weighted(kinds);
            let Some(op) = kind.and_then(|kind| kind.propose(random, &state, clients)) else {
                continue;
            };
            let step = match random.below(100) {
                0..80 => Step::Plain(op),
                80..90 => Step::Released(op),
                _ => Step::Undone(op),
            };
            if let Some(op) = step.lasting() {
                state.apply(op);
            }
            steps.push(step);
        }
        let plain = steps.iter().all(|step| matches!(step, Step::Plain(_)));
        let style = match random.below(10) {
            0..3 => Style::Extended,
            3..6 => Style::Simple,
            6..8 if plain && end == End::Commit => Style::Implicit,
            _ if end == End::Commit => Style::Block,
            _ => Style::Simple,
        };
        Self { steps, end, style }
    }

    /// Operations that are committed, sent so.
    pub fn committed(ops: Vec<Op>, style: Style) -> Self {
        Self {
            steps: ops.into_iter().map(Step::Plain).collect(),
            end: End::Commit,
            style,
        }
    }

    /// The operations that last if it commits.
    pub fn lasting(&self) -> Vec<Op> {
        self.steps
            .iter()
            .filter_map(|step| step.lasting().cloned())
            .collect()
    }

    /// Its statements, without those that begin and end it. The last one numbers it: it touches
    /// one row if it is the `number`th of its database.
    pub fn statements(&self, seed: u64, number: u64) -> Vec<String> {
        let mut statements = Vec::new();
        for step in &self.steps {
            let (before, op, after) = match step {
                Step::Plain(op) => ("", op, ""),
                Step::Released(op) => ("SAVEPOINT s", op, "RELEASE s"),
                Step::Undone(op) => ("SAVEPOINT s", op, "ROLLBACK TO s"),
            };
            statements.push(before.to_owned());
            statements.extend(op.statements(seed));
            statements.push(after.to_owned());
        }
        statements.retain(|statement| !statement.is_empty());
        let before = number.saturating_sub(1);
        statements.push(format!(
            "UPDATE version SET n = {number} WHERE n = {before}"
        ));
        statements
    }
}

impl Step {
    fn lasting(&self) -> Option<&Op> {
        match self {
            Self::Plain(op) | Self::Released(op) => Some(op),
            Self::Undone(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_undone_does_not_last() {
        let append = |seq| Op::Append { client: 1, seq };
        let transaction = Transaction {
            steps: vec![
                Step::Undone(append(1)),
                Step::Released(append(1)),
                Step::Plain(append(2)),
            ],
            end: End::Commit,
            style: Style::Simple,
        };
        assert_eq!(transaction.lasting(), [append(1), append(2)]);
        let statements = transaction.statements(0, 9);
        let words: Vec<&str> = statements
            .iter()
            .filter_map(|statement| statement.split(' ').next())
            .collect();
        assert_eq!(
            words,
            [
                "SAVEPOINT",
                "INSERT",
                "ROLLBACK",
                "SAVEPOINT",
                "INSERT",
                "RELEASE",
                "INSERT",
                "UPDATE"
            ]
        );
    }

    #[test]
    fn one_message_without_a_block_has_no_savepoint() {
        let mut state = State::default();
        state.apply(&Op::SetUp);
        let kinds = [(1, Kind::Transfers), (1, Kind::Definitions)];
        let mut styles = [0_u32; 4];
        for seed in 0..500 {
            let mut random = Random::of(seed, &[]);
            let transaction = Transaction::any(&mut random, &kinds, &state, &[1, 2, 3]);
            styles[transaction.style as usize] += 1;
            if transaction.style == Style::Implicit {
                assert_eq!(transaction.end, End::Commit);
                let statements = transaction.statements(0, 2).join(";");
                assert!(!statements.contains("SAVEPOINT"), "{statements}");
            }
        }
        assert!(styles.iter().all(|count| *count > 20), "{styles:?}");
    }
}
