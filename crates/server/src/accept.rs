//! Accepting connections, until the server stops.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::{JoinError, JoinSet};

use crate::bindings::LocalListener;
use crate::shutdown::Stopping;

/// After the system could not give us another socket.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What connections come from.
pub(crate) trait Listening {
    /// A connection, and who it is from.
    type Connection;

    /// Waits for the next one.
    fn next(&self) -> impl Future<Output = io::Result<Self::Connection>> + Send;
}

impl Listening for TcpListener {
    type Connection = (TcpStream, SocketAddr);

    async fn next(&self) -> io::Result<Self::Connection> {
        self.accept().await
    }
}

impl<L: Listening + Send + Sync> Listening for Arc<L> {
    type Connection = L::Connection;

    async fn next(&self) -> io::Result<Self::Connection> {
        L::next(self).await
    }
}

impl Listening for LocalListener {
    type Connection = UnixStream;

    async fn next(&self) -> io::Result<Self::Connection> {
        Ok(self.listener.accept().await?.0)
    }
}

/// Serves each connection in a task of its own, until the server stops, and all have ended. `what` each is,
/// is for the log.
pub(crate) async fn accept<L, F>(
    listener: L,
    stopping: &Stopping,
    what: &str,
    connection: impl Fn(L::Connection) -> F,
) where
    L: Listening,
    F: Future<Output = ()> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    let mut draining = pin!(stopping.draining());
    loop {
        let accepted = tokio::select! {
            biased;
            // Whoever comes from now on is for who answers meanwhile, if anybody does.
            () = &mut draining => break,
            Some(ended) = tasks.join_next() => {
                report(ended, what);
                continue;
            }
            accepted = listener.next() => accepted,
        };
        match accepted {
            Ok(accepted) => {
                tasks.spawn(connection(accepted));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept {what}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while let Some(ended) = tasks.join_next().await {
        report(ended, what);
    }
}

fn report(ended: Result<(), JoinError>, what: &str) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "BUG: the task of {what} panicked");
    }
}
