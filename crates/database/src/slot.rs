//! The slot: a database's backend, held by one session at a time.

use std::time::Instant;

use bytes::BytesMut;
use engine::{Backend, BackendError, SessionIdentity, SessionState, SettingSource};
use tokio::runtime::Handle;
use wire::pg::backend::DataRow;
use wire::pg::frontend::{Bind, Execute, Parse};
use wire::pg::{Target, backend, frames, frontend, statement};
use wire::{PgError, Severity, sqlstate};

use crate::admission::Place;
use crate::database::Database;
use crate::info::State;
use crate::prepared;
use crate::seat::Occupant;
use crate::upkeep::Upkeep;
use crate::wake::Resumed;

/// A backend, if the database is awake.
#[derive(Default)]
pub(crate) struct Slot {
    pub(crate) backend: Option<Backend>,
    /// Of a further process: it neither wakes nor sleeps.
    pub(crate) is_further: bool,
    /// What the backend would tell a new client.
    pub(crate) parameters: Vec<(String, String)>,
    /// The directory's generation that the backend's `pg_database` shows.
    pub(crate) catalog_generation: Option<u64>,
    /// When the last session left.
    pub(crate) quiet_since: Option<Instant>,
    /// Memory that nobody has was given back since then.
    pub(crate) is_released: bool,
    /// When freezing was last tried.
    pub(crate) frozen_at: Option<Instant>,
    /// Its room among the awake databases, for as long as there is a backend.
    pub(crate) place: Option<Place>,
    /// The image that the backend was resumed from.
    pub(crate) resumed: Option<Resumed>,
    /// Of the settings files that the backend started with.
    pub(crate) settings_hash: u64,
    /// What was done to keep the database in order, and when.
    pub(crate) upkeep: Upkeep,
    /// The session that the process is one of.
    pub(crate) occupant: Occupant,
    /// A session has left something in the process.
    pub(crate) is_used: bool,
    /// When a session last let go of it.
    pub(crate) used_at: Option<Instant>,
    /// The number of the process while it is nobody's.
    own_process_id: Option<u32>,
}

impl Slot {
    /// One for a further process.
    pub(crate) fn further() -> Self {
        Self {
            is_further: true,
            ..Self::default()
        }
    }

    /// Whether there is a backend that can go on.
    pub(crate) fn works(&self) -> bool {
        let backend = self.backend.as_ref();
        backend.is_some_and(|backend| !backend.is_broken())
    }

    /// Forgets the backend without a word to it: as after a crash.
    pub(crate) fn lose(&mut self, database: &Database) {
        let backend = self.backend.take();
        self.occupant = Occupant::default();
        self.is_used = false;
        self.own_process_id = None;
        if self.is_further {
            // The others go on, if it leaves them in good order.
            let leaving = backend.filter(|backend| !backend.is_broken());
            if let (Some(backend), Ok(runtime)) = (leaving, Handle::try_current()) {
                drop(runtime.spawn(async move {
                    if let Err(error) = backend.leave().await {
                        tracing::warn!(%error, "a process did not end in good order");
                    }
                }));
            }
            return;
        }
        drop(backend);
        self.resumed = None;
        if database.further.goes_on() {
            // Postgres has ended this one in good order, as after `pg_terminate_backend`: the next use, or
            // maintenance, puts another in its place.
            return;
        }
        database.running.end_tracker();
        database.further.stop();
        self.place = None;
        database.set_state(State::Asleep);
    }

    /// Ends the backend as a clean shutdown does. After an error it is as after a crash, from
    /// which the next wake recovers.
    pub(crate) async fn shut_down(&mut self, database: &Database) {
        let Some(backend) = self.backend.take() else {
            return;
        };
        if let Err(error) = backend.shut_down().await {
            tracing::warn!(database = %database.name(), %error, "the shutdown was not clean");
        }
        self.lose(database);
    }

    /// Gives the memory back that a quiet backend does not need, once in each time that it is quiet.
    pub(crate) fn release(&mut self, image: &engine::Image) {
        let Some(backend) = self.backend.as_mut().filter(|_| !self.is_released) else {
            return;
        };
        self.is_released = true;
        match backend.release(image) {
            Ok(bytes) => tracing::debug!(bytes, "a quiet backend gave memory back"),
            Err(error) => tracing::warn!(%error, "a quiet backend keeps its memory"),
        }
    }

