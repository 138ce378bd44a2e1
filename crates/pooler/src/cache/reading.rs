//! What a text reads and writes, as Postgres' own parser tells it. Pure.
//!
//! As in `facts.rs` every node is looked at, wherever it stands. What is not known to be harmless is not.

use std::collections::BTreeSet;

use serde_json::Value;

use super::writing::Writing;
use super::{ASKS_SETTING, NAME_SETTING, types};
use crate::facts::constant;

/// A relation as it is written: its schema, if one is, and its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    pub(crate) schema: Option<String>,
    pub(crate) name: String,
}

/// A function as it is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) arguments: usize,
}

/// Why an answer is not kept, as far as the text alone tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Obstacle {
    /// It is no statement that reads.
    NotAQuery,
    /// It depends on the clock or on what cannot be known.
    Volatile,
    /// It locks, it samples, it asks for what is not in tables.
    Uncacheable,
}

/// What a text reads and writes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Reading {
    /// What keeps its answer from being kept; the worst of it.
    pub(crate) obstacle: Option<Obstacle>,
    /// `CURRENT_USER` and its like.
    pub(crate) asks_session: bool,
    pub(crate) relations: BTreeSet<Name>,
    /// Names of common table expressions, which are no relations.
    pub(crate) common: BTreeSet<String>,
    pub(crate) calls: BTreeSet<Call>,
    pub(crate) operators: BTreeSet<String>,
    /// Last parts of names of columns: a function may be called like a column.
    pub(crate) columns: BTreeSet<String>,
    /// Columns that are cast to a type whose input may ask the clock.
    pub(crate) dated: BTreeSet<String>,
    /// It may ask what the session's program is called: `current_setting` of that name, or of one that is not written
    /// down. Texts of one shape need not be alike in this.
    pub(crate) asks_name: bool,
    /// It casts.
    pub(crate) casts: bool,
    /// Names that the text gives to columns.
    pub(crate) aliases: BTreeSet<String>,
    pub(crate) writes: Writing,
}

impl Reading {
    /// Of the statements of a text, as `pg_query` has them.
    pub(crate) fn of(statements: &[Value]) -> Self {
        let mut reading = Self::default();
        for statement in statements {
            let Some((kind, node)) = statement.get("stmt").and_then(node) else {
                // Between two semicolons.
                continue;
            };
            if kind != "SelectStmt" {
                reading.stands_against(Obstacle::NotAQuery);
            }
            reading.writes.statement(kind, node);
            reading.look(statement);
        }
        if reading.writes.may_end && statements.len() > 1 {
            // What comes behind it is committed with the text's end.
            reading.writes.may_commit = true;
        }
        if statements.is_empty() {
            reading.stands_against(Obstacle::NotAQuery);
        }
        let is_zoned = |call: &Call| call.name == "timezone";
        if reading.aliases.contains(types::TIME_OF_DAY) && reading.calls.iter().any(is_zoned) {
            reading.stands_against(Obstacle::Volatile);
        }
        let renamed = |column: &String| {
            let is_call = reading.calls.iter().any(|call| call.name == *column);
            is_call || reading.aliases.contains(column)
        };
        if reading.dated.iter().any(renamed) {
            reading.stands_against(Obstacle::Volatile);
        }
        reading
    }

    /// Of a text that nobody can read.
    pub(crate) fn unknown() -> Self {
        let mut reading = Self::default();
        reading.stands_against(Obstacle::NotAQuery);
        reading.writes.everything = true;
        reading.writes.catalog = true;
        reading.writes.may_commit = true;
        reading.writes.may_end = true;
        reading
    }

    fn stands_against(&mut self, obstacle: Obstacle) {
        self.obstacle = Some(self.obstacle.map_or(obstacle, |other| other.min(obstacle)));
    }

