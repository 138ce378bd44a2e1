//! Which tables have changed since when: what makes an answer that was kept wrong. Pure.
//!
//! From the moment at which a commit is sent until its outcome is known nobody knows which side of it a query sees, so
//! its tables are *in doubt*: of them nothing is kept and nothing given. When the outcome is known they get a new
//! version. An answer has a stamp, the time at which its query was sent, and is right as long as none of its tables is
//! in doubt or has a version that is newer.

use std::collections::{BTreeSet, HashMap};

/// A relation's number at its origin.
pub(crate) type Oid = u32;

/// Tables whose versions are remembered. Beyond, all entries are dropped once.
const TABLES_MAX: usize = 100_000;

/// What a transaction writes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Writes {
    pub(crate) tables: BTreeSet<Oid>,
    /// It may write any table.
    pub(crate) everything: bool,
    /// It may change the catalog.
    pub(crate) catalog: bool,
}

impl Writes {
    /// Of which nobody knows what they are.
    pub(crate) fn unknown() -> Self {
        Self {
            catalog: true,
            ..Self::any_table()
        }
    }

    /// Any table, but nothing of the catalog.
    pub(crate) fn any_table() -> Self {
        Self {
            everything: true,
            ..Self::default()
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tables.is_empty() && !self.everything && !self.catalog
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.tables.extend(&other.tables);
        self.everything |= other.everything;
        self.catalog |= other.catalog;
    }

    /// What is here and not there.
    pub(crate) fn without(&self, other: &Self) -> Self {
        Self {
            tables: self.tables.difference(&other.tables).copied().collect(),
            everything: self.everything && !other.everything,
            catalog: self.catalog && !other.catalog,
        }
    }
}

/// When a query was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp(u64);

#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    version: u64,
    doubts: u32,
}

impl Mark {
    fn is_right(self, stamp: Stamp) -> bool {
        self.doubts == 0 && self.version <= stamp.0
    }
}

/// The versions of all tables of an origin.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    clock: u64,
    tables: HashMap<Oid, Mark>,
    /// Of all tables at once.
    everything: Mark,
    catalog: Mark,
}

impl Ledger {
    /// A commit of these is sent.
    pub(crate) fn begin(&mut self, writes: &Writes) {
        self.touch(writes, |mark| mark.doubts += 1);
    }

    /// The outcome of a commit that was begun is known.
    pub(crate) fn end(&mut self, writes: &Writes) {
        self.touch(writes, |mark| mark.doubts = mark.doubts.saturating_sub(1));
    }

    /// These have changed.
    pub(crate) fn change(&mut self, writes: &Writes) {
        self.touch(writes, |_| {});
    }

    fn touch(&mut self, writes: &Writes, and: impl Fn(&mut Mark)) {
        self.clock += 1;
        let clock = self.clock;
        let touch = |mark: &mut Mark| {
            mark.version = clock;
            and(mark);
        };
        if writes.everything {
            touch(&mut self.everything);
        }
        if writes.catalog {
            touch(&mut self.catalog);
        }
        for table in &writes.tables {
            touch(self.tables.entry(*table).or_default());
        }
        if self.tables.len() > TABLES_MAX {
            self.tables.retain(|_, mark| mark.doubts > 0);
            self.everything.version = clock;
        }
    }

    /// For a query of these tables that is sent now; nothing if one is in doubt.
    pub(crate) fn stamp(&self, tables: &[Oid]) -> Option<Stamp> {
        let stamp = Stamp(self.clock);
        self.is_right(tables, stamp).then_some(stamp)
    }

    /// For a question about the catalog that is sent now; nothing if it is in doubt.
    pub(crate) fn catalog_stamp(&self) -> Option<Stamp> {
        let stamp = Stamp(self.clock);
        self.is_catalog_right(stamp).then_some(stamp)
    }

    /// Whether what was told of the catalog then is still so.
    pub(crate) fn is_catalog_right(&self, stamp: Stamp) -> bool {
        self.catalog.is_right(stamp)
    }

    /// The time, for who does not care what is in doubt.
    pub(crate) fn now(&self) -> Stamp {
        Stamp(self.clock)
    }

