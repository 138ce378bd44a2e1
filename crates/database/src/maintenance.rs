//! What happens to databases when nobody asks for anything: versions, sleep, upkeep, and the last stop.
//!
//! Six tasks. One watches the disk. One writes versions and lets the journal shrink. One puts databases to sleep: those
//! that were quiet for their idle time, and earlier where others want the room. One keeps quiet, awake
//! databases in order. One compacts volumes that are over layers. One keeps spare
//! backends.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::task::{JoinHandle, JoinSet};
use wire::PgError;

use crate::compact;
use crate::database::{Database, volume_error};
use crate::gate;
use crate::hibernate::hibernate;
use crate::info::State;
use crate::machine;
use crate::node::{Node, blocking};
use crate::refusal::Refused;
use crate::session::abandon_volume;
use crate::slot::Slot;
use crate::spares;
use crate::upkeep::{self, Ended};
use crate::wake::{self, aside};

/// Time between two looks.
const TICK: Duration = Duration::from_millis(100);
/// Time between two looks at a disk that may soon be short: a statement fills some megabytes in it.
const DISK_TICK: Duration = Duration::from_millis(5);
/// How long a database is quiet before upkeep begins.
const UPKEEP_QUIET: Duration = Duration::from_millis(500);
/// How long a stop waits for a statement that it has cancelled.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// How long after a failed flush it is tried again.
pub(crate) const RETRY: Duration = Duration::from_secs(1);
/// How many databases have slept when the process gives back what they had of its heap, or sooner if none
/// is awake.
const TRIM_SLEPT: usize = 256;
/// Time between two times that it does.
const TRIM_PAUSE: Duration = Duration::from_secs(1);
/// Databases that go to sleep early at once for want of memory, before memory is looked at again.
const RELIEF: usize = 16;

/// The tasks.
pub(crate) struct Maintenance {
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Maintenance {
    pub(crate) fn start(node: &Arc<Node>) -> Self {
        let weak = || Arc::downgrade(node);
        let closing = || node.closing.subscribe();
        let tasks = vec![
            tokio::spawn(watch_disk(weak(), closing())),
            tokio::spawn(write_versions(weak(), closing())),
            tokio::spawn(put_to_sleep(weak(), closing())),
            tokio::spawn(keep_in_order(weak(), closing())),
            tokio::spawn(compact::run(weak(), closing())),
            tokio::spawn(spares::run(weak(), closing())),
        ];
        Self {
            tasks: Mutex::new(tasks),
        }
    }

    /// Waits until the tasks have seen that the node closes, and have brought to an end what they do.
    pub(crate) async fn end(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a maintenance task failed");
            }
        }
    }
}

/// Waits for the next look: whether there is one.
pub(crate) async fn tick(closing: &mut watch::Receiver<bool>) -> bool {
    pause_for(TICK, closing).await
}

/// Waits: whether the node is still open.
pub(crate) async fn pause_for(pause: Duration, closing: &mut watch::Receiver<bool>) -> bool {
    // A node that is gone is closed too.
    let closed = closing.wait_for(|closing| *closing);
    tokio::time::timeout(pause, closed).await.is_err()
}

async fn write_versions(node: Weak<Node>, mut closing: watch::Receiver<bool>) {
    while tick(&mut closing).await {
        let Some(node) = node.upgrade() else { return };
        for database in node.live.all() {
            stop_if_too_much_wal(&node, &database);
            if let Err(error) = flush_if_due(&node, &database).await
                && !database.is_dropped()
            {
                tracing::error!(database = %database.name(), %error, "a flush failed");
            }
        }
        shrink_journal(&node).await;
        node.live.retire();
    }
}

/// Looks at the free bytes of the disk, the more often the fewer they are.
async fn watch_disk(node: Weak<Node>, mut closing: watch::Receiver<bool>) {
    loop {
        let Some(strong) = node.upgrade() else { return };
        let near = strong
            .disk
            .look(&strong.options.data_directory, &strong.volumes);
        drop(strong);
        let pause = if near { DISK_TICK } else { TICK };
        if !pause_for(pause, &mut closing).await {
            return;
        }
    }
}

