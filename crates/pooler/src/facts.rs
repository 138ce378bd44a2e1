//! What a statement does to its session, as Postgres' own parser reads it.
//!
//! Every node of the tree is looked at, of whatever kind it is: what is not known to be harmless is found by its
//! fields, not by where it stands.

use std::collections::BTreeSet;

use serde_json::Value;
use wire::pg::{Lexer, TokenKind};

use crate::cache::Reading;

/// Why a session cannot change its server between transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pin {
    /// `LISTEN`.
    Listen,
    /// A temporary table, view or sequence.
    Temporary,
    /// An advisory lock of the session.
    AdvisoryLock,
    /// A statement by `PREPARE`.
    Prepare,
    /// A cursor `WITH HOLD`.
    HeldCursor,
    /// A library by `LOAD`.
    Load,
    /// A setting whose name is known when the statement runs.
    Setting,
}

impl Pin {
    /// For people.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Listen => "LISTEN",
            Self::Temporary => "a temporary object",
            Self::AdvisoryLock => "an advisory lock of the session",
            Self::Prepare => "PREPARE",
            Self::HeldCursor => "a cursor WITH HOLD",
            Self::Load => "LOAD",
            Self::Setting => "set_config with a name that is not written down",
        }
    }
}

/// What is known of a text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Facts {
    /// Statements in it.
    pub(crate) statements: usize,
    /// Settings of the session that it may change, in lower case.
    pub(crate) sets: BTreeSet<String>,
    /// Settings that it may change until the end of its transaction, in lower case; without a name one that is not
    /// written down.
    pub(crate) sets_locally: BTreeSet<String>,
    /// `RESET ALL`, `DISCARD ALL`.
    pub(crate) resets_all: bool,
    /// What binds the session to its server from now on.
    pub(crate) pins: BTreeSet<Pin>,
    /// What no longer does.
    pub(crate) unpins: BTreeSet<Pin>,
    /// `DISCARD ALL`, `DEALLOCATE ALL`: the server has no prepared statements any more.
    pub(crate) deallocates: bool,
    /// Names of statements by `PREPARE`.
    pub(crate) prepares: BTreeSet<String>,
    /// Names of statements that are gone by `DEALLOCATE`.
    pub(crate) deallocated: BTreeSet<String>,
    /// Sequences may give numbers, which `currval` and `lastval` tell afterwards: by name, or as defaults of columns.
    pub(crate) gives_numbers: bool,
    /// `COPY … FROM STDIN`: its client may have to send data.
    pub(crate) takes_data: bool,
    /// Names of the functions that it calls, without their schema.
    pub(crate) functions: BTreeSet<String>,
    /// Nobody knows what it does: `DO`, `CALL`, `EXECUTE`, or a text that the parser does not understand.
    pub(crate) is_opaque: bool,
    /// The parser does not understand it.
    pub(crate) is_unreadable: bool,
    /// What it reads and writes.
    pub(crate) reading: Reading,
}

const HOLD: i64 = 0x0020;

/// What stands in the place of a value in a shape: no text has it.
const VALUE: u8 = 0;

impl Facts {
    /// Reads a text.
    pub(crate) fn of(sql: &str) -> Self {
        let parsed = pg_query::parse(sql, 0).ok();
        let tree = parsed.and_then(|parsed| serde_json::to_value(parsed.protobuf.stmts).ok());
        let Some(Value::Array(statements)) = tree else {
            return Self::unknown();
        };
        let mut facts = Self {
            statements: statements.len(),
            reading: Reading::of(&statements),
            ..Self::default()
        };
        statements
            .iter()
            .for_each(|statement| facts.look(statement));
        // A new column of a table that there is has its numbers at once.
        facts.gives_numbers |= facts.reading.writes.everything;
        facts
    }

