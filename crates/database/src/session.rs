//! A session: one client in one database, with the backend to itself.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use engine::{ClientIo, Interrupter};
use tokio::sync::{OwnedMutexGuard, watch};
use wire::pg::{DatabaseStatement, Frame, TransactionStatus, backend, frames, frontend, statement};
use wire::{DatabaseName, PgError, sqlstate};

use crate::catalog;
use crate::database::{Database, Present};
use crate::disk_watch::Room;
use crate::further;
use crate::gate::{self, Gated, Ungate};
use crate::node::{Node, Source, blocking};
use crate::refusal::{self, Refused};
use crate::slot::{self, Slot};
use crate::statements::{Handling, Statements};
use crate::template::SUPERUSER;
use crate::wake;

/// Time that a cancelled statement has to end before its backend is stopped
/// (`backend.cancel_grace_ms`).
const CANCEL_GRACE: Duration = Duration::from_secs(10);

/// Who begins a session, and with what.
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    /// The role; empty for `postgres`.
    pub user: String,
    /// Settings to begin with, as in a startup packet.
    pub settings: Vec<(String, String)>,
    /// Where the session comes from, for people: "psql at 127.0.0.1:50123".
    pub origin: String,
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
    slot: Option<OwnedMutexGuard<Slot>>,
    parameters: Vec<(String, String)>,
    process_id: u32,
    status: TransactionStatus,
    statements: Statements,
    /// An error of ours in an extended query: messages are dropped up to the next `Sync`.
    skipping: bool,
    /// Its transactions are read-only, because the disk is all but full.
    read_only: bool,
    runs: watch::Sender<u64>,
    interrupter: Interrupter,
    /// Its number among the sessions of the node.
    present: u64,
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

/// Cancels what a session runs, from anywhere.
#[derive(Debug, Clone)]
pub struct Canceller {
    interrupter: Interrupter,
    /// How often the backend was entered and left: odd while a statement of the session runs.
    runs: watch::Receiver<u64>,
}

impl Canceller {
    /// Ends the statement that runs now with 57014; does nothing if none runs. A backend that
    /// does not react is stopped after a while.
    pub fn cancel(&self) {
        if !self.is_running() {
            return;
        }
        let run = *self.runs.borrow();
        self.interrupter.cancel();
        let cancelled = self.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let ended = cancelled.left(run);
                if tokio::time::timeout(CANCEL_GRACE, ended).await.is_err() {
                    tracing::error!("a cancelled statement did not end; its backend is stopped");
                    cancelled.interrupter.stop();
                }
            });
        }
    }

    /// Ends the backend under the session at its next loop or call, whatever it does: its client
    /// is told 57P02, and the next session gets a fresh backend. For what ignores
    /// [`cancel`](Self::cancel).
    pub fn stop(&self) {
        self.interrupter.stop();
    }

    /// Whether a statement of the session runs.
    pub(crate) fn is_running(&self) -> bool {
        !self.runs.borrow().is_multiple_of(2)
    }

    /// Waits until the statement that runs now has ended.
    pub(crate) async fn ended(&self) {
        let run = *self.runs.borrow();
        self.left(run).await;
    }

    /// Waits until nothing runs, or something else than at `run`.
    async fn left(&self, run: u64) {
        let mut runs = self.runs.clone();
        // A session that is gone has ended too.
        let _gone = runs
            .wait_for(|now| now.is_multiple_of(2) || *now != run)
            .await;
    }
}

impl Session {
    pub(crate) async fn begin(
        node: Arc<Node>,
        database: Arc<Database>,
        options: SessionOptions,
    ) -> Result<Self, PgError> {
        let limit = node.options.limits.session_wait_max;
        let wanting = database.want();
        let until = tokio::time::Instant::now() + limit;
        let Some(mut slot) = further::take(&node, &database, until).await? else {
            drop(wanting);
            return Err(database.busy(limit.as_millis()));
        };
        drop(wanting);
        if database.is_dropped() {
            return Err(database.dropped_error());
        }
        if !slot.is_further {
            slot = wake::to_its_end(slot, &node, &database).await?;
        }
        if database.is_dropped() {
            slot.lose(&database);
            return Err(database.dropped_error());
        }
        let backend = slot.backend.as_ref().ok_or_else(slot::no_backend)?;
        let interrupter = backend.interrupter();
        let mut id = [0; 4];
        getrandom::fill(&mut id)
            .map_err(|error| PgError::fatal(sqlstate::INTERNAL_ERROR, error.to_string()))?;
        let mut session = Self {
            parameters: slot.parameters.clone(),
            node,
            database,
            slot: Some(slot),
            process_id: u32::from_le_bytes(id) >> 1 | 1,
            status: TransactionStatus::Idle,
            statements: Statements::default(),
            skipping: false,
            read_only: false,
            runs: watch::Sender::new(0),
            interrupter,
            present: 0,
        };
        session.present = node_number(&session.node);
        session.database.sessions.lock().push(Present {
            id: session.present,
            origin: options.origin.clone(),
            canceller: session.canceller(),
        });
        session.apply(&options).await?;
        Ok(session)
    }

