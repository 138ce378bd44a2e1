//! What a client has asked for by names of statements, until the server has said something to it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use bytes::Bytes;

use crate::statements::Statement;

/// Statements by the client's names for them.
pub(super) type Names = HashMap<Bytes, Arc<Statement>>;

/// In the order in which it was sent. Only what the server will answer is in here, so it is no longer than what awaits an
/// answer.
#[derive(Debug, Default)]
pub(super) struct Unconfirmed {
    steps: VecDeque<Step>,
}

#[derive(Debug)]
enum Step {
    /// A statement was prepared by this name, which is empty for the unnamed one. Its text is not kept for this.
    Prepared(Bytes, Weak<Statement>),
    /// A name was closed, and what it was, if it was something.
    Closed(Option<(Bytes, Arc<Statement>)>),
    /// All of them were dropped.
    Dropped(Names),
    /// What is answered with `ReadyForQuery`: an error before it says nothing of names behind it.
    End(By),
}

/// What is answered with `ReadyForQuery`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Sync,
    /// A simple query or a call of a function, which are left out behind an error of an extended query.
    Query,
}

impl Unconfirmed {
    /// A statement is being prepared.
    pub(super) fn prepares(&mut self, name: Bytes, statement: &Arc<Statement>) {
        let step = Step::Prepared(name, Arc::downgrade(statement));
        self.steps.push_back(step);
    }

    /// A name is being closed, which was this.
    pub(super) fn closes(&mut self, closed: Option<(Bytes, Arc<Statement>)>) {
        self.steps.push_back(Step::Closed(closed));
    }

    /// All names are being dropped.
    pub(super) fn drops(&mut self, names: Names) {
        self.steps.push_back(Step::Dropped(names));
    }

    /// Something was sent that is answered with `ReadyForQuery`.
    pub(super) fn ends(&mut self, by: By) {
        self.steps.push_back(Step::End(by));
    }

    /// `ParseComplete` has come: the statement that the server has taken, if anybody still has it.
    pub(super) fn prepared(&mut self) -> Option<Arc<Statement>> {
        self.dropped();
        let is_it = |step: &mut Step| matches!(step, Step::Prepared(..));
        match self.steps.pop_front_if(is_it) {
            Some(Step::Prepared(_, statement)) => statement.upgrade(),
            _ => None,
        }
    }

    /// The pool's own `CloseComplete` was told.
    pub(super) fn closed(&mut self) {
        self.dropped();
        self.steps
            .pop_front_if(|step| matches!(step, Step::Closed(..)));
    }

    /// What is behind it was done: so was it.
    fn dropped(&mut self) {
        let is_it = |step: &mut Step| matches!(step, Step::Dropped(_));
        while self.steps.pop_front_if(is_it).is_some() {}
    }

    /// An error has come, by a simple query or by an extended one: what was sent before its end is left out, and the names
    /// are what they were. Whether the unnamed statement is none of the client's any more.
    pub(super) fn failed(&mut self, by: By, names: &mut Names) -> bool {
        let is_end = |step: &Step| match step {
            Step::End(other) => by == By::Query || *other == By::Sync,
            _ => false,
        };
        let end = self.steps.iter().position(is_end);
        let mut lost_unnamed = false;
        for step in self.steps.drain(..end.unwrap_or(self.steps.len())).rev() {
            match step {
                Step::Prepared(name, _) if name.is_empty() => lost_unnamed = true,
                Step::Prepared(name, _) => drop(names.remove(&name)),
                Step::Closed(Some((name, statement))) => {
                    names.entry(name).or_insert(statement);
                }
                Step::Dropped(dropped) => {
                    for (name, statement) in dropped {
                        names.entry(name).or_insert(statement);
                    }
                }
                Step::Closed(None) | Step::End(_) => {}
            }
        }
        lost_unnamed
    }

    /// `ReadyForQuery` has come. What was not answered before it was left out.
    pub(super) fn ended(&mut self, names: &mut Names) {
        self.dropped();
        // Whichever end is next.
        self.failed(By::Query, names);
        self.steps.pop_front_if(|step| matches!(step, Step::End(_)));
    }