    /// Of a text that nobody can read.
    pub(crate) fn unknown() -> Self {
        Self {
            is_opaque: true,
            is_unreadable: true,
            gives_numbers: true,
            takes_data: true,
            reading: Reading::unknown(),
            ..Self::default()
        }
    }

    /// Of a text that the server may read otherwise, for what the session says of strings or encodings: it may do what
    /// it says, and anything else.
    pub(crate) fn misread(&self) -> Self {
        Self {
            unpins: BTreeSet::new(),
            deallocates: false,
            is_opaque: true,
            gives_numbers: true,
            takes_data: true,
            reading: Reading::unknown(),
            ..self.clone()
        }
    }

    /// Texts of one shape have the same facts: a shape is all but the values and the comments. Where these matter it is
    /// the text.
    pub(crate) fn shape(sql: &[u8]) -> Vec<u8> {
        let mut shape = Vec::with_capacity(sql.len());
        let mut lexer = Lexer::new(sql);
        let mut end = 0;
        loop {
            let token = match lexer.next() {
                Ok(Some(token)) => token,
                Ok(None) => return shape,
                // Nobody has read the rest of it.
                Err(_) => return sql.to_vec(),
            };
            if token.start > end && !shape.is_empty() {
                shape.push(b' ');
            }
            end = token.start + token.raw.len();
            match token.kind {
                // What it is called depends on the string behind `UESCAPE`.
                TokenKind::UnicodeIdentifier => return sql.to_vec(),
                // With standard_conforming_strings off the string would go on.
                TokenKind::String if token.raw.ends_with(b"\\'") => return sql.to_vec(),
                // The sign behind it may belong to it, or be an operator.
                TokenKind::Number if token.raw.ends_with(b"e") || token.raw.ends_with(b"E") => {
                    shape.extend_from_slice(token.raw);
                }
                TokenKind::String
                | TokenKind::PrefixedString
                | TokenKind::DollarString
                | TokenKind::Number => shape.push(VALUE),
                _ => shape.extend_from_slice(token.raw),
            }
        }
    }

    /// Whether texts of the same shape have the same facts. One that cannot be read says nothing of those that can.
    pub(crate) fn are_of_the_shape(&self) -> bool {
        !self.is_unreadable && !self.functions.contains("set_config")
    }