    /// Settings and role of a new session, as a startup packet gives them.
    async fn apply(&mut self, options: &SessionOptions) -> Result<(), PgError> {
        let mut sql = String::new();
        for (name, value) in &options.settings {
            let known = |parameter: &&(String, String)| parameter.0.eq_ignore_ascii_case(name);
            if self
                .parameters
                .iter()
                .find(known)
                .is_some_and(|(_, now)| now == value)
            {
                continue;
            }
            let (name, value) = (catalog::quoted(name), catalog::quoted(value));
            sql.push_str(&format!(
                "SELECT pg_catalog.set_config({name}, {value}, false);"
            ));
        }
        if !sql.is_empty() {
            let output = self.run_all(&sql).await.map_err(|ended| ended.error)?;
            let fatal = |error: PgError| PgError::fatal(error.code(), error.message().to_owned());
            slot::check(&output).map_err(fatal)?;
            self.take_parameters(&output)?;
        }
        if !options.user.is_empty() && options.user != SUPERUSER {
            let sql = format!(
                "SET SESSION AUTHORIZATION {}",
                catalog::identifier(&options.user)
            );
            let output = self.run_all(&sql).await.map_err(|ended| ended.error)?;
            slot::check(&output).map_err(|error| {
                PgError::fatal(
                    sqlstate::INVALID_AUTHORIZATION_SPECIFICATION,
                    error.message().to_owned(),
                )
            })?;
            self.take_parameters(&output)?;
        }
        Ok(())
    }

    /// Keeps the parameters that the backend reported.
    fn take_parameters(&mut self, output: &Bytes) -> Result<(), PgError> {
        for (kind, body) in frames(output) {
            if kind == backend::kind::PARAMETER_STATUS {
                let (name, value) = backend::decode_parameter_status(body)?;
                set_parameter(&mut self.parameters, name, value);
            }
        }
        Ok(())
    }

    /// The parameters to report to the client, by name.
    pub fn parameters(&self) -> &[(String, String)] {
        &self.parameters
    }

    /// A number for `BackendKeyData`, unlikely to be another session's.
    pub fn process_id(&self) -> u32 {
        self.process_id
    }

    /// A handle that cancels this session's statement.
    pub fn canceller(&self) -> Canceller {
        Canceller {
            interrupter: self.interrupter.clone(),
            runs: self.runs.subscribe(),
        }
    }

