//! `GET schema`: the tables of a database as the caller sees them, and a version of that.

use axum::extract::State;
use axum::response::Response;
use sha2::{Digest as _, Sha256};
use wire::{PgError, sqlstate};

use super::error::ApiError;
use super::query::json;
use super::router::App;
use super::run::run_within;
use super::tenant::Tenant;
use super::visit::{Visit, Wishes};

/// The relations that are users', with their columns, in a fixed order.
const TABLES: &str = "SELECT coalesce(jsonb_agg(t.doc ORDER BY t.nspname, t.relname), '[]')::text FROM ( \
    SELECT n.nspname, c.relname, jsonb_build_object( \
        'schema', n.nspname, 'name', c.relname, \
        'kind', CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' \
            WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' ELSE 'foreign table' END, \
        'columns', (SELECT coalesce(jsonb_agg(jsonb_build_object( \
                'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod), \
                'nullable', NOT a.attnotnull, 'default', pg_get_expr(d.adbin, d.adrelid)) \
            ORDER BY a.attnum), '[]') \
            FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), \
        'primaryKey', (SELECT jsonb_agg(a.attname ORDER BY array_position(i.indkey::int2[], a.attnum)) \
            FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) \
            WHERE i.indrelid = c.oid AND i.indisprimary)) AS doc \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_' \
        AND n.nspname NOT IN ('information_schema', 'dormouse') \
        AND (has_table_privilege(c.oid, 'SELECT') OR has_any_column_privilege(c.oid, 'SELECT'))) t";

/// Bytes of the hash that is the version.
const VERSION_BYTES: usize = 16;

pub(super) async fn schema(State(app): State<App>, tenant: Tenant) -> Result<Response, ApiError> {
    let limit = app.options.request_timeout;
    let document = run_within(limit, app.stopping.cancelling(), move |slot| async move {
        let wishes = Wishes {
            // Names in the query are PostgreSQL's own.
            settings: [("search_path".to_owned(), "pg_catalog".to_owned())].into(),
            ..Wishes::default()
        };
        let mut visit = Visit::open_existing(&app, &tenant, wishes, &slot).await?;
        let found = visit.session().query(TABLES, &[]).await;
        visit.close().await;
        let tables = found?
            .rows
            .into_iter()
            .next()
            .and_then(|row| row.into_iter().next()?);
        let tables = tables.ok_or_else(|| {
            PgError::error(sqlstate::INTERNAL_ERROR, "the catalogs gave no answer")
        })?;
        let version: String = Sha256::digest(&tables)[..VERSION_BYTES]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let postgres = database::POSTGRES_VERSION;
        let head =
            format!("{{\"version\":\"{version}\",\"postgresVersion\":\"{postgres}\",\"tables\":");
        let document = [head.as_bytes(), tables.as_bytes(), b"}"].concat();
        let (max, bytes) = (tenant.sizes.result, document.len());
        max.check("the schema", bytes, "Ask the catalogs for less")?;
        Ok::<_, PgError>(document)
    })
    .await?;
    Ok(json(document))
}
