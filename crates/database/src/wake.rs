//! Waking: a backend for a database that has none.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use engine::{Backend, BackendError, BackendLimits};
use tokio::runtime::Handle;
use tokio::sync::OwnedMutexGuard;
use tracing::Instrument as _;
use volume::{Ino, Volume};
use wire::pg::startup::Startup;
use wire::pg::{backend, frames};
use wire::{PgError, sqlstate};

use crate::catalog;
use crate::database::Database;
use crate::further;
use crate::info::State;
use crate::node::{Node, blocking};
use crate::session::set_parameter;
use crate::slot::{Slot, no_backend, start_error};
use crate::template::SUPERUSER;
use crate::trace::TRACE;
use crate::upkeep::Upkeep;

/// The hibernation image that a backend was resumed from. It stays good for as long as nothing has
/// changed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resumed {
    /// Of the volume.
    pub(crate) version: volume::Version,
    /// LSN after the last byte of WAL.
    pub(crate) wal_position: u64,
}

/// Where a new backend came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// The template's image.
    Template,
    /// The database's hibernation image.
    Image,
    /// Nothing: Postgres was booted.
    Boot,
}

impl From {
    fn name(self) -> &'static str {
        match self {
            Self::Template => "template",
            Self::Image => "image",
            Self::Boot => "boot",
        }
    }
}

/// A backend with what is known of it.
struct Woken {
    backend: Backend,
    parameters: Vec<(String, String)>,
    from: From,
    resumed: Option<Resumed>,
    settings_hash: u64,
    upkeep: Option<Upkeep>,
    /// The name that the catalog is known to have.
    name: Option<String>,
}

/// How long a wake keeps its turn: far longer than one takes that has nothing to recover.
const TURN: Duration = Duration::from_secs(1);

fn took_too_long(limit: Duration) -> PgError {
    PgError::fatal(
        sqlstate::CANNOT_CONNECT_NOW,
        format!(
            "the database did not start within {} ms (limit databases.wake_ms_max)",
            limit.as_millis()
        ),
    )
    .detail("What was committed is kept: the next connection starts it again.")
    .hint("If much is to be recovered, raise databases.wake_ms_max.")
}

/// A database that is not awake yet is asleep again if whoever wakes it goes away.
struct Waking<'a> {
    database: &'a Database,
    done: bool,
}

impl Drop for Waking<'_> {
    fn drop(&mut self) {
        if !self.done && self.database.state() == State::Waking {
            self.database.set_state(State::Asleep);
        }
    }
}

/// Files that Postgres reads when it starts and when it is told to, relative to the data directory.
const SETTINGS_FILES: [&str; 2] = ["/postgresql.conf", ALTERED];
/// What ALTER SYSTEM writes.
const ALTERED: &str = "/postgresql.auto.conf";
/// Where that goes if Postgres does not start with it.
const REFUSED: &str = "/postgresql.auto.conf.refused";
/// Bytes of a settings file that are looked at; Postgres writes far less into its own.
const SETTINGS_BYTES_MAX: usize = 1 << 20;

/// Tells one content of the settings files from another.
pub(crate) fn settings_hash(volume: &Volume) -> u64 {
    let mut hasher = DefaultHasher::new();
    for path in SETTINGS_FILES {
        let content = volume.resolve(path).and_then(|ino| {
            let len = volume.node(ino)?.len.min(SETTINGS_BYTES_MAX as u64);
            let mut content = vec![0; len as usize];
            let read = volume.read(ino, 0, &mut content)?;
            content.truncate(read);
            Ok(content)
        });
        // A file that cannot be read is as good as one that is not there: Postgres sees it likewise.
        content.ok().hash(&mut hasher);
    }
    hasher.finish()
}

