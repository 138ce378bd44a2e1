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
mod guest;
mod inbox;
mod login;
mod peer;
mod startup;
mod stream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use database::{Authority, Databases};
use parking_lot::RwLock;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_util::task::AbortOnDropHandle;
use wire::pg::startup::Startup;
use wire::{PgError, sqlstate};

use crate::accept::accept;
use crate::auth::Auth;
use crate::bindings::{Guest, LeadsTo, LocalListener, ManagedBindings};
use crate::connections::{Connections, Place};
use crate::identity::{ADMINISTRATOR, Passwords};
use crate::linger::linger;
use crate::options::PgwireOptions;
use crate::shutdown::Stopping;
use crate::telemetry::Telemetry;
use crate::tls::{Tls, TlsMode};
use authentication::Admitted;
use cancel::CancelKeys;
use startup::Encryption;
use stream::Stream;

pub(crate) use login::Login;
pub(crate) use peer::Peer;
pub(crate) use stream::Tunnel;

/// A connection whose client has said that it wants a session, without its stream.
struct Arrived {
    /// What has come and was not read.
    buffer: BytesMut,
    startup: Startup,
    peer: Peer,
    /// Its place among those that are no session yet.
    socket: Place,
}

/// A connection whose client was let in.
struct Begun {
    stream: Stream,
    /// What has come and was not read.
    buffer: BytesMut,
    startup: Startup,
    peer: Peer,
    number: u64,
}

/// What all connections share.
pub(crate) struct Pgwire {
    databases: Databases,
    bindings: Option<Arc<ManagedBindings>>,
    options: RwLock<Arc<PgwireOptions>>,
    auth: Auth,
    tls: Option<Arc<Tls>>,
    telemetry: Telemetry,
    cancel_keys: CancelKeys,
    passwords: Arc<Passwords>,
    sessions: Arc<Connections>,
    /// Sessions, and who has not said yet whether they want one.
    sockets: Arc<Connections>,
    /// The same, by the local socket.
    local_sockets: Arc<Connections>,
    stopping: Stopping,
    connection_number: AtomicU64,
}

/// What clients come for.
pub(crate) struct Rooms {
    pub(crate) databases: Databases,
    pub(crate) bindings: Option<Arc<ManagedBindings>>,
}

