//! Where answers are kept: the table `dormouse.requests` of the request's own database.
//!
//! It belongs to the superuser that a database begins with. Row-level security without a policy hides it from those who
//! may read and write all data, and privileges on it nobody has. The host's statements run with the superuser's rights
//! among the client's: before each that writes, while a lock keeps others from changing the table, it is looked whether
//! that is still the table that the host has made, so that nothing that somebody has put on it runs with these rights.

use database::{HostResult, HostStatement};
use wire::{PgError, sqlstate};

use super::key::Once;
use crate::http::visit::Visit;

/// Keeps others from changing the table, not from writing it, until the transaction ends. It sees no data: what is
/// looked at afterwards is what there is then, however the transaction is isolated.
const LOCK: &str = "LOCK TABLE dormouse.requests IN ROW EXCLUSIVE MODE";

/// Whether the transaction is read-only; whether the table is as [`MAKE`] makes it.
const LOOK: &str = "SELECT pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.=) 'on', \
    n.nspowner OPERATOR(pg_catalog.=) 10::pg_catalog.oid \
    AND c.relowner OPERATOR(pg_catalog.=) 10::pg_catalog.oid \
    AND c.relkind OPERATOR(pg_catalog.=) 'r'::pg_catalog.\"char\" \
    AND c.relpersistence OPERATOR(pg_catalog.=) 'p'::pg_catalog.\"char\" \
    AND c.relrowsecurity AND NOT c.relhastriggers AND NOT c.relhasrules AND NOT c.relhassubclass \
    AND NOT c.relispartition \
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_policy p WHERE p.polrelid OPERATOR(pg_catalog.=) c.oid) \
    AND ARRAY(SELECT a.attname::pg_catalog.text FROM pg_catalog.pg_attribute a \
        WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.>) 0::pg_catalog.int2 \
        AND NOT a.atthasdef ORDER BY a.attnum) \
        OPERATOR(pg_catalog.=) '{key,request,answered_at,answer}'::pg_catalog.text[] \
    FROM pg_catalog.pg_class c, pg_catalog.pg_namespace n \
    WHERE n.oid OPERATOR(pg_catalog.=) c.relnamespace \
    AND n.nspname OPERATOR(pg_catalog.=) 'dormouse'::pg_catalog.name \
    AND c.relname OPERATOR(pg_catalog.=) 'requests'::pg_catalog.name";

/// Forgets some of those that are kept for longer than so many hours.
const FORGET: &str = "DELETE FROM dormouse.requests d WHERE d.key OPERATOR(pg_catalog.=) ANY (ARRAY(\
    SELECT o.key FROM dormouse.requests o WHERE o.answered_at OPERATOR(pg_catalog.<) \
        (pg_catalog.now() OPERATOR(pg_catalog.-) pg_catalog.make_interval(hours => $1::pg_catalog.int4)) \
    ORDER BY o.answered_at LIMIT 100 FOR UPDATE SKIP LOCKED))";

/// The same for one.
const FORGET_ONE: &str = "DELETE FROM dormouse.requests d WHERE d.key OPERATOR(pg_catalog.=) $2::pg_catalog.bytea \
    AND d.answered_at OPERATOR(pg_catalog.<) \
        (pg_catalog.now() OPERATOR(pg_catalog.-) pg_catalog.make_interval(hours => $1::pg_catalog.int4))";

/// Takes a key that nobody has; waits for who has it in a transaction that is open.
const CLAIM: &str = "INSERT INTO dormouse.requests (key, request, answered_at) \
    VALUES ($1::pg_catalog.bytea, $2::pg_catalog.bytea, pg_catalog.now()) ON CONFLICT DO NOTHING";

const FIND: &str = "SELECT d.request, d.answer FROM dormouse.requests d \
    WHERE d.key OPERATOR(pg_catalog.=) $1::pg_catalog.bytea";

const ANSWER: &str = "UPDATE dormouse.requests SET answer = $2::pg_catalog.bytea \
    WHERE key OPERATOR(pg_catalog.=) $1::pg_catalog.bytea AND answer IS NULL";

/// A thousand years: PostgreSQL knows no time long before.
const HOURS_MAX: u32 = 1_000 * 366 * 24;

/// The transaction that makes the table.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

/// From here on names are found in the catalog, up to the end of the transaction.
const CATALOG_ONLY: &str =
    "SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true)";

/// Whose the schema is.
const SCHEMA: &str = "SELECT nspowner = 10::oid FROM pg_namespace WHERE nspname = 'dormouse'";

const MAKE_SCHEMA: &str = "CREATE SCHEMA dormouse";

const MAKE: [&str; 3] = [
    "CREATE TABLE dormouse.requests (key bytea PRIMARY KEY, request bytea NOT NULL, answered_at timestamptz NOT NULL, \
     answer bytea) USING heap",
    "ALTER TABLE dormouse.requests ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
    "CREATE INDEX ON dormouse.requests (answered_at)",
];

/// Who has privileges on the table but its owner, as by `ALTER DEFAULT PRIVILEGES`.
const PRIVILEGED: &str = "SELECT DISTINCT CASE WHEN a.grantee = 0::oid THEN 'PUBLIC' ELSE quote_ident(r.rolname) END::text \
    FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee \
    WHERE c.oid = 'dormouse.requests'::regclass AND a.grantee <> c.relowner";