/// Writes a version after a checkpoint, and when much was written since the last one.
async fn flush_if_due(node: &Node, database: &Database) -> Result<(), PgError> {
    let Some(volume) = database.volume_now() else {
        return Ok(());
    };
    let much = volume.dirty_bytes() > node.options.limits.dirty_bytes_max;
    if database.is_dropped() || !(much || volume.version_is_due()) {
        return Ok(());
    }
    let started = Instant::now();
    gate::flush(&volume).await?;
    node.counters.versions.took(started.elapsed());
    Ok(())
}

/// Cancels a statement that writes more WAL than may be kept: no checkpoint can be made beside it.
fn stop_if_too_much_wal(node: &Node, database: &Database) {
    let max = node.options.limits.wal_bytes_max;
    let Some(volume) = database.volume_now() else {
        return;
    };
    if database.wal_since_checkpoint(&volume) <= max {
        return;
    }
    for running in database.running() {
        database.refuse(Refused::Wal { max });
        running.cancel();
    }
}

/// Flushes databases that the journal's oldest entries are kept for, while the journal is large.
async fn shrink_journal(node: &Arc<Node>) {
    let Some(journal) = node.volumes.journal() else {
        return;
    };
    let started = Instant::now();
    let mut before = None;
    while journal.bytes() > node.options.limits.journal_bytes_max && started.elapsed() < TICK {
        let owner = journal.oldest_owner();
        let Some(number) = owner.filter(|_| owner != before) else {
            return;
        };
        before = owner;
        if let Err(error) = flush_owner(node, number).await {
            tracing::error!(owner, %error, "the journal cannot shrink");
            return;
        }
    }
}

/// Makes a version of the database with this id, so that the journal need not keep its entries.
async fn flush_owner(node: &Arc<Node>, owner: u64) -> Result<(), PgError> {
    let node = Arc::clone(node);
    blocking(move || {
        let Some(name) = node.directory.name_of(owner)? else {
            // Deleted; what came after that is nobody's.
            if let Some(journal) = node.volumes.journal() {
                journal.forget(owner);
            }
            return Ok(());
        };
        let database = node.find(&name)?;
        // Opening it is enough if its version has all that the journal has.
        let failed = match database.volume(&node) {
            Ok(volume) => match volume.flush() {
                Ok(_version) => return Ok(()),
                Err(error) => volume_error(&error),
            },
            Err(error) => error,
        };
        // Others are not to wait until somebody has repaired it.
        if !database.carry_log(&node, node.options.limits.journal_bytes_max / 2)? {
            return Err(failed);
        }
        tracing::warn!(
            database = %name, error = %failed,
            "what the journal holds of a database that cannot be opened was written anew"
        );
        Ok(())
    })
    .await
}

/// Databases that are kept in order at the same time.
const UPKEEP_MAX: usize = 4;

/// A quiet, awake database, and its slot.
struct Quiet {
    database: Arc<Database>,
    since: Instant,
}

/// Awake databases without a session, the one that is quiet for the longest time first.
fn quiet(node: &Node) -> Vec<Quiet> {
    let mut quiet = Vec::new();
    for database in node.live.all() {
        let since = match database.slot.try_lock() {
            Ok(slot) if slot.backend.is_some() && database.further.is_idle() => slot.quiet_since,
            _ => continue,
        };
        if let Some(since) = since {
            quiet.push(Quiet { database, since });
        }
    }
    quiet.sort_unstable_by_key(|quiet| quiet.since);
    quiet
}

async fn put_to_sleep(node: Weak<Node>, mut closing: watch::Receiver<bool>) {
    let (mut slept, mut trimmed) = (0, Instant::now());
    loop {
        let Some(strong) = node.upgrade() else { return };
        tokio::select! {
            biased;
            open = tick(&mut closing) => if !open { return },
            () = strong.admission.wanted() => {}
        }
        watch_memory(&strong);
        replace_first(&strong).await;
        let quiet = quiet(&strong);
        let idle = strong.options.limits.idle;
        let over = if strong.admission.is_over() {
            RELIEF
        } else {
            0
        };
        let early = strong.admission.wanting().max(over);
        let mut due = Vec::new();
        for (place, quiet) in quiet.into_iter().enumerate() {
            let idle_for = quiet.since.elapsed();
            if place < early || idle_for >= idle {
                due.push((quiet.database, idle_for < idle));
            }
        }
        slept += due.len();
        sleep_all(&strong, due).await;
        close_volumes(&strong).await;
        let much = slept >= TRIM_SLEPT || slept > 0 && strong.live.awake() == 0;
        if much && trimmed.elapsed() >= TRIM_PAUSE {
            (slept, trimmed) = (0, Instant::now());
            let trimming = blocking(|| {
                engine::trim_host_heap();
                Ok(())
            });
            if let Err(error) = trimming.await {
                tracing::error!(%error, "free memory was not given back");
            }
        }
        watch_memory(&strong);
    }
}

