//! The thread that starts processes.
//!
//! A child that ends with its parent ends with the thread that made it, and the runtime's threads come and go.

use std::{io, sync::mpsc, thread};
use tokio::{
    process::{Child, Command},
    runtime::Handle,
    sync::oneshot,
};

type Order = (Command, Handle, oneshot::Sender<io::Result<Child>>);

/// Starts processes from one thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Spawner {
    orders: mpsc::Sender<Order>,
}

impl Spawner {
    pub(super) fn new() -> io::Result<Self> {
        let (orders, taken) = mpsc::channel::<Order>();
        thread::Builder::new()
            .name("workers-spawn".to_owned())
            .spawn(move || {
                for (mut command, runtime, reply) in taken {
                    let _entered = runtime.enter();
                    let spawned = command.spawn();
                    // What the child has been given is closed here before anybody waits for its end.
                    drop(command);
                    // Nobody waits any more: the child is dropped, and killed by that.
                    drop(reply.send(spawned));
                }
            })?;
        Ok(Self { orders })
    }

    pub(super) async fn spawn(&self, command: Command) -> io::Result<Child> {
        let (reply, spawned) = oneshot::channel();
        let gone = || io::Error::other("the thread that starts processes has ended");
        let order = (command, Handle::current(), reply);
        self.orders.send(order).map_err(|_| gone())?;
        spawned.await.map_err(|_| gone())?
    }
}
