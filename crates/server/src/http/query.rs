//! Running a statement.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use database::{Authority, DatabaseName, SessionOptions};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::timeout;
use tracing::Instrument as _;
use wire::http::RowMode;
use wire::{PgError, sqlstate};

use super::error::ApiError;
use super::router::{App, Name};
use super::work::{CancelSlot, Work};
use super::{RequestId, body};

/// The role of a request, which cannot name one: there is no authentication.
const USER: &str = "postgres";

/// The body of `POST /v1/databases/NAME/query`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Statement {
    sql: String,
    /// Kept as text: a parsed number would have lost digits.
    #[serde(default)]
    params: Vec<Box<RawValue>>,
    #[serde(default)]
    row_mode: Rows,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Rows {
    #[default]
    Object,
    Array,
}

pub(super) async fn run(
    State(app): State<App>,
    Name(name): Name,
    request: Request,
) -> Result<Response, ApiError> {
    let label = request.extensions().get::<RequestId>().cloned();
    let label = label.map_or_else(String::new, |RequestId(id)| id);
    let statement: Statement = body::read(request, app.options.body_bytes_max).await?;
    let request_timeout = app.options.request_timeout;
    let slot = CancelSlot::default();
    let span = app.telemetry.statement(&statement.sql);
    let executing = execute(app, name, statement, label, slot.clone()).instrument(span);
    let mut work = Work::cancellable(slot, executing);
    let document = match timeout(request_timeout, &mut work).await {
        Ok(document) => document?,
        // Dropping the work cancels it.
        Err(_) => return Err(timed_out(request_timeout.as_millis()).into()),
    };
    Ok(([(header::CONTENT_TYPE, "application/json")], document).into_response())
}

async fn execute(
    app: Arc<super::Http>,
    name: DatabaseName,
    statement: Statement,
    label: String,
    slot: CancelSlot,
) -> Result<Vec<u8>, PgError> {
    let options = SessionOptions {
        user: USER.to_owned(),
        origin: "http".to_owned(),
        label,
        // Nobody is asked for a password.
        authority: Authority::Node,
        ..SessionOptions::default()
    };
    let mut session = app.databases.session(&name, options).await?;
    slot.set(session.canceller());
    let mode = match statement.row_mode {
        Rows::Object => RowMode::Objects,
        Rows::Array => RowMode::Arrays,
    };
    let result_bytes_max = app.options.result_bytes_max;
    let document = session
        .query_json(&statement.sql, &statement.params, mode, result_bytes_max)
        .await;
    session.close().await;
    document
}

fn timed_out(milliseconds: u128) -> PgError {
    PgError::error(
        sqlstate::QUERY_CANCELED,
        format!(
            "canceling statement: the request exceeded http.request_timeout_ms, {milliseconds}"
        ),
    )
    .hint("Ask for less at once, or raise http.request_timeout_ms in Dormouse's configuration.")
}
