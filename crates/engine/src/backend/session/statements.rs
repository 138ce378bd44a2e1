//! Prepared statements of a session.

use crate::guest_hash::entries;
use crate::host::{read_u32, slice};
use crate::module::Addresses;
use crate::settings;

/// Offsets in `PreparedStatement`, behind a name of 64 bytes, and in its `CachedPlanSource`.
const STATEMENT_SOURCE: u32 = 64;
const STATEMENT_BY_SQL: u32 = 68;
const SOURCE_TREE: u32 = 4;
const SOURCE_TEXT: u32 = 12;
const SOURCE_TYPES: u32 = 20;
const SOURCE_TYPE_COUNT: u32 = 24;

/// Offsets in `RawStmt`: where in the text it is.
const TREE_START: u32 = 8;
const TREE_BYTES: u32 = 12;

/// Most types of parameters that a statement can have.
const TYPES_MAX: u32 = 65_535;

/// A prepared statement, as it can be prepared again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedStatement {
    /// Its name; empty for the unnamed one.
    pub name: String,
    /// The query; for one of `PREPARE` that whole statement.
    pub sql: String,
    /// Object ids of the types of its parameters.
    pub parameter_types: Vec<u32>,
    /// Made by `PREPARE`, not by a `Parse` message.
    pub by_sql: bool,
}

/// Those of a session, the unnamed one last.
pub(super) fn all(memory: &[u8], addresses: &Addresses) -> Vec<PreparedStatement> {
    let mut statements = Vec::new();
    for entry in entries(memory, addresses.statements) {
        let by_sql = slice(memory, entry + STATEMENT_BY_SQL, 1).is_ok_and(|byte| byte[0] != 0);
        let source = read_u32(memory, entry + STATEMENT_SOURCE);
        statements.extend(
            settings::text(memory, entry).and_then(|name| prepared(memory, name, source, by_sql)),
        );
    }
    let unnamed = read_u32(memory, addresses.unnamed_statement);
    if unnamed != 0 {
        statements.extend(prepared(memory, String::new(), unnamed, false));
    }
    statements
}

/// A prepared statement as it can be prepared again.
fn prepared(memory: &[u8], name: String, source: u32, by_sql: bool) -> Option<PreparedStatement> {
    let mut sql = settings::text(memory, read_u32(memory, source + SOURCE_TEXT))?;
    if by_sql {
        // Of several statements in one query only its own.
        let tree = read_u32(memory, source + SOURCE_TREE);
        let start = read_u32(memory, tree + TREE_START) as i32;
        let bytes = read_u32(memory, tree + TREE_BYTES) as usize;
        if let Ok(start) = usize::try_from(start) {
            let end = match bytes {
                0 => sql.len(),
                bytes => start + bytes,
            };
            sql = sql.get(start..end)?.to_owned();
        }
    }
    let count = read_u32(memory, source + SOURCE_TYPE_COUNT).min(TYPES_MAX);
    let types = read_u32(memory, source + SOURCE_TYPES);
    Some(PreparedStatement {
        name,
        sql,
        parameter_types: (0..count)
            .map(|index| read_u32(memory, types + 4 * index))
            .collect(),
        by_sql,
    })
}