/// Puts another process in the place of a first one that has ended beside others: without it they would never
/// sleep.
async fn replace_first(node: &Arc<Node>) {
    for database in node.live.all() {
        let Ok(slot) = Arc::clone(&database.slot).try_lock_owned() else {
            continue;
        };
        if slot.backend.is_some() || !database.further.goes_on() {
            continue;
        }
        if let Err(error) = wake::to_its_end(slot, node, &database).await {
            tracing::warn!(database = %database.name(), %error, "its first process is not replaced");
        }
        database.further.freed();
    }
}

/// Sees whether the process has more memory than it may.
fn watch_memory(node: &Node) {
    let Some(private) = machine::private_bytes() else {
        return;
    };
    let limit = node.admission.memory_bytes_max();
    // Relief is seen somewhat below, so that it does not flutter.
    let over = if node.admission.is_over() {
        private > limit / 20 * 19
    } else {
        private > limit
    };
    if over && !node.admission.is_over() {
        tracing::warn!(
            private,
            limit,
            "the node is short of memory: quiet databases go to sleep, others wait to wake (limit \
             node.memory_bytes_max)"
        );
    }
    node.admission.set_over(over);
}

/// Puts databases to sleep, as many at once as may wake at once.
async fn sleep_all(node: &Arc<Node>, due: Vec<(Arc<Database>, bool)>) {
    let mut running = JoinSet::new();
    for (database, early) in due {
        if node.is_closing() {
            break;
        }
        if running.len() >= node.options.limits.wakes() {
            ended(running.join_next().await);
        }
        // Taken by a session meanwhile: it is not quiet any more.
        let Ok(slot) = Arc::clone(&database.slot).try_lock_owned() else {
            continue;
        };
        let node = Arc::clone(node);
        running.spawn(async move {
            let asleep = aside(async move {
                sleep(&node, &database, slot, early).await;
                Ok(())
            });
            if let Err(error) = asleep.await {
                tracing::error!(%error, "putting a database to sleep failed");
            }
        });
    }
    while let Some(one) = running.join_next().await {
        ended(Some(one));
    }
}

fn ended(one: Option<Result<(), tokio::task::JoinError>>) {
    if let Some(Err(error)) = one {
        tracing::error!(%error, "work on a quiet database failed");
    }
}

async fn sleep(
    node: &Arc<Node>,
    database: &Arc<Database>,
    mut slot: OwnedMutexGuard<Slot>,
    early: bool,
) {
    if slot.backend.is_none() || !database.further.drop_idle().await {
        return;
    }
    if early {
        node.counters.hibernations_early.one();
    }
    if let Err(error) = hibernate(node, database, &mut slot).await {
        tracing::error!(database = %database.name(), %error, "a flush failed");
        slot.quiet_since = Some(Instant::now());
    }
    if database.volume_is_broken() {
        slot.lose(database);
        abandon_volume(database).await;
    }
}

/// Lets go of the volumes of databases that are asleep, flushing what a failure left behind.
async fn close_volumes(node: &Arc<Node>) {
    for database in node.live.all() {
        let Ok(mut slot) = database.slot.try_lock() else {
            continue;
        };
        if slot.backend.is_some() || database.further.goes_on() {
            continue;
        }
        if database.volume_is_broken() {
            // The journal has what was acknowledged since its last version.
            abandon_volume(&database).await;
            continue;
        }
        if let Some(volume) = database.open_volume() {
            match gate::give_back(&volume).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(database = %database.name(), %error, "room is not given back");
                }
            }
        }
        if database.close_volume() {
            continue;
        }
        let recent = slot.quiet_since.is_some_and(|at| at.elapsed() < RETRY);
        if recent || database.state() != State::Asleep {
            continue;
        }
        slot.quiet_since = Some(Instant::now());
        match flush(&database).await {
            Ok(()) => {
                database.close_volume();
            }
            Err(error) => {
                tracing::error!(database = %database.name(), %error, "a flush failed");
            }
        }
    }
}

