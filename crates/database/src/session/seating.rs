//! How a session comes to a process, and leaves it.
//!
//! A session that is between two transactions lets go of its process. What it has there stays, and costs it
//! nothing if it comes back before another session has taken the process.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use engine::{Bond, IdleLimits, PreparedStatement, SessionIdentity, SessionRefused, SettingSource};
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, sleep_until};
use wire::pg::{TransactionStatus, backend, frames, frontend};
use wire::{PgError, sqlstate};

use super::{Present, Session, SessionEnded, SessionOptions, node_number};
use crate::authority::Authority;
use crate::database::Database;
use crate::further::{self, Given, Taken};
use crate::node::Node;
use crate::prepared::{self, Absent};
use crate::role_settings;
use crate::seat::{Occupant, Seat};
use crate::session::cancel::Line;
use crate::slot::SUPERUSER_ID;
use crate::slot::{self, Slot};
use crate::statements::Statements;
use crate::template::SUPERUSER;
use crate::wake;

/// Session numbers below it are those of processes that no session has.
const PROCESS_ID_MIN: u32 = 1 << 16;

/// Why a session has no process.
pub(super) enum Unseated {
    /// Others have all of them, or the database cannot wake: it may be asked again.
    Busy(PgError),
    /// The process that it was to have has ended: another will do.
    Broken(PgError),
    /// It cannot go on.
    Ended(PgError),
}

impl Unseated {
    fn error(self) -> PgError {
        match self {
            Self::Busy(error) | Self::Broken(error) | Self::Ended(error) => error,
        }
    }
}

/// A session that is put into a process.
struct Newcomer {
    database: Arc<Database>,
    /// Of a role that is still to be found: its name.
    role: Option<String>,
    identity: SessionIdentity,
    seat: Arc<Seat>,
    process_id: u32,
    /// It has no defaults of its role and database yet.
    is_new: bool,
}

impl Newcomer {
    /// Takes the process over from the session before it: the prepared statements that this one has, but
    /// this process not.
    async fn sit(&mut self, slot: &mut Slot) -> Result<Vec<PreparedStatement>, Unseated> {
        let failed = |error| Unseated::Ended(slot::start_error(&error));
        slot.vacate().await.map_err(Unseated::Broken)?;
        let state = self.seat.take().ok_or_else(|| {
            let error = PgError::fatal(
                sqlstate::CRASH_SHUTDOWN,
                "the process that had the session's settings and statements has ended",
            );
            Unseated::Ended(error.hint("Connect again: what was committed is kept."))
        })?;
        if let Some(role) = &self.role {
            let backend = slot.backend.as_mut();
            let backend = backend.ok_or_else(|| Unseated::Ended(slot::no_backend()))?;
            let found = backend.role(role).await.map_err(failed)?;
            self.identity.user = found.ok_or_else(|| Unseated::Ended(unknown(role)))?;
        }
        if self.is_new {
            let user = self.identity.user;
            let found = role_settings::of(slot, &self.database, user).await;
            let found = found.map_err(Unseated::Ended)?;
            self.identity.defaults.splice(0..0, found);
        }
        let begin = slot
            .backend
            .as_mut()
            .ok_or_else(|| Unseated::Ended(slot::no_backend()))?;
        // Whatever comes of it, the process is not as new any more.
        slot.is_used = true;
        let began = begin.begin_session(&self.identity, &state).await;
        if let Some(refused) = began.map_err(failed)? {
            return Err(Unseated::Ended(self.refused(&refused)));
        }
        begin
            .set_process_id(self.process_id)
            .await
            .map_err(failed)?;
        let has_reports = begin.take_reports();
        slot.occupant = Occupant::of(&self.seat);
        if has_reports {
            // What the process has told its former client last is nothing to this one.
            let mut sync = BytesMut::new();
            frontend::sync(&mut sync);
            slot.ask(&sync).await.map_err(Unseated::Ended)?;
        }
        Ok(state.statements)
    }

    fn refused(&self, refused: &SessionRefused) -> PgError {
        match refused {
            SessionRefused::UnknownRole => PgError::fatal(
                sqlstate::INVALID_AUTHORIZATION_SPECIFICATION,
                "the role of the session does not exist any more",
            ),
            SessionRefused::Error(said) => match slot::check(said) {
                Err(error) => PgError::fatal(error.code(), error.message().to_owned()),
                Ok(()) => PgError::fatal(
                    sqlstate::INTERNAL_ERROR,
                    "the session's settings were refused",
                ),
            },
        }
    }
}

fn unknown(role: &str) -> PgError {
    PgError::fatal(
        sqlstate::INVALID_AUTHORIZATION_SPECIFICATION,
        format!("role \"{role}\" does not exist"),
    )
}

