//! What a client and this server have said to each other: it outlives the socket.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::close_code;
use parking_lot::Mutex;
use tokio::sync::watch;
use wire::{PgError, sqlstate};

use super::answer::{self, Given};
use super::lane::{Lane, Task, Ticket};
use super::outbox::Outbox;
use super::request::{Id, Modes, Request};
use super::run;
use super::state::State;
use super::visitor::Visitor;
use crate::http::shares::Held;
use crate::http::upgraded::{NOT_ADMITTED, Place};
use crate::identity::Stay;
use crate::options::WebSocketOptions;
use crate::shutdown::Stopping;

/// The close code for what is no request.
pub(super) const MALFORMED: u16 = 4400;

/// One client's requests and their answers.
pub(super) struct Conversation {
    pub(super) visitor: Visitor,
    /// How often its client is asked whether it is there, as it was told.
    pub(super) ping: Duration,
    /// How long it waits for its client, as that was told.
    pub(super) resume: Duration,
    pub(super) outbox: Arc<Outbox>,
    pub(super) stopping: Stopping,
    /// What holds for the next request.
    pub(super) state: Mutex<State>,
    lanes: Mutex<Lanes>,
    end: watch::Sender<End>,
    _place: (Place, Held),
}

/// How far its end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    Open,
    /// No new requests; transactions that do nothing end.
    Draining,
    /// What runs is cancelled.
    Over,
    /// The same, and its client is told nothing more than why.
    Expelled(Expelled),
}

/// Why a client may not stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Expelled {
    /// Its token is not accepted any more.
    Refused,
    /// Whoever knows its token does not answer.
    Unknown,
}

/// Requests by what they are in turn with.
#[derive(Default)]
struct Lanes {
    /// Those in no transaction.
    plain: Lane,
    transactions: HashMap<Id, Lane>,
    /// Requests without an answer, and the bytes of their messages.
    count: usize,
    bytes: usize,
}

/// Why a socket is closed from this side.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: u16,
    pub(super) reason: String,
}

impl Conversation {
    pub(super) fn new(
        visitor: Visitor,
        options: &WebSocketOptions,
        stopping: Stopping,
        place: (Place, Held),
    ) -> Arc<Self> {
        let keeps = !options.resume.is_zero();
        Arc::new(Self {
            visitor,
            state: Mutex::default(),
            outbox: Arc::new(Outbox::new(options.answers_bytes_max, keeps)),
            ping: options.ping,
            resume: options.resume,
            stopping,
            lanes: Mutex::default(),
            end: watch::Sender::new(End::Open),
            _place: place,
        })
    }

    /// Takes a request of so many bytes.
    ///
    /// # Errors
    /// The client has too many of them waiting.
    pub(super) fn take(self: &Arc<Self>, request: Request, bytes: usize) -> Result<(), Refusal> {
        let app = self.visitor.app();
        let options = &app.options.websocket;
        self.outbox.hold_at_most(options.answers_bytes_max);
        match request {
            Request::Do {
                id,
                transaction,
                job,
            } => {
                let ticket = Ticket::new(id, bytes);
                self.put(Task { ticket, job }, transaction, options)
            }
            Request::Begin { id, modes } => self.begin(id, &modes, bytes, options),
            Request::Cancel(id) => {
                self.cancel(id);
                Ok(())
            }
            Request::Received(count) => {
                self.outbox.received(count);
                Ok(())
            }
            Request::Ping(content) => {
                let pong = format!("{{\"pong\":{content}}}");
                self.push_unasked(pong.into_bytes())
            }
            Request::Resume(_) => Err(Refusal {
                code: MALFORMED,
                reason: "\"resume\" is for the first message".to_owned(),
            }),
        }
    }

    /// Answers a request with an error before its turn.
    fn refuse(&self, id: Id, error: &PgError) -> Result<(), Refusal> {
        self.push_unasked(answer::error(id, error))
    }

    fn push_unasked(&self, answer: Vec<u8>) -> Result<(), Refusal> {
        if self.outbox.push_unasked(answer) {
            return Ok(());
        }
        let max = self.visitor.app().options.websocket.answers_bytes_max;
        Err(Refusal::policy(format!(
            "answers wait of more bytes than websocket.answers_bytes_max, {max}"
        )))
    }

