//! Postgres' own checks of its files: every B-tree against its table, every table's pages.

use crate::session::Session;
use crate::trouble::Trouble;

const INDEXES: &str = "SELECT count(bt_index_check(c.oid, true)::text) FROM pg_index i \
     JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam \
     WHERE a.amname = 'btree' AND i.indisvalid AND i.indisready AND c.relpersistence <> 't'";

const TABLES: &str = "SELECT c.relname, v.* FROM pg_class c, \
     LATERAL verify_heapam(c.oid, check_toast => true) v \
     WHERE c.relkind IN ('r', 't', 'm') AND c.relpersistence <> 't'";

pub(super) async fn check(session: &Session) -> Result<(), Trouble> {
    session
        .run("SET client_min_messages = error; CREATE EXTENSION IF NOT EXISTS amcheck")
        .await?;
    session.run(INDEXES).await.map_err(broken)?;
    let answer = session.run(TABLES).await.map_err(broken)?;
    match answer.rows.first() {
        Some(row) => Err(Trouble::Broken(format!("verify_heapam: {row:?}"))),
        None => Ok(()),
    }
}

fn broken(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Refused { code, message } => {
            Trouble::Broken(format!("amcheck: {code}: {message}"))
        }
        other => other,
    }
}