    /// Statements that are kept for what may still be undone, and their names.
    pub(super) fn statements(&self) -> impl Iterator<Item = (&Bytes, &Arc<Statement>)> {
        self.steps.iter().flat_map(|step| {
            let (one, all) = match step {
                Step::Closed(Some((name, statement))) => (Some((name, statement)), None),
                Step::Dropped(names) => (None, Some(names.iter())),
                Step::Closed(None) | Step::Prepared(..) | Step::End(_) => (None, None),
            };
            one.into_iter().chain(all.into_iter().flatten())
        })
    }

    /// Nothing is under way.
    pub(super) fn clear(&mut self) {
        self.steps.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Facts;
    use crate::settings::Settings;
    use crate::statements::Registry;

    fn statement() -> Arc<Statement> {
        Registry::new().alone(
            b"select 1",
            &[],
            &Settings::default(),
            Arc::new(Facts::default()),
        )
    }

    fn name(name: &'static str) -> Bytes {
        Bytes::from_static(name.as_bytes())
    }

    #[test]
    fn names_are_what_they_were_before_what_failed() {
        let (old, new) = (statement(), statement());
        let mut names = Names::new();
        let mut unconfirmed = Unconfirmed::default();
        unconfirmed.closes(None);
        unconfirmed.closes(Some((name("a"), Arc::clone(&old))));
        names.insert(name("a"), Arc::clone(&new));
        unconfirmed.prepares(name("a"), &new);
        unconfirmed.ends(By::Sync);
        names.insert(name("b"), Arc::clone(&new));
        unconfirmed.prepares(name("b"), &new);
        unconfirmed.prepares(name(""), &new);
        unconfirmed.ends(By::Sync);
        assert!(!unconfirmed.failed(By::Sync, &mut names));
        assert!(Arc::ptr_eq(&names[&name("a")], &old) && names.len() == 2);
        unconfirmed.ended(&mut names);
        assert!(Arc::ptr_eq(&unconfirmed.prepared().unwrap(), &new));
        assert!(unconfirmed.failed(By::Sync, &mut names));
        unconfirmed.ended(&mut names);
        assert_eq!((names.len(), unconfirmed.steps.len()), (2, 0));
    }

    #[test]
    fn what_was_told_is_not_undone() {
        let old = statement();
        let mut names = Names::new();
        let mut unconfirmed = Unconfirmed::default();
        unconfirmed.closes(Some((name("a"), Arc::clone(&old))));
        unconfirmed.closes(Some((name("b"), Arc::clone(&old))));
        unconfirmed.closed();
        unconfirmed.failed(By::Sync, &mut names);
        assert_eq!(names.keys().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn names_are_kept_with_what_they_were() {
        let old = statement();
        let mut unconfirmed = Unconfirmed::default();
        unconfirmed.closes(Some((name("a"), Arc::clone(&old))));
        unconfirmed.closes(None);
        unconfirmed.drops([(name("bc"), old)].into());
        let kept = unconfirmed.statements().map(|(name, _)| name.len());
        assert_eq!(kept.sum::<usize>(), 3);
    }

    #[test]
    fn all_are_dropped_or_none() {
        let (old, new) = (statement(), statement());
        let begin = || {
            let mut names = Names::new();
            let mut unconfirmed = Unconfirmed::default();
            let there = [name("a"), name("b")].map(|name| (name, Arc::clone(&old)));
            unconfirmed.drops(there.into());
            unconfirmed.ends(By::Sync);
            names.insert(name("b"), Arc::clone(&new));
            unconfirmed.prepares(name("b"), &new);
            (names, unconfirmed)
        };
        let (mut names, mut unconfirmed) = begin();
        unconfirmed.ended(&mut names);
        assert_eq!(names.keys().collect::<Vec<_>>(), ["b"]);
        let (mut names, mut unconfirmed) = begin();
        unconfirmed.failed(By::Sync, &mut names);
        unconfirmed.ended(&mut names);
        assert!(Arc::ptr_eq(&names[&name("a")], &old) && Arc::ptr_eq(&names[&name("b")], &new));
        assert!(Arc::ptr_eq(&unconfirmed.prepared().unwrap(), &new));
    }

    #[test]
    fn nothing_is_kept_for_a_name_alone() {
        let mut unconfirmed = Unconfirmed::default();
        let statement = statement();
        unconfirmed.prepares(name(""), &statement);
        assert_eq!(Arc::strong_count(&statement), 1);
        drop(statement);
        assert!(unconfirmed.prepared().is_none());
    }
}