async fn keep_in_order(node: Weak<Node>, mut closing: watch::Receiver<bool>) {
    let mut running = JoinSet::new();
    while tick(&mut closing).await {
        let Some(node) = node.upgrade() else { return };
        while let Some(one) = running.try_join_next() {
            ended(Some(one));
        }
        for quiet in quiet(&node) {
            if node.is_closing() {
                return;
            }
            if quiet.since.elapsed() < UPKEEP_QUIET {
                continue;
            }
            let database = quiet.database;
            let Ok(mut slot) = Arc::clone(&database.slot).try_lock_owned() else {
                continue;
            };
            if !upkeep::is_due(&node, &database, &slot) {
                slot.release(&node.current.image);
                // There may be thousands.
                tokio::task::yield_now().await;
                continue;
            }
            // One that takes long is not in the way of the others.
            if running.len() >= UPKEEP_MAX {
                break;
            }
            let node = Arc::clone(&node);
            running.spawn(async move { keep_one_in_order(&node, &database, slot).await });
        }
    }
}

async fn keep_one_in_order(
    node: &Arc<Node>,
    database: &Arc<Database>,
    mut slot: OwnedMutexGuard<Slot>,
) {
    match upkeep::run(node, database, &mut slot).await {
        Ok(Ended::Done | Ended::Preempted) => {}
        Err(error) => {
            tracing::warn!(database = %database.name(), %error, "upkeep failed");
            if slot.backend.is_none() {
                slot.lose(database);
            }
        }
    }
}

/// Makes a database's state of this moment durable as a version.
async fn flush(database: &Database) -> Result<(), PgError> {
    let Some(volume) = database.open_volume() else {
        return Ok(());
    };
    if volume.is_pristine() || !volume.dirty() || database.is_dropped() {
        return Ok(());
    }
    gate::flush(&volume).await
}

/// Puts a database to sleep for good. A backend that a session still has is left as it is, once its
/// statement has been cancelled: what it has committed is in the volume all the same, as after a crash.
async fn stop(node: &Arc<Node>, database: &Database) -> Result<(), PgError> {
    let running = database.running();
    for statement in &running {
        statement.cancel();
    }
    for statement in running {
        if tokio::time::timeout(STOP_WAIT, statement.ended())
            .await
            .is_err()
        {
            tracing::warn!(database = %database.name(), "a statement did not end in time");
        }
    }
    if let Ok(mut slot) = database.slot.try_lock()
        && database.further.drop_idle().await
    {
        if slot.backend.is_some() {
            return hibernate(node, database, &mut slot).await;
        }
        return flush(database).await;
    }
    database.further.end().await;
    flush(database).await
}

/// Ends everything. A session that still runs a statement is cancelled first.
pub(crate) async fn close(node: &Arc<Node>) -> Result<(), PgError> {
    let mut first = Ok(());
    let mut running = JoinSet::new();
    for database in node.live.all() {
        if running.len() >= node.options.limits.wakes() {
            first = first.and(stopped(running.join_next().await));
        }
        let node = Arc::clone(node);
        running.spawn(async move {
            let stopped = stop(&node, &database).await;
            stopped.inspect_err(|error| {
                tracing::error!(database = %database.name(), %error, "the last flush failed");
            })
        });
    }
    while let Some(one) = running.join_next().await {
        first = first.and(stopped(Some(one)));
    }
    node.close_journal();
    first
}

fn stopped(
    one: Option<Result<Result<(), PgError>, tokio::task::JoinError>>,
) -> Result<(), PgError> {
    match one {
        None => Ok(()),
        Some(Ok(outcome)) => outcome,
        Some(Err(error)) => Err(PgError::error(
            wire::sqlstate::INTERNAL_ERROR,
            error.to_string(),
        )),
    }
}