impl Slot {
    /// Makes sure that there is a working backend, waiting for a turn to wake if there is none.
    ///
    /// # Errors
    /// What [`Admission::enter`](crate::admission::Admission::enter) gives; 57P03 if Postgres does not
    /// start.
    async fn wake(&mut self, node: &Arc<Node>, database: &Arc<Database>) -> Result<(), PgError> {
        if self.backend.as_ref().is_some_and(Backend::is_broken) {
            tracing::info!(database = %database.name(), "a call was dropped; the backend goes too");
            self.lose(database);
        }
        if self.backend.is_some() {
            return Ok(());
        }
        if self.succeed(node, database).await {
            return Ok(());
        }
        // Nobody may run beside what comes now.
        database.further.end().await;
        database.set_state(State::Waking);
        let mut waking = Waking {
            database,
            done: false,
        };
        let asked = Instant::now();
        let wake = tracing::trace_span!(
            target: TRACE,
            "wake",
            dormouse.wake.from = tracing::field::Empty,
        );
        // Of a backend that has ended.
        self.place = None;
        let queue = tracing::trace_span!(target: TRACE, parent: &wake, "wake queue");
        let (place, turn) = node.admission.enter().instrument(queue).await?;
        let started = Instant::now();
        let woken = {
            let (node, database) = (Arc::clone(node), Arc::clone(database));
            let limit = node.adjustable.wake_max.get();
            let starting = async move {
                let started = tokio::time::timeout(limit, start(&node, &database)).await;
                started.unwrap_or_else(|_elapsed| Err(took_too_long(limit)))
            };
            let starting = aside(starting.instrument(wake.clone()));
            tokio::pin!(starting);
            match tokio::time::timeout(TURN, &mut starting).await {
                Ok(woken) => woken?,
                Err(_elapsed) => {
                    // Others are not to wait for one that has much to recover, or does not come to an end.
                    drop(turn);
                    starting.await?
                }
            }
        };
        let (from, name) = (woken.from, woken.name);
        let volume = woken.backend.volume();
        database.checkpointed(&volume);
        self.upkeep.begin(&volume, woken.upkeep);
        self.backend = Some(woken.backend);
        self.parameters = woken.parameters;
        self.resumed = woken.resumed;
        self.settings_hash = woken.settings_hash;
        database.running.set_settings_hash(woken.settings_hash);
        self.catalog_generation = None;
        self.place = Some(place);
        // A session that does not come to its end leaves the database quiet from now on.
        self.be_quiet();
        if name.as_deref() != Some(database.name().as_str()) {
            let naming = tracing::trace_span!(target: TRACE, parent: &wake, "name");
            self.set_name(database).instrument(naming).await?;
        }
        wake.record("dormouse.wake.from", from.name());
        waking.done = true;
        database.set_state(State::Awake);
        let elapsed = started.elapsed();
        let counters = &node.counters;
        match from {
            From::Template => counters.wakes_forked.took(elapsed),
            From::Image => counters.wakes_resumed.took(elapsed),
            From::Boot => counters.wakes_booted.took(elapsed),
        }
        counters.wake_durations[from as usize].took(elapsed);
        counters.wake_waits.took(started - asked);
        database
            .figures
            .woke(volume.wal_end(), node.live.since.at(started));
        tracing::debug!(
            database = %database.name(),
            ?from,
            waited_us = (started - asked).as_micros() as u64,
            elapsed_us = elapsed.as_micros() as u64,
            "awake"
        );
        Ok(())
    }
}

impl Slot {
    /// Puts a further process in the place of the first one if that has ended and others go on: whether there
    /// is one now.
    async fn succeed(&mut self, node: &Arc<Node>, database: &Arc<Database>) -> bool {
        let Some(shared) = database.further.running() else {
            return false;
        };
        let joined = match further::process(node, database, shared).await {
            Ok(backend) => self.begin_first(backend).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &joined {
            tracing::warn!(
                database = %database.name(), %error,
                "no process could take the place of the first: all of them end"
            );
        }
        joined.is_ok()
    }

    /// Gives the catalog the database's name. It can do without.
    async fn set_name(&mut self, database: &Database) -> Result<(), PgError> {
        self.be_ours(database).await?;
        let name = catalog::set_name(&database.name());
        if let Err(error) = self.run(&name).await {
            if self.backend.is_none() {
                self.lose(database);
                return Err(error);
            }
            tracing::warn!(database = %database.name(), %error, "the catalog keeps another name");
        }
        Ok(())
    }
}

/// Puts another process in the place of a first one that has ended. If none can be there, all of them end, and
/// the database is asleep.
pub(crate) async fn replace_first(
    mut slot: OwnedMutexGuard<Slot>,
    node: &Arc<Node>,
    database: &Arc<Database>,
) {
    if slot.backend.is_none() && !slot.succeed(node, database).await {
        database.further.end().await;
        slot.lose(database);
    }
    drop(slot);
    database.further.freed();
}

/// Makes sure that a slot has a working backend. What was begun goes on to its end, though nobody may wait
/// for it any more: a start that was left alone would write beside the next one.
///
/// # Errors
/// Those of [`Slot::wake`].
pub(crate) async fn to_its_end(
    mut slot: OwnedMutexGuard<Slot>,
    node: &Arc<Node>,
    database: &Arc<Database>,
) -> Result<OwnedMutexGuard<Slot>, PgError> {
    let awake = slot.backend.as_ref();
    if awake.is_some_and(|backend| !backend.is_broken()) {
        return Ok(slot);
    }
    let (node, database) = (Arc::clone(node), Arc::clone(database));
    let waking = async move {
        slot.wake(&node, &database).await?;
        Ok(slot)
    };
    tokio::spawn(waking.in_current_span())
        .await
        .unwrap_or_else(|error| Err(PgError::fatal(sqlstate::INTERNAL_ERROR, error.to_string())))
}

/// Runs what keeps a processor for milliseconds on a thread of its own, so that the operating system
/// shares the processors between it and the sessions that are awake.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl Future<Output = Result<T, PgError>> + Send + 'static,
) -> Result<T, PgError> {
    let runtime = Handle::current();
    blocking(move || runtime.block_on(work)).await
}

