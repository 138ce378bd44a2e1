//! Tables, columns and indexes are those that the content has.

use std::collections::BTreeSet;

use super::cell;
use crate::session::{Row, Session};
use crate::state::State;
use crate::trouble::Trouble;

const TABLES: &str = "SELECT relname FROM pg_class \
     WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'";

const COLUMNS: &str = "SELECT relname, attname, atttypid::regtype FROM pg_attribute a \
     JOIN pg_class c ON c.oid = a.attrelid WHERE relnamespace = 'public'::regnamespace \
     AND relkind = 'r' AND attnum > 0 AND NOT attisdropped AND attname ~ '^c[0-9]+$'";

const INDEXES: &str = "SELECT indexname FROM pg_indexes WHERE schemaname = 'public'";

pub(super) async fn check(session: &Session, state: &State) -> Result<(), Trouble> {
    let (mut tables, mut columns, mut indexes) = (Vec::new(), Vec::new(), Vec::new());
    if state.is_set_up() {
        tables.extend(["version", "accounts", "log", "bulk"].map(str::to_owned));
        indexes.extend(["accounts_pkey", "log_pkey", "bulk_pkey"].map(str::to_owned));
        if state.bulk_index {
            indexes.push("bulk_note".to_owned());
        }
    }
    for (number, table) in &state.tables {
        tables.push(format!("t{number}"));
        indexes.push(format!("t{number}_pkey"));
        indexes.extend(
            table
                .indexes
                .iter()
                .map(|column| format!("t{number}_c{column}")),
        );
        for (column, wide) in &table.columns {
            let kind = if *wide { "bigint" } else { "integer" };
            columns.push(format!("t{number} c{column} {kind}"));
        }
    }
    same(session, "tables", TABLES, tables).await?;
    same(session, "columns", COLUMNS, columns).await?;
    same(session, "indexes", INDEXES, indexes).await
}

async fn same(
    session: &Session,
    what: &str,
    sql: &str,
    expected: Vec<String>,
) -> Result<(), Trouble> {
    let rows = session.run(sql).await?.rows;
    let found: BTreeSet<String> = rows.iter().map(line).collect::<Result<_, _>>()?;
    let expected = BTreeSet::from_iter(expected);
    if found == expected && rows.len() == expected.len() {
        return Ok(());
    }
    let missing: Vec<_> = expected.difference(&found).collect();
    let too_many: Vec<_> = found.difference(&expected).collect();
    Err(Trouble::Broken(format!(
        "the catalog's {what}: missing {missing:?}, too many {too_many:?}"
    )))
}

fn line(row: &Row) -> Result<String, Trouble> {
    let cells: Result<Vec<String>, _> = (0..row.len()).map(|column| cell(row, column)).collect();
    Ok(cells?.join(" "))
}
