//! Which tables an answer depends on, and whether on nothing else, as the origin resolves the names of a text.
//!
//! Names are resolved under the session's own search path, on a connection that is this session's. Views and policies
//! are read as the origin prints them, with the same parser.

use std::collections::{BTreeSet, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use tokio::time::Instant;

use super::ASKS_SETTING;
use super::catalog::Catalog;
use super::ledger::{Oid, Stamp};
use super::reading::{Name, Obstacle, Reading};
use super::status::CacheStatus;
use crate::facts::Facts;
use crate::failure::Failure;
use crate::server::{Rows, Server};
use crate::settings::push_literal;

/// Views within views that are followed.
const ROUNDS_MAX: usize = 32;

/// What is known of texts of one shape in sessions with the same settings.
#[derive(Debug)]
pub(crate) struct Analysis {
    /// On what the answer depends, or why no answer is kept.
    pub(crate) verdict: Result<Depends, CacheStatus>,
    /// Of the catalog that it was made by.
    pub(crate) stamp: Stamp,
    pub(crate) made: Instant,
}

/// On what an answer depends.
#[derive(Debug, Clone)]
pub(crate) struct Depends {
    pub(crate) tables: Arc<[Oid]>,
    /// On what the session's program is called, too, as far as anybody knows.
    pub(crate) on_name: bool,
}

/// What an analysis comes to.
pub(crate) enum Outcome {
    Depends(Depends),
    Not(CacheStatus),
    /// There is a table that the catalog does not know: it has changed meanwhile.
    CatalogIsOld,
}

/// Asks the origin.
///
/// # Errors
///
/// If the origin does not answer.
pub(crate) async fn analyse(
    server: &mut Server,
    catalog: &Catalog,
    reading: &Reading,
) -> Result<Outcome, Failure> {
    let mut tables = BTreeSet::new();
    // What it asks for by a text's constants is not known of its shape.
    let asks_setting =
        |reading: &Reading| reading.calls.iter().any(|call| call.name == ASKS_SETTING);
    let mut on_name = asks_setting(reading);
    let mut seen = HashSet::new();
    let mut next: Vec<Reading> = Vec::new();
    let mut now = reading.clone();
    for _ in 0..ROUNDS_MAX {
        if let Some(status) = hindrance(&now, catalog) {
            return Ok(Outcome::Not(status));
        }
        on_name |= catalog.may_ask_name(&now);
        if !now.relations.is_empty() {
            let rows = server.ask(&question(&now)).await?;
            let Some(found) = Found::all(rows) else {
                return Ok(Outcome::Not(CacheStatus::Uncacheable));
            };
            let resolved = Resolved::of(&now, &found);
            if let Some(status) = resolved {
                return Ok(Outcome::Not(status));
            }
            for relation in found {
                if !seen.insert(relation.oid) {
                    continue;
                }
                if !catalog.knows(relation.oid) {
                    return Ok(Outcome::CatalogIsOld);
                }
                if catalog.is_foreign(relation.oid) {
                    return Ok(Outcome::Not(CacheStatus::Uncacheable));
                }
                tables.insert(relation.oid);
                for text in relation.texts {
                    let facts = Facts::of(&text);
                    if facts.is_unreadable || facts.statements != 1 {
                        return Ok(Outcome::Not(CacheStatus::Uncacheable));
                    }
                    on_name |= facts.reading.asks_name;
                    next.push(facts.reading);
                }
            }
        }
        match next.pop() {
            Some(reading) => now = reading,
            None => {
                return Ok(Outcome::Depends(Depends {
                    tables: tables.into_iter().collect(),
                    on_name,
                }));
            }
        }
    }
    Ok(Outcome::Not(CacheStatus::Uncacheable))
}

/// What a text says against it, without a question about its relations.
fn hindrance(reading: &Reading, catalog: &Catalog) -> Option<CacheStatus> {
    match reading.obstacle {
        Some(Obstacle::Volatile) => Some(CacheStatus::Volatile),
        Some(Obstacle::Uncacheable | Obstacle::NotAQuery) => Some(CacheStatus::Uncacheable),
        None if !catalog.is_pure(reading) => Some(CacheStatus::Volatile),
        None => None,
    }
}

/// A relation that a name means.
struct Found {
    oid: Oid,
    schema: String,
    name: String,
    is_visible: bool,
    kind: u8,
    is_temporary: bool,
    /// What it is made of: a view's query, the policies of a table.
    texts: Vec<String>,
    is_unprintable: bool,
    /// Columns of those that are cast, by whether they are dates already.
    dates: HashSet<String>,
    others: HashSet<String>,
    has_times: bool,
}

impl Found {
    fn all(rows: Rows) -> Option<Vec<Self>> {
        rows.into_iter().map(Self::of).collect()
    }

    fn of(row: Vec<Option<String>>) -> Option<Self> {
        let [
            Some(oid),
            Some(schema),
            Some(name),
            visible,
            Some(kind),
            persistence,
            has_policies,
            view,
            policies,
            dates,
            others,
            times,
        ] = <[Option<String>; 12]>::try_from(row).ok()?
        else {
            return None;
        };
        let is = |flag: &Option<String>| flag.as_deref() == Some("t");
        let set = |list: Option<String>| {
            let list = list.unwrap_or_default();
            list.split('\n').map(str::to_owned).collect()
        };
        let kind = *kind.as_bytes().first()?;
        let policies = policies.map(|policies| format!("SELECT {policies}"));
        Some(Self {
            oid: oid.parse().ok()?,
            is_visible: is(&visible),
            is_temporary: is(&persistence),
            is_unprintable: (kind == b'v' && view.is_none())
                || (is(&has_policies) && policies.is_none()),
            texts: view.into_iter().chain(policies).collect(),
            dates: set(dates),
            others: set(others),
            has_times: is(&times),
            schema,
            name,
            kind,
        })
    }

    fn is(&self, name: &Name) -> bool {
        self.name == name.name
            && match &name.schema {
                Some(schema) => *schema == self.schema,
                None => self.is_visible,
            }
    }

    fn is_plain(&self) -> bool {
        let is_system = self.schema.starts_with("pg_") || self.schema == "information_schema";
        matches!(self.kind, b'r' | b'p' | b'v' | b'm')
            && !is_system
            && !self.is_temporary
            && !self.is_unprintable
    }
}

/// Whether names mean what can be kept.
struct Resolved;

impl Resolved {
    /// What speaks against it.
    fn of(reading: &Reading, found: &[Found]) -> Option<CacheStatus> {
        let is_found = |name: &Name| found.iter().any(|relation| relation.is(name));
        let is_common = |name: &Name| name.schema.is_none() && reading.common.contains(&name.name);
        let are_all_known = reading
            .relations
            .iter()
            .all(|name| is_found(name) || is_common(name));
        if !are_all_known || !found.iter().all(Found::is_plain) {
            return Some(CacheStatus::Uncacheable);
        }
        let are_dates = reading.dated.iter().all(|column| {
            found.iter().any(|relation| relation.dates.contains(column))
                && !found
                    .iter()
                    .any(|relation| relation.others.contains(column))
        });
        let asks_zone = reading.calls.iter().any(|call| call.name == "timezone");
        let has_times = found.iter().any(|relation| relation.has_times);
        (!are_dates || (asks_zone && has_times)).then_some(CacheStatus::Volatile)
    }
}

/// SQL whose rows are the relations that a text may mean. It raises no error whatever the names are.
fn question(reading: &Reading) -> String {
    let (mut plain, mut schemas, mut names) = (String::new(), String::new(), String::new());
    for name in &reading.relations {
        match &name.schema {
            None => push(&mut plain, &name.name),
            Some(schema) => {
                push(&mut schemas, schema);
                push(&mut names, &name.name);
            }
        }
    }
    let mut dated = String::new();
    reading.dated.iter().for_each(|name| push(&mut dated, name));
    let mut sql = String::new();
    // Writing into a string cannot fail.
    let _ = write!(
        sql,
        "WITH d AS MATERIALIZED (SELECT a.attrelid, a.attname, y.typcategory::pg_catalog.text OPERATOR(pg_catalog.=) \
         ANY ('{{D,T,N,B}}'::pg_catalog.text[]) AS good FROM pg_catalog.pg_attribute a \
         JOIN pg_catalog.pg_type y ON y.oid OPERATOR(pg_catalog.=) a.atttypid \
         WHERE a.attname OPERATOR(pg_catalog.=) ANY (ARRAY[{dated}]::pg_catalog.name[])) \
         SELECT c.oid, n.nspname, c.relname, pg_catalog.pg_table_is_visible(c.oid), c.relkind, \
         c.relpersistence::pg_catalog.text OPERATOR(pg_catalog.=) 't', c.relrowsecurity, \
         CASE WHEN c.relkind::pg_catalog.text OPERATOR(pg_catalog.=) 'v' \
         AND pg_catalog.length(pg_catalog.pg_get_viewdef(c.oid)) OPERATOR(pg_catalog.<) 100000 \
         THEN pg_catalog.pg_get_viewdef(c.oid) END, \
         CASE WHEN c.relrowsecurity THEN COALESCE((SELECT pg_catalog.string_agg(pg_catalog.concat('(', \
         pg_catalog.pg_get_expr(p.polqual, p.polrelid), ')'), ' AND ') FROM pg_catalog.pg_policy p \
         WHERE p.polrelid OPERATOR(pg_catalog.=) c.oid AND p.polqual IS NOT NULL \
         AND p.polcmd::pg_catalog.text OPERATOR(pg_catalog.=) ANY ('{{r,*}}'::pg_catalog.text[])), 'true') END, \
         (SELECT pg_catalog.string_agg(d.attname::pg_catalog.text, E'\\n') FROM d \
         WHERE d.attrelid OPERATOR(pg_catalog.=) c.oid AND d.good), \
         (SELECT pg_catalog.string_agg(d.attname::pg_catalog.text, E'\\n') FROM d \
         WHERE d.attrelid OPERATOR(pg_catalog.=) c.oid AND NOT d.good), \
         EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid \
         AND a.atttypid OPERATOR(pg_catalog.=) ANY ('{{1083,1266}}'::pg_catalog.oid[])) \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
         WHERE (c.relname OPERATOR(pg_catalog.=) ANY (ARRAY[{plain}]::pg_catalog.name[]) \
         AND pg_catalog.pg_table_is_visible(c.oid)) OR EXISTS (SELECT FROM ROWS FROM \
         (pg_catalog.unnest(ARRAY[{schemas}]::pg_catalog.name[]), pg_catalog.unnest(ARRAY[{names}]::pg_catalog.name[])) \
         w (s, r) WHERE w.s OPERATOR(pg_catalog.=) n.nspname AND w.r OPERATOR(pg_catalog.=) c.relname)"
    );
    sql
}

fn push(list: &mut String, name: &str) {
    if !list.is_empty() {
        list.push(',');
    }
    push_literal(list, name);
}
