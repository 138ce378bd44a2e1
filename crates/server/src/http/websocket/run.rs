//! Doing requests: with a session of the database that is opened when there is one to do, and closed when there is
//! none any more.

use std::sync::Arc;
use std::time::Duration;

use database::Canceller;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use wire::pg::TransactionStatus;
use wire::{PgError, Severity, sqlstate};

use super::answer::{self, cancelled};
use super::conversation::{Conversation, End, shutting_down};
use super::lane::{Task, Ticket};
use super::request::{Id, Job, Source, Statement};
use super::visitor::Visit;
use crate::http::run::{time_limit, timed_out, unless};

/// Does the requests that are in no transaction, until none waits.
pub(super) async fn plain(conversation: Arc<Conversation>) {
    let mut visit = None;
    while let Some(Task { ticket, job }) = conversation.next(None) {
        let done = match conversation.goes_on().await {
            true => plain_job(&conversation, &ticket, job, &mut visit).await,
            false => Err(shutting_down()),
        };
        give(&conversation, &ticket, done);
    }
    close(visit).await;
}

async fn plain_job(
    conversation: &Conversation,
    ticket: &Ticket,
    job: Job,
    visit: &mut Option<Visit>,
) -> Result<Vec<u8>, PgError> {
    let statement = match job {
        Job::Run(statement) => statement,
        Job::Set(wishes) => {
            // What is set holds from the next session on.
            close(visit.take()).await;
            let max = state_bytes_max(conversation);
            conversation.state.lock().set(wishes, max)?;
            return Ok(answer::done(ticket.id));
        }
        Job::Prepare { .. } | Job::Forget(_) => return remember(conversation, ticket.id, job),
        Job::Commit | Job::Rollback => {
            // Whoever reads a message has looked.
            return Err(PgError::error(
                sqlstate::NO_ACTIVE_SQL_TRANSACTION,
                "\"transaction\" says which one to end",
            ));
        }
    };
    let _permit = conversation.visitor.permit()?;
    let mut one = match visit.take() {
        Some(visit) => visit,
        None => open(conversation, ticket).await?,
    };
    let done = statement_job(conversation, ticket, statement, &mut one).await;
    let is_lost = matches!(&done, Err(error) if error.severity() != Severity::Error);
    if is_lost || one.status() != TransactionStatus::Idle {
        let was_open = one.status() != TransactionStatus::Idle;
        one.close().await;
        if was_open && done.is_ok() {
            return Err(stray_transaction());
        }
        return done;
    }
    *visit = Some(one);
    done
}

/// Does the requests of a transaction, until it ends.
pub(super) async fn transaction(
    conversation: Arc<Conversation>,
    begin: Ticket,
    sql: String,
    changed: Arc<Notify>,
) {
    let number = begin.id;
    let visit = begin_transaction(&conversation, &begin, &sql).await;
    let visit = visit.map_err(|error| {
        conversation.answer(&begin, answer::error(number, &error));
    });
    if let Ok(mut visit) = visit {
        conversation.answer(&begin, answer::begun(number));
        let ended = serve(&conversation, number, &changed, &mut visit).await;
        // Rolls back what is open.
        visit.close().await;
        if let Err(error) = ended {
            let told = answer::transaction_ended(number, &error);
            conversation.outbox.push(told);
        }
    }
    conversation.transaction_ended(number);
}

async fn begin_transaction(
    conversation: &Conversation,
    begin: &Ticket,
    sql: &str,
) -> Result<Visit, PgError> {
    let _permit = conversation.visitor.permit()?;
    let mut visit = open(conversation, begin).await?;
    let canceller = visit.canceller();
    let limit = conversation.visitor.app().options.request_timeout;
    let begun = within(conversation, begin, &canceller, limit, visit.begin(sql)).await;
    match begun {
        Ok(()) => Ok(visit),
        Err(error) => {
            visit.close().await;
            Err(error)
        }
    }
}

/// # Errors
/// Why it ended without being asked to.
async fn serve(
    conversation: &Conversation,
    number: Id,
    changed: &Notify,
    visit: &mut Visit,
) -> Result<(), PgError> {
    let mut since = Instant::now();
    loop {
        let idle = conversation
            .visitor
            .app()
            .options
            .websocket
            .transaction_idle;
        let Some(Task { ticket, job }) = conversation.next(Some(number)) else {
            tokio::select! {
                biased;
                () = changed.notified() => continue,
                () = visit.share_wanted() => {
                    visit.share();
                    continue;
                }
                () = visit.signalled() => {
                    visit.take_signals().await?;
                    continue;
                }
                error = visit.idle_too_long() => return Err(error),
                () = conversation.ends(End::Draining) => return Err(shutting_down()),
                () = conversation.stopping.draining() => return Err(shutting_down()),
                () = sleep_until(since + idle) => return Err(idle_too_long(idle)),
            }
        };
        if !conversation.goes_on().await {
            // What is open is rolled back.
            give(conversation, &ticket, Err(shutting_down()));
            return Ok(());
        }
        let done = match job {
            Job::Run(statement) => match conversation.visitor.permit() {
                Ok(_permit) => statement_job(conversation, &ticket, statement, visit).await,
                Err(error) => Err(error),
            },
            Job::Commit => end_job(conversation, &ticket, visit, true).await,
            Job::Rollback => end_job(conversation, &ticket, visit, false).await,
            Job::Prepare { .. } | Job::Forget(_) => remember(conversation, ticket.id, job),
            Job::Set(_) => Err(PgError::error(
                sqlstate::ACTIVE_SQL_TRANSACTION,
                "\"set\" is for requests outside transactions",
            )),
        };
        let is_lost = matches!(&done, Err(error) if error.severity() != Severity::Error);
        give(conversation, &ticket, done);
        since = Instant::now();
        if is_lost || visit.status() == TransactionStatus::Idle {
            return Ok(());
        }
    }
}

