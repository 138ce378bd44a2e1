//! What the cache knows of an origin's catalog: which tables a write reaches, and what functions do.
//!
//! It is read as a whole, so that a write is judged without a question to the origin amid somebody's transaction. By the
//! cache's first need, after a change of the catalog through the pool, and when it is older than `max_age`.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use tokio::time::Instant;

use super::body;
use super::ledger::{Oid, Stamp, Writes};
use super::reading::{Call, Name, Reading};
use super::types;
use crate::facts::Facts;
use crate::server::Rows;

/// What is known of an origin's catalog.
#[derive(Debug)]
pub(crate) struct Catalog {
    pub(crate) stamp: Stamp,
    pub(crate) read: Instant,
    by_name: HashMap<String, Vec<(String, Oid)>>,
    kinds: HashMap<Oid, u8>,
    /// To where a write goes on.
    edges: HashMap<Oid, Vec<Oid>>,
    children: HashMap<Oid, Vec<Oid>>,
    parents: HashMap<Oid, Vec<Oid>>,
    wild: HashSet<Oid>,
    /// Views and tables whose reading alone runs functions of which nobody knows what they do.
    acting: HashSet<Oid>,
    functions: Functions,
    builtin: Arc<Functions>,
    operators: HashSet<String>,
    has_odd_casts: bool,
    /// Operators and casts that are immutable, by functions of the user's that may ask settings nevertheless.
    own_operators: HashSet<String>,
    has_own_casts: bool,
}

/// Functions by their names.
pub(crate) type Functions = HashMap<String, Vec<Function>>;

/// A function as far as the cache cares.
#[derive(Debug)]
pub(crate) struct Function {
    is_builtin: bool,
    arguments: std::ops::RangeInclusive<usize>,
    volatility: Volatility,
    only_makes_values: bool,
    is_of_rows: bool,
    may_ask_name: bool,
}

/// What `BETWEEN`, `IN` and `USING` stand for has no name in the text.
const HIDDEN: [&str; 6] = ["=", "<>", "<", "<=", ">", ">="];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Volatility {
    Immutable,
    Stable,
    Volatile,
}

impl Catalog {
    /// Of the answers to all questions; nothing if they are of another form.
    pub(crate) fn of(
        answers: Vec<Rows>,
        builtin: Arc<Functions>,
        stamp: Stamp,
        read: Instant,
    ) -> Option<Self> {
        let [relations, wild, functions, operators] = <[Rows; 4]>::try_from(answers).ok()?;
        let mut catalog = Self {
            stamp,
            read,
            by_name: HashMap::new(),
            kinds: HashMap::new(),
            edges: HashMap::new(),
            children: HashMap::new(),
            parents: HashMap::new(),
            wild: HashSet::new(),
            acting: HashSet::new(),
            functions: functions_of(&functions, false)?,
            builtin,
            operators: HashSet::new(),
            has_odd_casts: false,
            own_operators: HashSet::new(),
            has_own_casts: false,
        };
        relations.iter().try_for_each(|row| catalog.relation(row))?;
        wild.iter().try_for_each(|row| catalog.wild(row))?;
        for row in operators {
            let [Some(what), name] = <[Option<String>; 2]>::try_from(row).ok()? else {
                return None;
            };
            match (what.as_str(), name) {
                ("o", Some(name)) => drop(catalog.operators.insert(name)),
                ("p", Some(name)) => drop(catalog.own_operators.insert(name)),
                ("d", _) => catalog.has_own_casts = true,
                _ => catalog.has_odd_casts = true,
            }
        }
        Some(catalog)
    }

    fn relation(&mut self, row: &[Option<String>]) -> Option<()> {
        let [Some(what), Some(oid), schema, name, Some(other)] = row else {
            return None;
        };
        let oid: Oid = oid.parse().ok()?;
        if what == "r" {
            let known = self.by_name.entry(name.clone()?).or_default();
            known.push((schema.clone()?, oid));
            self.kinds.insert(oid, *other.as_bytes().first()?);
            return Some(());
        }
        let other: Oid = other.parse().ok()?;
        self.edges.entry(oid).or_default().push(other);
        if what == "i" {
            // What is written to a part is written to the whole.
            self.edges.entry(other).or_default().push(oid);
            self.children.entry(oid).or_default().push(other);
            self.parents.entry(other).or_default().push(oid);
        }
        Some(())
    }

