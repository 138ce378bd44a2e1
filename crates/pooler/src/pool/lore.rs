//! What the origin's catalog says about texts that run what they do not name: relations with triggers, rules, policies,
//! defaults or checks, views, operators and casts, each by functions of which nobody knows what they leave in a session.
//!
//! By names alone, of relations and operators, in whatever schema: for more than the right ones does no harm.

use std::collections::HashSet;

use serde_json::Value;
use tokio::time::{Duration, Instant};

use crate::cache::body_is_harmless;
use crate::connect::{self, Link};
use crate::facts::Facts;
use crate::failure::{Failure, FailureKind};
use crate::server::Server;

/// What is older is asked anew, and until then nobody knows. Half as old it is asked anew beside what goes on.
const AGE_MAX: Duration = Duration::from_secs(60);

/// How long each statement may take that asks where nobody waits for it: what took longer would be old when it is there.
pub(super) const READING_MAX: Duration = Duration::from_secs(30);

/// Names of functions that are Postgres' own in every schema.
const BUILTIN: &str = "SELECT p.proname FROM pg_catalog.pg_proc p GROUP BY p.proname HAVING \
    pg_catalog.bool_and(p.pronamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace)";

/// Whatever the session has set; a statement that takes longer is ended by the server, which can be used on then.
fn begin(within: Duration) -> String {
    format!(
        "BEGIN READ ONLY;SET LOCAL statement_timeout = {};SET LOCAL search_path = pg_catalog, pg_temp;\
         SET LOCAL client_encoding = 'UTF8'",
        within.as_millis().max(1)
    )
}

