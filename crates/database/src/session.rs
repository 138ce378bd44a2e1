//! A session: one client in one database.
//!
//! It has a process of the database while it runs something, and for as long as a transaction is open.

mod cancel;
mod ours;
mod seating;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
pub use cancel::Canceller;
use engine::{ClientIo, IdleLimits, Interrupter, SessionIdentity};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use wire::pg::{Frame, TransactionStatus, backend, frames, frontend, statement};
use wire::{DatabaseName, PgError, sqlstate};

use crate::authority::Authority;
use crate::database::{Database, Present};
use crate::further::Shelf;
use crate::gate::{self, Gated, Ungate};
use crate::node::{Node, blocking};
use crate::prepared::Absent;
use crate::refusal::{self, Refused};
use crate::seat::Seat;
use crate::session::cancel::Line;
use crate::session::seating::Unseated;
use crate::slot::{self, Slot};
use crate::statements::{Handling, Statements};

/// Who begins a session, and with what.
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    /// The role; empty for `postgres`.
    pub user: String,
    /// Settings to begin with, as in a startup packet.
    pub settings: Vec<(String, String)>,
    /// Where the session comes from, for people: "psql at 127.0.0.1:50123".
    pub origin: String,
    /// What it may do beyond its own database.
    pub authority: Authority,
}

impl SessionOptions {
    /// Postgres would take text as far as the first zero byte, and so another name or value.
    fn check(&self) -> Result<(), PgError> {
        let zero = |what: String| {
            PgError::fatal(
                sqlstate::CHARACTER_NOT_IN_REPERTOIRE,
                format!("invalid byte sequence for encoding \"UTF8\": 0x00, in {what}"),
            )
        };
        if self.user.contains('\0') {
            return Err(zero("the name of the user".to_owned()));
        }
        for (name, value) in &self.settings {
            if name.contains('\0') || value.contains('\0') {
                return Err(zero(format!("the setting {name:?}")));
            }
        }
        Ok(())
    }
}

/// The backend ended under a session, which ends with it.
#[derive(Debug, Clone)]
pub struct SessionEnded {
    /// What Postgres answered before.
    pub output: Bytes,
    /// The reason, FATAL. If Postgres gave it itself, it is in the output too.
    pub error: PgError,
    /// Whether the output ends with that error.
    pub told: bool,
}

/// One client in one database.
pub struct Session {
    node: Arc<Node>,
    database: Arc<Database>,
    /// The process, while it has one, and its turn at it.
    slot: Option<OwnedMutexGuard<Slot>>,
    permit: Option<OwnedSemaphorePermit>,
    /// The slot that it had last.
    home: Option<Shelf>,
    seat: Arc<Seat>,
    identity: SessionIdentity,
    authority: Authority,
    /// Its prepared statements that its process has not.
    absent: Absent,
    parameters: Vec<(String, String)>,
    process_id: u32,
    status: TransactionStatus,
    /// The backend has told that it waits for a new query.
    at_rest: bool,
    /// When its last exchange ended, and when its last transaction block began.
    quiet_since: Instant,
    transaction_since: Instant,
    /// Which transaction that was.
    transaction_number: u32,
    idle_limits: IdleLimits,
    statements: Statements,
    /// An error of ours in an extended query: messages are dropped up to the next `Sync`.
    skipping: bool,
    /// Its transactions are read-only, because the disk is all but full.
    read_only: bool,
    runs: watch::Sender<u64>,
    line: Arc<Line>,
    /// Its number among the sessions of the node.
    present: u64,
    has_left: bool,
    /// The name of its role, until that is found.
    role: Option<String>,
    /// Of the process that it has let go of, and may still have things in.
    parked: Option<Interrupter>,
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Session")
            .field("database", &self.database.name())
            .field("process_id", &self.process_id)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// The parameters to report to the client, by name.
    pub fn parameters(&self) -> &[(String, String)] {
        &self.parameters
    }

