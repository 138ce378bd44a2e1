//! What happens to databases when nobody asks for anything: versions, sleep, upkeep, and the last stop.
//!
//! Six tasks. One watches the disk. One writes versions and lets the journal shrink. One puts databases to sleep: those
//! that were quiet for their idle time, and earlier where others want the room. One keeps quiet, awake
//! databases in order. One compacts volumes that are over layers. One keeps spare
//! backends.

mod order;
mod processes;
mod quiet;
mod sleep;
mod stop;
mod versions;

pub(crate) use stop::close;

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::order::keep_in_order;
use self::sleep::put_to_sleep;
use self::versions::write_versions;
use crate::compact;
use crate::node::Node;
use crate::spares;

/// Time between two looks.
const TICK: Duration = Duration::from_millis(100);
/// Time between two looks at a disk that may soon be short: a statement fills some megabytes in it.
const DISK_TICK: Duration = Duration::from_millis(5);
/// How long after a failed flush it is tried again.
pub(crate) const RETRY: Duration = Duration::from_secs(1);

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

fn ended(one: Option<Result<(), tokio::task::JoinError>>) {
    if let Some(Err(error)) = one {
        tracing::error!(%error, "work on a quiet database failed");
    }
}