impl Session {
    pub(crate) async fn begin(
        node: Arc<Node>,
        database: Arc<Database>,
        options: SessionOptions,
    ) -> Result<Self, PgError> {
        options.check()?;
        let mut id = [0; 4];
        getrandom::fill(&mut id)
            .map_err(|error| PgError::fatal(sqlstate::INTERNAL_ERROR, error.to_string()))?;
        // The administrator is who it is, whatever the database calls it now.
        let is_superuser = options.user.is_empty()
            || options.user == SUPERUSER && options.authority != Authority::Role;
        let role = (!is_superuser).then_some(options.user);
        let settings = options.settings.into_iter();
        let mut session = Self {
            identity: SessionIdentity {
                user: SUPERUSER_ID,
                defaults: settings
                    .map(|(name, value)| (name, value, SettingSource::Client))
                    .collect(),
            },
            authority: options.authority,
            present: node_number(&node),
            node,
            database,
            slot: None,
            permit: None,
            home: None,
            seat: Seat::new(),
            absent: Absent::default(),
            parameters: Vec::new(),
            process_id: u32::from_le_bytes(id) >> 1 | PROCESS_ID_MIN,
            status: TransactionStatus::Idle,
            at_rest: true,
            quiet_since: Instant::now(),
            transaction_since: Instant::now(),
            transaction_number: 0,
            idle_limits: IdleLimits::default(),
            statements: Statements::default(),
            skipping: false,
            read_only: false,
            runs: tokio::sync::watch::Sender::new(0),
            line: Arc::new(Line::default()),
            has_left: false,
            role,
            parked: None,
        };
        session.database.sessions.lock().push(Present {
            id: session.present,
            origin: options.origin,
            canceller: session.canceller(),
        });
        let remembered = &session.node.credentials;
        remembered.session_begins(&session.database, session.authority);
        session.take_seat(true).await.map_err(Unseated::error)?;
        session.greet()?;
        session.park().await;
        Ok(session)
    }

    /// Finds out what the client is to be told of its settings.
    fn greet(&mut self) -> Result<(), PgError> {
        let Some(slot) = self.slot.as_mut() else {
            return Err(slot::no_backend());
        };
        self.parameters = slot.parameters.clone();
        if let Some(backend) = &slot.backend {
            for (name, value) in backend.reported_settings() {
                super::set_parameter(&mut self.parameters, name.as_bytes(), value.as_bytes());
            }
        }
        Ok(())
    }

    /// Makes sure that the session has a process.
    pub(super) async fn take_seat(&mut self, is_new: bool) -> Result<(), Unseated> {
        /// A process that ends while another session is to leave it is not this one's fault.
        const TRIES: usize = 3;
        let mut outcome = Ok(());
        for _ in 0..TRIES {
            if self.slot.is_some() {
                return Ok(());
            }
            outcome = self.try_take_seat(is_new).await;
            match &outcome {
                Err(Unseated::Broken(_)) => {}
                _ => break,
            }
        }
        outcome.map_err(|unseated| match unseated {
            Unseated::Broken(error) => Unseated::Busy(error),
            unseated => unseated,
        })
    }

    async fn try_take_seat(&mut self, is_new: bool) -> Result<(), Unseated> {
        let limit = self.node.options.limits.session_wait_max;
        let until = Instant::now() + limit;
        let line = Arc::clone(&self.line);
        let taking = further::take(
            &self.node,
            &self.database,
            &self.seat,
            self.home.as_ref(),
            until,
        );
        let taken = tokio::select! {
            biased;
            taken = taking => taken.map_err(Unseated::Busy)?,
            () = line.cancelled() => {
                return Err(Unseated::Busy(PgError::error(
                    sqlstate::QUERY_CANCELED,
                    "canceling statement due to user request",
                )));
            }
        };
        let Some(Taken {
            mut slot,
            shelf,
            permit,
        }) = taken
        else {
            return Err(Unseated::Busy(self.database.busy(limit.as_millis())));
        };
        if self.database.is_dropped() {
            return Err(Unseated::Ended(self.database.dropped_error()));
        }
        let works = slot
            .backend
            .as_ref()
            .is_some_and(|backend| !backend.is_broken());
        if !works || !slot.occupant.is(&self.seat) {
            let (settled, statements) = self.settle(slot, is_new).await?;
            slot = settled;
            self.absent.add(statements);
        }
        if self.database.is_dropped() {
            slot.lose(&self.database);
            return Err(Unseated::Ended(self.database.dropped_error()));
        }
        let interrupter = slot.backend.as_ref().map(engine::Backend::interrupter);
        self.line.set(interrupter);
        self.parked = None;
        self.slot = Some(slot);
        self.permit = Some(permit);
        self.home = Some(shelf);
        Ok(())
    }

