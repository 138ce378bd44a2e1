//! Running one statement: `POST query`.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::body;
use super::caller::Scope;
use super::conditional::Conditional;
use super::error::ApiError;
use super::ndjson::{self, Streamed};
use super::once::{Done, Once, run_once};
use super::params::Params;
use super::router::App;
use super::run::{run_within, time_limit};
use super::statements::{ended_amid, refuse_ends_in};
use super::tenant::Tenant;
use super::visit::{Rows, Statement, Visit, Wishes};

/// The body of `POST query`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Query {
    sql: String,
    #[serde(default)]
    params: Params,
    #[serde(default)]
    row_mode: Rows,
    timeout_ms: Option<u64>,
    role: Option<String>,
    #[serde(default)]
    settings: BTreeMap<String, String>,
}

pub(super) async fn query(
    State(app): State<App>,
    tenant: Tenant,
    request: Request,
) -> Result<Response, ApiError> {
    let headers = request.headers().clone();
    let (query, bytes) =
        body::read_with_bytes::<Query>(request, app.options.body_bytes_max).await?;
    let limit = time_limit(&app, query.timeout_ms)?;
    let wishes = Wishes {
        role: query.role,
        settings: query.settings,
    };
    let statement = Statement {
        sql: query.sql,
        params: query.params,
    };
    let rows = query.row_mode;
    let once = app.once(&headers, &tenant, b"query", &bytes).await?;
    if once.is_none() && ndjson::is_wanted(&headers) {
        let streamed = Streamed {
            wishes,
            statement,
            rows,
            limit,
        };
        return ndjson::stream(app, tenant, streamed).await;
    }
    if let Some(once) = once {
        let done = run_within(limit, app.stopping.cancelling(), move |slot| async move {
            let mut visit = Visit::open(&app, &tenant, wishes, &slot).await?;
            let done = run_with_key(&mut visit, &once, &statement, rows).await;
            visit.close().await;
            done
        });
        return done.await.map(Done::response);
    }
    let mut conditional = Conditional::of(&headers, &tenant.caller, &wishes, &statement, rows)?;
    app.databases
        .by(tenant.doer())
        .ensure_for(&tenant.name, tenant.caller.scope >= Scope::Write)
        .await?;
    if let Some(known) = conditional.known(&app, &tenant)? {
        return Ok(known);
    }
    run_within(limit, app.stopping.cancelling(), move |slot| async move {
        let mut visit = Visit::open(&app, &tenant, wishes, &slot).await?;
        let answered = answer(&app, &tenant, &mut visit, &conditional, &statement, rows).await;
        visit.close().await;
        answered
    })
    .await
}

async fn answer(
    app: &App,
    tenant: &Tenant,
    visit: &mut Visit,
    conditional: &Conditional,
    statement: &Statement,
    rows: Rows,
) -> Result<Response, ApiError> {
    let currency = conditional.currency(visit, &statement.sql).await?;
    let document = visit.run(statement, rows).await?;
    Ok(conditional.respond(app, tenant, &currency, document))
}

async fn run_with_key(
    visit: &mut Visit,
    once: &Once,
    statement: &Statement,
    rows: Rows,
) -> Result<Done, ApiError> {
    refuse_ends_in(std::iter::once(&*statement.sql))?;
    run_once(Some(once), visit, "BEGIN", async |visit| {
        let document = visit.run(statement, rows).await?;
        match visit.is_over() {
            true => Err(ended_amid(1)),
            false => Ok(document),
        }
    })
    .await
}

/// An answer that is JSON already.
pub(super) fn json(document: impl Into<Body>) -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        document.into(),
    )
        .into_response()
}