    fn look(&mut self, value: &Value) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| self.look(value)),
            Value::Object(fields) => {
                if text(value, "relpersistence") == Some("t")
                    || text(value, "schemaname") == Some("pg_temp")
                {
                    self.pins.insert(Pin::Temporary);
                }
                for (name, value) in fields {
                    self.node(name, value);
                    self.look(value);
                }
            }
            _ => {}
        }
    }

    /// One node, by its kind.
    fn node(&mut self, kind: &str, node: &Value) {
        match kind {
            "VariableSetStmt" => self.set(node),
            "FuncCall" => self.call(node),
            "ListenStmt" => self.pin(Pin::Listen),
            // Without a name it is all of them.
            "UnlistenStmt" if text(node, "conditionname").is_none_or(str::is_empty) => {
                self.unpins.insert(Pin::Listen);
            }
            "PrepareStmt" => {
                self.pin(Pin::Prepare);
                let name = text(node, "name").unwrap_or_default();
                self.prepares.insert(name.to_owned());
            }
            "DeallocateStmt" if node.get("isall") == Some(&Value::Bool(true)) => {
                self.deallocates = true;
                self.unpins.insert(Pin::Prepare);
            }
            "DeallocateStmt" => {
                let name = text(node, "name").unwrap_or_default();
                self.deallocated.insert(name.to_owned());
            }
            "DeclareCursorStmt" => {
                let options = node.get("options").and_then(Value::as_i64).unwrap_or(HOLD);
                if options & HOLD != 0 {
                    self.pin(Pin::HeldCursor);
                }
            }
            "InsertStmt" | "MergeStmt" | "SetToDefault" => self.gives_numbers = true,
            "CopyStmt" => {
                let is_from = node.get("is_from") == Some(&Value::Bool(true));
                self.gives_numbers |= is_from;
                self.takes_data |= is_from;
            }
            "LoadStmt" => self.pin(Pin::Load),
            "DiscardStmt" => self.discard(node),
            // What is maintained may have functions in its indexes.
            "DoStmt" | "CallStmt" | "ExecuteStmt" | "VacuumStmt" => self.is_opaque = true,
            _ => {}
        }
    }

    fn pin(&mut self, pin: Pin) {
        self.pins.insert(pin);
    }

    fn discard(&mut self, node: &Value) {
        use pg_query::protobuf::DiscardMode;
        match target(node).and_then(|mode| DiscardMode::try_from(mode).ok()) {
            Some(DiscardMode::DiscardPlans | DiscardMode::DiscardSequences) => {}
            Some(DiscardMode::DiscardTemp) => {
                self.unpins.insert(Pin::Temporary);
            }
            _ => {
                self.resets_all = true;
                self.deallocates = true;
                self.unpins.extend([
                    Pin::Listen,
                    Pin::Temporary,
                    Pin::AdvisoryLock,
                    Pin::Prepare,
                    Pin::HeldCursor,
                    Pin::Setting,
                ]);
            }
        }
    }

    fn set(&mut self, node: &Value) {
        use pg_query::protobuf::VariableSetKind;
        let kind = node.get("kind").and_then(Value::as_i64).unwrap_or(0);
        let kind = VariableSetKind::try_from(kind as i32).ok();
        let name = text(node, "name").unwrap_or_default();
        if node.get("is_local") == Some(&Value::Bool(true)) {
            self.sets_locally.insert(name.to_ascii_lowercase());
            return;
        }
        match kind {
            Some(VariableSetKind::VarResetAll) => self.resets_all = true,
            Some(VariableSetKind::VarSetMulti) if name == "SESSION CHARACTERISTICS" => {
                let part = |what: &str| format!("default_transaction_{what}");
                self.sets
                    .extend(["isolation", "read_only", "deferrable"].map(part));
            }
            Some(VariableSetKind::VarSetMulti) => {}
            _ => {
                self.sets.insert(name.to_ascii_lowercase());
                if name.eq_ignore_ascii_case("session_authorization") {
                    // It takes the role along.
                    self.sets.insert("role".to_owned());
                }
            }
        }
    }

    fn call(&mut self, node: &Value) {
        let parts = node.get("funcname").and_then(Value::as_array);
        let Some(name) = parts.and_then(|parts| string(parts.last()?)) else {
            self.is_opaque = true;
            return;
        };
        match name {
            "set_config" => self.set_config(node),
            "nextval" | "setval" => self.gives_numbers = true,
            "pg_advisory_unlock_all" => {
                self.unpins.insert(Pin::AdvisoryLock);
            }
            "pg_advisory_lock"
            | "pg_advisory_lock_shared"
            | "pg_try_advisory_lock"
            | "pg_try_advisory_lock_shared" => self.pin(Pin::AdvisoryLock),
            // They run what a text says.
            "query_to_xml"
            | "query_to_xmlschema"
            | "query_to_xml_and_xmlschema"
            | "table_to_xml"
            | "table_to_xml_and_xmlschema"
            | "schema_to_xml"
            | "schema_to_xml_and_xmlschema"
            | "database_to_xml"
            | "database_to_xml_and_xmlschema"
            | "cursor_to_xml"
            | "ts_stat"
            | "ts_rewrite" => self.is_opaque = true,
            _ => {}
        }
        self.functions.insert(name.to_owned());
    }

    fn set_config(&mut self, node: &Value) {
        let arguments = node.get("args").and_then(Value::as_array);
        let arguments = arguments.map(Vec::as_slice).unwrap_or_default();
        let is_local = arguments.get(2).and_then(constant);
        if let Some(Value::Bool(true)) = is_local {
            let name = match arguments.first().and_then(constant) {
                Some(Value::String(name)) => name.to_ascii_lowercase(),
                _ => String::new(),
            };
            self.sets_locally.insert(name);
            return;
        }
        match arguments.first().and_then(constant) {
            Some(Value::String(name)) => {
                self.sets.insert(name.to_ascii_lowercase());
                if name.eq_ignore_ascii_case("session_authorization") {
                    self.sets.insert("role".to_owned());
                }
            }
            _ => self.pin(Pin::Setting),
        }
    }
}