    /// Makes the process nobody's: what its session has there goes with the session.
    ///
    /// # Errors
    /// If the backend ended; the session that had it is lost then.
    pub(crate) async fn vacate(&mut self) -> Result<(), PgError> {
        let Some(backend) = self.backend.as_mut().filter(|_| self.is_used) else {
            return Ok(());
        };
        // What was meant for the session that leaves must not meet the next one.
        backend.clear_cancel();
        if backend.is_signalled() {
            let taken = backend.take_signals().await;
            backend.output().clear();
            if let Err(error) = taken {
                self.backend = None;
                self.occupant = Occupant::default();
                return Err(start_error(&error));
            }
        }
        // If this comes to no end, the session that is on its way is lost, rather than another than it was.
        let mut occupant = std::mem::take(&mut self.occupant);
        let state = backend.session_state();
        if !state.statements.is_empty() {
            let mut messages = BytesMut::new();
            prepared::close(&mut messages, &state.statements)?;
            if let Err(error) = self.ask(&messages).await {
                if self.backend.is_some() {
                    self.occupant = occupant;
                }
                return Err(error);
            }
        }
        let own = *self.own_process_id.get_or_insert(engine::FIRST_PROCESS_ID);
        let backend = self.backend.as_mut().ok_or_else(no_backend)?;
        let cleared = match backend.clear_session().await {
            Ok(()) => backend.set_process_id(own).await,
            Err(error) => Err(error),
        };
        if let Err(error) = cleared {
            self.backend = None;
            return Err(start_error(&error));
        }
        occupant.leave(state);
        self.is_used = false;
        Ok(())
    }

    /// Ends a further process in good order, whose session takes with it what it has there.
    pub(crate) async fn leave(&mut self) {
        if let Err(error) = self.vacate().await {
            tracing::warn!(%error, "a session is lost");
        }
        if let Some(backend) = self.backend.take()
            && let Err(error) = backend.leave().await
        {
            tracing::warn!(%error, "a process did not end in good order");
        }
    }

    /// Makes the process nobody's and gives it the superuser's rights: for work of ours, which looks for names
    /// in the catalog alone. What users have made under such names must not run with these rights.
    ///
    /// # Errors
    /// If the backend ended; it is given up then.
    pub(crate) async fn be_ours(&mut self, database: &Database) -> Result<(), PgError> {
        let ours = self.be_superusers(&OURS).await;
        if ours.is_err() {
            self.lose(database);
        }
        ours
    }

    /// Makes the process nobody's, with the superuser's rights and no settings but the server's: as a new one
    /// is.
    ///
    /// # Errors
    /// If the backend ended; it is given up then.
    pub(crate) async fn be_new(&mut self, database: &Database) -> Result<(), PgError> {
        let new = self.be_superusers(&[]).await;
        if new.is_err() {
            self.lose(database);
        }
        new
    }

