//! Interactive transactions: several requests in one transaction, which a session of its own is kept for.
//!
//! | request | answer |
//! |---|---|
//! | `POST transactions` | 201, `{"id", "idleMsMax"}`, and where it is |
//! | `POST transactions/ID/query` | the result; after an error Postgres takes nothing but a rollback |
//! | `POST transactions/ID/commit`, `.../rollback` | 204 |
//!
//! Who asks no more for [`idle`](crate::HttpOptions::transaction_idle) is rolled back.

mod held;

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use wire::{DatabaseName, PgError, sqlstate};

use super::body;
use super::caller::{Caller, Scope};
use super::error::ApiError;
use super::isolation::Isolation;
use super::params::Params;
use super::query::json;
use super::router::App;
use super::run::{run_within, time_limit};
use super::tenant::Tenant;
use super::visit::{Rows, Statement, Visit, Wishes};
use crate::identity::Pass;
use held::{Asked, Command, Held};

/// The transactions that are open.
#[derive(Default)]
pub(super) struct Transactions {
    open: Arc<Mutex<HashMap<Id, Handle>>>,
}

/// Names a transaction; nobody guesses it.
type Id = [u8; 16];

/// One of them: whose it is, and where it takes commands.
struct Handle {
    caller: Caller,
    database: DatabaseName,
    commands: mpsc::Sender<Asked>,
    pass: Arc<Pass>,
}

/// The body of `POST transactions`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Begin {
    isolation_level: Option<Isolation>,
    #[serde(default)]
    read_only: bool,
    #[serde(default)]
    deferrable: bool,
    role: Option<String>,
    #[serde(default)]
    settings: BTreeMap<String, String>,
}

/// The body of `POST transactions/ID/query`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Query {
    sql: String,
    #[serde(default)]
    params: Params,
    #[serde(default)]
    row_mode: Rows,
    timeout_ms: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Begun {
    id: String,
    idle_ms_max: u128,
}

pub(super) async fn begin(
    State(app): State<App>,
    tenant: Tenant,
    request: Request,
) -> Result<Response, ApiError> {
    let path = request.uri().path().to_owned();
    let pass = app.pass((request.headers(), request.extensions()), &tenant);
    let begin: Begin = body::read(request, app.options.body_bytes_max).await?;
    let reads_only = begin.read_only || tenant.caller.scope == Scope::Read;
    let sql = Isolation::begin(begin.isolation_level, reads_only, begin.deferrable);
    let wishes = Wishes {
        role: begin.role,
        settings: begin.settings,
    };
    let idle = app.options.transaction_idle;
    let limit = app.options.request_timeout;
    let max = app.options.transactions_max;
    let begun = run_within(limit, app.stopping.cancelling(), move |slot| async move {
        let mut id = Id::default();
        getrandom::fill(&mut id)
            .map_err(|error| PgError::error(sqlstate::INTERNAL_ERROR, error.to_string()))?;
        let (commands, coming) = mpsc::channel(1);
        let handle = Handle {
            caller: tenant.caller.clone(),
            database: tenant.name.clone(),
            commands,
            pass: Arc::clone(&pass),
        };
        let place = app.transactions.enter(max, id, handle)?;
        let share = app.share_of_transactions(&tenant)?;
        let mut visit = Visit::open(&app, &tenant, wishes, &slot).await?;
        let begun = visit.begin(&sql).await;
        // Nothing could be run in one that was given up meanwhile.
        if let Err(error) = begun.and_then(|()| visit.expect_wanted()) {
            visit.close().await;
            return Err(error);
        }
        let canceller = visit.session().canceller();
        let held = Held::new(visit, canceller, idle, &app, pass, (place, share));
        Ok((id, held, coming))
    })
    .await?;
    // Not before: where nobody waits for it any more it is dropped, and with that rolled back.
    let (id, held, coming) = begun;
    tokio::spawn(held.serve(coming));
    let id = hex(&id);
    let location = format!("{}/{id}", path.trim_end_matches('/'));
    let document = Json(Begun {
        id,
        idle_ms_max: idle.as_millis(),
    });
    let location = [(header::LOCATION, location)];
    Ok((StatusCode::CREATED, location, document).into_response())
}

