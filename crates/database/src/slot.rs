//! The slot: a database's backend, held by one session at a time.

use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use engine::{Backend, BackendError, BackendLimits};
use volume::Volume;
use wire::pg::startup::Startup;
use wire::pg::{backend, frames, frontend};
use wire::{PgError, Severity, sqlstate};

use crate::catalog;
use crate::database::Database;
use crate::databases::{Node, State};
use crate::session::set_parameter;
use crate::template::SUPERUSER;

/// A backend, if the database is awake.
#[derive(Default)]
pub(crate) struct Slot {
    pub(crate) backend: Option<Backend>,
    /// What the backend would tell a new client.
    pub(crate) parameters: Vec<(String, String)>,
    /// The directory's generation that the backend's `pg_database` shows.
    pub(crate) catalog_generation: Option<u64>,
    /// When the last session left.
    pub(crate) quiet_since: Option<Instant>,
}

impl Slot {
    /// Makes sure that there is a working backend.
    pub(crate) async fn wake(&mut self, node: &Node, database: &Database) -> Result<(), PgError> {
        if self.backend.as_ref().is_some_and(Backend::is_broken) {
            tracing::info!(database = %database.name(), "a call was dropped; the backend goes too");
            self.lose(database);
        }
        if self.backend.is_some() {
            return Ok(());
        }
        database.set_state(State::Waking);
        let woken = self.start(node, database).await;
        match &woken {
            Ok(()) => database.set_state(State::Awake),
            Err(_) => self.lose(database),
        }
        woken
    }

    async fn start(&mut self, node: &Node, database: &Database) -> Result<(), PgError> {
        let started = Instant::now();
        let volume = database.volume(node)?;
        let limits = BackendLimits {
            memory_bytes_max: node.options.limits.backend_memory_bytes_max,
        };
        let current = &node.current;
        let from_image = volume.is_pristine() && volume.template().id() == current.template.id();
        let (backend, parameters) = if from_image {
            let backend = node
                .engine
                .fork(&current.image, Arc::clone(&volume), limits)
                .await;
            (
                backend.map_err(|error| start_error(&error))?,
                current.parameters.clone(),
            )
        } else {
            connect(boot(node, database, &volume, limits).await?).await?
        };
        self.backend = Some(backend);
        self.parameters = parameters;
        self.catalog_generation = None;
        self.run(&catalog::set_name(&database.name())).await?;
        tracing::debug!(
            database = %database.name(),
            from_image,
            elapsed_us = started.elapsed().as_micros() as u64,
            "awake"
        );
        Ok(())
    }

    /// Forgets the backend without a word to it: as after a crash.
    pub(crate) fn lose(&mut self, database: &Database) {
        self.backend = None;
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
        database.set_state(State::Asleep);
    }

    /// Runs statements of our own, and tells the first error among their answers.
    pub(crate) async fn run(&mut self, sql: &str) -> Result<(), PgError> {
        if sql.is_empty() {
            return Ok(());
        }
        let backend = self.backend.as_mut().ok_or_else(no_backend)?;
        frontend::query(backend.input(), sql.as_bytes())?;
        let outcome = backend.exchange().await;
        let output = backend.output().split();
        if let Err(error) = outcome {
            self.backend = None;
            return Err(start_error(&error));
        }
        check(&output)
    }

    /// Takes the sessions' traces off the backend. If that fails, the backend is given up.
    pub(crate) async fn reset(&mut self, database: &Database) {
        let Some(backend) = self.backend.as_mut() else {
            return;
        };
        if backend.is_broken() {
            self.lose(database);
            return;
        }
        backend.attach(None);
        backend.clear_cancel();
        // Ends an extended query that was left in the middle of an error.
        frontend::sync(backend.input());
        let open = match backend.exchange().await {
            Ok(()) => backend.in_transaction().await,
            Err(error) => Err(error),
        };
        backend.output().clear();
        let reset = match open {
            Ok(true) => match self.run("ROLLBACK").await {
                Ok(()) => self.run(RESET).await,
                Err(error) => Err(error),
            },
            Ok(false) => self.run(RESET).await,
            Err(error) => Err(start_error(&error)),
        };
        match reset {
            Ok(()) => match self.run(RESET_USER).await {
                Ok(()) => {}
                Err(error) => self.give_up(database, &error),
            },
            Err(error) => self.give_up(database, &error),
        }
        self.quiet_since = Some(Instant::now());
    }

    fn give_up(&mut self, database: &Database, error: &PgError) {
        tracing::warn!(database = %database.name(), %error, "a session could not be reset");
        self.lose(database);
    }
}

/// What a session may leave behind: settings, prepared statements, cursors, temporary tables,
/// advisory locks, listening, sequence positions.
const RESET: &str = "DISCARD ALL";
/// `DISCARD ALL` does not know the first user of a stand-alone backend.
const RESET_USER: &str = "SET SESSION AUTHORIZATION postgres";

/// Boots a backend in the one database of its catalog. That has the name of this database, or one
/// that it or its parent had before, if nobody woke it since.
async fn boot(
    node: &Node,
    database: &Database,
    volume: &Arc<Volume>,
    limits: BackendLimits,
) -> Result<Backend, PgError> {
    let name = database.name();
    let former = database.former_names();
    let names = std::iter::once(name.as_str())
        .chain(former.iter().map(String::as_str))
        .chain([SUPERUSER]);
    let mut failure = no_backend();
    for name in names {
        match node.engine.boot(Arc::clone(volume), name, limits).await {
            Ok(backend) => return Ok(backend),
            Err(error) => {
                failure = start_error(&error);
                // Postgres itself refused, perhaps for the name.
                if !matches!(error, BackendError::Exited(1)) {
                    break;
                }
            }
        }
    }
    Err(failure)
}

/// The first connection of a booted backend.
async fn connect(mut backend: Backend) -> Result<(Backend, Vec<(String, String)>), PgError> {
    let mut startup = BytesMut::new();
    Startup::new(SUPERUSER, SUPERUSER).encode(&mut startup)?;
    backend
        .connect(&startup)
        .await
        .map_err(|error| start_error(&error))?;
    let mut parameters = Vec::new();
    let output = backend.output().split();
    for (kind, body) in frames(&output) {
        if kind == backend::kind::PARAMETER_STATUS {
            let (name, value) = backend::decode_parameter_status(body)?;
            set_parameter(&mut parameters, name, value);
        }
    }
    Ok((backend, parameters))
}

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

fn start_error(error: &BackendError) -> PgError {
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