    async fn be_superusers(&mut self, defaults: &[(&str, &str)]) -> Result<(), PgError> {
        self.vacate().await?;
        let Some(backend) = self.backend.as_mut() else {
            return Ok(());
        };
        let default =
            |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned(), CLIENT);
        let identity = SessionIdentity {
            user: SUPERUSER_ID,
            defaults: defaults.iter().map(default).collect(),
        };
        let began = backend
            .begin_session(&identity, &SessionState::default())
            .await;
        match began {
            Ok(None) => Ok(()),
            Ok(Some(refused)) => Err(PgError::error(
                sqlstate::INTERNAL_ERROR,
                format!("the superuser is refused: {refused:?}"),
            )),
            Err(error) => Err(start_error(&error)),
        }
    }

    /// A process that was made beside others, in the place of the first one, which has ended.
    ///
    /// # Errors
    /// If the backend ended.
    pub(crate) async fn begin_first(&mut self, mut backend: Backend) -> Result<(), PgError> {
        let own = engine::FIRST_PROCESS_ID;
        let renamed = backend.set_process_id(own).await;
        renamed.map_err(|error| start_error(&error))?;
        self.own_process_id = Some(own);
        self.backend = Some(backend);
        self.occupant = Occupant::default();
        self.is_used = false;
        self.catalog_generation = None;
        self.be_quiet();
        Ok(())
    }

    /// A process that was made beside others.
    pub(crate) fn begin_further(&mut self, backend: Backend) {
        self.own_process_id = Some(backend.process_id());
        self.backend = Some(backend);
    }

    /// Whether nobody has set anything for a role or a database: its catalog is as the template's, empty.
    pub(crate) fn is_without_role_settings(&self) -> bool {
        let Some(backend) = &self.backend else {
            return true;
        };
        let volume = backend.volume();
        let found = volume.resolve(ROLE_SETTINGS);
        found.is_ok_and(|ino| volume.node(ino).is_ok_and(|node| node.len == 0))
    }

    /// Whether there is anything in the schema for temporary tables of this process.
    ///
    /// # Errors
    /// If the backend ended.
    pub(crate) async fn has_temporary(&mut self) -> Result<bool, PgError> {
        let schema = self.backend.as_ref().map_or(0, Backend::temporary_schema);
        if schema == 0 {
            return Ok(false);
        }
        // Whatever else there can be depends on a table, a type or a function. The session's user asks, who may
        // have made a type of any name there.
        let sql = format!(
            "SELECT FROM pg_catalog.pg_depend WHERE refclassid OPERATOR(pg_catalog.=) 2615::pg_catalog.oid \
             AND refobjid OPERATOR(pg_catalog.=) {schema}::pg_catalog.oid LIMIT 1"
        );
        let output = self.ask_named(&sql).await?;
        Ok(frames(&output).any(|(kind, _)| kind == backend::kind::DATA_ROW))
    }

    /// Runs statements of our own, and tells the first error among their answers.
    pub(crate) async fn run(&mut self, sql: &str) -> Result<(), PgError> {
        if sql.is_empty() {
            return Ok(());
        }
        let mut messages = BytesMut::new();
        frontend::query(&mut messages, sql.as_bytes())?;
        self.ask(&messages).await.map(drop)
    }

    /// Runs one statement of our own and gives its rows, values as text.
    pub(crate) async fn rows(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, PgError> {
        let mut messages = BytesMut::new();
        frontend::query(&mut messages, sql.as_bytes())?;
        let output = self.ask(&messages).await?;
        let mut rows = Vec::new();
        for (kind, body) in frames(&output) {
            if kind == backend::kind::DATA_ROW {
                let row = DataRow::decode(body)?;
                let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
                rows.push(row.map(|value| value.map(text)).collect());
            }
        }
        Ok(rows)
    }

    /// Runs one statement of our own under a name, so that a session's unnamed statement stays.
    pub(crate) async fn run_named(&mut self, sql: &str) -> Result<(), PgError> {
        self.ask_named(sql).await.map(drop)
    }

    /// The lines of a statement's plan, as the session that has the process would have it.
    ///
    /// # Errors
    /// What Postgres says.
    pub(crate) async fn explain(&mut self, sql: &str) -> Result<Vec<String>, PgError> {
        let nulls = vec!["NULL"; statement::parameters(sql.as_bytes())].join(", ");
        let arguments = if nulls.is_empty() {
            nulls
        } else {
            format!("({nulls})")
        };
        // One transaction, and so the setting is of this one alone.
        let mut messages = BytesMut::new();
        for part in [
            "SELECT pg_catalog.set_config('plan_cache_mode', 'force_generic_plan', true)",
            &format!("PREPARE {PLANNED} AS {sql}"),
            &format!("EXPLAIN EXECUTE {PLANNED}{arguments}"),
            &format!("DEALLOCATE {PLANNED}"),
        ] {
            encode_named(&mut messages, part)?;
        }
        frontend::sync(&mut messages);
        let output = match self.ask(&messages).await {
            Ok(output) => output,
            Err(error) => {
                // After an error something is still there, under one of the two names.
                let mut messages = BytesMut::new();
                frontend::close(&mut messages, Target::Statement, NAME)?;
                frontend::close(&mut messages, Target::Statement, b"dormouse plan")?;
                frontend::sync(&mut messages);
                self.ask(&messages).await?;
                return Err(error);
            }
        };
        let rows = frames(&output).filter(|(kind, _)| *kind == backend::kind::DATA_ROW);
        // The first is the setting's.
        let rows = rows.skip(1);
        let lines = rows.filter_map(|(_, body)| {
            let mut values = DataRow::decode(body).ok()?;
            let line = values.next()??;
            Some(String::from_utf8_lossy(line).into_owned())
        });
        Ok(lines.collect())
    }

    async fn ask_named(&mut self, sql: &str) -> Result<BytesMut, PgError> {
        let mut messages = BytesMut::new();
        encode_named(&mut messages, sql)?;
        frontend::sync(&mut messages);
        self.ask(&messages).await
    }

    /// Gives messages of our own to the backend: its answers, if there is no error among them.
    pub(crate) async fn ask(&mut self, messages: &[u8]) -> Result<BytesMut, PgError> {
        let backend = self.backend.as_mut().ok_or_else(no_backend)?;
        backend.input().extend_from_slice(messages);
        let outcome = backend.exchange().await;
        let output = backend.output().split();
        if let Err(error) = outcome {
            self.backend = None;
            return Err(start_error(&error));
        }
        check(&output)?;
        Ok(output)
    }

    /// Takes the sessions' traces off the backend. If that fails, the backend is given up.
    pub(crate) async fn reset(&mut self, database: &Database) {
        let Some(backend) = self.backend.as_mut() else {
            // A statement of ours may have ended it.
            self.lose(database);
            return;
        };
        if backend.is_broken() {
            self.lose(database);
            return;
        }
        backend.attach(None);
        backend.clear_cancel();
        self.occupant.forget();
        // Ends an extended query that was left in the middle of an error.
        frontend::sync(backend.input());
        let open = match backend.exchange().await {
            Ok(()) => backend.in_transaction().await,
            Err(error) => Err(error),
        };
        backend.output().clear();
        let reset = match open {
            Ok(open) => self.run_reset(open).await,
            Err(error) => Err(start_error(&error)),
        };
        match reset {
            Ok(()) => self.flush_wal(database).await,
            Err(error) => self.give_up(database, &error),
        }
        self.be_quiet();
    }

    async fn run_reset(&mut self, in_transaction: bool) -> Result<(), PgError> {
        if in_transaction {
            self.run("ROLLBACK").await?;
        }
        // The session's own timeouts are not for what comes now.
        for statement in [UNHURRIED, RESET] {
            self.run(statement).await?;
        }
        Ok(())
    }

    /// Nobody has it from now on.
    pub(crate) fn be_quiet(&mut self) {
        self.quiet_since = Some(Instant::now());
        self.is_released = false;
    }

    /// Commits that did not wait for their WAL do so now: nobody else will write it.
    async fn flush_wal(&mut self, database: &Database) {
        if let Some(backend) = self.backend.as_mut()
            && let Err(error) = backend.flush_wal().await
        {
            self.give_up(database, &start_error(&error));
        }
    }

    fn give_up(&mut self, database: &Database, error: &PgError) {
        tracing::warn!(database = %database.name(), %error, "a session could not be reset");
        self.lose(database);
    }
}