    /// Puts the session into a process. What was begun goes on to its end, though nobody may wait for it any
    /// more: what another session has there is on its way then.
    async fn settle(
        &mut self,
        mut slot: OwnedMutexGuard<Slot>,
        is_new: bool,
    ) -> Result<(OwnedMutexGuard<Slot>, Vec<PreparedStatement>), Unseated> {
        if !slot.is_further {
            let awake = wake::to_its_end(slot, &self.node, &self.database).await;
            slot = awake.map_err(Unseated::Busy)?;
        }
        let mut newcomer = Newcomer {
            database: Arc::clone(&self.database),
            role: self.role.take(),
            identity: self.identity.clone(),
            seat: Arc::clone(&self.seat),
            process_id: self.process_id,
            is_new,
        };
        let mut given = Given::new(slot, &self.database);
        let settling = tokio::spawn(async move {
            let sat = newcomer.sit(&mut given).await;
            let broken = given
                .backend
                .as_ref()
                .is_none_or(engine::Backend::is_broken);
            if sat.is_err() && broken {
                given.lose(&newcomer.database);
            }
            (given, newcomer, sat)
        });
        let (given, newcomer, sat) = settling.await.map_err(|error| {
            let error = PgError::fatal(sqlstate::INTERNAL_ERROR, error.to_string());
            Unseated::Ended(error)
        })?;
        if matches!(sat, Err(Unseated::Broken(_))) {
            self.role = newcomer.role;
        }
        let statements = sat?;
        self.identity = newcomer.identity;
        Ok((given.keep(), statements))
    }

    /// Lets go of the process, if the session can leave it.
    pub(super) async fn park(&mut self) {
        let Some(slot) = self.slot.as_mut() else {
            return;
        };
        self.quiet_since = Instant::now();
        let Some(backend) = slot.backend.as_ref() else {
            return;
        };
        self.idle_limits = backend.idle_limits();
        let may_leave = self.status == TransactionStatus::Idle && self.at_rest && !self.skipping;
        if backend.is_broken() {
            slot.lose(&self.database);
            self.let_go();
            return;
        }
        if !may_leave {
            return;
        }
        match backend.bond() {
            None => {}
            Some(Bond::TemporaryTables) => match slot.has_temporary().await {
                Ok(false) => {}
                Ok(true) => return,
                Err(error) => {
                    tracing::debug!(%error, "a session keeps its process");
                    return;
                }
            },
            Some(_) => return,
        }
        let backend = slot.backend.as_ref();
        self.parked = backend.map(engine::Backend::interrupter);
        slot.used_at = Some(std::time::Instant::now());
        slot.be_quiet();
        self.let_go();
    }

    /// Lets another session have the process.
    fn let_go(&mut self) {
        self.line.set(None);
        self.slot = None;
        self.permit = None;
        self.database.further.freed();
        self.node.admission.left();
    }

    /// The process that the session has let go of, if it still is its process and nobody looks at it now.
    pub(super) fn own_slot(&self) -> Option<Given> {
        let slot = Arc::clone(self.home.as_ref()?).try_lock_owned().ok()?;
        // Who looked meanwhile has found it taken, also if it is another session's.
        let given = Given::new(slot, &self.database);
        given.occupant.is(&self.seat).then_some(given)
    }

    /// Prepares, before a query or the first message of an extended one, the statements of `PREPARE` that the
    /// session has and its process not, if a message may mean them: that needs a simple query.
    pub(super) async fn provide_sql(
        &mut self,
        messages: &[u8],
        output: &mut BytesMut,
    ) -> Result<(), SessionEnded> {
        if self.absent.is_empty() || !self.at_rest {
            return Ok(());
        }
        let wanted = self.absent.wanted_sql(messages);
        self.provide(wanted, true, output).await
    }

    /// Prepares statements that the session has and its process not: before the message that wants them, in
    /// the same transaction. If one cannot be prepared any more, the client is told.
    pub(super) async fn provide(
        &mut self,
        wanted: Vec<PreparedStatement>,
        is_query: bool,
        output: &mut BytesMut,
    ) -> Result<(), SessionEnded> {
        for statement in wanted {
            let mut messages = BytesMut::new();
            prepared::prepare(&mut messages, &statement, is_query)
                .map_err(|error| self.ended(error))?;
            if messages.is_empty() {
                self.absent.add(vec![statement]);
                continue;
            }
            let status = self.status;
            let mut said = BytesMut::new();
            self.run(&mut messages, &mut said).await?;
            self.status = status;
            let prepared = match is_query {
                true => slot::check(&said).is_ok(),
                // Of its answer the client gets an error, as that of the message that wants the statement.
                false => frames(&said).any(|(kind, _)| kind == backend::kind::PARSE_COMPLETE),
            };
            if !prepared {
                if !is_query {
                    output.extend_from_slice(&said);
                }
                // Whoever asks for it again is told again, or gets it.
                self.absent.add(vec![statement]);
            }
        }
        Ok(())
    }

