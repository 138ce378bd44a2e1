//! The task of one interactive transaction: it has the session, and does what requests ask, one after the other.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use database::Canceller;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{Instrument as _, Span};
use wire::pg::TransactionStatus;
use wire::{PgError, SizeLimit, sqlstate};

use super::Place;
use crate::http::bodies::Counted;
use crate::http::router::App;
use crate::http::run::{OUTCOME_MAX, not_ended, timed_out, unless};
use crate::http::shares::Held as Share;
use crate::http::visit::{Rows, Statement, Visit};
use crate::identity::Pass;
use crate::pgwire::shutting_down;
use crate::shutdown::Stopping;

/// What a request asks of a transaction, and who waits for the answer.
pub(super) enum Command {
    Run {
        statement: Statement,
        rows: Rows,
        /// How large the result may be.
        max: SizeLimit,
        /// Of the request, which counts until this is done.
        body: Option<Arc<Counted>>,
        answer: oneshot::Sender<Result<Vec<u8>, PgError>>,
    },
    Commit {
        answer: oneshot::Sender<Result<(), PgError>>,
    },
    Rollback {
        answer: oneshot::Sender<Result<(), PgError>>,
    },
}

/// A command, and the request that it is of as traces have it.
pub(super) struct Asked {
    command: Command,
    time: Time,
    span: Span,
}

/// The time of a request, which also passes while it waits for its turn.
#[derive(Clone)]
struct Time {
    limit: Duration,
    deadline: Instant,
    /// Whether it was begun, or given up before that: whichever came first.
    is_settled: Arc<AtomicBool>,
}

impl Time {
    fn of(limit: Duration) -> Self {
        Self {
            limit,
            deadline: Instant::now() + limit,
            is_settled: Arc::default(),
        }
    }

    /// Waits until it is over.
    async fn is_over(&self) {
        sleep_until(self.deadline).await;
    }

    /// Whether this is the one to begin it, or to give it up.
    fn settle(&self) -> bool {
        !self.is_settled.swap(true, Ordering::AcqRel)
    }
}

/// A transaction between its requests.
pub(super) struct Held {
    visit: Visit,
    canceller: Canceller,
    idle: Duration,
    app: App,
    pass: Arc<Pass>,
    _place: (Place, Share),
}

/// Whether the transaction goes on.
enum Next {
    Waits,
    Ends,
}

/// Asks a transaction for something that may take so long, the wait for what was asked before included, unless the
/// server does not wait any more (`stops`).
///
/// # Errors
/// What comes of it; 57014 if its time is over before its turn, and then it is not begun any more, 57P01 at a stop. What
/// does not end though it was cancelled ends the transaction when it does.
pub(super) async fn ask<T>(
    commands: &mpsc::Sender<Asked>,
    limit: Duration,
    stops: impl Future<Output = ()>,
    command: impl FnOnce(oneshot::Sender<Result<T, PgError>>) -> Command,
) -> Result<T, PgError> {
    let (answer, mut answered) = oneshot::channel();
    let time = Time::of(limit);
    let asked = Asked {
        command: command(answer),
        time: time.clone(),
        span: Span::current(),
    };
    let waiting = async {
        commands.send(asked).await.map_err(|_| over())?;
        (&mut answered).await.unwrap_or_else(|_| Err(over()))
    };
    let why = tokio::select! {
        biased;
        done = waiting => return done,
        () = stops => shutting_down(),
        () = time.is_over() => timed_out(limit),
    };
    if time.settle() {
        return Err(
            why.detail("It waited for another request in the transaction, and was not begun.")
        );
    }
    // It has begun, and is cancelled.
    if let Ok(done) = timeout(OUTCOME_MAX, &mut answered).await {
        return done.unwrap_or_else(|_| Err(over()));
    }
    // From now on nobody waits for it, which ends the transaction.
    answered.close();
    answered.try_recv().unwrap_or_else(|_| Err(not_ended(why)))
}

