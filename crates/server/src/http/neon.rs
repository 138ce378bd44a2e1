//! Neon's SQL over HTTP: `POST /sql`, as the driver `@neondatabase/serverless` calls it.
//!
//! Who asks says so in the header `Neon-Connection-String`, user and password included. That no other site's page can
//! send this header without asking first keeps such pages out: the body is called text by the driver.

mod batch;
mod login;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use database::{Session, SessionOptions};
use tokio::time::timeout;
use wire::http::{ResultWriter, RowMode, neon};
use wire::{PgError, sqlstate};

use super::body;
use super::error::ApiError;
use super::router::App;
use super::work::{CancelSlot, Work};
use batch::{Body, Query, Style, Transaction};
use login::Entrance;

/// What the driver is told: it reads the fields of an error from an answer with this status alone.
struct Failure(PgError);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let json = [(header::CONTENT_TYPE, "application/json")];
        (StatusCode::BAD_REQUEST, json, neon::error_json(&self.0)).into_response()
    }
}

pub(super) async fn sql(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let entrance = Entrance::of(request.headers());
    let style = Style::of(request.headers());
    let transaction = Transaction::of(request.headers());
    let read = body::read_untyped::<Body>(request, app.options.body_bytes_max).await;
    let (entrance, transaction, body) = match (entrance, transaction, read) {
        (Ok(entrance), Ok(transaction), Ok(body)) => (entrance, transaction, body),
        (Err(error), ..) | (_, Err(error), _) => return Ok(Failure(error).into_response()),
        (.., Err(error)) => return Err(error),
    };
    let request_timeout = app.options.request_timeout;
    let slot = CancelSlot::default();
    let running = run(app, entrance, style, transaction, body, slot.clone());
    let mut work = Work::cancellable(slot, running);
    let document = match timeout(request_timeout, &mut work).await {
        Ok(document) => document,
        // Dropping the work cancels it.
        Err(_) => Err(timed_out(request_timeout.as_millis())),
    };
    Ok(match document {
        Ok(document) => ([(header::CONTENT_TYPE, "application/json")], document).into_response(),
        Err(error) => Failure(error).into_response(),
    })
}

async fn run(
    app: Arc<super::Http>,
    entrance: Entrance,
    style: Style,
    transaction: Transaction,
    body: Body,
    slot: CancelSlot,
) -> Result<Vec<u8>, PgError> {
    let name = entrance.database()?;
    let origin = format!("{} over HTTP", entrance.program());
    let authority = app.pgwire.check_password(&entrance.login, &origin).await?;
    let options = SessionOptions {
        user: entrance.login.user,
        settings: entrance.settings,
        origin,
        authority,
    };
    let mut session = app.databases.session(&name, options).await?;
    slot.set(session.canceller());
    let result_bytes_max = app.options.result_bytes_max;
    let document = match &body.queries {
        Some(queries) => many(&mut session, queries, style, &transaction, result_bytes_max).await,
        None => match body.into_query() {
            Ok(query) => one(&mut session, &query, style, result_bytes_max).await,
            Err(error) => Err(error),
        },
    };
    session.close().await;
    document
}

async fn one(
    session: &mut Session,
    query: &Query,
    style: Style,
    bytes_max: usize,
) -> Result<Vec<u8>, PgError> {
    let mode = match query.array_mode.unwrap_or(style.arrays) {
        true => RowMode::Arrays,
        false => RowMode::Objects,
    };
    let params = query.params()?;
    let writer = ResultWriter::neon(mode, style.is_raw, bytes_max);
    session.query_document(&query.query, &params, writer).await
}

/// All or none: `{"results":[...]}`.
async fn many(
    session: &mut Session,
    queries: &[Query],
    style: Style,
    transaction: &Transaction,
    bytes_max: usize,
) -> Result<Vec<u8>, PgError> {
    session.query(&transaction.begin(), &[]).await?;
    let mut document = b"{\"results\":[".to_vec();
    for (index, query) in queries.iter().enumerate() {
        if index > 0 {
            document.push(b',');
        }
        let left = bytes_max.saturating_sub(document.len());
        // What was begun is rolled back when the session is closed.
        document.extend(one(session, query, style, left).await?);
    }
    let ended = session.query("COMMIT", &[]).await?;
    if ended.command != "COMMIT" {
        // A statement ended the transaction by itself.
        return Err(PgError::error(
            sqlstate::IN_FAILED_SQL_TRANSACTION,
            "the batch was rolled back: a statement in it failed its transaction",
        ));
    }
    document.extend_from_slice(b"]}");
    Ok(document)
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
