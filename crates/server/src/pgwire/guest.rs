//! Who comes by a credential of a binding: asked for its password, and served what the binding leads to.

use std::sync::Arc;

use bytes::BytesMut;
use pooler::{Canceller, Client, ClientIdentity, Ended, Pool, Stop};
use tokio::io::AsyncWriteExt as _;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;
use wire::{PgError, sqlstate};

use super::cancel::Cancels;
use super::peer::Peer;
use super::{Begun, Pgwire};
use crate::linger::linger;

/// Serves a client of an external Postgres on the thread of its pool, to its end.
pub(super) async fn serve_on(
    thread: &Handle,
    pgwire: Arc<Pgwire>,
    begun: Begun,
    said: (Arc<str>, BytesMut),
    pool: Arc<Pool>,
) -> Result<(), PgError> {
    let failed = |error: &dyn std::fmt::Display| {
        PgError::fatal(
            sqlstate::INTERNAL_ERROR,
            format!("a binding's client cannot be served: {error}"),
        )
    };
    // TLS stays on the reactor that it began on.
    let serving = serve(pgwire, begun, said, pool);
    // Whoever stops waiting for it ends it.
    let serving = AbortOnDropHandle::new(thread.spawn(serving));
    serving.await.map_err(|error| failed(&error))?
}

/// Serves a client of an external Postgres, to its end, where this is called. `unsaid` is told before its greeting.
pub(super) async fn serve(
    pgwire: Arc<Pgwire>,
    begun: Begun,
    (label, unsaid): (Arc<str>, BytesMut),
    pool: Arc<Pool>,
) -> Result<(), PgError> {
    let Begun {
        stream,
        buffer,
        startup,
        number,
        ..
    } = begun;
    // Clients of a pool have no process of their own; whatever number identifies one goes with its key.
    let pid = number as u32 & (u32::MAX >> 1);
    let canceller = Canceller::default();
    let cancels = Cancels::Pooled(canceller.clone());
    let minor = startup.negotiated_minor();
    let key = pgwire.cancel_keys.register(pid, minor, cancels)?;
    let identity = ClientIdentity {
        pid,
        key: key.key().to_vec(),
        label,
        canceller,
    };
    let stop = Stop::new(pgwire.stopping.draining(), pgwire.stopping.cancelling());
    let client = Client::new(pool, stream, (buffer, unsaid), identity);
    let (mut stream, served) = client.serve(&startup, stop).await;
    match served {
        Ok(Ended::Left) => {}
        // What it was told last should reach it.
        Ok(Ended::Told) if stream.shutdown().await.is_ok() => linger(&mut stream).await,
        Ok(Ended::Told) => {}
        Err(error) => {
            tracing::debug!(connection = number, %error, "a binding's client is gone");
        }
    }
    Ok(())
}

/// One more client than there may be.
pub(super) fn too_many(max: usize) -> PgError {
    PgError::fatal(
        sqlstate::TOO_MANY_CONNECTIONS,
        format!("sorry, too many clients of bindings already: bindings.clients_max is {max}"),
    )
    .hint("Close connections, or raise bindings.clients_max in Dormouse's configuration.")
}

/// One more of an application, or of a user, than it may have.
pub(super) fn too_many_of(label: &str, max: usize) -> PgError {
    PgError::fatal(
        sqlstate::TOO_MANY_CONNECTIONS,
        format!("sorry, too many clients of {label} already: bindings.app_clients_max is {max}"),
    )
    .hint("Close connections, or raise bindings.app_clients_max in Dormouse's configuration.")
}

/// Somebody at the local socket who has no credential.
pub(super) fn no_credential(peer: Peer) -> PgError {
    tracing::info!(%peer, "who is no user of a binding was not let in at the bindings' socket");
    PgError::fatal(
        sqlstate::INVALID_AUTHORIZATION_SPECIFICATION,
        "this socket is for users of bindings",
    )
    .hint("Databases are reached at pgwire.listen; `dormouse binding credential` makes a user of a binding.")
}