    fn wild(&mut self, row: &[Option<String>]) -> Option<()> {
        let [Some(what), Some(oid), name, source] = row else {
            return None;
        };
        let is_harmless = match (what.as_str(), name, source) {
            ("t", Some(language), Some(source)) if language == "plpgsql" => {
                body::is_harmless(source, |name| self.is_reaching(name))
            }
            ("t", Some(language), _) => language == "internal",
            // The name is all that tells overloads apart here; the worst of them counts.
            ("f" | "a", Some(name), _) => self.makes_values(name),
            _ => false,
        };
        if !is_harmless {
            let oid = oid.parse().ok()?;
            self.wild.insert(oid);
            if what == "a" {
                self.acting.insert(oid);
            }
        }
        Some(())
    }

    /// All functions of a name.
    fn called(&self, name: &str) -> impl Iterator<Item = &Function> {
        let own = self.functions.get(name).into_iter().flatten();
        own.chain(self.builtin.get(name).into_iter().flatten())
    }

    /// Whether a function of this name may reach tables; nothing if there is none.
    fn is_reaching(&self, name: &str) -> Option<bool> {
        self.called(name).next()?;
        Some(!self.called(name).all(Function::leaves_tables))
    }

    /// Whether all functions of this name leave tables alone.
    fn makes_values(&self, name: &str) -> bool {
        self.is_reaching(name) == Some(false)
    }

    pub(crate) fn knows(&self, table: Oid) -> bool {
        self.kinds.contains_key(&table)
    }

    /// Whether a table, or a part of it, is elsewhere.
    pub(crate) fn is_foreign(&self, table: Oid) -> bool {
        let mut parts = vec![table];
        let mut seen = HashSet::new();
        while let Some(part) = parts.pop() {
            if self.kinds.get(&part) == Some(&b'f') {
                return true;
            }
            if seen.insert(part) {
                parts.extend(self.children.get(&part).into_iter().flatten());
            }
        }
        false
    }

    /// Whether what a text calls depends on nothing but its arguments and settings.
    pub(crate) fn is_pure(&self, reading: &Reading) -> bool {
        let is_odd = |name: &String| self.operators.contains(name);
        !self.has_odd_casts
            && reading.calls.iter().all(|call| self.is_pure_call(call))
            && !reading
                .columns
                .iter()
                .any(|name| self.is_impure_column(name))
            && !reading.operators.iter().any(is_odd)
            && !HIDDEN.iter().any(|name| self.operators.contains(*name))
    }

    /// Whether a function of the user's may ask what the session's program is called, though it is immutable by its
    /// declaration. What is written in C is believed.
    pub(crate) fn may_ask_name(&self, reading: &Reading) -> bool {
        let is_own = |name: &str| {
            let own = self.functions.get(name).into_iter().flatten();
            own.into_iter().any(|function| function.may_ask_name)
        };
        self.has_own_casts
            || reading.calls.iter().any(|call| is_own(&call.name))
            || reading.columns.iter().any(|name| is_own(name))
            || (reading.operators.iter()).any(|name| self.own_operators.contains(name))
            || HIDDEN.iter().any(|name| self.own_operators.contains(*name))
    }

    fn is_pure_call(&self, call: &Call) -> bool {
        let all = self.called(&call.name);
        let mut fitting = all
            .filter(|function| function.arguments.contains(&call.arguments))
            .peekable();
        let is_by_settings = types::is_by_settings(&call.name);
        let is_zone = call.name == "timezone";
        fitting.peek().is_some()
            && fitting.all(|function| match function.volatility {
                Volatility::Immutable => true,
                Volatility::Stable => function.is_builtin && is_by_settings,
                // Of a time of the day, which is looked for elsewhere.
                Volatility::Volatile => function.is_builtin && is_zone,
            })
    }

    /// Whether `row.name` may be a call of a function that is not immutable.
    fn is_impure_column(&self, name: &str) -> bool {
        let mut of_rows = self.called(name).filter(|function| function.is_of_rows);
        of_rows.any(|function| match function.is_builtin {
            true => !types::is_by_settings(name) && function.volatility > Volatility::Immutable,
            false => function.volatility > Volatility::Immutable,
        })
    }