/// Ends a transaction. A commit may run statements, of constraints that were deferred: it has a request's time.
async fn end_job(
    conversation: &Conversation,
    ticket: &Ticket,
    visit: &mut Visit,
    commits: bool,
) -> Result<Vec<u8>, PgError> {
    let limit = time_limit(&conversation.visitor.app(), None)?;
    if ticket.given.is_up() {
        return Err(cancelled());
    }
    let canceller = visit.canceller();
    let ending = async {
        match commits {
            true => visit.commit().await,
            false => visit.rollback().await,
        }
    };
    within(conversation, ticket, &canceller, limit, ending).await?;
    Ok(answer::done(ticket.id))
}

/// Runs a statement: its last message.
async fn statement_job(
    conversation: &Conversation,
    ticket: &Ticket,
    statement: Statement,
    visit: &mut Visit,
) -> Result<Vec<u8>, PgError> {
    let limit = time_limit(&conversation.visitor.app(), statement.timeout_ms)?;
    let sql = match statement.source {
        Source::Sql(sql) => sql,
        Source::Prepared(name) => conversation.state.lock().statement(&name)?,
    };
    if ticket.given.is_up() {
        return Err(cancelled());
    }
    let outbox = Arc::clone(&conversation.outbox);
    let max = conversation.visitor.sizes().await?.stream;
    let given = ticket.given.clone();
    let result = answer::Result::new(ticket.id, statement.rows, max, outbox, given);
    let canceller = visit.canceller();
    let running = visit.run(&sql, &statement.params, result);
    let result = within(conversation, ticket, &canceller, limit, running).await?;
    result.into_last()
}

fn remember(conversation: &Conversation, id: Id, job: Job) -> Result<Vec<u8>, PgError> {
    let max = state_bytes_max(conversation);
    let mut state = conversation.state.lock();
    match job {
        Job::Prepare { name, sql } => state.prepare(name, sql, max)?,
        Job::Forget(name) => state.forget(&name),
        _ => {}
    }
    Ok(answer::done(id))
}

fn state_bytes_max(conversation: &Conversation) -> usize {
    conversation.visitor.app().options.websocket.state_bytes_max
}

/// Opens a session, unless the request is given up before there is one.
async fn open(conversation: &Conversation, ticket: &Ticket) -> Result<Visit, PgError> {
    let (role, settings) = {
        let state = conversation.state.lock();
        (state.role.clone(), state.settings.clone())
    };
    let limit = conversation.visitor.app().options.request_timeout;
    tokio::select! {
        biased;
        visit = conversation.visitor.open(role, settings) => visit,
        () = ticket.given.is_given_up() => Err(cancelled()),
        () = conversation.ends(End::Over) => Err(shutting_down()),
        () = conversation.stopping.cancelling() => Err(shutting_down()),
        () = sleep(limit) => Err(timed_out(limit)),
    }
}

/// Does work for so long, unless the request is given up. The work is always done to its end.
async fn within<T>(
    conversation: &Conversation,
    ticket: &Ticket,
    canceller: &Canceller,
    limit: Duration,
    work: impl Future<Output = Result<T, PgError>>,
) -> Result<T, PgError> {
    let ends = async {
        let why = tokio::select! {
            biased;
            () = ticket.given.is_given_up() => cancelled(),
            () = conversation.ends(End::Over) => shutting_down(),
            () = conversation.stopping.cancelling() => shutting_down(),
            () = sleep(limit) => timed_out(limit),
        };
        // It may wait for the client.
        ticket.given.up(&conversation.outbox);
        why
    };
    unless(canceller, ends, work).await
}

fn give(conversation: &Conversation, ticket: &Ticket, done: Result<Vec<u8>, PgError>) {
    let answer = done.unwrap_or_else(|error| answer::error(ticket.id, &error));
    conversation.answer(ticket, answer);
}

async fn close(visit: Option<Visit>) {
    if let Some(visit) = visit {
        visit.close().await;
    }
}

fn idle_too_long(idle: Duration) -> PgError {
    PgError::error(
        sqlstate::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        format!(
            "the transaction was rolled back: it was idle for longer than \
             websocket.transaction_idle_ms_max, {}",
            idle.as_millis()
        ),
    )
    .hint("Shorten transactions, or raise websocket.transaction_idle_ms_max in Dormouse's configuration.")
}

fn stray_transaction() -> PgError {
    PgError::error(
        sqlstate::ACTIVE_SQL_TRANSACTION,
        "a transaction begun by a statement was rolled back: nothing could be sent in it",
    )
    .hint("Begin one with {\"id\":1,\"begin\":{}}, and send its requests with \"transaction\":1.")
}
