//! From the first byte to the wish.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wire::pg::startup::{FirstPacket, Replication, Startup};
use wire::{PgError, sqlstate};

/// "No" to the wish for encryption; the client goes on without, or goes.
const NO_ENCRYPTION: &[u8] = b"N";

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

/// Reads until the client has said what it wants; nothing if it went away before.
pub(super) async fn startup(
    stream: &mut TcpStream,
    startup_timeout: Duration,
) -> Result<Option<Started>, PgError> {
    match timeout(startup_timeout, read(stream)).await {
        Ok(started) => started,
        Err(_) => Err(PgError::fatal(
            sqlstate::PROTOCOL_VIOLATION,
            format!(
                "no whole startup packet within pgwire.startup_timeout_ms, {}",
                startup_timeout.as_millis()
            ),
        )),
    }
}

async fn read(stream: &mut TcpStream) -> Result<Option<Started>, PgError> {
    let mut buffer = BytesMut::with_capacity(8 * 1024);
    // PostgreSQL, too, answers each wish for encryption once.
    let (mut ssl_asked, mut gss_asked) = (false, false);
    loop {
        let packet = match FirstPacket::split(&mut buffer)? {
            Some(packet) => packet,
            None => match stream.read_buf(&mut buffer).await {
                Ok(1..) => continue,
                Ok(0) | Err(_) => return Ok(None),
            },
        };
        let asked = match packet {
            FirstPacket::Startup(startup) if startup.replication != Replication::No => {
                return Err(PgError::fatal(
                    sqlstate::FEATURE_NOT_SUPPORTED,
                    "replication connections are not supported",
                )
                .hint("Leave \"replication\" out of the connection string."));
            }
            FirstPacket::Startup(startup) => {
                return Ok(Some(Started::Session { startup, buffer }));
            }
            FirstPacket::CancelRequest { pid, key } => {
                return Ok(Some(Started::Cancel { pid, key }));
            }
            FirstPacket::SslRequest => &mut ssl_asked,
            FirstPacket::GssEncRequest => &mut gss_asked,
        };
        if std::mem::replace(asked, true) {
            return Err(PgError::fatal(
                sqlstate::PROTOCOL_VIOLATION,
                "encryption was asked for twice, and refused before",
            ));
        }
        // Bytes behind the wish would be an attacker's, sent in the hope that encryption begins.
        if !buffer.is_empty() {
            return Err(PgError::fatal(
                sqlstate::PROTOCOL_VIOLATION,
                "received unencrypted data after a request for encryption",
            ));
        }
        if stream.write_all(NO_ENCRYPTION).await.is_err() {
            return Ok(None);
        }
    }
}