    fn look(&mut self, value: &Value) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| self.look(value)),
            Value::Object(fields) => {
                if fields.contains_key("relname") && fields.contains_key("catalogname") {
                    self.relation(value);
                }
                if let Some(alias) = text(value, "aliasname") {
                    self.aliases.insert(alias.to_owned());
                    self.aliases.extend(strings(value.get("colnames")));
                }
                for (kind, value) in fields {
                    if value.is_object() {
                        self.node(kind, value);
                    }
                    self.look(value);
                }
            }
            _ => {}
        }
    }

    fn node(&mut self, kind: &str, node: &Value) {
        match kind {
            "SelectStmt" | "larg" | "rarg"
                if node.get("into_clause").is_some_and(Value::is_object) =>
            {
                self.stands_against(Obstacle::NotAQuery);
                self.writes.made(node.get("into_clause"));
            }
            "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt" => {
                self.stands_against(Obstacle::NotAQuery);
                self.writes.table(node.get("relation"));
            }
            "LockingClause" | "RangeTableSample" | "CurrentOfExpr" => {
                self.stands_against(Obstacle::Uncacheable);
            }
            // They cast texts that come from anywhere.
            "JsonFuncExpr" | "JsonTable" | "RangeTableFunc" => {
                self.stands_against(Obstacle::Volatile);
            }
            "SqlvalueFunction" => self.value_function(node),
            "FuncCall" => self.call(node),
            "AExpr" => self.operators.extend(last(node.get("name"))),
            "SubLink" => self.operators.extend(last(node.get("oper_name"))),
            "SortBy" => self.operators.extend(last(node.get("use_op"))),
            "TypeCast" => self.cast(node),
            "ColumnRef" => {
                let name = last(node.get("fields"));
                if let Some(name) = &name
                    && types::SYSTEM_COLUMNS.contains(&name.as_str())
                {
                    self.stands_against(Obstacle::Uncacheable);
                }
                self.columns.extend(name);
            }
            "AIndirection" => self.columns.extend(strings(node.get("indirection"))),
            "ResTarget" => {
                let name = text(node, "name").filter(|name| !name.is_empty());
                self.aliases.extend(name.map(str::to_owned));
            }
            "CommonTableExpr" => {
                self.common.extend(text(node, "ctename").map(str::to_owned));
                self.aliases.extend(strings(node.get("aliascolnames")));
            }
            "ColumnDef" => {
                self.aliases
                    .extend(text(node, "colname").map(str::to_owned));
                // Of a function that gives records: its values are read as these types.
                self.stands_against(Obstacle::Volatile);
            }
            _ => {}
        }
    }

    fn relation(&mut self, node: &Value) {
        if let Some(name) = Name::of(node) {
            self.relations.insert(name);
        }
        if text(node, "catalogname").is_some_and(|name| !name.is_empty()) {
            self.stands_against(Obstacle::Uncacheable);
        }
    }

    fn value_function(&mut self, node: &Value) {
        use pg_query::protobuf::SqlValueFunctionOp as Op;
        let op = node.get("op").and_then(Value::as_i64);
        let op = op.and_then(|op| Op::try_from(i32::try_from(op).ok()?).ok());
        match op {
            Some(
                Op::SvfopCurrentRole
                | Op::SvfopCurrentUser
                | Op::SvfopUser
                | Op::SvfopSessionUser
                | Op::SvfopCurrentCatalog
                | Op::SvfopCurrentSchema,
            ) => self.asks_session = true,
            _ => self.stands_against(Obstacle::Volatile),
        }
    }

    fn call(&mut self, node: &Value) {
        let count = |field: &str| {
            node.get(field)
                .and_then(Value::as_array)
                .map_or(0, Vec::len)
        };
        let is_ordered = node.get("agg_within_group") == Some(&Value::Bool(true));
        let Some(name) = last(node.get("funcname")) else {
            return self.stands_against(Obstacle::Volatile);
        };
        let arguments = match is_ordered {
            true => count("args") + count("agg_order"),
            false => count("args"),
        };
        if name == ASKS_SETTING {
            let setting = node.get("args").and_then(|args| constant(args.get(0)?));
            self.asks_name |= match setting {
                Some(Value::String(name)) => name.eq_ignore_ascii_case(NAME_SETTING),
                _ => true,
            };
        }
        self.calls.insert(Call { name, arguments });
    }

    fn cast(&mut self, node: &Value) {
        self.casts = true;
        let names = strings(node.get("type_name").and_then(|name| name.get("names")));
        let name = names.last().map_or("", String::as_str);
        if types::is_time_of_day(name) {
            self.aliases.insert(types::TIME_OF_DAY.to_owned());
        }
        if types::is_harmless(name) {
            return;
        }
        if types::is_volatile(name) {
            return self.stands_against(Obstacle::Volatile);
        }
        let mut arg = node.get("arg").and_then(self::node);
        while let Some(("TypeCast", inner)) = arg {
            arg = inner.get("arg").and_then(self::node);
        }
        match arg {
            // What these say is looked at for each query.
            Some(("AConst" | "ParamRef", _)) => {}
            Some(("ColumnRef", column)) => match last(column.get("fields")) {
                Some(name) => drop(self.dated.insert(name)),
                None => self.stands_against(Obstacle::Volatile),
            },
            Some(("FuncCall", call)) => {
                let name = last(call.get("funcname"));
                if !name.is_some_and(|name| types::gives_dates(&name)) {
                    self.stands_against(Obstacle::Volatile);
                }
            }
            _ => self.stands_against(Obstacle::Volatile),
        }
    }
}

impl Name {
    pub(super) fn of(node: &Value) -> Option<Self> {
        let name = text(node, "relname").filter(|name| !name.is_empty())?;
        let schema = text(node, "schemaname").filter(|name| !name.is_empty());
        Some(Self {
            schema: schema.map(str::to_owned),
            name: name.to_owned(),
        })
    }
}

pub(super) fn text<'a>(node: &'a Value, field: &str) -> Option<&'a str> {
    node.get(field)?.as_str()
}

/// The kind and the content of a node.
fn node(value: &Value) -> Option<(&str, &Value)> {
    let (kind, node) = value.get("node")?.as_object()?.iter().next()?;
    Some((kind, node))
}

/// The texts of a list of `String` nodes.
fn strings(list: Option<&Value>) -> Vec<String> {
    let list = list.and_then(Value::as_array);
    let text = |value: &Value| Some(text(value.get("node")?.get("String")?, "sval")?.to_owned());
    list.into_iter().flatten().filter_map(text).collect()
}

/// The last part of a name, if it is a text and not a star.
fn last(list: Option<&Value>) -> Option<String> {
    let value = list?.as_array()?.last()?;
    Some(text(value.get("node")?.get("String")?, "sval")?.to_owned())
}

#[cfg(test)]
#[path = "reading_tests.rs"]
mod tests;