    /// Whether what was asked of these tables then is still so.
    pub(crate) fn is_right(&self, tables: &[Oid], stamp: Stamp) -> bool {
        let is_right = |table| {
            self.tables
                .get(table)
                .is_none_or(|mark| mark.is_right(stamp))
        };
        self.everything.is_right(stamp) && tables.iter().all(is_right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(tables: &[Oid]) -> Writes {
        Writes {
            tables: tables.iter().copied().collect(),
            ..Writes::default()
        }
    }

    #[test]
    fn a_commit_parts_before_from_after() {
        let mut ledger = Ledger::default();
        let before = ledger.stamp(&[1, 2]).unwrap();
        ledger.begin(&of(&[1]));
        assert!(ledger.stamp(&[1, 2]).is_none() && !ledger.is_right(&[1, 2], before));
        let of_another = ledger.stamp(&[2]).unwrap();
        ledger.end(&of(&[1]));
        assert!(!ledger.is_right(&[1, 2], before));
        assert!(ledger.is_right(&[2], of_another));
        let after = ledger.stamp(&[1, 2]).unwrap();
        assert!(ledger.is_right(&[1, 2], after));
        ledger.change(&Writes::unknown());
        assert!(!ledger.is_right(&[], after) && !ledger.is_catalog_right(after));
        let now = ledger.catalog_stamp().unwrap();
        ledger.begin(&Writes::any_table());
        assert!(ledger.is_catalog_right(now) && ledger.stamp(&[]).is_none());
        ledger.begin(&Writes::unknown());
        assert!(ledger.catalog_stamp().is_none());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Begin(usize, Vec<Oid>, bool),
        /// Whether it is committed: the ledger does not know.
        End(usize, bool),
        Query(Vec<Oid>),
    }

    fn step() -> impl Strategy<Value = Step> {
        let tables = || proptest::collection::vec(0..4_u32, 1..3);
        prop_oneof![
            (0..3_usize, tables(), proptest::bool::weighted(0.1))
                .prop_map(|(who, tables, all)| Step::Begin(who, tables, all)),
            (0..3_usize, any::<bool>()).prop_map(|(who, commits)| Step::End(who, commits)),
            tables().prop_map(Step::Query),
        ]
    }

    proptest! {
        /// Whoever asks between the beginning and the end of a commit may see either side of it; what is right by the
        /// ledger is what everybody would see now.
        #[test]
        fn what_is_right_is_so(steps in proptest::collection::vec(step(), 1..60)) {
            let mut ledger = Ledger::default();
            let mut content = [0_u64; 4];
            let mut commits = 0;
            let mut open: [Option<Writes>; 3] = [None, None, None];
            let mut answers: Vec<(Vec<Oid>, Stamp, Vec<u64>)> = Vec::new();
            for step in steps {
                match step {
                    Step::Begin(who, tables, everything) if open[who].is_none() => {
                        let writes = Writes { everything, ..of(&tables) };
                        ledger.begin(&writes);
                        open[who] = Some(writes);
                    }
                    Step::End(who, is_committed) => {
                        let Some(writes) = open[who].take() else { continue };
                        if is_committed {
                            commits += 1;
                            for (table, value) in content.iter_mut().enumerate() {
                                if writes.everything || writes.tables.contains(&(table as Oid)) {
                                    *value = commits;
                                }
                            }
                        }
                        ledger.end(&writes);
                    }
                    Step::Query(tables) => {
                        let seen = tables.iter().map(|table| content[*table as usize]).collect();
                        if let Some(stamp) = ledger.stamp(&tables) {
                            answers.push((tables, stamp, seen));
                        }
                    }
                    Step::Begin(..) => {}
                }
                for (tables, stamp, seen) in &answers {
                    let now = tables.iter().map(|table| content[*table as usize]);
                    if ledger.is_right(tables, *stamp) {
                        prop_assert!(now.eq(seen.iter().copied()));
                        let in_doubt = open.iter().flatten().any(|writes| {
                            writes.everything || tables.iter().any(|table| writes.tables.contains(table))
                        });
                        prop_assert!(!in_doubt);
                    }
                }
            }
            // What nobody has written since is still right: the ledger is of use.
            let last = ledger.stamp(&[0, 1, 2, 3]);
            let is_quiet = open.iter().all(Option::is_none);
            prop_assert_eq!(last.is_some(), is_quiet);
        }
    }
}