impl Pgwire {
    pub(crate) fn new(
        rooms: Rooms,
        options: PgwireOptions,
        auth: Auth,
        passwords: Arc<Passwords>,
        tls: Option<Arc<Tls>>,
        telemetry: Telemetry,
        stopping: Stopping,
    ) -> Self {
        Self {
            databases: rooms.databases,
            bindings: rooms.bindings,
            cancel_keys: CancelKeys::default(),
            sessions: Connections::new(),
            sockets: Connections::new(),
            local_sockets: Connections::new(),
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

    /// Managed bindings, if there are any here.
    pub(crate) fn bindings(&self) -> Option<&Arc<ManagedBindings>> {
        self.bindings.as_ref()
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
            |(stream, peer)| Arc::clone(&self).connection(stream, peer),
        )
        .await;
    }

    /// Serves those who come by the local socket, until the server stops.
    pub(crate) async fn serve_local(self: Arc<Self>, listener: LocalListener) {
        let each = |stream: UnixStream| {
            let me = Arc::clone(&self);
            async move { me.serve_stream(Stream::Local(stream), Peer::Local).await }
        };
        accept(listener, &self.stopping, "a binding's connection", each).await;
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        // Without it the kernel may hold an answer back until the last one is acknowledged.
        if stream.set_nodelay(true).is_ok() {
            let peer = Peer::Network(peer);
            self.serve_stream(Stream::Plain(stream), peer).await;
        }
    }

    /// Serves who comes through HTTP, to the end.
    pub(crate) async fn serve_tunnel(self: Arc<Self>, tunnel: Tunnel, peer: SocketAddr) {
        let peer = Peer::Network(peer);
        self.serve_stream(Stream::Tunnel(tunnel), peer).await;
    }

    async fn serve_stream(self: Arc<Self>, stream: Stream, peer: Peer) {
        let connections_max = self.options().connections_max;
        let (sockets, connections_max) = match (&peer, &self.bindings) {
            // Backends do not take the places of whoever comes over the network.
            (Peer::Local, Some(bindings)) => (&self.local_sockets, bindings.options().clients_max),
            _ => (&self.sockets, connections_max),
        };
        let Some(socket) = sockets.enter(connections_max.saturating_mul(2)) else {
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
        let Some(stream) = stream else {
            if let Err(error) = started {
                tracing::info!(%peer, %error, "pgwire: no TLS connection");
            }
            return;
        };
        match started {
            Ok(Some(startup::Started::Session { startup, buffer })) => {
                let arrived = Arrived {
                    buffer,
                    startup,
                    peer,
                    socket,
                };
                Box::pin(self.arrive(stream, arrived)).await;
            }
            Ok(Some(startup::Started::Cancel { pid, key })) => {
                self.cancel_keys.cancel(pid, &key).await;
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%peer, %error, "pgwire connection refused");
                Box::pin(refuse(stream, &error)).await;
            }
        }
    }

    /// Goes on where its client is to be served: one of a pool logs in on the pool's own thread.
    async fn arrive(self: Arc<Self>, stream: Stream, arrived: Arrived) {
        let bindings = self.bindings.as_deref();
        let thread = bindings
            .filter(|_| stream.can_move())
            .and_then(|bindings| bindings.thread_of_user(&arrived.startup.user));
        let Some(thread) = thread.cloned() else {
            self.begin(stream, arrived, false).await;
            return;
        };
        let peer = arrived.peer;
        let moving = match stream.departing() {
            Ok(moving) => moving,
            Err(error) => {
                tracing::warn!(%peer, %error, "a binding's client cannot be moved to its thread");
                return;
            }
        };
        let beginning = async move {
            match moving.arrived() {
                Ok(stream) => self.begin(stream, arrived, true).await,
                Err(error) => {
                    tracing::warn!(%peer, %error, "a binding's client cannot be served on its thread");
                }
            }
        };
        // Whoever stops waiting for it ends it.
        let begun = AbortOnDropHandle::new(thread.spawn(beginning));
        if let Err(error) = begun.await {
            tracing::error!(%peer, %error, "a binding's client was not served to its end");
        }
    }

    /// Lets its client in, and serves it. `is_there` says whether this is the thread of its pool.
    async fn begin(self: Arc<Self>, mut stream: Stream, arrived: Arrived, is_there: bool) {
        let Arrived {
            mut buffer,
            startup,
            peer,
            socket,
        } = arrived;
        // Who was not let in takes no session's place.
        let asked = authentication::authenticate(&self, &mut stream, peer, &startup, &mut buffer);
        let admitted = match Box::pin(asked).await {
            Ok(Some(admitted)) => admitted,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%peer, %error, "pgwire connection refused");
                Box::pin(refuse(stream, &error)).await;
                return;
            }
        };
        let number = self.connection_number.fetch_add(1, Ordering::Relaxed);
        let begun = Begun {
            stream,
            buffer,
            startup,
            peer,
            number,
        };
        match admitted {
            Admitted::Session(authority) => {
                let _socket = socket;
                Box::pin(self.session(begun, authority)).await;
            }
            Admitted::Guest(guest, unsaid) => {
                // They are counted for themselves.
                drop(socket);
                Box::pin(self.guest(begun, guest, unsaid, is_there)).await;
            }
        }
    }

    /// A session in a database of ours.
    async fn session(&self, begun: Begun, authority: Authority) {
        let connections_max = self.options().connections_max;
        // Who was not let in takes no session's place.
        let Some(_session) = self.sessions.enter(connections_max) else {
            refuse(begun.stream, &too_many(connections_max)).await;
            return;
        };
        let was_asked = self.asks_for_passwords();
        let label = format!("connection {}", begun.number);
        self.run(begun, authority, was_asked, label).await;
    }

    /// Who has come by a binding.
    async fn guest(
        self: &Arc<Self>,
        mut begun: Begun,
        guest: Guest,
        unsaid: BytesMut,
        is_there: bool,
    ) {
        let Some(bindings) = &self.bindings else {
            return;
        };
        let Guest {
            leads_to,
            label,
            owner,
        } = guest;
        let app_clients_max = bindings.options().app_clients_max;
        let Some(_share) = bindings.shares.enter(&owner, app_clients_max) else {
            refuse(begun.stream, &guest::too_many_of(&label, app_clients_max)).await;
            return;
        };
        let clients_max = bindings.options().clients_max;
        let Some(_place) = bindings.clients.enter(clients_max) else {
            refuse(begun.stream, &guest::too_many(clients_max)).await;
            return;
        };
        let Begun { number, peer, .. } = begun;
        tracing::debug!(connection = number, %peer, client = &*label, "a binding's client begins");
        match leads_to {
            LeadsTo::Pool(pool, binding) => {
                let me = Arc::clone(self);
                let said = (label, unsaid);
                let served = match is_there {
                    true => guest::serve(me, begun, said, pool).await,
                    false => {
                        let thread = bindings.thread_of(&binding);
                        guest::serve_on(thread, me, begun, said, pool).await
                    }
                };
                if let Err(error) = served {
                    tracing::warn!(connection = number, %error, "a binding's client was not served");
                }
            }
            LeadsTo::Database(name) => {
                begun.startup.database = name.to_string();
                begun.startup.user = ADMINISTRATOR.to_owned();
                if begun.stream.write_all(&unsaid).await.is_err() {
                    return;
                }
                let label = label.to_string();
                self.run(begun, Authority::Database, true, label).await;
            }
        }
        tracing::debug!(connection = number, "a binding's client ends");
    }

    async fn run(&self, begun: Begun, authority: Authority, was_asked: bool, label: String) {
        let Begun {
            stream,
            buffer,
            startup,
            peer,
            number,
        } = begun;
        tracing::debug!(
            connection = number,
            %peer,
            database = startup.database,
            user = startup.user,
            "pgwire connection begins"
        );
        let client = connection::Newcomer {
            peer,
            startup,
            authority,
            was_asked,
            label,
        };
        let ended = Box::pin(connection::run(self, stream, client, buffer)).await;
        tracing::debug!(connection = number, reason = %ended, "pgwire connection ends");
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
