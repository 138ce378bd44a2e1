//! Neon's SQL over HTTP: `POST /sql`, as the driver `@neondatabase/serverless` calls it.
//!
//! Who asks says so in the header `Neon-Connection-String`, user and password included. No other site's page can send this
//! header without asking first, though the body is called text by the driver; and where nobody is asked for a password,
//! [`origin`](super::origin) keeps such pages out.

mod batch;
mod login;

use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use database::DatabaseName;
use wire::http::{ResultWriter, RowMode, neon};
use wire::{PgError, SizeLimit};

use super::body;
use super::caller::Caller;
use super::error::ApiError;
use super::permitted;
use super::query::json;
use super::router::App;
use super::run::run_within;
use super::statements::{ended_amid, refuse_ends_in};
use super::tenant::{self, Tenant};
use super::visit::{Visit, Wishes};
use crate::identity::Checked;
use crate::telemetry;
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
    let shown = request.extensions().get::<Caller>().cloned();
    let label = tenant::label(request.extensions());
    let from = tenant::from(request.extensions());
    let entrance = Entrance::of(request.headers());
    let style = Style::of(request.headers());
    let transaction = Transaction::of(request.headers());
    let (entrance, transaction) = match (entrance, transaction) {
        (Ok(entrance), Ok(transaction)) => (entrance, transaction),
        (Err(error), _) | (_, Err(error)) => return Ok(Failure(error).into_response()),
    };
    // Who has not said who they are sends nothing, and takes no permit.
    let looked = request.extensions().get::<Checked>();
    let since = looked.map_or_else(Instant::now, |looked| looked.at());
    let (name, caller) = match admit(&app, shown, &entrance).await {
        Ok(admitted) => admitted,
        Err(error) => return Ok(Failure(error.into_error()).into_response()),
    };
    telemetry::admitted(since);
    // Nothing is looked up or read for who asks too often.
    app.expect_time(&caller, Some(&name))?;
    let sizes = match app.sizes(&caller, Some(&name)).await {
        Ok(sizes) => sizes,
        Err(error) => return Ok(Failure(error).into_response()),
    };
    let mut tenant = Tenant {
        sizes,
        name,
        caller,
        label,
        from,
        body: None,
    };
    let since = Instant::now();
    // The driver calls its JSON text, and does not say that it is some. A browser may send that to a foreign address without
    // asking: see `origin`.
    let (bytes, counted) = body::collect(&app, request.into_body(), tenant.sizes.body).await?;
    telemetry::body_read(since);
    let body: Body = match body::parse_statements(&bytes, app.options.statements_max) {
        Ok(body) => body,
        Err(error) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            return Ok(Failure(error.into_error()).into_response());
        }
        Err(error) => return Err(error),
    };
    drop(bytes);
    tenant.body = Some(counted);
    let permit = app.permit(&tenant.caller, Some(&tenant.name))?;
    let limit = app.options.request_timeout;
    let running = run_within(limit, app.stopping.cancelling(), move |slot| async move {
        let settings = entrance.settings.into_iter().collect();
        let wishes = Wishes {
            role: None,
            settings,
        };
        let mut visit = Visit::open(&app, &tenant, wishes, &slot).await?;
        let document = run(&mut visit, style, &transaction, body).await;
        visit.close().await;
        document
    });
    let response = match running.await {
        Ok(document) => json(document),
        Err(error) => Failure(error).into_response(),
    };
    Ok(permitted::hold(response, permit))
}

async fn run(
    visit: &mut Visit,
    style: Style,
    transaction: &Transaction,
    body: Body,
) -> Result<Vec<u8>, PgError> {
    let max = visit.result_max();
    match &body.queries {
        Some(queries) => many(visit, queries, style, transaction, max).await,
        None => one(visit, &body.into_query()?, style, max, 0).await,
    }
}

/// Who asks for which database: by a token of the request, or by user and password of the connection string.
async fn admit(
    app: &App,
    shown: Option<Caller>,
    entrance: &Entrance,
) -> Result<(DatabaseName, Caller), ApiError> {
    let name = entrance.database()?;
    let gatekeeper = &app.security.gatekeeper;
    let caller = match shown.filter(|_| gatekeeper.asks()) {
        Some(caller) => caller,
        None => {
            let login = &entrance.login;
            let admitted = gatekeeper
                .admit_password(&login.user, &login.password)
                .await?;
            gatekeeper.confirm(admitted, Some(&name)).await?
        }
    };
    caller.expect_database(&name)?;
    app.options.routing.expect_unblocked(&name)?;
    Ok((name, caller))
}

/// What one query gives, after so many bytes of the document.
async fn one(
    visit: &mut Visit,
    query: &Query,
    style: Style,
    max: SizeLimit,
    given: usize,
) -> Result<Vec<u8>, PgError> {
    let mode = match query.array_mode.unwrap_or(style.arrays) {
        true => RowMode::Arrays,
        false => RowMode::Objects,
    };
    let params = query.params()?;
    let writer = ResultWriter::neon(mode, style.is_raw, max).after(given);
    visit.write(&query.query, &params, writer).await
}

/// All or none: `{"results":[...]}`.
async fn many(
    visit: &mut Visit,
    queries: &[Query],
    style: Style,
    transaction: &Transaction,
    max: SizeLimit,
) -> Result<Vec<u8>, PgError> {
    refuse_ends_in(queries.iter().map(|query| &*query.query))?;
    visit.begin(&transaction.begin()).await?;
    let mut document = b"{\"results\":[".to_vec();
    for (index, query) in queries.iter().enumerate() {
        if index > 0 {
            document.push(b',');
        }
        let given = document.len();
        // What was begun is rolled back when the session is closed.
        document.extend(one(visit, query, style, max, given).await?);
        if visit.is_over() {
            return Err(ended_amid(index + 1));
        }
    }
    visit.commit().await?;
    document.extend_from_slice(b"]}");
    Ok(document)
}
