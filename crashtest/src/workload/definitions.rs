//! Tables, columns and indexes come and go.

use crate::op::Op;
use crate::random::Random;
use crate::state::{State, Table};

/// Tables at once.
const TABLES_MAX: u64 = 4;
/// Columns are numbered up to this.
const COLUMNS_MAX: u64 = 12;
/// Rows that come at once.
const FILL_MAX: u64 = 200;
/// Rows past which a table is emptied.
const ROWS_MAX: u64 = 2_000;

pub(super) fn propose(random: &mut Random, state: &State) -> Option<Op> {
    let table = random.below(TABLES_MAX) as u32;
    let Some(found) = state.tables.get(&table) else {
        let column = random.within(1, COLUMNS_MAX) as u32;
        return Some(Op::CreateTable { table, column });
    };
    if found.rows > ROWS_MAX {
        return Some(Op::Truncate { table });
    }
    match random.below(12) {
        0 => Some(Op::DropTable { table }),
        1 if found.rows > 0 => Some(Op::Truncate { table }),
        2..=4 => add_column(random, table, found),
        5 => pick(random, found, |_, wide| !wide).map(|column| Op::Widen { table, column }),
        6 if found.columns.len() > 1 => {
            pick(random, found, |_, _| true).map(|column| Op::DropColumn { table, column })
        }
        7 | 8 => pick(random, found, |column, _| !found.indexes.contains(&column))
            .map(|column| Op::CreateIndex { table, column }),
        9 => pick(random, found, |column, _| found.indexes.contains(&column))
            .map(|column| Op::DropIndex { table, column }),
        _ => Some(Op::Fill {
            table,
            first: found.rows + 1,
            last: found.rows + random.within(1, FILL_MAX),
        }),
    }
}

fn add_column(random: &mut Random, table: u32, found: &Table) -> Option<Op> {
    let column = random.within(1, COLUMNS_MAX) as u32;
    let rewrite = random.percent(40);
    (!found.columns.contains_key(&column)).then_some(Op::AddColumn {
        table,
        column,
        rewrite,
    })
}

fn pick(random: &mut Random, table: &Table, fits: impl Fn(u32, bool) -> bool) -> Option<u32> {
    let columns = table.columns.iter().map(|(column, wide)| (*column, *wide));
    let fitting: Vec<u32> = columns
        .filter(|(column, wide)| fits(*column, *wide))
        .map(|(column, _)| column)
        .collect();
    random.pick(&fitting).copied()
}