    fn put(
        self: &Arc<Self>,
        task: Task,
        transaction: Option<Id>,
        options: &WebSocketOptions,
    ) -> Result<(), Refusal> {
        let mut lanes = self.lanes.lock();
        if *self.end.borrow() != End::Open {
            return self.refuse(task.ticket.id, &shutting_down());
        }
        let (id, bytes) = (task.ticket.id, task.ticket.bytes);
        lanes.admit(options, bytes)?;
        let lane = match transaction {
            None => &mut lanes.plain,
            Some(number) => match lanes.transactions.get_mut(&number) {
                Some(lane) => lane,
                None => {
                    lanes.dismiss(bytes);
                    return self.refuse(id, &no_transaction(number));
                }
            },
        };
        if lane.put(task) {
            tokio::spawn(Arc::clone(self).admitted(run::plain(Arc::clone(self))));
        }
        Ok(())
    }

    fn begin(
        self: &Arc<Self>,
        id: Id,
        modes: &Modes,
        bytes: usize,
        options: &WebSocketOptions,
    ) -> Result<(), Refusal> {
        let mut lanes = self.lanes.lock();
        let max = options.transactions_max;
        let error = if *self.end.borrow() != End::Open {
            Some(shutting_down())
        } else if lanes.transactions.contains_key(&id) {
            Some(PgError::error(
                sqlstate::ACTIVE_SQL_TRANSACTION,
                format!("transaction {id} is open already: begin with another id"),
            ))
        } else if lanes.transactions.len() >= max {
            Some(
                PgError::error(
                    sqlstate::CONFIGURATION_LIMIT_EXCEEDED,
                    format!("too many transactions: websocket.transactions_max is {max}"),
                )
                .hint("End some, or raise websocket.transactions_max in Dormouse's configuration."),
            )
        } else {
            None
        };
        if let Some(error) = error {
            return self.refuse(id, &error);
        }
        lanes.admit(options, bytes)?;
        let ticket = Ticket::new(id, bytes);
        let lane = Lane::of_transaction(&ticket);
        let changed = lane.changed();
        lanes.transactions.insert(id, lane);
        let running = run::transaction(Arc::clone(self), ticket, modes.begin(), changed);
        tokio::spawn(Arc::clone(self).admitted(running));
        Ok(())
    }

    /// Does work for as long as the client may stay, who is looked at before and each second: past it all work is cancelled, and
    /// comes to its end.
    async fn admitted(self: Arc<Self>, work: impl Future<Output = ()>) {
        match self.visitor.may_stay().await {
            Stay::Yes => {}
            Stay::No => return self.end(End::Expelled(Expelled::Refused)),
            Stay::Unknown => return self.end(End::Expelled(Expelled::Unknown)),
        }
        let mut work = pin!(work);
        tokio::select! {
            biased;
            () = &mut work => return,
            () = self.visitor.has_to_go() => self.end(End::Expelled(Expelled::Refused)),
        }
        work.await;
    }

    /// Whether the next request of a lane that is served is begun: who was revoked is told with the next message, also amid work.
    pub(super) async fn goes_on(&self) -> bool {
        let may = self.visitor.may_go_on().await;
        if !may {
            self.end(End::Expelled(Expelled::Refused));
        }
        may
    }

    /// Ends it, if its client may not stay.
    pub(super) async fn look_at_client(&self) {
        if self.visitor.may_stay_idle().await == Stay::No {
            self.end(End::Expelled(Expelled::Refused));
        }
    }

    /// Waits until the client may not stay: why.
    pub(super) async fn expelled(&self) -> Refusal {
        let mut ends = self.end.subscribe();
        loop {
            if let End::Expelled(why) = *ends.borrow_and_update() {
                return why.refusal();
            }
            // The sender is here.
            let _ = ends.changed().await;
        }
    }

    /// The next request of a lane; none if none waits, and the lane rests then.
    pub(super) fn next(&self, transaction: Option<Id>) -> Option<Task> {
        let mut lanes = self.lanes.lock();
        match transaction {
            None => lanes.plain.next(),
            Some(number) => lanes.transactions.get_mut(&number)?.next(),
        }
    }