/// What runs a function that may leave something: relations by their number, whether they are read or written (`r`) or
/// written alone (`w`), the rest by name; with the function's
/// language and text. Functions in C are believed that they leave nothing if they are not volatile. What a view of
/// Postgres' own functions calls is found in its tree alone.
const SEEDS: &str = "WITH risky AS (SELECT oid, proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace \
    AND proname = ANY ('{set_config,nextval,setval,pg_advisory_lock,pg_advisory_lock_shared,pg_try_advisory_lock,\
    pg_try_advisory_lock_shared,query_to_xml,query_to_xml_and_xmlschema,query_to_xmlschema,cursor_to_xml,\
    table_to_xml,table_to_xml_and_xmlschema,schema_to_xml,schema_to_xml_and_xmlschema,database_to_xml,\
    database_to_xml_and_xmlschema,ts_stat,ts_rewrite}')), \
    trees (what, rel, tree, gives) AS (\
    SELECT 'r', ev_class, ev_action::text, false FROM pg_rewrite WHERE oid >= 16384 AND rulename = '_RETURN' \
    UNION ALL SELECT 'w', adrelid, adbin::text, true FROM pg_attrdef \
    UNION ALL SELECT 'w', e.attrelid, y.typdefaultbin::text, true FROM pg_type y \
    JOIN pg_attribute e ON e.atttypid = y.oid AND e.attnum > 0 WHERE y.typdefaultbin IS NOT NULL \
    UNION ALL SELECT 'r', polrelid, concat(polqual::text, polwithcheck::text), false FROM pg_policy \
    UNION ALL SELECT 'w', tgrelid, tgqual::text, false FROM pg_trigger WHERE tgqual IS NOT NULL AND NOT tgisinternal \
    UNION ALL SELECT 'w', conrelid, conbin::text, false FROM pg_constraint WHERE conbin IS NOT NULL), \
    uses (what, rel, name, func) AS (\
    SELECT CASE WHEN k.conrelid = 0 THEN 'any' WHEN COALESCE(w.ev_class, p.polrelid) IS NOT NULL THEN 'r' ELSE 'w' END, COALESCE(a.adrelid, w.ev_class, p.polrelid, k.conrelid, t.tgrelid, i.indrelid, \
    q.partrelid, e.attrelid), NULL::text, \
    COALESCE(o.oprcode::oid, d.refobjid) FROM pg_depend d \
    LEFT JOIN pg_operator o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid \
    LEFT JOIN pg_attrdef a ON d.classid = 'pg_attrdef'::regclass AND a.oid = d.objid \
    LEFT JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid \
    LEFT JOIN pg_policy p ON d.classid = 'pg_policy'::regclass AND p.oid = d.objid \
    LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid \
    LEFT JOIN pg_trigger t ON d.classid = 'pg_trigger'::regclass AND t.oid = d.objid AND t.tgenabled <> 'D' \
    LEFT JOIN pg_index i ON d.classid = 'pg_class'::regclass AND i.indexrelid = d.objid \
    LEFT JOIN pg_partitioned_table q ON d.classid = 'pg_class'::regclass AND q.partrelid = d.objid \
    LEFT JOIN pg_type y ON d.classid = 'pg_type'::regclass AND y.oid = d.objid AND y.typtype = 'd' \
    LEFT JOIN pg_attribute e ON e.atttypid = y.oid AND e.attnum > 0 \
    WHERE d.refclassid = ANY (ARRAY['pg_proc'::regclass, 'pg_operator'::regclass]::oid[]) \
    UNION ALL SELECT 'any', NULL, NULL, castfunc FROM pg_cast \
    UNION ALL SELECT 'o', NULL, oprname::text, oprcode::oid FROM pg_operator \
    UNION ALL SELECT 'c', NULL, p.proname::text, p.oid FROM pg_proc p JOIN pg_type y ON y.oid = p.proargtypes[0] \
    WHERE p.pronargs = 1 AND p.oid >= 16384 AND y.typtype IN ('c', 'p')) \
    SELECT json_build_array('w', ev_class::bigint)::text FROM pg_rewrite WHERE ev_class >= 16384 AND rulename <> '_RETURN' \
    UNION ALL SELECT json_build_array(CASE WHEN rel = 0 THEN 'any' ELSE what END, rel::bigint)::text FROM trees, \
    (SELECT concat(':(funcid (', string_agg(oid::text, '|'), ')|relid ', 'pg_settings'::regclass::oid, ') ') AS of_all, \
    concat(':funcid (', string_agg(oid::text, '|') FILTER (WHERE proname <> ALL ('{nextval,setval}')), ') ') AS of_defaults \
    FROM risky) pattern WHERE tree ~ CASE WHEN gives THEN of_defaults ELSE of_all END \
    UNION ALL SELECT json_build_array(u.what, u.rel::bigint, u.name, l.lanname, CASE WHEN length(f.prosrc) < 8000 \
    THEN f.prosrc END)::text FROM uses u JOIN pg_proc f ON f.oid = u.func JOIN pg_language l ON l.oid = f.prolang \
    WHERE (u.what NOT IN ('r', 'w') OR u.rel IS NOT NULL) AND (f.oid IN (SELECT oid FROM risky) \
    OR f.oid >= 16384 AND NOT (l.lanname = 'c' AND (f.provolatile <> 'v' OR EXISTS (SELECT FROM pg_depend d \
    JOIN pg_extension e ON e.oid = d.refobjid WHERE d.classid = 'pg_proc'::regclass AND d.objid = f.oid \
    AND d.refclassid = 'pg_extension'::regclass AND e.extname IN ('uuid-ossp', 'pgcrypto')))))";

/// Names of relations whose use comes to one of these: of views, of parts and wholes, of what foreign keys write, and of
/// what policies read.
fn closure(read: &HashSet<u64>, written: &HashSet<u64>) -> String {
    let list = |oids: &HashSet<u64>| {
        let oids: Vec<_> = oids.iter().map(u64::to_string).collect();
        oids.join(",")
    };
    format!(
        "WITH RECURSIVE edge (a, b, writes) AS (SELECT inhrelid, inhparent, false FROM pg_inherits \
         UNION ALL SELECT inhparent, inhrelid, false FROM pg_inherits \
         UNION ALL SELECT conrelid, confrelid, true FROM pg_constraint WHERE contype = 'f' \
         AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd')) \
         UNION ALL SELECT d.refobjid, w.ev_class, false FROM pg_rewrite w JOIN pg_depend d \
         ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass \
         UNION ALL SELECT d.refobjid, p.polrelid, false FROM pg_policy p JOIN pg_depend d \
         ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_class'::regclass), \
         acts (oid, what) AS (SELECT unnest('{{{}}}'::oid[]), 'r' UNION SELECT unnest('{{{}}}'::oid[]), 'w' \
         UNION SELECT e.b, CASE WHEN e.writes THEN 'w' ELSE acts.what END FROM acts JOIN edge e ON e.a = acts.oid) \
         SELECT DISTINCT concat(acts.what, c.relname) FROM acts JOIN pg_class c ON c.oid = acts.oid",
        list(read),
        list(written)
    )
}

