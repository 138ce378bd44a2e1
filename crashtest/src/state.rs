//! What a database holds after some number of transactions.

use std::collections::{BTreeMap, BTreeSet};

use crate::op::Op;

/// Rows of the table `accounts`.
pub const ACCOUNTS: usize = 50;
/// What each account begins with.
pub const BALANCE: i64 = 1_000;

/// The content of one database, as far as the workload decides it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Balances by account; none before the database is set up.
    pub balances: Vec<i64>,
    /// Table `log`: the rows that each client has there.
    pub log: BTreeMap<u32, Span>,
    /// Table `bulk`: the rows that each client has there.
    pub bulk: BTreeMap<u32, Span>,
    /// Whether `bulk` has its second index.
    pub bulk_index: bool,
    /// Tables `t0`, `t1`, ... that come and go.
    pub tables: BTreeMap<u32, Table>,
}

/// Rows numbered `first..=last`, without a gap; none if `first` is above `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The lowest number that is there.
    pub first: u64,
    /// The highest number that was ever there.
    pub last: u64,
}

/// One of the tables that come and go. Its rows have the ids `1..=rows`, and each column holds its
/// own number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Columns `c1`, `c2`, ... beside the id, and whether each is a bigint instead of an int.
    pub columns: BTreeMap<u32, bool>,
    /// Columns with an index.
    pub indexes: BTreeSet<u32>,
    /// How many rows there are.
    pub rows: u64,
}

impl Default for Span {
    fn default() -> Self {
        Self { first: 1, last: 0 }
    }
}

impl Span {
    /// How many rows there are.
    pub fn count(self) -> u64 {
        (self.last + 1).saturating_sub(self.first)
    }
}

impl State {
    /// Whether the first transaction is in it.
    pub fn is_set_up(&self) -> bool {
        !self.balances.is_empty()
    }

    /// Rows of `bulk`.
    pub fn bulk_rows(&self) -> u64 {
        self.bulk.values().map(|span| span.count()).sum()
    }

    /// Does what an operation does.
    pub fn apply(&mut self, op: &Op) {
        match *op {
            Op::SetUp => self.balances = vec![BALANCE; ACCOUNTS],
            Op::Transfer { from, to, amount } => {
                self.balances[from] -= amount;
                self.balances[to] += amount;
            }
            Op::Append { client, seq } => self.log.entry(client).or_default().last = seq,
            Op::TrimLog { client, below } => self.log.entry(client).or_default().first = below,
            Op::Bulk { client, last, .. } => self.bulk.entry(client).or_default().last = last,
            Op::TrimBulk { client, below } => self.bulk.entry(client).or_default().first = below,
            Op::TruncateBulk => {
                for span in self.bulk.values_mut() {
                    span.first = span.last + 1;
                }
            }
            Op::BulkIndex(there) => self.bulk_index = there,
            Op::CreateTable { table, column, .. } => {
                let columns = BTreeMap::from([(column, false)]);
                self.tables.insert(
                    table,
                    Table {
                        columns,
                        ..Table::default()
                    },
                );
            }
            Op::DropTable { table } => {
                self.tables.remove(&table);
            }
            Op::Fill { table, last, .. } => self.table(table).rows = last,
            Op::Truncate { table } => self.table(table).rows = 0,
            Op::AddColumn { table, column, .. } => {
                self.table(table).columns.insert(column, false);
            }
            Op::Widen { table, column } => {
                self.table(table).columns.insert(column, true);
            }
            Op::DropColumn { table, column } => {
                self.table(table).columns.remove(&column);
                self.table(table).indexes.remove(&column);
            }
            Op::CreateIndex { table, column } => {
                self.table(table).indexes.insert(column);
            }
            Op::DropIndex { table, column } => {
                self.table(table).indexes.remove(&column);
            }
        }
    }

    fn table(&mut self, table: u32) -> &mut Table {
        self.tables.entry(table).or_default()
    }
}