    /// The number by which Postgres knows it, for `BackendKeyData`; unlikely to be another session's.
    pub fn process_id(&self) -> u32 {
        self.process_id
    }

    /// A handle that cancels this session's statement.
    pub fn canceller(&self) -> Canceller {
        Canceller {
            line: Arc::clone(&self.line),
            runs: self.runs.subscribe(),
        }
    }

    /// As the last `ReadyForQuery` said.
    pub fn transaction_status(&self) -> TransactionStatus {
        self.status
    }

    /// What the session may do beyond its own database.
    pub(crate) fn authority(&self) -> Authority {
        self.authority
    }

    /// The database that the session is in.
    pub fn database(&self) -> DatabaseName {
        self.database.name()
    }

    /// Runs whole frontend messages in order; the answers, and `io` back.
    ///
    /// `io` is asked for more input only in the middle of something (`COPY FROM STDIN`), and given
    /// output only when there is much; the rest of it is returned. Dropping the future in the
    /// middle costs the database its backend: it starts again from its last commit.
    ///
    /// # Errors
    ///
    /// [`SessionEnded`] if the backend ended; the session can only be closed then.
    pub async fn exchange(
        &mut self,
        messages: Bytes,
        io: Option<Box<dyn ClientIo>>,
    ) -> Result<(Bytes, Option<Box<dyn ClientIo>>), SessionEnded> {
        if self.slot.is_none()
            && let Some(ended) = self.unusable()
        {
            return Err(ended);
        }
        match self.take_seat(false).await {
            Ok(()) => {}
            Err(Unseated::Busy(error) | Unseated::Broken(error)) => {
                return Ok((self.refuse(messages, error), io));
            }
            Err(Unseated::Ended(error)) => return Err(self.ended(error)),
        }
        self.rest().await;
        self.share();
        let mut ungate = None;
        if let Some(slot) = &mut self.slot
            && let Some(backend) = &mut slot.backend
        {
            let io = io.map(|io| {
                let (gated, key) = Gated::new(io, backend.volume());
                ungate = Some(key);
                Box::new(gated) as Box<dyn ClientIo>
            });
            backend.attach(io);
        }
        let mut output = BytesMut::new();
        let result = self.handle(messages, &mut output).await;
        if let Some(backend) = self.slot.as_mut().and_then(|slot| slot.backend.as_mut()) {
            backend.attach(None);
        }
        let volume = self
            .slot
            .as_ref()
            .and_then(|slot| Some(slot.backend.as_ref()?.volume()));
        let volume = volume.or_else(|| self.database.open_volume());
        // Others need not wait for the disk.
        self.park().await;
        // Also after an error: what comes before it may reveal a commit.
        let settled = match volume {
            Some(volume) => gate::settle(&volume).await,
            None => Ok(()),
        };
        if let Err(error) = settled {
            return Err(self.not_durable(error).await);
        }
        let io = ungate.and_then(Ungate::take);
        match result {
            Ok(()) => Ok((output.freeze(), io)),
            Err(ended) => {
                output.extend_from_slice(&ended.output);
                Err(SessionEnded {
                    output: output.freeze(),
                    ..ended
                })
            }
        }
    }

    /// Why nothing can be asked of the session any more.
    fn unusable(&self) -> Option<SessionEnded> {
        if self.database.is_dropped() {
            return Some(self.ended(self.database.dropped_error()));
        }
        self.node.is_closing().then(|| {
            self.ended(PgError::fatal(
                sqlstate::ADMIN_SHUTDOWN,
                "terminating connection due to administrator command",
            ))
        })
    }

