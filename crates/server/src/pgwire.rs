//! PostgreSQL's protocol over TCP.
//!
//! One task serves a connection: [`startup`] finds out what the client wants, [`connection`] passes
//! its messages to a database session and the answers back. Between the socket and the session
//! stands the [`inbox`]: it cuts the stream into whole messages, and since it is read while a
//! statement runs, it notices when the client goes. [`client_io`] is its other reader, for `COPY`.

mod authentication;
mod batch;
mod cancel;
mod client_io;
mod connection;
mod inbox;
mod login;
mod startup;
mod stream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use database::Databases;
use parking_lot::RwLock;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use wire::{PgError, sqlstate};

use crate::accept::accept;
use crate::auth::Auth;
use crate::connections::Connections;
use crate::identity::Passwords;
use crate::linger::linger;
use crate::options::PgwireOptions;
use crate::shutdown::Stopping;
use crate::telemetry::Telemetry;
use crate::tls::{Tls, TlsMode};
use cancel::CancelKeys;
use startup::Encryption;
use stream::Stream;

pub(crate) use login::Login;
pub(crate) use stream::Tunnel;

/// What all connections share.
pub(crate) struct Pgwire {
    databases: Databases,
    options: RwLock<Arc<PgwireOptions>>,
    auth: Auth,
    tls: Option<Arc<Tls>>,
    telemetry: Telemetry,
    cancel_keys: CancelKeys,
    passwords: Arc<Passwords>,
    sessions: Arc<Connections>,
    /// Sessions, and who has not said yet whether they want one.
    sockets: Arc<Connections>,
    stopping: Stopping,
    connection_number: AtomicU64,
}

impl Pgwire {
    pub(crate) fn new(
        databases: Databases,
        options: PgwireOptions,
        auth: Auth,
        passwords: Arc<Passwords>,
        tls: Option<Arc<Tls>>,
        telemetry: Telemetry,
        stopping: Stopping,
    ) -> Self {
        Self {
            databases,
            cancel_keys: CancelKeys::default(),
            sessions: Connections::new(),
            sockets: Connections::new(),
            options: RwLock::new(Arc::new(options)),
            auth,
            passwords,
            tls,
            telemetry,
            stopping,
            connection_number: AtomicU64::new(1),
        }
    }

    /// What holds for connections that begin now.
    pub(crate) fn options(&self) -> Arc<PgwireOptions> {
        Arc::clone(&self.options.read())
    }

    /// Connections that begin from now on have these. Where it listens stays.
    pub(crate) fn adjust(&self, options: PgwireOptions) {
        *self.options.write() = Arc::new(options);
    }

    /// How many sessions there are.
    pub(crate) fn sessions(&self) -> &Connections {
        &self.sessions
    }

    /// Serves until the server stops, and all connections have ended.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        accept(
            listener,
            &self.stopping,
            "a pgwire connection",
            |stream, peer| Arc::clone(&self).connection(stream, peer),
        )
        .await;
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        // Without it the kernel may hold an answer back until the last one is acknowledged.
        if stream.set_nodelay(true).is_ok() {
            self.serve_stream(Stream::Plain(stream), peer).await;
        }
    }

    /// Serves who comes through HTTP, to the end.
    pub(crate) async fn serve_tunnel(self: Arc<Self>, tunnel: Tunnel, peer: SocketAddr) {
        self.serve_stream(Stream::Tunnel(tunnel), peer).await;
    }

    async fn serve_stream(self: Arc<Self>, stream: Stream, peer: SocketAddr) {
        let connections_max = self.options().connections_max;
        let Some(_socket) = self.sockets.enter(connections_max.saturating_mul(2)) else {
            refuse(stream, &too_many(connections_max)).await;
            return;
        };
        let encryption = self.encryption();
        let mut stream = Some(stream);
        // What is over when a session begins takes no room in its connection.
        let limit = self.options().startup_timeout;
        let starting = Box::pin(startup::startup(&mut stream, &encryption, limit));
        let started = tokio::select! {
            started = starting => started,
            () = self.stopping.draining() => Err(shutting_down()),
        };
        let Some(mut stream) = stream else {
            if let Err(error) = started {
                tracing::info!(%peer, %error, "pgwire: no TLS connection");
            }
            return;
        };
        match started {
            Ok(Some(startup::Started::Session {
                startup,
                mut buffer,
            })) => {
                // Who was not let in takes no session's place.
                let asked =
                    authentication::authenticate(&self, &mut stream, peer, &startup, &mut buffer);
                let authority = match Box::pin(asked).await {
                    Ok(Some(authority)) => authority,
                    Ok(None) => return,
                    Err(error) => {
                        tracing::debug!(%peer, %error, "pgwire connection refused");
                        Box::pin(refuse(stream, &error)).await;
                        return;
                    }
                };
                let Some(_session) = self.sessions.enter(connections_max) else {
                    Box::pin(refuse(stream, &too_many(connections_max))).await;
                    return;
                };
                let number = self.connection_number.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(
                    connection = number,
                    %peer,
                    database = startup.database,
                    user = startup.user,
                    "pgwire connection begins"
                );
                let label = format!("connection {number}");
                let client = connection::Newcomer {
                    peer,
                    startup,
                    authority,
                    label,
                };
                let ended = connection::run(&self, stream, client, buffer);
                let ended = Box::pin(ended).await;
                tracing::debug!(connection = number, reason = %ended, "pgwire connection ends");
            }
            Ok(Some(startup::Started::Cancel { pid, key })) => self.cancel_keys.cancel(pid, &key),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%peer, %error, "pgwire connection refused");
                Box::pin(refuse(stream, &error)).await;
            }
        }
    }

    /// Whether clients are asked for a password before their session.
    pub(crate) fn asks_for_passwords(&self) -> bool {
        matches!(self.auth, Auth::Scram(_))
    }

    /// How encryption is dealt with in a connection that begins now.
    fn encryption(&self) -> Encryption {
        let mode = self.options().tls;
        let tls = self.tls.as_ref().filter(|_| mode != TlsMode::Off);
        Encryption {
            mode,
            identity: tls.map(|tls| tls.current()),
        }
    }
}

fn too_many(max: usize) -> PgError {
    PgError::fatal(
        sqlstate::TOO_MANY_CONNECTIONS,
        format!("sorry, too many clients already: pgwire.connections_max is {max}"),
    )
    .hint("Close connections, or raise pgwire.connections_max in Dormouse's configuration.")
}

/// The error of what a stop of the server ends.
pub(crate) fn shutting_down() -> PgError {
    PgError::fatal(
        sqlstate::ADMIN_SHUTDOWN,
        "terminating connection due to administrator command",
    )
}

/// Says why, and closes.
async fn refuse(mut stream: Stream, error: &PgError) {
    let mut out = BytesMut::new();
    connection::fatal(error).encode(&mut out);
    // It may be gone already; there is nobody else to tell.
    if stream.write_all(&out).await.is_ok() && stream.shutdown().await.is_ok() {
        linger(&mut stream).await;
    }
}