fn over() -> PgError {
    PgError::error(
        sqlstate::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        "the transaction has ended before: it waited for too long (limits http.transaction_idle_ms_max and \
         sessions.idle_holder_ms_max), what began it is not accepted any more, or the server stops",
    )
    .hint("It is rolled back. Begin another one.")
}

impl Held {
    pub(super) fn new(
        visit: Visit,
        canceller: Canceller,
        idle: Duration,
        app: &App,
        pass: Arc<Pass>,
        place: (Place, Share),
    ) -> Self {
        Self {
            visit,
            canceller,
            idle,
            app: Arc::clone(app),
            pass,
            _place: place,
        }
    }

    /// Does what comes, until the transaction ends, or nothing comes for too long.
    pub(super) async fn serve(mut self, mut commands: mpsc::Receiver<Asked>) {
        while let Some(asked) = self.next(&mut commands).await {
            let Asked {
                command,
                time,
                span,
            } = asked;
            if !time.settle() {
                // Whoever asked was told that it is not begun any more.
                continue;
            }
            match self.obey(command, &time).instrument(span).await {
                Next::Waits => {}
                Next::Ends => break,
            }
        }
        // What is open is rolled back.
        self.visit.close().await;
    }

    /// Waits for a command; nothing if the transaction is to end without one.
    async fn next(&mut self, commands: &mut mpsc::Receiver<Asked>) -> Option<Asked> {
        let mut patience = pin!(sleep(self.idle));
        loop {
            let session = self.visit.session();
            tokio::select! {
                command = commands.recv() => return command,
                // Others want to go on beside it.
                () = session.share_wanted() => session.share(),
                () = session.signalled() => {
                    if session.take_signals().await.is_err() {
                        return None;
                    }
                }
                _error = session.idle_too_long() => return None,
                () = self.app.stopping.draining() => return None,
                () = &mut patience => return None,
                () = self.app.security.gatekeeper.has_to_go(&self.pass) => return None,
            }
        }
    }

    async fn obey(&mut self, command: Command, time: &Time) -> Next {
        match command {
            Command::Run {
                statement,
                rows,
                max,
                body,
                mut answer,
            } => {
                self.visit.limit_results(max);
                let ends = ends(time, &mut answer, &self.app.stopping);
                let running = self.visit.run(&statement, rows);
                let done = unless(&self.canceller, ends, running).await;
                let is_over = match &done {
                    Err(error) => self.visit.has_ended(error),
                    Ok(_) => false,
                };
                // Without a transaction there is nothing to keep.
                let is_over = is_over || self.visit.status() == TransactionStatus::Idle;
                drop((statement, body));
                let is_heard = answer.send(done).is_ok();
                match is_heard && !is_over {
                    true => Next::Waits,
                    false => Next::Ends,
                }
            }
            Command::Commit { mut answer } => {
                let ends = ends(time, &mut answer, &self.app.stopping);
                let done = unless(&self.canceller, ends, self.visit.commit()).await;
                // Who has gone finds out by what is in the database.
                let _ = answer.send(done);
                Next::Ends
            }
            Command::Rollback { mut answer } => {
                let ends = ends(time, &mut answer, &self.app.stopping);
                let rolling = self.visit.order("ROLLBACK");
                let done = unless(&self.canceller, ends, rolling).await;
                let _ = answer.send(done);
                Next::Ends
            }
        }
    }
}

/// Why something is not to go on: it takes too long, nobody waits for it, or the server stops.
async fn ends<T>(time: &Time, answer: &mut oneshot::Sender<T>, stopping: &Stopping) -> PgError {
    tokio::select! {
        biased;
        () = answer.closed() => PgError::error(sqlstate::QUERY_CANCELED, "nobody waits for the answer"),
        () = stopping.cancelling() => shutting_down(),
        () = time.is_over() => timed_out(time.limit),
    }
}