/// The messages that run one statement of our own under its name, and take that away again.
fn encode_named(messages: &mut BytesMut, sql: &str) -> Result<(), PgError> {
    let parse = Parse {
        statement: NAME,
        sql: sql.as_bytes(),
        param_oids: Vec::new(),
    };
    parse.encode(messages)?;
    let bind = Bind {
        portal: NAME,
        statement: NAME,
        params: Vec::new(),
        result_formats: Vec::new(),
    };
    bind.encode(messages)?;
    let execute = Execute {
        portal: NAME,
        rows_max: 0,
    };
    execute.encode(messages)?;
    // Another one may follow in the same transaction.
    frontend::close(messages, Target::Portal, NAME)?;
    frontend::close(messages, Target::Statement, NAME)
}

/// The statement whose plan is asked for.
const PLANNED: &str = "\"dormouse plan\"";
/// The prepared statement that ours are, beside those of sessions.
const NAME: &[u8] = b"dormouse upkeep";

/// Before statements of ours, which are not to fail for what a session or ALTER SYSTEM has set.
const UNHURRIED: &str = "SET statement_timeout = 0; SET transaction_timeout = 0; \
                         SET lock_timeout = 0; SET default_transaction_read_only = off";
/// What a session may leave behind: settings, prepared statements, cursors, temporary tables,
/// advisory locks, listening, sequence positions.
const RESET: &str = "DISCARD ALL";
/// Object id of the superuser that a database begins with, whatever its name is now.
pub(crate) const SUPERUSER_ID: u32 = 10;
const CLIENT: SettingSource = SettingSource::Client;
/// What statements of ours run under.
const OURS: [(&str, &str); 7] = [
    ("search_path", "pg_catalog, pg_temp"),
    ("client_encoding", "UTF8"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("transaction_timeout", "0"),
    ("default_transaction_read_only", "off"),
    ("default_transaction_isolation", "read committed"),
];
/// Where `pg_db_role_setting` is, as long as nobody has rewritten it.
const ROLE_SETTINGS: &str = "/global/2964";

/// The first error in answers of the backend.
pub(crate) fn check(output: &[u8]) -> Result<(), PgError> {
    match frames(output).find(|(kind, _)| *kind == backend::kind::ERROR_RESPONSE) {
        Some((_, body)) => Err(PgError::decode(body)?),
        None => Ok(()),
    }
}

pub(crate) fn no_backend() -> PgError {
    PgError::fatal(sqlstate::CRASH_SHUTDOWN, "the session's backend has ended")
        .hint("Connect again: the database starts from its last commit.")
}

pub(crate) fn start_error(error: &BackendError) -> PgError {
    PgError::fatal(
        sqlstate::CANNOT_CONNECT_NOW,
        format!("the database did not start: {error}"),
    )
}

/// What a session is told when its backend ended: Postgres' own FATAL if it gave one.
pub(crate) fn ended(error: &BackendError, output: &[u8]) -> PgError {
    let errors = frames(output).filter(|(kind, _)| *kind == backend::kind::ERROR_RESPONSE);
    let fatal = errors
        .filter_map(|(_, body)| PgError::decode(body).ok())
        .find(|error| matches!(error.severity(), Severity::Fatal | Severity::Panic));
    fatal.unwrap_or_else(|| {
        PgError::fatal(
            sqlstate::CRASH_SHUTDOWN,
            format!("the database's backend ended: {error}"),
        )
        .detail("Its open transaction is rolled back; what was committed is kept.")
        .hint("Connect again: the database starts from its last commit.")
    })
}
