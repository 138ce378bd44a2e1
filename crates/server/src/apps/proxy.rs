//! One request to a backend, over its socket, on a connection of its own.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{Request, Response};
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use workers::runtime::Lease;

/// How long a backend that runs may take to answer what is no request: none of its code runs for that.
const SIGN_OF_LIFE: Duration = Duration::from_millis(2_000);

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Its socket is not there.
    Unreachable(std::io::Error),
    /// It ended, or said what is no answer.
    Broken(hyper::Error),
    /// It took too long.
    Slow,
}

/// An answer that has begun, and what its body comes by.
pub(super) struct Answer {
    pub(super) head: Response<()>,
    pub(super) body: Held,
}

/// A body, and the connection that it comes by: that ends with it.
pub(super) struct Held {
    body: Incoming,
    _connection: Connection,
}

/// A connection to a backend, as long as it is held.
pub(super) struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        // The backend sees that nobody waits any more.
        self.0.abort();
    }
}

/// Sends a request and waits for the answer's beginning. Dropped before, the request is given up.
pub(super) async fn send(
    lease: Lease,
    request: Request<Incoming>,
    at_most: Duration,
) -> Result<(Response<Incoming>, Connection), Trouble> {
    let sending = async {
        let stream = UnixStream::connect(lease.path()).await;
        let stream = stream.map_err(Trouble::Unreachable)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(Trouble::Broken)?;
        let connection = Connection(tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to a backend ends");
            }
            // As long as it is there, the process is not told to end.
            drop(lease);
        }));
        let response = sender.send_request(request).await;
        Ok((response.map_err(Trouble::Broken)?, connection))
    };
    match timeout(at_most, sending).await {
        Ok(sent) => sent,
        Err(_) => Err(Trouble::Slow),
    }
}

impl Answer {
    pub(super) fn new(response: Response<Incoming>, connection: Connection) -> Self {
        let (head, body) = response.into_parts();
        Self {
            head: Response::from_parts(head, ()),
            body: Held {
                body,
                _connection: connection,
            },
        }
    }
}

/// Whether the process behind a lease does anything at all: what is no request is answered by the runtime itself.
pub(super) async fn is_alive(lease: &Lease) -> bool {
    let asking = async {
        let mut stream = UnixStream::connect(lease.path()).await?;
        stream.write_all(b"?\r\n\r\n").await?;
        stream.read(&mut [0; 1]).await
    };
    // That it closes the connection is an answer too.
    timeout(SIGN_OF_LIFE, asking).await.is_ok()
}

impl Body for Held {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