/// Functions of Postgres' own that leave something where a text does not name them.
const RISKY: [&str; 12] = [
    "set_config",
    "nextval",
    "setval",
    "pg_advisory_lock",
    "pg_advisory_lock_shared",
    "pg_try_advisory_lock",
    "pg_try_advisory_lock_shared",
    "query_to_xml",
    "query_to_xml_and_xmlschema",
    "cursor_to_xml",
    "ts_stat",
    "ts_rewrite",
];

/// Operators that texts use without naming them.
const HIDDEN: [&str; 6] = ["=", "<>", "<", "<=", ">", ">="];

/// Who answers for the origin: a connection that has just been made, or one that is idle, whose statements may take so
/// long.
pub(super) enum Teller<'a> {
    Link(&'a mut Link),
    Server(&'a mut Server, Duration),
}

impl Teller<'_> {
    /// The first column of all rows.
    async fn ask(&mut self, sql: &str) -> Result<Vec<String>, Failure> {
        match self {
            Self::Link(link) => connect::query(link, sql).await,
            Self::Server(server, within) => {
                let rows = server.try_ask(sql, *within).await?;
                let first = |row: Vec<Option<String>>| row.into_iter().next().flatten();
                Ok(rows.into_iter().filter_map(first).collect())
            }
        }
    }
}

/// What is known.
#[derive(Debug)]
pub(super) struct Lore {
    /// Functions of which there are none but those that Postgres has brought along.
    builtin: HashSet<String>,
    /// Relations of which reading them, or writing to them, leaves something.
    read: HashSet<String>,
    written: HashSet<String>,
    operators: HashSet<String>,
    /// Functions that are called like columns.
    columns: HashSet<String>,
    /// No text is free of it: a cast, the check of a domain, or the origin has not told.
    anywhere: bool,
    /// The origin has told all.
    pub(super) is_whole: bool,
    /// Which version of the catalog it is of.
    pub(super) version: u64,
    asked: Instant,
}

impl Lore {
    /// Of an origin that is about to be asked.
    pub(super) fn begun(version: u64) -> Self {
        Self {
            builtin: HashSet::new(),
            read: HashSet::new(),
            written: HashSet::new(),
            operators: HashSet::new(),
            columns: HashSet::new(),
            anywhere: false,
            is_whole: true,
            version,
            asked: Instant::now(),
        }
    }

    /// Asks the origin, which may take so long for each statement.
    ///
    /// # Errors
    ///
    /// If it does not answer. What it does not tell is taken for what may leave anything.
    pub(super) async fn read(
        version: u64,
        mut teller: Teller<'_>,
        within: Duration,
    ) -> Result<Self, Failure> {
        let mut lore = Self::begun(version);
        teller.ask(&begin(within)).await?;
        match lore.learn(&mut teller).await {
            Ok(()) => {
                teller.ask("COMMIT").await?;
            }
            Err(failure) if failure.kind == FailureKind::Query => {
                tracing::warn!(
                    %failure,
                    "the origin does not tell what its tables and views run: until it does each text is taken for one that \
                     may leave something"
                );
                lore.anywhere = true;
                lore.is_whole = false;
                teller.ask("ROLLBACK").await?;
            }
            Err(failure) => return Err(failure),
        }
        Ok(lore)
    }

