//! Several statements in one request: `POST batch`, each by itself, and `POST transaction`, all or none.

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use wire::pg::{ErrorField, TransactionStatus, statement};
use wire::{PgError, SizeLimit, sqlstate};

use super::body;
use super::caller::Scope;
use super::error::ApiError;
use super::isolation::Isolation;
use super::once::{Done, run_once};
use super::router::App;
use super::run::{run_within, time_limit};
use super::tenant::Tenant;
use super::visit::{Rows, Statement, Visit, Wishes};

/// The body of `POST batch`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Batch {
    statements: Vec<Statement>,
    #[serde(default)]
    row_mode: Rows,
    timeout_ms: Option<u64>,
    role: Option<String>,
    #[serde(default)]
    settings: BTreeMap<String, String>,
}

/// The body of `POST transaction`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Transaction {
    statements: Vec<Statement>,
    #[serde(default)]
    row_mode: Rows,
    timeout_ms: Option<u64>,
    role: Option<String>,
    #[serde(default)]
    settings: BTreeMap<String, String>,
    isolation_level: Option<Isolation>,
    #[serde(default)]
    read_only: bool,
    #[serde(default)]
    deferrable: bool,
}

/// The document of several results, written as they come.
struct Results {
    out: Vec<u8>,
    max: SizeLimit,
}

pub(super) async fn batch(
    State(app): State<App>,
    tenant: Tenant,
    request: Request,
) -> Result<Response, ApiError> {
    let headers = request.headers().clone();
    let (batch, bytes) = body::read_statements::<Batch>(request, &app).await?;
    let limit = time_limit(&app, batch.timeout_ms)?;
    expect_some(&batch.statements)?;
    let wishes = Wishes {
        role: batch.role,
        settings: batch.settings,
    };
    let once = app.once(&headers, &tenant, b"batch", &bytes).await?;
    if once.is_some() {
        refuse_ends(&batch.statements)?;
    }
    let done = run_within(limit, app.stopping.cancelling(), move |slot| async move {
        let mut visit = Visit::open(&app, &tenant, wishes, &slot).await?;
        let (statements, rows) = (&batch.statements, batch.row_mode);
        let done = match once {
            None => run_each(&mut visit, statements, rows)
                .await
                .map(Done::Now)
                .map_err(ApiError::from),
            Some(once) => {
                let work = async |visit: &mut Visit| run_apart(visit, statements, rows).await;
                run_once(Some(&once), &mut visit, "BEGIN", work).await
            }
        };
        visit.close().await;
        done
    });
    done.await.map(Done::response)
}

/// Runs each statement by itself, though all are in one transaction.
async fn run_apart(
    visit: &mut Visit,
    statements: &[Statement],
    rows: Rows,
) -> Result<Vec<u8>, PgError> {
    let mut results = Results::new(visit.result_max());
    for (number, statement) in (1..).zip(statements) {
        let set = visit.order("SAVEPOINT dormouse_statement").await;
        set.map_err(|error| of_statement(number, APART, error))?;
        let document = match visit.run(statement, rows).await {
            Ok(document) => document,
            Err(error) if visit.has_ended(&error) || is_given_up(visit, &error) => {
                return Err(of_statement(number, APART, error));
            }
            Err(error) => {
                let undone = visit.order("ROLLBACK TO SAVEPOINT dormouse_statement");
                let undone = undone.await;
                undone.map_err(|error| of_statement(number, APART, error))?;
                error.to_json()
            }
        };
        if visit.is_over() {
            return Err(ended_amid(number));
        }
        let added = results.add(&document);
        added.map_err(|error| of_statement(number, APART, error))?;
    }
    Ok(results.end())
}

