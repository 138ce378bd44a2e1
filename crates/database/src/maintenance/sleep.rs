//! Databases are put to sleep: those that were quiet for their idle time, and earlier where others want the room.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedMutexGuard, watch};
use tokio::task::JoinSet;

use super::processes;
use super::quiet::quiet;
use super::versions::flush;
use super::{RETRY, ended, tick};
use crate::database::Database;
use crate::gate;
use crate::hibernate::hibernate;
use crate::info::State;
use crate::machine;
use crate::node::{Node, blocking};
use crate::session::abandon_volume;
use crate::slot::Slot;
use crate::wake::aside;

/// How many databases have slept when the process gives back what they had of its heap, or sooner if none
/// is awake.
const TRIM_SLEPT: usize = 256;
/// Time between two times that it does.
const TRIM_PAUSE: Duration = Duration::from_secs(1);
/// Databases that go to sleep early at once for want of memory, before memory is looked at again.
const RELIEF: usize = 16;

pub(super) async fn put_to_sleep(node: Weak<Node>, mut closing: watch::Receiver<bool>) {
    let (mut slept, mut trimmed) = (0, Instant::now());
    loop {
        let Some(strong) = node.upgrade() else { return };
        tokio::select! {
            biased;
            open = tick(&mut closing) => if !open { return },
            () = strong.admission.wanted() => {}
        }
        watch_memory(&strong);
        processes::look_after(&strong).await;
        let quiet = quiet(&strong);
        let idle = strong.adjustable.idle.get();
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