    async fn learn(&mut self, teller: &mut Teller<'_>) -> Result<(), Failure> {
        self.builtin = teller.ask(BUILTIN).await?.into_iter().collect();
        let rows = teller.ask(SEEDS).await?;
        let rows = rows
            .iter()
            .map(|row| serde_json::from_str(row).unwrap_or_default());
        let of_relation = |row: &Value| matches!(what(row), Some("r" | "w"));
        let (of_relations, others): (Vec<Value>, Vec<Value>) = rows.partition(of_relation);
        // Bodies are read by what operators, casts and columns turn out to be.
        loop {
            let known = self.operators.len() + self.columns.len();
            for row in others
                .iter()
                .filter(|row| !self.is_harmless(row))
                .collect::<Vec<_>>()
            {
                let name = text(row, 2).map(str::to_owned);
                match what(row) {
                    Some("o") => self.operators.extend(name),
                    Some("c") => self.columns.extend(name),
                    _ => self.anywhere = true,
                }
            }
            if known == self.operators.len() + self.columns.len() {
                break;
            }
        }
        self.anywhere |= HIDDEN.iter().any(|name| self.operators.contains(*name));
        let (mut read, mut written) = (HashSet::new(), HashSet::new());
        for row in of_relations.iter().filter(|row| !self.is_harmless(row)) {
            let relation = row.get(1).and_then(Value::as_u64);
            match what(row) {
                Some("r") => read.extend(relation),
                _ => written.extend(relation),
            }
        }
        if !read.is_empty() || !written.is_empty() {
            for name in teller.ask(&closure(&read, &written)).await? {
                match name.split_at_checked(1) {
                    Some(("r", name)) => drop(self.read.insert(name.to_owned())),
                    Some((_, name)) => drop(self.written.insert(name.to_owned())),
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// Whether the function of a row leaves nothing.
    fn is_harmless(&self, row: &Value) -> bool {
        let (Some(language), Some(source)) = (text(row, 3), text(row, 4)) else {
            return false;
        };
        let source = source.trim();
        let body = match language {
            "plpgsql" => Some(source),
            "sql" => after_select(source),
            _ => None,
        };
        let calls = |name: &str| {
            if RISKY.contains(&name) || self.columns.contains(name) {
                return Some(true);
            }
            self.builtin.contains(name).then_some(false)
        };
        !self.anywhere
            && self.operators.is_empty()
            && body.is_some_and(|body| !body.is_empty() && body_is_harmless(body, calls))
    }

    /// Whether it may still be so.
    pub(super) fn is_young(&self) -> bool {
        self.asked.elapsed() < AGE_MAX
    }

    /// Whether it is asked anew at the next occasion.
    pub(super) fn is_to_be_renewed(&self) -> bool {
        !self.is_whole || self.asked.elapsed() > AGE_MAX / 2
    }

    /// Whether a text calls nothing but Postgres' own by name.
    pub(super) fn knows_functions(&self, facts: &Facts) -> bool {
        !facts.is_opaque && (facts.functions.iter()).all(|name| self.builtin.contains(name))
    }

    /// Whether a text runs nothing that may leave something, by what it does not name.
    pub(super) fn leaves_nothing(&self, facts: &Facts) -> bool {
        let reading = &facts.reading;
        let is_of = |names: &HashSet<String>, all: &std::collections::BTreeSet<String>| {
            !names.is_empty() && all.iter().any(|name| names.contains(name))
        };
        let acts = |name: &str| {
            let sets = name == "pg_settings";
            sets || self.written.contains(name) || self.read.contains(name)
        };
        !(self.anywhere && !is_plain(facts)
            || reading.writes.everything
            || (reading.relations.iter()).any(|name| self.read.contains(&name.name))
            || (reading.writes.tables.iter()).any(|name| acts(&name.name))
            || is_of(&self.operators, &reading.operators)
            || is_of(&self.columns, &reading.columns))
    }
}

/// Whether a text has nothing that could run what it does not name.
pub(super) fn is_plain(facts: &Facts) -> bool {
    let reading = &facts.reading;
    facts.functions.is_empty()
        && reading.relations.is_empty()
        && reading.operators.is_empty()
        && reading.columns.is_empty()
        && !reading.casts
}

fn what(row: &Value) -> Option<&str> {
    text(row, 0)
}

fn text(row: &Value, at: usize) -> Option<&str> {
    row.get(at)?.as_str()
}

/// What is selected by a function that is one `SELECT`.
fn after_select(source: &str) -> Option<&str> {
    let (word, rest) = source.split_once(char::is_whitespace)?;
    word.eq_ignore_ascii_case("select").then_some(rest)
}
