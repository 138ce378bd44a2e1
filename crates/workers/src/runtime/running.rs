//! A deployment that runs: one process at a time, kept alive, and exchanged without a gap.

use super::{
    Lease, Log, Program, Supervisor,
    door::{Door, Entrance},
    keeper::Keeper,
    supervisor::{internal, refusal},
};
use crate::Refusal;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, JoinSet},
};

/// How a deployment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// The version that serves, or would if it had not crashed.
    pub version: u64,
    /// The id of its process; none between a crash and the restart.
    pub process: Option<u32>,
    /// Bytes that the process had resident when that was last looked at.
    pub resident_bytes: Option<u64>,
    /// How often a process has ended that should not have.
    pub crashes: u64,
}

/// A deployment that runs. Dropped, it is killed; see [`Running::stop`].
#[derive(Debug)]
pub struct Running {
    orders: mpsc::Sender<Order>,
    entrance: Entrance,
    log: Arc<Log>,
    standing: Arc<Mutex<Standing>>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

/// What a deployment is told.
#[derive(Debug)]
pub(super) enum Order {
    /// To exchange its program.
    Swap(Box<Program>, oneshot::Sender<Result<(), Refusal>>),
    /// To kill the process of this id, and start it again; why, for the log.
    Restart(u32, String),
    /// To end.
    Stop,
}

impl Running {
    pub(super) async fn start(
        supervisor: Arc<Supervisor>,
        program: Program,
        log: Arc<Log>,
    ) -> Result<Self, Refusal> {
        let standing = Arc::new(Mutex::new(Standing::default()));
        let socket = supervisor.socket("").map_err(|error| internal(&error))?;
        let (door, lease) = Door::new(socket);
        let entrance = Entrance::from(lease);
        let keeper = Keeper {
            supervisor,
            program,
            door,
            entrance: entrance.clone(),
            log: Arc::clone(&log),
            standing: Arc::clone(&standing),
            retiring: JoinSet::new(),
        };
        let booted = keeper.boot(&keeper.program, &keeper.door).await;
        let process = booted.map_err(refusal)?;
        let (orders, taken) = mpsc::channel(1);
        Ok(Self {
            orders,
            entrance,
            log,
            standing,
            keeper: Mutex::new(Some(tokio::spawn(keeper.keep(process, taken)))),
        })
    }

    /// The way to the process that serves, for one connection or request: to be held until that is over. Between a
    /// crash and the restart a connection waits there.
    #[must_use]
    pub fn lease(&self) -> Lease {
        self.entrance.lease()
    }

    /// What the deployment has written.
    #[must_use]
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        *self.standing.lock()
    }

    /// Puts another version, which should have been tried, in the place of this one: it is started, and when it listens
    /// new leases lead to it. The old one ends when those of its own have ended. No request is refused meanwhile.
    ///
    /// # Errors
    /// 400 if it does not start: the old one serves on.
    pub async fn swap(&self, program: Program) -> Result<(), Refusal> {
        let (reply, done) = oneshot::channel();
        let gone = |_| internal(&"the deployment has been stopped");
        let order = Order::Swap(Box::new(program), reply);
        self.orders.send(order).await.map_err(|_| gone(()))?;
        done.await.map_err(|_| gone(()))?
    }

    /// Kills the process of this id, which answers nobody, and starts it again. Nothing happens if another one has taken
    /// its place meanwhile. `why` is for the log.
    pub async fn restart(&self, process: u32, why: &str) {
        let order = Order::Restart(process, why.to_owned());
        if self.orders.send(order).await.is_err() {
            tracing::debug!("a deployment had ended before it was restarted");
        }
    }

    /// Lets the process finish its requests, and ends it. Whoever asks for a lease later gets one that leads nowhere.
    pub async fn stop(&self) {
        let Some(keeper) = self.keeper.lock().take() else {
            return;
        };
        if self.orders.send(Order::Stop).await.is_err() {
            tracing::debug!("a deployment had ended before it was stopped");
        }
        if let Err(error) = keeper.await {
            tracing::warn!(%error, "the end of a deployment is not known");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Its processes are killed as they are dropped.
        if let Some(keeper) = self.keeper.get_mut() {
            keeper.abort();
        }
    }
}