    /// A transaction has ended: what still waits in it has none.
    pub(super) fn transaction_ended(&self, number: Id) {
        let mut lanes = self.lanes.lock();
        let Some(mut lane) = lanes.transactions.remove(&number) else {
            return;
        };
        while let Some(task) = lane.next() {
            lanes.dismiss(task.ticket.bytes);
            let error = no_transaction(number);
            self.outbox.push(answer::error(task.ticket.id, &error));
        }
        drop(lanes);
        self.changed();
    }

    /// Gives the last answer to a request.
    pub(super) fn answer(&self, ticket: &Ticket, answer: Vec<u8>) {
        self.outbox.push(answer);
        self.lanes.lock().dismiss(ticket.bytes);
        self.changed();
    }

    fn cancel(&self, id: Id) {
        let lanes = self.lanes.lock();
        let all = std::iter::once(&lanes.plain).chain(lanes.transactions.values());
        let found: Option<Given> = all.filter_map(|lane| lane.find(id)).next();
        drop(lanes);
        if let Some(given) = found {
            given.up(&self.outbox);
        }
    }

    /// The end has come so far, at least.
    pub(super) fn end(&self, end: End) {
        self.end.send_if_modified(|now| {
            let is_further = *now < end;
            *now = end.max(*now);
            is_further
        });
        // Who waits for room has nobody to wait for.
        self.outbox.wake();
    }

    pub(super) fn is_over(&self) -> bool {
        *self.end.borrow() >= End::Over
    }

    /// Waits until the end has come so far.
    pub(super) async fn ends(&self, end: End) {
        let mut ends = self.end.subscribe();
        // The sender is here.
        let _ = ends.wait_for(|now| *now >= end).await;
    }

    /// Waits until all requests are answered and no transaction is open.
    pub(super) async fn rests(&self) {
        let mut changes = self.end.subscribe();
        while !self.is_at_rest() {
            // The sender is here.
            let _ = changes.changed().await;
        }
    }

    fn is_at_rest(&self) -> bool {
        let lanes = self.lanes.lock();
        lanes.count == 0 && lanes.transactions.is_empty()
    }

    /// Who waits for [`rests`](Self::rests) looks again.
    fn changed(&self) {
        self.end.send_modify(|_| {});
    }
}

impl Lanes {
    fn admit(&mut self, options: &WebSocketOptions, bytes: usize) -> Result<(), Refusal> {
        if self.count >= options.requests_max {
            let max = options.requests_max;
            return Err(Refusal::policy(format!(
                "more requests wait than websocket.requests_max, {max}"
            )));
        }
        if self.bytes + bytes > options.requests_bytes_max {
            let max = options.requests_bytes_max;
            return Err(Refusal::policy(format!(
                "requests wait of more bytes than websocket.requests_bytes_max, {max}"
            )));
        }
        self.count += 1;
        self.bytes += bytes;
        Ok(())
    }

    fn dismiss(&mut self, bytes: usize) {
        self.count -= 1;
        self.bytes -= bytes;
    }
}

impl Expelled {
    fn refusal(self) -> Refusal {
        let (code, reason) = match self {
            Self::Refused => (
                NOT_ADMITTED,
                "what was shown to come in is not accepted any more",
            ),
            Self::Unknown => (
                close_code::AGAIN,
                "whoever knows the token does not answer: come again later",
            ),
        };
        let reason = reason.to_owned();
        Refusal { code, reason }
    }
}

impl Refusal {
    pub(super) fn policy(reason: String) -> Self {
        Self {
            code: close_code::POLICY,
            reason,
        }
    }
}

fn no_transaction(number: Id) -> PgError {
    PgError::error(
        sqlstate::NO_ACTIVE_SQL_TRANSACTION,
        format!("there is no transaction {number}"),
    )
    .hint("It ended, or was never begun: {\"id\":1,\"begin\":{}} begins one with the number 1.")
}

pub(super) fn shutting_down() -> PgError {
    PgError::error(
        sqlstate::ADMIN_SHUTDOWN,
        "the server is shutting down: no new requests are taken",
    )
}