/// What the open transaction finds.
pub(super) enum Found {
    /// It writes nothing, and cannot be made to any more.
    ReadOnly,
    Ready,
}

/// Whether a request has been done before.
pub(super) enum Claimed {
    /// It is done now.
    Now,
    Before {
        request: Vec<u8>,
        answer: Option<Vec<u8>>,
    },
}

/// Looks at the table, and keeps it as it is.
///
/// # Errors
/// 55000 if it is not the host's; one that [`are_missing`] knows if there is none. The transaction has failed then.
pub(super) async fn look(visit: &mut Visit) -> Result<Found, PgError> {
    let found = run(visit, &[(LOCK, &[]), (LOOK, &[])]).await?;
    match row(&found) {
        Some([Some(read_only), _]) if is_true(read_only) => Ok(Found::ReadOnly),
        Some([_, Some(is_ours)]) if is_true(is_ours) => Ok(Found::Ready),
        _ => Err(not_ours("table dormouse.requests")),
    }
}

/// Takes a request's key in the open transaction, which has [looked](look).
pub(super) async fn claim(visit: &mut Visit, once: &Once) -> Result<Claimed, PgError> {
    let hours = once.hours.min(HOURS_MAX).to_be_bytes();
    let claimed = run(
        visit,
        &[
            (FORGET, &[&hours]),
            (FORGET_ONE, &[&hours, &once.key]),
            (CLAIM, &[&once.key, &once.request]),
        ],
    )
    .await?;
    if claimed.last().and_then(|result| result.row_count) == Some(1) {
        return Ok(Claimed::Now);
    }
    let mut found = run(visit, &[(FIND, &[&once.key])]).await?;
    let row = found.pop().and_then(|mut result| result.rows.pop());
    match row.map(<[_; 2]>::try_from) {
        Some(Ok([Some(request), answer])) => Ok(Claimed::Before { request, answer }),
        _ => Err(PgError::error(
            sqlstate::SERIALIZATION_FAILURE,
            "the answer that is kept for this Idempotency-Key was forgotten meanwhile",
        )
        .hint("Try again.")),
    }
}

/// Keeps the answer in the transaction that has claimed the request.
pub(super) async fn answer(visit: &mut Visit, once: &Once, sealed: &[u8]) -> Result<(), PgError> {
    // The transaction's own statements may have put something on the table since.
    look(visit).await?;
    let kept = run(visit, &[(ANSWER, &[&once.key, sealed])]).await?;
    match kept.last().and_then(|result| result.row_count) {
        Some(1) => Ok(()),
        _ => Err(PgError::error(
            sqlstate::DATA_CORRUPTED,
            "the record of this Idempotency-Key is gone: what was done is rolled back",
        )),
    }
}

/// Makes the table, in a transaction of its own.
///
/// # Errors
/// 55000 if somebody else has its schema; one that [`were_made_meanwhile`] knows if others were faster.
pub(super) async fn make(visit: &mut Visit) -> Result<(), PgError> {
    visit.order(BEGIN).await?;
    let schema = run(visit, &[(CATALOG_ONLY, &[]), (SCHEMA, &[])]).await?;
    match row(&schema) {
        None => drop(run(visit, &[(MAKE_SCHEMA, &[])]).await?),
        Some([Some(is_ours)]) if is_true(is_ours) => {}
        Some(_) => return Err(not_ours("schema dormouse")),
    }
    let made: [(&str, &[&[u8]]); 3] = MAKE.map(|sql| (sql, &[][..]));
    run(visit, &made).await?;
    let privileged = run(visit, &[(PRIVILEGED, &[])]).await?;
    for row in privileged.iter().flat_map(|result| &result.rows) {
        if let [Some(role)] = &row[..] {
            let role = String::from_utf8_lossy(role);
            let revoke = format!("REVOKE ALL ON dormouse.requests FROM {role} CASCADE");
            run(visit, &[(&revoke, &[])]).await?;
        }
    }
    visit.commit().await
}

/// Whether the table is not there yet.
pub(super) fn are_missing(error: &PgError) -> bool {
    matches!(error.code(), "3F000" | "42P01")
}

/// Whether others have made the same.
pub(super) fn were_made_meanwhile(error: &PgError) -> bool {
    matches!(error.code(), "23505" | "42P06" | "42P07")
}

async fn run(
    visit: &mut Visit,
    statements: &[(&str, &[&[u8]])],
) -> Result<Vec<HostResult>, PgError> {
    let statements: Vec<HostStatement<'_>> = statements
        .iter()
        .map(|(sql, params)| HostStatement { sql, params })
        .collect();
    visit.session().run_as_host(&statements).await
}

/// The only row of the last result.
fn row(results: &[HostResult]) -> Option<&[Option<Vec<u8>>]> {
    results.last()?.rows.first().map(Vec::as_slice)
}

fn is_true(value: &[u8]) -> bool {
    value == [1]
}

fn not_ours(what: &str) -> PgError {
    PgError::error(
        sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("Idempotency-Key cannot be used in this database: the {what} is not the server's own"),
    )
    .detail("It has another owner or other columns, or somebody has put a trigger, a rule, a policy or a default on it.")
    .hint("As the administrator, rename or drop it: the server makes its own.")
}