async fn run_each(
    visit: &mut Visit,
    statements: &[Statement],
    rows: Rows,
) -> Result<Vec<u8>, PgError> {
    let mut results = Results::new(visit.result_max());
    for (number, statement) in (1..).zip(statements) {
        let before = visit.status();
        let run = visit.run(statement, rows).await;
        let of = meaning(before, visit.status(), run.is_ok());
        let document = match run {
            // It is closed with the session.
            Ok(_) if number == statements.len() && is_open(visit) => left_open().to_json(),
            Ok(document) => document,
            Err(error) if visit.has_ended(&error) || is_given_up(visit, &error) => {
                // COMMIT may have been done before the session ended.
                let is_unknown = before != TransactionStatus::Idle
                    && visit.has_ended(&error)
                    && statement::ends_transaction(statement.sql.as_bytes());
                let of = if is_unknown { UNKNOWN } else { of };
                return Err(of_statement(number, of, error));
            }
            Err(error) => error.to_json(),
        };
        let added = results.add(&document);
        added.map_err(|error| of_statement(number, of, error))?;
    }
    Ok(results.end())
}

/// What it means for the statements of a batch that nothing comes after one, by the transaction before and after it, and
/// by whether it has succeeded.
fn meaning(before: TransactionStatus, after: TransactionStatus, is_done: bool) -> &'static str {
    match (before, after) {
        (TransactionStatus::Idle, TransactionStatus::Idle) if is_done => THROUGH,
        (TransactionStatus::Idle, TransactionStatus::Idle) => EACH,
        (TransactionStatus::InTransaction, TransactionStatus::Idle) if is_done => THROUGH,
        // COMMIT of one that has failed rolls it back, and so does a COMMIT that fails.
        _ => AMID,
    }
}

/// Whether a statement of a batch has begun a transaction that none has ended.
fn is_open(visit: &Visit) -> bool {
    visit.status() != TransactionStatus::Idle
}

pub(super) async fn transaction(
    State(app): State<App>,
    tenant: Tenant,
    request: Request,
) -> Result<Response, ApiError> {
    let headers = request.headers().clone();
    let (wanted, bytes) = body::read_statements::<Transaction>(request, &app).await?;
    let limit = time_limit(&app, wanted.timeout_ms)?;
    expect_some(&wanted.statements)?;
    let reads_only = wanted.read_only || tenant.caller.scope == Scope::Read;
    let begin = Isolation::begin(wanted.isolation_level, reads_only, wanted.deferrable);
    let wishes = Wishes {
        role: wanted.role,
        settings: wanted.settings,
    };
    refuse_ends(&wanted.statements)?;
    let once = app.once(&headers, &tenant, b"transaction", &bytes).await?;
    let done = run_within(limit, app.stopping.cancelling(), move |slot| async move {
        let mut visit = Visit::open(&app, &tenant, wishes, &slot).await?;
        let (statements, rows) = (&wanted.statements, wanted.row_mode);
        let work = async |visit: &mut Visit| run_all(visit, statements, rows).await;
        let done = run_once(once.as_ref(), &mut visit, &begin, work).await;
        visit.close().await;
        done
    });
    done.await.map(Done::response)
}

async fn run_all(
    visit: &mut Visit,
    statements: &[Statement],
    rows: Rows,
) -> Result<Vec<u8>, PgError> {
    let mut results = Results::new(visit.result_max());
    for (number, statement) in (1..).zip(statements) {
        let document = visit.run(statement, rows).await;
        let document = document.map_err(|error| of_statement(number, APART, error))?;
        if visit.is_over() {
            return Err(ended_amid(number));
        }
        let added = results.add(&document);
        added.map_err(|error| of_statement(number, APART, error))?;
    }
    Ok(results.end())
}

fn expect_some(statements: &[Statement]) -> Result<(), ApiError> {
    match statements.is_empty() {
        true => {
            let message = "\"statements\" is empty";
            Err(ApiError::request(StatusCode::BAD_REQUEST, message))
        }
        false => Ok(()),
    }
}