pub(super) async fn query(
    State(app): State<App>,
    tenant: Tenant,
    Path(parameters): Path<HashMap<String, String>>,
    request: Request,
) -> Result<Response, ApiError> {
    let pass = app.pass((request.headers(), request.extensions()), &tenant);
    let commands = app.transactions.find(&parameters, &tenant, Some(&pass))?;
    let query: Query = body::read(request, app.options.body_bytes_max).await?;
    let limit = time_limit(&app, query.timeout_ms)?;
    let statement = Statement {
        sql: query.sql,
        params: query.params,
    };
    let stops = app.stopping.cancelling();
    let document = held::ask(&commands, limit, stops, |answer| Command::Run {
        statement,
        rows: query.row_mode,
        max: tenant.sizes.result,
        body: tenant.body,
        answer,
    })
    .await?;
    Ok(json(document))
}

pub(super) async fn commit(
    State(app): State<App>,
    tenant: Tenant,
    Path(parameters): Path<HashMap<String, String>>,
) -> Result<StatusCode, ApiError> {
    let commands = app.transactions.find(&parameters, &tenant, None)?;
    let (limit, stops) = (app.options.request_timeout, app.stopping.cancelling());
    held::ask(&commands, limit, stops, |answer| Command::Commit { answer }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn rollback(
    State(app): State<App>,
    tenant: Tenant,
    Path(parameters): Path<HashMap<String, String>>,
) -> Result<StatusCode, ApiError> {
    let commands = app.transactions.find(&parameters, &tenant, None)?;
    let (limit, stops) = (app.options.request_timeout, app.stopping.cancelling());
    held::ask(&commands, limit, stops, |answer| Command::Rollback {
        answer,
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A transaction's place among those that are open, which it leaves when it ends.
struct Place {
    open: Arc<Mutex<HashMap<Id, Handle>>>,
    id: Id,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.lock().remove(&self.id);
    }
}

impl Transactions {
    fn enter(&self, max: usize, id: Id, handle: Handle) -> Result<Place, PgError> {
        let mut open = self.open.lock();
        if open.len() >= max {
            return Err(PgError::error(
                sqlstate::TOO_MANY_CONNECTIONS,
                format!("too many interactive transactions (limit http.transactions_max = {max})"),
            )
            .hint("Try again later, or raise http.transactions_max in Dormouse's configuration."));
        }
        open.insert(id, handle);
        Ok(Place {
            open: Arc::clone(&self.open),
            id,
        })
    }

    /// Where a transaction takes commands, if it is the caller's, in this database. It goes on by a newer pass.
    fn find(
        &self,
        parameters: &HashMap<String, String>,
        tenant: &Tenant,
        pass: Option<&Pass>,
    ) -> Result<mpsc::Sender<Asked>, ApiError> {
        let id = parameters.get("id").map_or("", String::as_str);
        let open = self.open.lock();
        let handle = parse_hex(id).and_then(|id| open.get(&id));
        let is_theirs = |handle: &&Handle| {
            handle.caller.is_same(&tenant.caller) && handle.database == tenant.name
        };
        match handle.filter(is_theirs) {
            Some(handle) => {
                pass.into_iter().for_each(|pass| handle.pass.renew(pass));
                Ok(handle.commands.clone())
            }
            None => Err(ApiError::request(
                StatusCode::NOT_FOUND,
                format!("there is no transaction \"{id}\""),
            )
            .hint("It has ended, or waited for longer than http.transaction_idle_ms_max.")),
        }
    }
}

fn hex(id: &Id) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse_hex(text: &str) -> Option<Id> {
    if text.len() != 2 * size_of::<Id>() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut id = Id::default();
    for (byte, digits) in id.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        let id = [0xab; 16];
        assert_eq!(parse_hex(&hex(&id)), Some(id));
        for bad in ["", "ab", &"+1".repeat(16), &"é".repeat(16), &"0".repeat(33)] {
            assert_eq!(parse_hex(bad), None, "{bad}");
        }
    }
}