    /// What a text writes. Names of relations that are temporary to the session need not be known.
    pub(crate) fn writes(&self, facts: &Facts, temporary: &BTreeSet<String>) -> Writes {
        let reading = &facts.reading;
        // One that there is not is a cast that is written like a call, or an error.
        let leaves_tables = |name: &String| self.called(name).all(Function::leaves_tables);
        let of_row = |name: &String| {
            let all = self.called(name);
            let mut of_rows = all.filter(|function| function.is_of_rows);
            of_rows.all(Function::leaves_tables)
        };
        let is_known = !reading.writes.everything
            && !self.has_odd_casts
            && !facts.is_opaque
            && facts.functions.iter().all(leaves_tables)
            && reading.columns.iter().all(of_row)
            && !reading
                .operators
                .iter()
                .any(|name| self.operators.contains(name))
            && (self.acting.is_empty() || !self.acts(reading));
        if !is_known {
            return Writes::unknown();
        }
        let mut tables = BTreeSet::new();
        for name in &reading.writes.tables {
            let found = self.named(name);
            if found.is_empty() && !temporary.contains(&name.name) {
                return Writes::unknown();
            }
            tables.extend(found);
        }
        self.reached(tables)
    }

    /// Whether it reads what acts when it is read.
    fn acts(&self, reading: &Reading) -> bool {
        let mut next: Vec<Oid> = reading
            .relations
            .iter()
            .flat_map(|name| self.named(name))
            .collect();
        let mut seen = HashSet::new();
        while let Some(relation) = next.pop() {
            if self.acting.contains(&relation) {
                return true;
            }
            if seen.insert(relation) {
                next.extend(self.edges.get(&relation).into_iter().flatten());
            }
        }
        false
    }

    /// All relations that a name may mean: the search path is not asked, for more than the right one does no harm.
    fn named(&self, name: &Name) -> Vec<Oid> {
        let all = self.by_name.get(&name.name).into_iter().flatten();
        let is_it = |schema: &String| name.schema.as_ref().is_none_or(|wanted| wanted == schema);
        let found = all.filter(|(schema, _)| is_it(schema));
        found.map(|(_, oid)| *oid).collect()
    }

    /// Tables whose rows were written, with all that they are part of, and their parts: a publication may name the
    /// whole. One that is not known was made since, perhaps as a part of one that is.
    pub(crate) fn written(&self, tables: &BTreeSet<Oid>) -> Writes {
        if !tables.iter().all(|table| self.knows(*table)) {
            return Writes::unknown();
        }
        let mut reached = BTreeSet::new();
        for kin in [&self.parents, &self.children] {
            let mut seen = HashSet::new();
            let mut next: Vec<Oid> = tables.iter().copied().collect();
            while let Some(table) = next.pop() {
                if seen.insert(table) {
                    next.extend(kin.get(&table).into_iter().flatten());
                }
            }
            reached.extend(seen);
        }
        Writes {
            tables: reached,
            ..Writes::default()
        }
    }

    /// A write to these, and all to which it goes on.
    fn reached(&self, tables: BTreeSet<Oid>) -> Writes {
        let mut reached = BTreeSet::new();
        let mut next: Vec<Oid> = tables.into_iter().collect();
        while let Some(table) = next.pop() {
            if !reached.insert(table) {
                continue;
            }
            if self.wild.contains(&table) || self.kinds.get(&table) == Some(&b'f') {
                return Writes::unknown();
            }
            next.extend(self.edges.get(&table).into_iter().flatten());
        }
        Writes {
            tables: reached,
            ..Writes::default()
        }
    }
}

/// Functions of the answer to [`QUESTIONS`](super::inquiry::QUESTIONS) or [`BUILTIN`](super::inquiry::BUILTIN).
pub(crate) fn functions_of(rows: &Rows, is_builtin: bool) -> Option<Functions> {
    let mut functions = Functions::new();
    for row in rows {
        let [
            Some(name),
            Some(least),
            Some(most),
            volatility,
            values,
            of_rows,
            asks_name,
        ] = row.as_slice()
        else {
            return None;
        };
        let is = |flag: &Option<String>| flag.as_deref() == Some("true");
        let function = Function {
            is_builtin,
            arguments: least.parse().ok()?..=most.parse().ok()?,
            volatility: match volatility.as_deref() {
                Some("i") => Volatility::Immutable,
                Some("s") => Volatility::Stable,
                _ => Volatility::Volatile,
            },
            only_makes_values: is(values),
            is_of_rows: is(of_rows),
            may_ask_name: is(asks_name),
        };
        functions.entry(name.clone()).or_default().push(function);
    }
    Some(functions)
}

impl Function {
    /// Whether it changes no table.
    fn leaves_tables(&self) -> bool {
        self.is_builtin || self.only_makes_values || self.volatility < Volatility::Volatile
    }
}
