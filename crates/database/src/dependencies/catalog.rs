//! What the catalog tells of the relations and functions of a statement.

use std::collections::BTreeSet;

use super::functions::{is_settled, makes_json};
use super::tree::{FIRST_NORMAL, Tree};
use super::{Tables, Uncacheable};

/// Most tables and partitions of one query.
const TABLES_MAX: usize = 1024;
/// `heap`, the access method of ordinary tables.
const HEAP: &str = "2";

/// The query that looks up what is in a tree, with all partitions and tables that inherit: rows of six texts. Nothing
/// that users have made can stand in its way.
pub(crate) fn look_up(tree: &Tree) -> String {
    let (relations, functions, operators) = (
        list(&tree.relations),
        list(&tree.functions),
        list(&tree.operators),
    );
    format!(
        "WITH RECURSIVE r(id) AS (\
         SELECT pg_catalog.unnest({relations}) \
         UNION SELECT i.inhrelid FROM r JOIN pg_catalog.pg_inherits i \
         ON i.inhparent OPERATOR(pg_catalog.=) r.id), \
         f(id) AS (\
         SELECT pg_catalog.unnest({functions}) \
         UNION SELECT o.oprcode::pg_catalog.oid FROM pg_catalog.pg_operator o \
         WHERE o.oid OPERATOR(pg_catalog.=) ANY ({operators})), \
         g(id) AS (\
         SELECT f.id FROM f UNION SELECT s.id FROM f JOIN pg_catalog.pg_aggregate a \
         ON a.aggfnoid::pg_catalog.oid OPERATOR(pg_catalog.=) f.id, \
         LATERAL pg_catalog.unnest(ARRAY[a.aggtransfn::pg_catalog.oid, a.aggfinalfn, a.aggcombinefn, \
         a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn]) s(id) \
         WHERE f.id OPERATOR(pg_catalog.>=) {FIRST_NORMAL}::pg_catalog.oid \
         AND s.id OPERATOR(pg_catalog.<>) 0::pg_catalog.oid) \
         SELECT 'r'::pg_catalog.text, r.id::pg_catalog.text, c.relkind::pg_catalog.text, \
         c.relpersistence::pg_catalog.text, c.relfilenode::pg_catalog.text, c.relam::pg_catalog.text \
         FROM r LEFT JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) r.id \
         UNION ALL SELECT 'f', g.id::pg_catalog.text, p.provolatile::pg_catalog.text, p.proname::pg_catalog.text, \
         CASE WHEN 1266::pg_catalog.oid OPERATOR(pg_catalog.=) ANY (p.proargtypes) \
         OR p.prorettype OPERATOR(pg_catalog.=) 1266::pg_catalog.oid THEN 'timetz' ELSE '' END, '' \
         FROM g LEFT JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) g.id \
         UNION ALL SELECT 'c', c.castfunc::pg_catalog.text, '', '', '', '' FROM pg_catalog.pg_cast c \
         WHERE c.casttarget OPERATOR(pg_catalog.=) ANY ('{{114,3802}}'::pg_catalog.oid[]) \
         AND c.castfunc OPERATOR(pg_catalog.>=) {FIRST_NORMAL}::pg_catalog.oid"
    )
}

fn list(oids: &BTreeSet<u32>) -> String {
    let oids: Vec<String> = oids.iter().map(u32::to_string).collect();
    format!("'{{{}}}'::pg_catalog.oid[]", oids.join(","))
}

/// What a query depends on, of the rows that [`look_up`] gave.
pub(crate) fn found(tree: &Tree, rows: &[Vec<Option<String>>]) -> Result<Tables, Uncacheable> {
    let mut files = Vec::new();
    let has_json_cast = rows.iter().any(|row| text(row, 0) == "c");
    for row in rows {
        match text(row, 0) {
            "r" => files.extend(relation(row)?),
            "f" => function(row, has_json_cast)?,
            _ => {}
        }
        if files.len() > TABLES_MAX {
            return Err(Uncacheable::TooManyTables);
        }
    }
    Ok(Tables {
        files: files.into(),
        has_times: tree.has_time_parameter,
    })
}

fn text(row: &[Option<String>], at: usize) -> &str {
    row.get(at).and_then(Option::as_deref).unwrap_or_default()
}

fn number(row: &[Option<String>], at: usize) -> u32 {
    text(row, at).parse().unwrap_or_default()
}

/// The file of a relation, if it has one.
fn relation(row: &[Option<String>]) -> Result<Option<u32>, Uncacheable> {
    let oid = number(row, 1);
    let refused = Err(Uncacheable::Relation(oid));
    if oid < FIRST_NORMAL || text(row, 3) != "p" {
        return refused;
    }
    match (text(row, 2), number(row, 4)) {
        ("v" | "p", _) => Ok(None),
        ("r" | "m", file) if file != 0 && text(row, 5) == HEAP => Ok(Some(file)),
        _ => refused,
    }
}

fn function(row: &[Option<String>], has_json_cast: bool) -> Result<(), Uncacheable> {
    let name = text(row, 3);
    let settled = match text(row, 2) {
        "i" => true,
        "s" => {
            number(row, 1) < FIRST_NORMAL
                && is_settled(name)
                && text(row, 4).is_empty()
                && !(has_json_cast && makes_json(name))
        }
        _ => false,
    };
    match settled {
        true => Ok(()),
        false => Err(Uncacheable::Function(name.to_owned())),
    }
}
