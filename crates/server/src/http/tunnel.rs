//! PostgreSQL's protocol in binary messages of a WebSocket: `GET /v2?address=host:port`, for drivers that have no TCP.
//!
//! The address is where Neon's driver would have its proxy connect. Here it goes nowhere but to this server, whatever
//! it says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use axum::http::{Request, StatusCode};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};

use super::caller::{Caller, Scope};
use super::connection::Peer;
use super::error::ApiError;
use super::origin;
use super::router::App;
use super::upgraded::{NOT_ADMITTED, Upgrade};
use crate::identity::{Gatekeeper, Pass};
use crate::pgwire::Tunnel;

/// Bytes on their way in each direction between a WebSocket and its connection.
const BUFFER_BYTES: usize = 64 * 1024;

/// The buffer of a WebSocket, for what it reads at once.
const READ_BYTES: usize = 8 * 1024;

/// Bytes of an answer that become one message.
const MESSAGE_BYTES: usize = 32 * 1024;

/// How long who has to go may take to hear it.
const GOODBYE_MAX: Duration = Duration::from_millis(1_000);

pub(super) async fn tunnel(
    State(app): State<App>,
    Upgrade(upgrade): Upgrade,
    request: Request<axum::body::Body>,
) -> Result<Response, ApiError> {
    origin::check(request.headers(), &app.options.websocket.origins)?;
    let shown = request.extensions().get::<Caller>();
    let mut pass = None;
    if app.security.gatekeeper.asks() && !app.pgwire.asks_for_passwords() {
        // Where PostgreSQL's protocol asks for nothing, whoever gets through may do everything.
        let shown = shown.ok_or_else(|| {
            ApiError::request(
                StatusCode::UNAUTHORIZED,
                "the tunnel needs a token of the scope \"admin\": auth.method is \"trust\"",
            )
        })?;
        shown.expect_node(Scope::Admin)?;
        let gatekeeper = &app.security.gatekeeper;
        let head = (request.headers(), request.extensions());
        pass = Some(gatekeeper.pass(head, None, shown));
    }
    let peer = request.extensions().get::<Peer>().copied();
    let peer = peer.unwrap_or_else(|| Peer {
        address: std::net::SocketAddr::from(([0; 4], 0)),
        is_encrypted: false,
    });
    let place = app.upgraded.enter(app.options.websocket.connections_max)?;
    let share = app.share_of_websockets(request.extensions().get(), None)?;
    let message_bytes_max = app.options.websocket.message_bytes_max;
    let upgrade = upgrade
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_message_size(message_bytes_max)
        .max_frame_size(message_bytes_max);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let _place = (place, share);
        let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
        let tunnel = Tunnel {
            stream: theirs,
            is_encrypted: peer.is_encrypted,
        };
        let served = tokio::spawn(Arc::clone(&app.pgwire).serve_tunnel(tunnel, peer.address));
        let stays = Stays {
            gatekeeper: &app.security.gatekeeper,
            pass,
        };
        let ping = app.options.websocket.ping;
        carry(socket, ours, ping, &stays).await;
        // A connection that panicked has ended too.
        let _ = served.await;
    }))
}

/// Whether a client may stay; always without a pass.
struct Stays<'a> {
    gatekeeper: &'a Gatekeeper,
    pass: Option<Pass>,
}

impl Stays<'_> {
    async fn has_to_go(&self) {
        match &self.pass {
            Some(pass) => self.gatekeeper.has_to_go(pass).await,
            None => std::future::pending().await,
        }
    }

    async fn may_go_on(&self) -> bool {
        match &self.pass {
            Some(pass) => self.gatekeeper.may_go_on(pass).await,
            None => true,
        }
    }
}

/// Carries bytes in both directions until one of them ends, or the client has to go.
async fn carry(socket: WebSocket, stream: DuplexStream, ping: Duration, stays: &Stays<'_>) {
    let (mut sink, messages) = socket.split();
    let (read, write) = tokio::io::split(stream);
    let heard = Heard::default();
    // When our side has said its last word, the client is not waited for; and the other way round.
    tokio::select! {
        () = answers(read, &mut sink, ping, &heard) => return,
        end = requests(messages, write, &heard, stays) => match end {
            End::Gone => return,
            End::Expelled => {}
        },
        () = stays.has_to_go() => {}
    }
    let close = CloseFrame {
        code: NOT_ADMITTED,
        reason: "what was shown to come in is not accepted any more".into(),
    };
    // Who does not read is left all the same.
    let _ = timeout(GOODBYE_MAX, sink.send(Message::Close(Some(close)))).await;
}

/// Why nothing more is taken of a client.
enum End {
    Gone,
    Expelled,
}

async fn requests(
    mut messages: SplitStream<WebSocket>,
    mut write: WriteHalf<DuplexStream>,
    heard: &Heard,
    stays: &Stays<'_>,
) -> End {
    while let Some(Ok(message)) = messages.next().await {
        heard.word.store(true, Ordering::Relaxed);
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => Bytes::from(text),
            // After it the stream ends, once it is answered.
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => continue,
        };
        heard.is_busy.store(true, Ordering::Relaxed);
        if !stays.may_go_on().await {
            return End::Expelled;
        }
        let written = write.write_all(&bytes).await;
        heard.word.store(true, Ordering::Relaxed);
        heard.is_busy.store(false, Ordering::Relaxed);
        if written.is_err() {
            // What it says at last is on its way.
            std::future::pending::<()>().await;
        }
    }
    // The other half is dropped with this: the connection finds its client gone.
    End::Gone
}

/// Sends what the session says, and asks each `ping` whether the client is still there: one that says nothing from one time to
/// the next is left.
async fn answers(
    mut read: ReadHalf<DuplexStream>,
    sink: &mut SplitSink<WebSocket, Message>,
    ping: Duration,
    heard: &Heard,
) {
    let mut buffer = BytesMut::new();
    let mut pings = interval_at(Instant::now() + ping, ping);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        buffer.reserve(MESSAGE_BYTES);
        let message = tokio::select! {
            read = read.read_buf(&mut buffer) => match read {
                Ok(1..) => Message::Binary(buffer.split().freeze()),
                Ok(0) | Err(_) => break,
            },
            _ = pings.tick() => match heard.is_silent() {
                false => Message::Ping(Bytes::new()),
                true => return,
            },
        };
        let sent = tokio::select! {
            sent = sink.send(message) => sent,
            // It reads nothing, and says nothing.
            () = until_silent(&mut pings, heard) => return,
        };
        if sent.is_err() {
            return;
        }
    }
    let close = CloseFrame {
        code: close_code::NORMAL,
        reason: "".into(),
    };
    // It may be gone already.
    let _ = sink.send(Message::Close(Some(close))).await;
}

/// Waits until the client has said nothing from one time to the next.
async fn until_silent(pings: &mut Interval, heard: &Heard) {
    loop {
        pings.tick().await;
        if heard.is_silent() {
            return;
        }
    }
}

/// What was heard of a client since it was last asked.
struct Heard {
    word: AtomicBool,
    /// Nobody listens: the session has not taken what came before.
    is_busy: AtomicBool,
}

impl Default for Heard {
    fn default() -> Self {
        Self {
            word: AtomicBool::new(true),
            is_busy: AtomicBool::new(false),
        }
    }
}

impl Heard {
    fn is_silent(&self) -> bool {
        !self.word.swap(false, Ordering::Relaxed) && !self.is_busy.load(Ordering::Relaxed)
    }
}