    /// Waits until the session has done nothing for longer than it may: the error that ends it.
    pub fn idle_too_long(&self) -> impl Future<Output = PgError> + Send + use<> {
        let (limits, since) = (self.idle_limits, self.quiet_since);
        let after = |start: Instant, ms: u32| {
            (ms > 0).then(|| start + Duration::from_millis(u64::from(ms)))
        };
        let fatal = |code, text: &str| PgError::fatal(code, text.to_owned());
        let mut ends = Vec::new();
        let in_transaction = self.status != TransactionStatus::Idle;
        if in_transaction {
            ends.extend(after(since, limits.in_transaction_ms).map(|at| {
                let text = "terminating connection due to idle-in-transaction timeout";
                (
                    at,
                    fatal(sqlstate::IDLE_IN_TRANSACTION_SESSION_TIMEOUT, text),
                )
            }));
            ends.extend(
                after(self.transaction_since, limits.transaction_ms).map(|at| {
                    let text = "terminating connection due to transaction timeout";
                    (at, fatal(sqlstate::TRANSACTION_TIMEOUT, text))
                }),
            );
        } else {
            ends.extend(after(since, limits.session_ms).map(|at| {
                let text = "terminating connection due to idle-session timeout";
                (at, fatal(sqlstate::IDLE_SESSION_TIMEOUT, text))
            }));
        }
        let first = ends.into_iter().min_by_key(|(at, _)| *at);
        let patience = self.node.options.limits.idle_holder;
        let holds = self.slot.is_some();
        let database = Arc::clone(&self.database);
        async move {
            let own = async {
                match first {
                    Some((at, error)) => {
                        sleep_until(at).await;
                        error
                    }
                    None => std::future::pending().await,
                }
            };
            let wanted = async {
                if !holds {
                    return std::future::pending().await;
                }
                sleep_until(since + patience).await;
                database.wanted().await;
                PgError::fatal(
                    sqlstate::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
                    "terminating connection: it kept a process of the database, idle, while others waited",
                )
                .detail(format!(
                    "It was idle for {} ms (limit sessions.idle_holder_ms_max), in a transaction or with what \
                     only its process has: temporary tables, session locks, LISTEN, cursors WITH HOLD.",
                    patience.as_millis()
                ))
                .hint("Shorten transactions, or raise databases.processes_max or sessions.idle_holder_ms_max.")
            };
            tokio::select! {
                error = own => error,
                error = wanted => error,
            }
        }
    }

    /// Ends the session: rolls back, takes its traces off the backend, and lets the next one in.
    pub async fn close(mut self) {
        if let Some(leaving) = self.leaving() {
            leaving.await;
        }
    }

    /// What is to be done at the end; `None` if that was done.
    pub(super) fn leaving(&mut self) -> Option<impl Future<Output = ()> + Send + 'static> {
        if std::mem::replace(&mut self.has_left, true) {
            return None;
        }
        self.line.set(None);
        let parked = self.own_slot();
        let held = self.slot.take();
        let permit = self.permit.take();
        let (node, database) = (Arc::clone(&self.node), Arc::clone(&self.database));
        let present = self.present;
        Some(async move {
            if let Some(mut slot) = parked {
                // Whoever comes next clears what is left.
                slot.occupant.forget();
            }
            if let Some(slot) = held {
                leave(slot, &node, &database).await;
            }
            let mut sessions = database.sessions.lock();
            sessions.retain(|session| session.id != present);
            drop(sessions);
            drop(permit);
            database.further.freed();
            database.session_left();
            node.admission.left();
        })
    }
}

async fn leave(mut slot: OwnedMutexGuard<Slot>, node: &Arc<Node>, database: &Arc<Database>) {
    if database.is_dropped() {
        slot.lose(database);
        return;
    }
    slot.reset(database).await;
    if let Err(error) = slot.checkpoint_if_due(node, database).await {
        tracing::warn!(database = %database.name(), %error, "a backend ended");
        slot.lose(database);
    }
    if database.volume_is_broken() {
        slot.lose(database);
        super::abandon_volume(database).await;
    }
}