/// A field of a node that is an enumeration named `target`.
fn target(node: &Value) -> Option<i32> {
    let target = node.get("target")?.as_i64()?;
    i32::try_from(target).ok()
}

fn text<'a>(node: &'a Value, field: &str) -> Option<&'a str> {
    node.get(field)?.as_str()
}

/// The text of a `String` node.
fn string(node: &Value) -> Option<&str> {
    node.get("node")?.get("String")?.get("sval")?.as_str()
}

/// The value of an `A_Const` node, as far as it is a text or a truth value.
pub(crate) fn constant(node: &Value) -> Option<Value> {
    let mut node = node.get("node")?;
    while let Some(cast) = node.get("TypeCast") {
        node = cast.get("arg")?.get("node")?;
    }
    let value = node.get("AConst")?.get("val")?;
    if let Some(text) = value.get("Sval") {
        return Some(text.get("sval")?.clone());
    }
    value.get("Boolval")?.get("boolval").cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sets(sql: &str) -> Vec<String> {
        let facts = Facts::of(sql);
        assert!(!facts.is_opaque, "{sql}");
        facts.sets.into_iter().collect()
    }

    #[test]
    fn settings() {
        assert_eq!(sets("set search_path to a, b"), ["search_path"]);
        assert_eq!(sets("SET TIME ZONE 'UTC'"), ["timezone"]);
        assert_eq!(sets("set names 'utf8'"), ["client_encoding"]);
        assert_eq!(sets("reset \"App.User\""), ["app.user"]);
        assert_eq!(sets("set role joe"), ["role"]);
        assert_eq!(
            sets("set session authorization joe"),
            ["role", "session_authorization"]
        );
        assert_eq!(sets("select set_config('a.b', $1, false), 1"), ["a.b"]);
        assert_eq!(
            sets("set session characteristics as transaction read only").len(),
            3
        );
        for none in [
            "set local search_path to a",
            "select set_config('a.b', 'x', true)",
            "set transaction read only",
            "select 'set role joe'",
        ] {
            assert!(sets(none).is_empty(), "{none}");
        }
        assert!(Facts::of("reset all").resets_all);
        assert!(Facts::of("deallocate all").deallocates && Facts::of("discard all").deallocates);
        let one = Facts::of("deallocate prepare \"A\"; prepare b as select 1");
        assert!(!one.deallocates && one.deallocated.contains("A") && one.prepares.contains("b"));
        assert!(Facts::of("discard all").deallocates);
    }

    #[test]
    fn pins() {
        for (sql, pin) in [
            ("listen a", Pin::Listen),
            ("create temp table t (n int)", Pin::Temporary),
            ("create temporary view v as select 1", Pin::Temporary),
            ("create temp sequence s", Pin::Temporary),
            ("select 1 as n into temp t", Pin::Temporary),
            ("create table pg_temp.t (n int)", Pin::Temporary),
            ("create temp table t as select 1", Pin::Temporary),
            ("select pg_advisory_lock(1)", Pin::AdvisoryLock),
            (
                "with x as (select pg_catalog.pg_try_advisory_lock(1)) select * from x",
                Pin::AdvisoryLock,
            ),
            ("prepare p as select 1", Pin::Prepare),
            ("declare c cursor with hold for select 1", Pin::HeldCursor),
            ("load 'x'", Pin::Load),
            ("select set_config($1, $2, false)", Pin::Setting),
            ("select set_config(name, 'x', false) from t", Pin::Setting),
        ] {
            assert!(Facts::of(sql).pins.contains(&pin), "{sql}");
        }
        for none in [
            "select pg_advisory_xact_lock(1)",
            "declare c cursor for select 1",
            "create table t (n int)",
            "select 'listen a'",
            "notify a",
        ] {
            let facts = Facts::of(none);
            assert!(facts.pins.is_empty() && !facts.is_opaque, "{none}");
        }
    }

    #[test]
    fn what_is_set_until_the_end() {
        for (sql, name) in [
            ("set local DateStyle = 'SQL'", "datestyle"),
            ("set local time zone 'UTC'", "timezone"),
            ("select set_config('TimeZone', $1, true)", "timezone"),
            ("select set_config($1, 'x', true)", ""),
        ] {
            let facts = Facts::of(sql);
            assert!(facts.sets_locally.contains(name), "{sql}");
            assert!(facts.sets.is_empty() && facts.pins.is_empty(), "{sql}");
        }
        assert!(Facts::of("set datestyle = 'SQL'").sets_locally.is_empty());
    }

    #[test]
    fn several_statements_are_one_text() {
        let facts = Facts::of("select 1; set role joe; listen b");
        assert_eq!(facts.statements, 3);
        assert!(facts.sets.contains("role") && facts.pins.contains(&Pin::Listen));
    }

    #[test]
    fn what_nobody_knows() {
        for sql in [
            "do $$ begin end $$",
            "call p()",
            "execute p",
            "explain analyze execute p",
            "selec 1",
            "select ((",
        ] {
            assert!(Facts::of(sql).is_opaque, "{sql}");
        }
        for sql in [
            "select nextval('s')",
            "select pg_catalog.setval('s', 1)",
            "with x as (insert into t values (1) returning n) select n from x",
            "merge into t using u on true when not matched then insert values (1)",
            "update t set n = default",
            "copy t from stdin",
            "create table u (n serial)",
            "alter table t add column n serial",
        ] {
            assert!(Facts::of(sql).gives_numbers, "{sql}");
        }
        for sql in [
            "select lastval()",
            "update t set n = 1",
            "delete from t",
            "copy t to stdout",
            "begin",
            "set role joe",
        ] {
            assert!(!Facts::of(sql).gives_numbers, "{sql}");
        }
        let functions = Facts::of("select f(g(1)), count(*) from h() where i.j(2) > 1").functions;
        let functions: Vec<_> = functions.iter().map(String::as_str).collect();
        assert_eq!(functions, ["count", "f", "g", "h", "j"]);
    }

    #[test]
    fn texts_of_one_shape() {
        let shape = |sql: &str| Facts::shape(sql.as_bytes());
        assert_eq!(
            shape("select  1, 'a' -- b"),
            shape("select /* c */ 2.5, E'b'")
        );
        for (one, other) in [
            (
                "set U&\"a!0062\" UESCAPE '!' to 1",
                "set U&\"a!0062\" UESCAPE '#' to 1",
            ),
            ("select \"a\nb\"", "select \"a b\""),
            ("select 1 ? 2", "select 'a'\n'b'\n'c'"),
            ("select 1-5", "select 1e-5"),
            ("select 0x1e-5", "select 1e-5"),
            ("select 'a\\', 'b'", "select 'a\\', 'c'"),
        ] {
            assert_ne!(shape(one), shape(other), "{one}");
        }
        for unlike in [
            "select 12ab",
            "selec 1",
            "select set_config('a', 'b', false)",
        ] {
            assert!(!Facts::of(unlike).are_of_the_shape(), "{unlike}");
        }
        assert!(Facts::of("select 12").are_of_the_shape());
    }

    proptest! {
        #[test]
        fn any_text_is_read(sql in ".{0,60}") {
            let _ = Facts::of(&sql);
        }
    }
}
