//! Accepting connections, until the server stops.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};

use crate::shutdown::Stopping;

/// After the system could not give us another socket.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves each connection in a task of its own, until the server stops, and all have ended. `what` each is,
/// is for the log.
pub(crate) async fn accept<F>(
    listener: TcpListener,
    stopping: &Stopping,
    what: &str,
    connection: impl Fn(TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    let mut draining = pin!(stopping.draining());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = tasks.join_next() => {
                report(ended, what);
                continue;
            }
            () = &mut draining => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                tasks.spawn(connection(stream, peer));
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
