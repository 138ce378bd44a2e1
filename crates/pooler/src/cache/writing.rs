//! What a text writes, and whether it may commit. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use super::reading::{Name, text};

/// What a text writes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Writing {
    pub(crate) tables: BTreeSet<Name>,
    /// It changes the catalog, or nobody knows what it does.
    pub(crate) everything: bool,
    /// It may change what tables and views run.
    pub(crate) catalog: bool,
    /// It may commit what its transaction has done.
    pub(crate) may_commit: bool,
    /// It may end its transaction: what comes behind it is in another, or in none.
    pub(crate) may_end: bool,
    /// Temporary relations that it makes.
    pub(crate) temporary: BTreeSet<String>,
}

impl Writing {
    /// One statement, by its kind. What is written within it is found by looking at all nodes.
    pub(super) fn statement(&mut self, kind: &str, node: &Value) {
        match kind {
            "SelectStmt" | "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt"
            | "VariableSetStmt" | "VariableShowStmt" | "DeclareCursorStmt" | "FetchStmt"
            | "ClosePortalStmt" | "ListenStmt" | "UnlistenStmt" | "NotifyStmt"
            | "CheckPointStmt" | "ExplainStmt" | "PrepareStmt" | "DeallocateStmt"
            | "DiscardStmt" | "LockStmt" | "ConstraintsSetStmt" | "VacuumStmt" => {}
            "TransactionStmt" => self.transaction(node),
            "CopyStmt" => {
                if node.get("is_from") == Some(&Value::Bool(true)) {
                    self.table(node.get("relation"));
                }
            }
            "TruncateStmt" => {
                use pg_query::protobuf::DropBehavior::DropCascade;
                let tables = node.get("relations").and_then(Value::as_array);
                for table in tables.into_iter().flatten() {
                    self.table(table.get("node").and_then(|node| node.get("RangeVar")));
                }
                let cascades = node.get("behavior").and_then(Value::as_i64);
                self.everything |= cascades == Some(DropCascade as i64);
            }
            "RefreshMatViewStmt" => self.table(node.get("relation")),
            "CreateStmt" if is_temporary(node.get("relation")) => self.made_temporary(node),
            "CreateTableAsStmt" => self.made(node.get("into")),
            // They are what they run: nobody knows, and it would be the catalog always.
            "CallStmt" | "ExecuteStmt" => self.everything = true,
            _ => {
                self.everything = true;
                self.catalog = true;
            }
        }
    }

    /// What `SELECT INTO` and `CREATE TABLE AS` make.
    pub(super) fn made(&mut self, into: Option<&Value>) {
        let relation = into.and_then(|into| into.get("rel"));
        match is_temporary(relation) {
            true => self.temporary.extend(
                relation
                    .and_then(|relation| text(relation, "relname"))
                    .map(str::to_owned),
            ),
            false => self.everything = true,
        }
    }

    fn made_temporary(&mut self, node: &Value) {
        let relation = node.get("relation");
        let name = relation.and_then(|relation| text(relation, "relname"));
        self.temporary.extend(name.map(str::to_owned));
    }

    pub(super) fn table(&mut self, relation: Option<&Value>) {
        match relation.and_then(Name::of) {
            Some(name) => drop(self.tables.insert(name)),
            None => self.everything = true,
        }
    }

    fn transaction(&mut self, node: &Value) {
        use pg_query::protobuf::TransactionStmtKind as Kind;
        let kind = node.get("kind").and_then(Value::as_i64);
        let kind = kind.and_then(|kind| Kind::try_from(i32::try_from(kind).ok()?).ok());
        match kind {
            Some(
                Kind::TransStmtBegin
                | Kind::TransStmtStart
                | Kind::TransStmtSavepoint
                | Kind::TransStmtRelease
                | Kind::TransStmtRollbackTo
                | Kind::TransStmtRollbackPrepared,
            ) => {}
            Some(Kind::TransStmtRollback) => self.may_end = true,
            Some(Kind::TransStmtCommitPrepared) => {
                self.everything = true;
                self.catalog = true;
                self.may_commit = true;
            }
            _ => {
                self.may_end = true;
                self.may_commit = true;
            }
        }
    }
}

fn is_temporary(relation: Option<&Value>) -> bool {
    relation.is_some_and(|relation| {
        text(relation, "relpersistence") == Some("t")
            || text(relation, "schemaname") == Some("pg_temp")
    })
}