/// # Errors
/// 54000 if there are more statements than a request may have.
pub(super) fn expect_count(count: usize, max: usize) -> Result<(), PgError> {
    if count <= max {
        return Ok(());
    }
    Err(PgError::error(
        sqlstate::PROGRAM_LIMIT_EXCEEDED,
        format!("there are {count} statements; http.statements_max is {max}"),
    )
    .hint("Send fewer at once, or raise http.statements_max in Dormouse's configuration."))
}

/// Whether an error is none of its statement, but the end of the request.
fn is_given_up(visit: &Visit, error: &PgError) -> bool {
    visit.is_given_up() && error.code() == sqlstate::QUERY_CANCELED
}

/// What an error means for the other statements, where they are one transaction.
const APART: &str = "the transaction, which is rolled back";

/// The same where each is by itself.
const EACH: &str = "the batch; those before it are done, those after it were not begun";

/// The same where the statement itself is done.
const THROUGH: &str = "the batch; it and those before it are done, those after it were not begun";

/// The same in a transaction that a statement of the batch has begun.
const AMID: &str = "the batch; what was done in the transaction that is open is rolled back, what was done before it \
                    stays, and those after it were not begun";

/// The same where the session has ended with the statement that was to end such a transaction.
const UNKNOWN: &str = "the batch; whether the transaction that it was to end is done is not known, what was done before \
                       that stays, and those after it were not begun";

/// Says which statement an error is of.
fn of_statement(number: usize, of: &str, error: PgError) -> PgError {
    let context = format!("statement {number} of {of}");
    let context = match error.get(ErrorField::Where) {
        Some(before) => format!("{before}\n{context}"),
        None => context,
    };
    error.with(ErrorField::Where, context)
}

/// What the last statement of a batch gives that leaves a transaction open.
fn left_open() -> PgError {
    PgError::error(
        sqlstate::ACTIVE_SQL_TRANSACTION,
        "the batch ends with a transaction open: what was done in it is rolled back",
    )
    .hint("End it with COMMIT in the same batch, or send what is to be all or none to POST transaction.")
}

fn refuse_ends(statements: &[Statement]) -> Result<(), PgError> {
    refuse_ends_in(statements.iter().map(|statement| &*statement.sql))
}

/// Refuses statements that would end the transaction in which they are to be all or none, before any is run.
///
/// # Errors
/// 2D000, which says which one it is.
pub(super) fn refuse_ends_in<'a>(statements: impl Iterator<Item = &'a str>) -> Result<(), PgError> {
    for (number, sql) in (1..).zip(statements) {
        if statement::ends_transaction(sql.as_bytes()) {
            return Err(PgError::error(
                sqlstate::INVALID_TRANSACTION_TERMINATION,
                format!("statement {number} would end the transaction; nothing was run"),
            )
            .hint(LEAVE_OUT));
        }
    }
    Ok(())
}

/// What to do about such a statement.
const LEAVE_OUT: &str =
    "Leave COMMIT and ROLLBACK out: the request commits when all of it has succeeded.";

/// The error of a statement that ended the transaction it was in, though nobody could tell before.
pub(super) fn ended_amid(number: usize) -> PgError {
    PgError::error(
        sqlstate::INVALID_TRANSACTION_TERMINATION,
        format!("statement {number} has ended the transaction"),
    )
    .detail("What came before it is as that statement left it; what comes after it was not run.")
    .hint(LEAVE_OUT)
}

impl Results {
    fn new(max: SizeLimit) -> Self {
        Self {
            out: b"{\"results\":[".to_vec(),
            max,
        }
    }

    fn add(&mut self, document: &[u8]) -> Result<(), PgError> {
        if self.out.last() != Some(&b'[') {
            self.out.push(b',');
        }
        self.out.extend_from_slice(document);
        let max = self.max;
        max.check(
            "what the statements give together",
            self.out.len(),
            "Ask for fewer rows",
        )
    }

    fn end(mut self) -> Vec<u8> {
        self.out.extend_from_slice(b"]}");
        self.out
    }
}