    /// As the last `ReadyForQuery` said.
    pub fn transaction_status(&self) -> TransactionStatus {
        self.status
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
        // Also after an error: what comes before it may reveal a commit.
        let settled = match self.database.open_volume() {
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

    async fn handle(&mut self, messages: Bytes, output: &mut BytesMut) -> Result<(), SessionEnded> {
        if self.database.is_dropped() {
            return Err(self.ended(self.database.dropped_error()));
        }
        if self.node.is_closing() {
            return Err(self.ended(PgError::fatal(
                sqlstate::ADMIN_SHUTDOWN,
                "terminating connection due to administrator command",
            )));
        }
        if let Err(error) = self.mind_the_disk().await {
            return Err(self.ended(error));
        }
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
        if idle {
            self.refresh_catalog(&frame).await?;
        }
        pending.extend_from_slice(frame.bytes());
        Ok(())
    }

    async fn run_database_statement(&mut self, found: &DatabaseStatement) -> Result<(), PgError> {
        let name = |text: &str, code: &str| {
            DatabaseName::parse(text).map_err(|error| PgError::error(code, error.to_string()))
        };
        let node = Arc::clone(&self.node);
        match found {
            DatabaseStatement::Create {
                name: text,
                template,
                ..
            } => {
                let new = name(text, sqlstate::INVALID_NAME)?;
                let source = match template.as_deref() {
                    None | Some("template0" | "template1") => Source::Template,
                    Some(parent) => Source::Database(name(parent, sqlstate::INVALID_CATALOG_NAME)?),
                };
                node.create(&new, source).await.map_err(as_error)
            }
            DatabaseStatement::Drop {
                name: text,
                if_exists,
                force,
            } => {
                let old = name(text, sqlstate::INVALID_CATALOG_NAME);
                if let Ok(old) = &old
                    && *old == self.database.name()
                {
                    return Err(PgError::error(
                        sqlstate::OBJECT_IN_USE,
                        "cannot drop the currently open database",
                    ));
                }
                let dropped = match &old {
                    Ok(old) => node.delete(old, *force).await,
                    Err(error) => Err(error.clone()),
                };
                match dropped {
                    Err(error) if *if_exists && error.code() == sqlstate::INVALID_CATALOG_NAME => {
                        Ok(())
                    }
                    result => result.map_err(as_error),
                }
            }
            DatabaseStatement::Rename { from, to } => {
                let from = name(from, sqlstate::INVALID_CATALOG_NAME)?;
                let to = name(to, sqlstate::INVALID_NAME)?;
                if from == self.database.name() {
                    return Err(PgError::error(
                        sqlstate::FEATURE_NOT_SUPPORTED,
                        "current database cannot be renamed",
                    ));
                }
                node.rename(&from, &to).await.map_err(as_error)
            }
        }
    }

    /// Brings `pg_database` up to date before a statement that mentions it.
    async fn refresh_catalog(&mut self, frame: &Frame) -> Result<(), SessionEnded> {
        let text = match frame.kind() {
            frontend::kind::QUERY => frontend::decode_query(frame.body()).ok(),
            frontend::kind::PARSE => frontend::Parse::decode(frame.body())
                .ok()
                .map(|parse| parse.sql),
            _ => None,
        };
        let generation = self.node.generation();
        let shown = self.slot.as_ref().and_then(|slot| slot.catalog_generation);
        if shown == Some(generation)
            || !text.is_some_and(|text| statement::mentions(text, "pg_database"))
        {
            return Ok(());
        }
        let own = self.database.id;
        let others = self.node.directory.page(None, catalog::DATABASES_MAX + 1);
        let others = others.map_err(|error| self.ended(error))?;
        let others = others
            .into_iter()
            .filter(|(_, record)| record.id != own.get())
            .map(|(name, record)| (record.id, name));
        let mut sql = catalog::refresh(others);
        if let Some((_, user)) = self
            .parameters
            .iter()
            .find(|(name, _)| name == "session_authorization")
            && !user.is_empty()
            && user != SUPERUSER
        {
            // Only the superuser may write the catalog.
            let user = catalog::identifier(user);
            sql = format!(
                "SET SESSION AUTHORIZATION postgres; {sql}; SET SESSION AUTHORIZATION {user}"
            );
        }
        let output = self.run_all(&sql).await?;
        match slot::check(&output) {
            Ok(()) => {
                if let Some(slot) = &mut self.slot {
                    slot.catalog_generation = Some(generation);
                }
            }
            // The list is then what it was; the statement itself must not suffer.
            Err(error) => tracing::warn!(%error, "pg_database could not be refreshed"),
        }
        Ok(())
    }

    /// Runs statements of our own: their answers.
    async fn run_all(&mut self, sql: &str) -> Result<Bytes, SessionEnded> {
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
        let input = backend.input();
        if input.is_empty() {
            std::mem::swap(input, messages);
        } else {
            input.unsplit(messages.split());
        }
        self.runs.send_modify(|run| *run += 1);
        let outcome = backend.exchange().await;
        self.runs.send_modify(|run| *run += 1);
        let answer = backend.output().split();
        let answer = self.explained(answer);
        if let Err(error) = outcome {
            let answer = answer.freeze();
            let fatal = slot::ended(&error, &answer);
            let told = fatal.code() != sqlstate::CRASH_SHUTDOWN;
            tracing::warn!(database = %self.database.name(), %error, "a backend ended");
            if let Some(slot) = &mut self.slot {
                slot.lose(&self.database);
            }
            return Err(SessionEnded {
                output: answer,
                error: fatal,
                told,
            });
        }
        if let Some(status) = last_status(&answer) {
            self.status = status;
        }
        if output.is_empty() {
            *output = answer;
        } else {
            output.extend_from_slice(&answer);
        }
        Ok(())
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

    /// Makes the transactions that follow read-only when the disk is all but full, and no longer when it
    /// is not. Who says READ WRITE writes nevertheless.
    async fn mind_the_disk(&mut self) -> Result<(), PgError> {
        let critical = self.node.disk.room() == Room::Critical;
        if critical == self.read_only || self.status != TransactionStatus::Idle {
            return Ok(());
        }
        let Some(slot) = self.slot.as_mut() else {
            return Ok(());
        };
        // A client may have chosen it for itself.
        let chosen = "pg_catalog.current_setting('dormouse.read_only', true)";
        let sql = match critical {
            true => "SELECT pg_catalog.set_config('dormouse.read_only', \
                     pg_catalog.current_setting('default_transaction_read_only'), false), \
                     pg_catalog.set_config('default_transaction_read_only', 'on', false)"
                .to_owned(),
            false => format!(
                "SELECT pg_catalog.set_config('default_transaction_read_only', {chosen}, false)"
            ),
        };
        if let Err(error) = slot.run_named(&sql).await {
            if slot.backend.is_none() {
                slot.lose(&self.database);
            }
            return Err(error);
        }
        self.read_only = critical;
        Ok(())
    }

    /// What was committed could not be made durable: nobody may see it, so the backend goes, and what
    /// it answered is not told.
    async fn not_durable(&mut self, error: PgError) -> SessionEnded {
        tracing::error!(database = %self.database.name(), %error, "a commit is not durable");
        if let Some(slot) = &mut self.slot {
            slot.lose(&self.database);
        }
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

    /// Does what is due between two statements, once the last one's answer is with the client: a checkpoint
    /// after much WAL. It costs nothing if none is due.
    pub async fn rest(&mut self) {
        if self.status == TransactionStatus::Idle
            && let Some(slot) = self.slot.as_mut()
            && let Err(error) = slot.checkpoint_if_due(&self.node, &self.database).await
        {
            tracing::warn!(database = %self.database.name(), %error, "a backend ended");
            slot.lose(&self.database);
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
        let Some(slot) = self.slot.as_mut().filter(|slot| !slot.is_further) else {
            return;
        };
        if !further.is_asked() {
            return;
        }
        let Some(backend) = slot.backend.as_mut().filter(|backend| !backend.is_broken()) else {
            return;
        };
        let shared = backend.share_memory().inspect_err(|error| {
            tracing::warn!(database = %self.database.name(), %error, "memory is not shared");
        });
        further.publish(shared.ok());
    }

    /// Hands the WAL of commits that did not wait for it (`synchronous_commit = off`) to the disk, as a
    /// WAL writer does; for whoever finds the session silent. It costs microseconds if there is none.
    pub async fn flush_wal(&mut self) {
        let Some(slot) = self.slot.as_mut() else {
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

    /// Ends the session: rolls back, takes its traces off the backend, and lets the next one in.
    pub async fn close(mut self) {
        if let Some(slot) = self.slot.take() {
            let (node, database) = (Arc::clone(&self.node), Arc::clone(&self.database));
            leave(slot, node, database, self.present).await;
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(mut slot) = self.slot.take() else {
            return;
        };
        let (node, database) = (Arc::clone(&self.node), Arc::clone(&self.database));
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(leave(slot, node, database, self.present))),
            // Nothing can run the backend any more.
            Err(_) => slot.lose(&database),
        }
    }
}

async fn leave(
    mut slot: OwnedMutexGuard<Slot>,
    node: Arc<Node>,
    database: Arc<Database>,
    present: u64,
) {
    if database.is_dropped() {
        slot.lose(&database);
    } else {
        slot.reset(&database).await;
        if let Err(error) = slot.checkpoint_if_due(&node, &database).await {
            tracing::warn!(database = %database.name(), %error, "a backend ended");
            slot.lose(&database);
        }
        if database.volume_is_broken() {
            slot.lose(&database);
            abandon_volume(&database).await;
        }
    }
    let mut sessions = database.sessions.lock();
    sessions.retain(|session| session.id != present);
    drop(sessions);
    drop(slot);
    database.further.freed();
    node.admission.left();
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