/// A backend from the cheapest source that there is.
async fn start(node: &Node, database: &Database) -> Result<Woken, PgError> {
    let volume = {
        let claim = tracing::trace_span!(target: TRACE, "claim");
        let _claiming = claim.enter();
        database.volume(node)?
    };
    let limits = BackendLimits {
        memory_bytes_max: node.adjustable.backend_memory_bytes_max.get(),
    };
    let current = &node.current;
    if volume.template().id() == current.template.id() {
        if volume.is_pristine() {
            node.versions.remove(database.id);
            let forking = node
                .engine
                .fork(&current.image, Arc::clone(&volume), limits)
                .instrument(tracing::trace_span!(target: TRACE, "fork"));
            return Ok(Woken {
                backend: forking.await.map_err(|error| start_error(&error))?,
                parameters: current.parameters.clone(),
                from: From::Template,
                resumed: None,
                settings_hash: settings_hash(&volume),
                upkeep: None,
                name: None,
            });
        }
        if let Some(woken) = resume(node, database, &volume, limits).await {
            return Ok(woken);
        }
    }
    // Recovery may write other things where some were that are lost.
    node.versions.remove(database.id);
    let settings_hash = settings_hash(&volume);
    let (backend, parameters) = {
        // Crash recovery must not meet a limit.
        let _recovering = Recovering::begin(&volume);
        // Postgres recovers as it boots, with nothing in between that could be seen from here.
        let wal = volume.wal_bytes();
        let boot = tracing::trace_span!(target: TRACE, "boot", dormouse.wal.bytes = wal);
        let booted = boot_somehow(node, database, &volume, limits)
            .instrument(boot)
            .await?;
        connect(booted).await?
    };
    Ok(Woken {
        backend,
        parameters,
        from: From::Boot,
        resumed: None,
        settings_hash,
        upkeep: None,
        name: None,
    })
}

/// Nothing is refused to a volume as long as this lives.
struct Recovering<'a>(&'a Volume);

impl<'a> Recovering<'a> {
    fn begin(volume: &'a Volume) -> Self {
        volume.set_recovering(true);
        Self(volume)
    }
}

impl Drop for Recovering<'_> {
    fn drop(&mut self) {
        self.0.set_recovering(false);
    }
}

/// A backend from the hibernation image, if there is a good one of exactly this state.
async fn resume(
    node: &Node,
    database: &Database,
    volume: &Arc<Volume>,
    limits: BackendLimits,
) -> Option<Woken> {
    let version = volume.version();
    if !volume.is_exactly(version) {
        return None;
    }
    let fingerprint = node.engine.fingerprint();
    let image = node.images.find(database.id, fingerprint, version.get())?;
    let base = &node.current.image;
    node.versions
        .go_on(database, volume, image.particulars.wal_position);
    let resuming = node
        .engine
        .resume(base, image.saved(), Arc::clone(volume), limits)
        .instrument(tracing::trace_span!(target: TRACE, "resume"));
    match resuming.await {
        Ok(backend) => Some(Woken {
            backend,
            from: From::Image,
            resumed: Some(Resumed {
                version,
                wal_position: image.particulars.wal_position,
            }),
            parameters: image.particulars.parameters,
            settings_hash: image.particulars.settings_hash,
            upkeep: Some(image.particulars.upkeep),
            name: Some(image.particulars.name),
        }),
        Err(error) => {
            tracing::warn!(database = %database.name(), %error, "an image is thrown away");
            node.images.remove(database.id);
            None
        }
    }
}

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

/// Boots a backend; if Postgres refuses with what ALTER SYSTEM has set, which nobody could take back then,
/// without that.
async fn boot_somehow(
    node: &Node,
    database: &Database,
    volume: &Arc<Volume>,
    limits: BackendLimits,
) -> Result<Backend, PgError> {
    let refused = match boot(node, database, volume, limits).await {
        Err(error) if set_aside(volume) => error,
        outcome => return outcome,
    };
    match boot(node, database, volume, limits).await {
        Ok(backend) => {
            tracing::warn!(
                database = %database.name(), error = %refused,
                "Postgres does not start with what ALTER SYSTEM has set: postgresql.auto.conf is \
                 now postgresql.auto.conf.refused"
            );
            Ok(backend)
        }
        Err(_) => {
            // The settings are not to blame.
            put_back(volume);
            Err(refused)
        }
    }
}

/// Takes the settings of ALTER SYSTEM away: whether there were any.
fn set_aside(volume: &Volume) -> bool {
    let has_settings = volume.resolve(ALTERED).and_then(|ino| {
        let mut content = vec![0; volume.node(ino)?.len.min(SETTINGS_BYTES_MAX as u64) as usize];
        volume.read(ino, 0, &mut content)?;
        let text = String::from_utf8_lossy(&content);
        Ok(text
            .lines()
            .any(|line| !line.is_empty() && !line.starts_with('#')))
    });
    matches!(has_settings, Ok(true)) && rename(volume, ALTERED, REFUSED)
}

fn put_back(volume: &Volume) {
    rename(volume, REFUSED, ALTERED);
}

fn rename(volume: &Volume, from: &str, to: &str) -> bool {
    let renamed = volume.rename(Ino::ROOT, &from[1..], Ino::ROOT, &to[1..]);
    if let Err(error) = &renamed {
        tracing::warn!(%error, from, to, "settings could not be renamed");
    }
    renamed.is_ok()
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