    /// Answers messages with an error of ours, as Postgres does: a query fails, and of an extended one
    /// everything up to the next `Sync`.
    fn refuse(&mut self, messages: Bytes, error: PgError) -> Bytes {
        let error = as_error(error);
        let mut output = BytesMut::new();
        let mut rest = BytesMut::from(messages);
        while let Ok(Some(frame)) = Frame::split(&mut rest, usize::MAX) {
            match frame.kind() {
                frontend::kind::SYNC => {
                    self.skipping = false;
                    backend::ready_for_query(&mut output, TransactionStatus::Idle);
                }
                frontend::kind::TERMINATE => break,
                _ if self.skipping => {}
                frontend::kind::QUERY | frontend::kind::FUNCTION_CALL => {
                    error.encode(&mut output);
                    backend::ready_for_query(&mut output, TransactionStatus::Idle);
                }
                frontend::kind::COPY_DATA
                | frontend::kind::COPY_DONE
                | frontend::kind::COPY_FAIL
                | frontend::kind::FLUSH => {}
                _ => {
                    error.encode(&mut output);
                    self.skipping = true;
                }
            }
        }
        output.freeze()
    }

    async fn handle(&mut self, messages: Bytes, output: &mut BytesMut) -> Result<(), SessionEnded> {
        if let Some(ended) = self.unusable() {
            return Err(ended);
        }
        if let Err(error) = self.mind_the_disk().await {
            return Err(self.ended(error));
        }
        self.provide_sql(&messages, output).await?;
        let mut rest = BytesMut::from(messages);
        let mut pending = BytesMut::new();
        loop {
            let frame = match Frame::split(&mut rest, usize::MAX) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => return Err(self.ended(error)),
            };
            if self.skipping {
                if frame.kind() != frontend::kind::SYNC {
                    continue;
                }
                self.skipping = false;
            }
            if frame.kind() == frontend::kind::TERMINATE {
                break;
            }
            if !self.absent.is_empty() {
                let wanted = self.absent.wanted(&frame);
                if !wanted.is_empty() {
                    self.run(&mut pending, output).await?;
                    let is_query = frame.kind() == frontend::kind::QUERY;
                    self.provide(wanted, is_query, output).await?;
                }
            }
            if self.is_plain(&frame) {
                pending.extend_from_slice(frame.bytes());
                continue;
            }
            // What came before must have happened before.
            self.run(&mut pending, output).await?;
            self.special(frame, &mut pending, output).await?;
        }
        self.run(&mut pending, output).await
    }

    /// Whether a message is the backend's alone.
    fn is_plain(&self, frame: &Frame) -> bool {
        let text = match frame.kind() {
            frontend::kind::QUERY => frontend::decode_query(frame.body()).ok(),
            frontend::kind::PARSE => frontend::Parse::decode(frame.body())
                .ok()
                .map(|parse| parse.sql),
            _ => None,
        };
        let Some(text) = text else {
            return !self.statements.concerns(frame);
        };
        let catalog = statement::mentions(text, "pg_database");
        let ours = frame.kind() == frontend::kind::QUERY
            && matches!(statement::database_statement(text), Ok(Some(_)) | Err(_));
        !catalog && !ours && !self.statements.concerns(frame)
    }

    /// A message that this host answers itself, or does something before.
    async fn special(
        &mut self,
        frame: Frame,
        pending: &mut BytesMut,
        output: &mut BytesMut,
    ) -> Result<(), SessionEnded> {
        // In a transaction block the backend refuses database statements itself, with the right
        // error and the right consequences.
        let idle = self.status == TransactionStatus::Idle;
        if frame.kind() == frontend::kind::QUERY && idle {
            let text = frontend::decode_query(frame.body()).unwrap_or_default();
            match statement::database_statement(text) {
                Ok(Some(found)) => {
                    match self.run_database_statement(&found).await {
                        Ok(()) => backend::command_complete(output, found.command_tag()),
                        Err(error) => error.encode(output),
                    }
                    backend::ready_for_query(output, TransactionStatus::Idle);
                    return Ok(());
                }
                Ok(None) => {}
                Err(error) => {
                    error.encode(output);
                    backend::ready_for_query(output, TransactionStatus::Idle);
                    return Ok(());
                }
            }
        } else if idle && self.statements.concerns(&frame) {
            let refused = match self.statements.handle(&frame, output) {
                Handling::Backend => None,
                Handling::Answered => return Ok(()),
                Handling::Refused(error) => Some(error),
                Handling::Execute(found) => match self.run_database_statement(&found).await {
                    Ok(()) => {
                        backend::command_complete(output, found.command_tag());
                        return Ok(());
                    }
                    Err(error) => Some(error),
                },
            };
            if let Some(error) = refused {
                error.encode(output);
                self.skipping = true;
                return Ok(());
            }
        }
        if idle && self.at_rest {
            self.refresh_catalog(&frame).await?;
        }
        pending.extend_from_slice(frame.bytes());
        Ok(())
    }

    /// Runs statements of our own: their answers.
    pub(crate) async fn run_all(&mut self, sql: &str) -> Result<Bytes, SessionEnded> {
        let mut messages = BytesMut::new();
        if let Err(error) = frontend::query(&mut messages, sql.as_bytes()) {
            return Err(self.ended(error));
        }
        let mut output = BytesMut::new();
        self.run(&mut messages, &mut output).await?;
        Ok(output.freeze())
    }

    /// Gives messages to the backend, and appends its answers.
    async fn run(
        &mut self,
        messages: &mut BytesMut,
        output: &mut BytesMut,
    ) -> Result<(), SessionEnded> {
        if messages.is_empty() {
            return Ok(());
        }
        let Some(backend) = self.slot.as_mut().and_then(|slot| slot.backend.as_mut()) else {
            return Err(self.ended(slot::no_backend()));
        };
        backend.clear_cancel();
        let last = frames(messages).last().map(|(kind, _)| kind);
        let ends = last.is_some_and(|kind| {
            use frontend::kind::{FUNCTION_CALL, QUERY, SYNC};
            [FUNCTION_CALL, QUERY, SYNC].contains(&kind)
        });
        let is_nothing = frames(messages).all(|(kind, _)| {
            use frontend::kind::{COPY_DATA, COPY_DONE, COPY_FAIL, FLUSH};
            [COPY_DATA, COPY_DONE, COPY_FAIL, FLUSH].contains(&kind)
        });
        // What was answered before goes out before what is answered now, though that is large.
        backend.output().unsplit(std::mem::take(output));
        let input = backend.input();
        if input.is_empty() {
            std::mem::swap(input, messages);
        } else {
            input.unsplit(messages.split());
        }
        let began = Instant::now();
        self.runs.send_modify(|run| *run += 1);
        let outcome = backend.exchange().await;
        self.runs.send_modify(|run| *run += 1);
        let answer = backend.output().split();
        let answer = self.explained(answer);
        if let Err(error) = outcome {
            return Err(self.backend_ended(&error, answer.freeze()));
        }
        let mut status = last_status(&answer);
        if answer.is_empty() && ends {
            // The client has got all of it already, the end too.
            status = self.status_in_backend().await;
        }
        // What comes behind the error of a COPY, or with nothing to flush, changes nothing.
        self.at_rest = status.is_some() || self.at_rest && is_nothing && answer.is_empty();
        if let Some(status) = status {
            let backend = self.slot.as_ref().and_then(|slot| slot.backend.as_ref());
            let number = backend.map_or(0, engine::Backend::transaction_number);
            if self.status == TransactionStatus::Idle {
                self.transaction_since = began;
            } else if number != self.transaction_number {
                // One has ended and another one begun, as by COMMIT AND CHAIN.
                self.transaction_since = Instant::now();
            }
            self.transaction_number = number;
            self.status = status;
        }
        *output = answer;
        Ok(())
    }

    /// Whether a transaction is open, asked of the backend.
    async fn status_in_backend(&mut self) -> Option<TransactionStatus> {
        let backend = self.slot.as_mut()?.backend.as_mut()?;
        match backend.in_transaction().await {
            Ok(true) => Some(TransactionStatus::InTransaction),
            Ok(false) => Some(TransactionStatus::Idle),
            // The next exchange tells.
            Err(_) => None,
        }
    }

    /// The backend has ended under the session, with this as its last word.
    fn backend_ended(&mut self, error: &engine::BackendError, output: Bytes) -> SessionEnded {
        let fatal = slot::ended(error, &output);
        let told = fatal.code() != sqlstate::CRASH_SHUTDOWN;
        tracing::warn!(database = %self.database.name(), %error, "a backend ended");
        if let Some(slot) = &mut self.slot {
            slot.lose(&self.database);
        }
        SessionEnded {
            output,
            error: fatal,
            told,
        }
    }

    /// An answer of the backend, with the name of the limit where one of ours has caused an error.
    fn explained(&self, answer: BytesMut) -> BytesMut {
        let refused = self.database.take_refused().or_else(|| {
            let reserve = self.node.disk.reserve();
            self.read_only.then_some(Refused::ReadOnly { reserve })
        });
        match refused {
            Some(refused) => refusal::explain(&answer.freeze(), &refused),
            None => answer,
        }
    }

    /// What was committed could not be made durable: nobody may see it, so the backend goes, and what
    /// it answered is not told.
    async fn not_durable(&mut self, error: PgError) -> SessionEnded {
        tracing::error!(database = %self.database.name(), %error, "a commit is not durable");
        // It has let go of its process by now, which others see the commit in, as do all that share its memory.
        self.database.further.stop();
        let mut own = self.own_slot();
        if let Some(slot) = self.slot.as_deref_mut().or(own.as_deref_mut()) {
            slot.lose(&self.database);
        }
        drop(own);
        abandon_volume(&self.database).await;
        let error = PgError::fatal(error.code(), error.message().to_owned())
            .detail("The last statements are not acknowledged: they may or may not be kept.")
            .hint("Connect again: the database starts from its last durable commit.");
        self.ended(error)
    }

    fn ended(&self, error: PgError) -> SessionEnded {
        SessionEnded {
            output: Bytes::new(),
            error,
            told: false,
        }
    }

    /// Whether [`rest`](Self::rest) has anything to do.
    pub fn wants_rest(&self) -> bool {
        let volume = self.database.volume_now();
        let max = self.node.options.limits.checkpoint_wal_bytes;
        self.status == TransactionStatus::Idle
            && self.at_rest
            && volume.is_some_and(|volume| self.database.wal_since_checkpoint(&volume) > max)
    }

    /// Does what is due between two statements, once the last one's answer is with the client: a checkpoint
    /// after much WAL. It costs nothing if none is due.
    pub async fn rest(&mut self) {
        if self.status != TransactionStatus::Idle || !self.at_rest {
            return;
        }
        let mut own = self.own_slot();
        let Some(slot) = self.slot.as_deref_mut().or(own.as_deref_mut()) else {
            return;
        };
        if let Err(error) = slot.checkpoint_if_due(&self.node, &self.database).await {
            tracing::warn!(database = %self.database.name(), %error, "a backend ended");
            slot.lose(&self.database);
        }
    }

    /// Waits until another process has sent a signal to that of this session, which does nothing: there may be a
    /// notification.
    pub fn signalled(&self) -> impl Future<Output = ()> + Send + use<> {
        let slot = self.slot.as_ref().filter(|_| self.at_rest);
        let kept = slot.and_then(|slot| Some(slot.backend.as_ref()?.interrupter()));
        let process = kept.or_else(|| self.parked.clone());
        async move {
            match process {
                Some(process) => process.asked().await,
                None => std::future::pending().await,
            }
        }
    }

    /// What Postgres tells the client unasked: notifications of the channels that it listens to.
    ///
    /// # Errors
    ///
    /// [`SessionEnded`] if the backend ended, as by `pg_terminate_backend`.
    pub async fn take_signals(&mut self) -> Result<Bytes, SessionEnded> {
        if self.slot.is_none() {
            // Who has made it leave has taken them.
            self.parked = None;
            let Some(own) = self.own_slot() else {
                return Ok(Bytes::new());
            };
            self.slot = Some(own.keep());
        }
        let Some(backend) = self.slot.as_mut().and_then(|slot| slot.backend.as_mut()) else {
            return Ok(Bytes::new());
        };
        // A cancel came too late.
        backend.clear_cancel();
        let outcome = backend.take_signals().await;
        let output = backend.output().split().freeze();
        match outcome {
            Ok(()) => {
                if self.status == TransactionStatus::Idle {
                    self.park().await;
                }
                Ok(output)
            }
            Err(error) => Err(self.backend_ended(&error, output)),
        }
    }

    /// Waits until another session wants to come in beside this one, and this one can help it.
    pub fn share_wanted(&self) -> impl Future<Output = ()> + Send + use<> {
        let is_first = self.slot.as_ref().is_some_and(|slot| !slot.is_further);
        let database = Arc::clone(&self.database);
        async move {
            match is_first {
                true => database.further.asked().await,
                false => std::future::pending().await,
            }
        }
    }

    /// Makes room beside itself, if another session wants to come in; for between two statements.
    pub fn share(&mut self) {
        let further = &self.database.further;
        if let Some(slot) = self.slot.as_mut()
            && further.is_asked()
        {
            further.share(slot);
        }
    }

    /// Hands the WAL of commits that did not wait for it (`synchronous_commit = off`) to the disk, as a
    /// WAL writer does; for whoever finds the session silent. It costs microseconds if there is none.
    pub async fn flush_wal(&mut self) {
        let mut own = self.own_slot();
        let Some(slot) = self.slot.as_deref_mut().or(own.as_deref_mut()) else {
            return;
        };
        let Some(backend) = slot.backend.as_mut() else {
            return;
        };
        match backend.flush_wal().await {
            Ok(false) => {}
            Ok(true) => self.node.counters.wal_flushes.one(),
            Err(error) => {
                tracing::warn!(database = %self.database.name(), %error, "a backend ended");
                slot.lose(&self.database);
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let runtime = tokio::runtime::Handle::try_current();
        if runtime.is_err()
            && let Some(slot) = self.slot.as_mut()
        {
            // Nothing can run the backend any more.
            slot.lose(&self.database);
        }
        if let (Some(leaving), Ok(runtime)) = (self.leaving(), runtime) {
            drop(runtime.spawn(leaving));
        }
    }
}

/// Lets go of a volume that can flush no more, once nobody writes in it; the next use opens its last durable
/// state.
pub(crate) async fn abandon_volume(database: &Arc<Database>) {
    let abandoned = Arc::clone(database);
    let abandoning = blocking(move || {
        abandoned.abandon_volume();
        Ok(())
    });
    if let Err(error) = abandoning.await {
        tracing::error!(database = %database.name(), %error, "a volume could not be given up");
    }
}

/// A number for a session.
fn node_number(node: &Node) -> u64 {
    node.sessions.fetch_add(1, Ordering::Relaxed)
}

/// The status in the `ReadyForQuery` that ends a backend's answer, if one does.
fn last_status(output: &[u8]) -> Option<TransactionStatus> {
    let (_, tail) = output.split_last_chunk::<6>()?;
    let body = tail.strip_prefix(&[backend::kind::READY_FOR_QUERY, 0, 0, 0, 5])?;
    backend::decode_ready_for_query(body).ok()
}

/// An error that ends a statement rather than a connection.
fn as_error(error: PgError) -> PgError {
    error
        .with(wire::pg::ErrorField::Severity, "ERROR")
        .with(wire::pg::ErrorField::SeverityNonlocalized, "ERROR")
}

/// Sets a parameter in a list of them.
pub(crate) fn set_parameter(parameters: &mut Vec<(String, String)>, name: &[u8], value: &[u8]) {
    let name = String::from_utf8_lossy(name).into_owned();
    let value = String::from_utf8_lossy(value).into_owned();
    match parameters.iter_mut().find(|(known, _)| *known == name) {
        Some((_, known)) => *known = value,
        None => parameters.push((name, value)),
    }
}
