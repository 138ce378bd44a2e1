//! `pg_database` as a client expects it: its own database under its own name, and the others.
//!
//! In its instance every database is alone, with oid 5 and, in the template, the name `postgres`.
//! A wake gives it its name. The rows of the others are written when a statement mentions the
//! catalog and the directory has changed since: they are for looking at (`\l`), have oids from
//! [`FOREIGN_OID_MIN`], and are taken out again by the next refresh.

use wire::DatabaseName;

/// Lowest oid of a row that stands for another database.
const FOREIGN_OID_MIN: u32 = 1 << 30;
/// Most other databases that `pg_database` shows (`catalog.databases_max`).
pub(crate) const DATABASES_MAX: usize = 10_000;

/// The catalog's columns that are the same for every database of a node.
const COMMON: &str = "datdba, encoding, datlocprovider, datistemplate, datallowconn, \
                      dathasloginevt, datconnlimit, datfrozenxid, datminmxid, dattablespace, \
                      datcollate, datctype, datlocale, daticurules, datcollversion, datacl";

/// Gives this database its name, if it does not have it.
pub(crate) fn set_name(name: &DatabaseName) -> String {
    let name = literal(name.as_str());
    format!(
        "DELETE FROM pg_catalog.pg_database WHERE oid >= {FOREIGN_OID_MIN} AND datname = {name}; \
         UPDATE pg_catalog.pg_database SET datname = {name} WHERE oid = 5 AND datname <> {name}"
    )
}

/// Replaces the rows of the other databases.
pub(crate) fn refresh(others: impl Iterator<Item = (u64, DatabaseName)>) -> String {
    let mut sql = format!("DELETE FROM pg_catalog.pg_database WHERE oid >= {FOREIGN_OID_MIN}");
    let rows: Vec<String> = others
        .take(DATABASES_MAX)
        .map(|(id, name)| {
            let oid = FOREIGN_OID_MIN + (id % u64::from(FOREIGN_OID_MIN)) as u32;
            format!("({oid}, {})", literal(name.as_str()))
        })
        .collect();
    if !rows.is_empty() {
        let rows = rows.join(", ");
        sql.push_str(&format!(
            "; INSERT INTO pg_catalog.pg_database (oid, datname, {COMMON}) \
             SELECT v.oid::pg_catalog.oid, v.name::pg_catalog.name, {COMMON} FROM pg_catalog.pg_database d, \
             (VALUES {rows}) AS v (oid, name) WHERE d.oid = 5"
        ));
    }
    sql
}

/// A string literal. Names of databases have neither quotes nor backslashes.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
