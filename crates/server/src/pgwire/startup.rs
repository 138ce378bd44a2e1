//! From the first byte to the wish.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use wire::pg::startup::{FirstPacket, Replication, Startup};
use wire::{PgError, sqlstate};

use super::stream::{Carrier, Stream};
use crate::tls::{Identity, POSTGRESQL, TlsMode};

/// "Yes" to the wish for TLS; the client's handshake follows.
const TLS: &[u8] = b"S";

/// "No" to the wish for encryption; the client goes on without, or goes.
const NO_ENCRYPTION: &[u8] = b"N";

/// The first byte of a TLS handshake, and of no startup packet that is short enough.
const HANDSHAKE: u8 = 0x16;

/// What a client wants.
pub(super) enum Started {
    /// A session.
    Session {
        startup: Startup,
        /// What came with the packet and belongs to the session.
        buffer: BytesMut,
    },
    /// Another session's statement to end.
    Cancel { pid: u32, key: Bytes },
}

/// How encryption is dealt with.
pub(super) struct Encryption {
    pub(super) mode: TlsMode,
    /// None where there is no certificate, or TLS is off.
    pub(super) identity: Option<Arc<Identity>>,
}

/// Reads until the client has said what it wants; nothing if it went away before.
///
/// The stream is another one once it is encrypted, and none if that failed: then there is nobody to
/// talk to any more.
pub(super) async fn startup(
    stream: &mut Option<Stream>,
    encryption: &Encryption,
    startup_timeout: Duration,
) -> Result<Option<Started>, PgError> {
    match timeout(startup_timeout, read(stream, encryption)).await {
        Ok(started) => started,
        Err(_) => Err(violation(&format!(
            "no whole startup packet within pgwire.startup_timeout_ms, {}",
            startup_timeout.as_millis()
        ))),
    }
}

async fn read(
    slot: &mut Option<Stream>,
    encryption: &Encryption,
) -> Result<Option<Started>, PgError> {
    if let Some(identity) = &encryption.identity
        && begins_with_handshake(slot).await
    {
        accept(slot, identity).await?;
        check_protocol(slot)?;
    }
    let mut buffer = BytesMut::with_capacity(8 * 1024);
    // PostgreSQL, too, answers each wish for encryption once.
    let (mut ssl_asked, mut gss_asked) = (false, false);
    loop {
        let Some(stream) = slot else {
            return Ok(None);
        };
        let packet = match FirstPacket::split(&mut buffer)? {
            Some(packet) => packet,
            None => match stream.read_buf(&mut buffer).await {
                Ok(1..) => continue,
                Ok(0) | Err(_) => return Ok(None),
            },
        };
        let is_encrypted = stream.is_encrypted();
        let (asked, identity) = match packet {
            FirstPacket::Startup(startup) if startup.replication != Replication::No => {
                return Err(PgError::fatal(
                    sqlstate::FEATURE_NOT_SUPPORTED,
                    "replication connections are not supported",
                )
                .hint("Leave \"replication\" out of the connection string."));
            }
            FirstPacket::Startup(_) if encryption.mode == TlsMode::Require && !is_encrypted => {
                return Err(tls_required());
            }
            FirstPacket::Startup(startup) => {
                return Ok(Some(Started::Session { startup, buffer }));
            }
            FirstPacket::CancelRequest { pid, key } => {
                return Ok(Some(Started::Cancel { pid, key }));
            }
            FirstPacket::SslRequest => {
                let has_none = matches!(stream, Stream::Plain(_) | Stream::Tunnel(_));
                let identity = encryption.identity.as_ref().filter(|_| has_none);
                (&mut ssl_asked, identity)
            }
            FirstPacket::GssEncRequest => (&mut gss_asked, None),
        };
        if std::mem::replace(asked, true) {
            return Err(violation("encryption was asked for twice"));
        }
        // Bytes behind the wish would be an attacker's, sent in the hope that encryption begins.
        if !buffer.is_empty() {
            return Err(violation(
                "received unencrypted data after a request for encryption",
            ));
        }
        let answer = match identity {
            Some(_) => TLS,
            None => NO_ENCRYPTION,
        };
        if stream.write_all(answer).await.is_err() || stream.flush().await.is_err() {
            return Ok(None);
        }
        if let Some(identity) = identity {
            accept(slot, identity).await?;
        }
    }
}

/// Whether a client begins with TLS at once (`sslnegotiation=direct`).
async fn begins_with_handshake(stream: &Option<Stream>) -> bool {
    let mut first = [0];
    match stream {
        Some(Stream::Plain(stream)) => {
            matches!(stream.peek(&mut first).await, Ok(1)) && first[0] == HANDSHAKE
        }
        _ => false,
    }
}

async fn accept(slot: &mut Option<Stream>, identity: &Arc<Identity>) -> Result<(), PgError> {
    let (stream, in_tunnel): (Box<dyn Carrier>, bool) = match slot.take() {
        Some(Stream::Plain(stream)) => (Box::new(stream), false),
        Some(Stream::Tunnel(tunnel)) => (Box::new(tunnel.stream), true),
        other @ (Some(Stream::Tls { .. } | Stream::Local(_)) | None) => {
            *slot = other;
            return Ok(());
        }
    };
    let accepted = identity.pgwire().accept(stream).await;
    let stream = accepted.map_err(|error| violation(&format!("the TLS handshake: {error}")))?;
    *slot = Some(Stream::Tls {
        stream: Box::new(stream),
        in_tunnel,
        identity: Arc::clone(identity),
    });
    Ok(())
}

/// Who begins with TLS at once must have named PostgreSQL's protocol in it: otherwise a page that a
/// browser was made to open could speak to us under another protocol's name.
fn check_protocol(stream: &Option<Stream>) -> Result<(), PgError> {
    match stream {
        Some(Stream::Tls { stream, .. })
            if stream.get_ref().1.alpn_protocol() != Some(POSTGRESQL) =>
        {
            Err(violation(
                "received direct SSL connection request without ALPN protocol negotiation extension",
            ))
        }
        _ => Ok(()),
    }
}

fn tls_required() -> PgError {
    PgError::fatal(
        sqlstate::INVALID_AUTHORIZATION_SPECIFICATION,
        "connections without TLS are not accepted: pgwire.tls is \"require\"",
    )
    .hint("Set sslmode=verify-full, or another mode with TLS, in the client.")
}

fn violation(message: &str) -> PgError {
    PgError::fatal(sqlstate::PROTOCOL_VIOLATION, message)
}
