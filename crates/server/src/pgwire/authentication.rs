//! Asking a client for its password.
//!
//! 1. Until a client has proved who it is, it learns nothing of roles and databases: one that is not
//!    there goes the same way as one with another password.
//! 2. A database is woken only for a client that answers, and makes none.
//! 3. Why somebody was not let in is in the log, not in the answer. No password and no verifier is in
//!    either.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use database::Authority;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use wire::pg::scram::{Exchange, NONCE_BYTES, Refused};
use wire::pg::startup::Startup;
use wire::pg::{Frame, backend, frontend, sasl};
use wire::{PgError, sqlstate};
use zeroize::Zeroizing;

use super::login::{Login, unreadable, wrong_password};
use super::stream::Stream;
use super::{Pgwire, shutting_down};
use crate::auth::{Administrator, Auth};

/// A client that was asked.
struct Asked<'a> {
    stream: &'a mut Stream,
    /// What has come and was not read.
    buffer: &'a mut BytesMut,
    patience: Duration,
}

/// Asks for a password, if one is asked for: what the session may do. Nothing if the client went.
///
/// `buffer` is what came behind the startup packet, and then what came behind the last answer.
pub(super) async fn authenticate(
    pgwire: &Pgwire,
    stream: &mut Stream,
    peer: SocketAddr,
    startup: &Startup,
    buffer: &mut BytesMut,
) -> Result<Option<Authority>, PgError> {
    let Auth::Scram(administrator) = &pgwire.auth else {
        return Ok(Some(Authority::Node));
    };
    let in_tunnel = stream.is_tunnel();
    let asked = Asked {
        stream,
        buffer,
        patience: pgwire.options().auth_timeout,
    };
    let conversation = async {
        match in_tunnel {
            true => ask_plainly(pgwire, asked, peer, startup).await,
            false => converse(pgwire, administrator, asked, peer, startup).await,
        }
    };
    tokio::select! {
        authority = conversation => authority,
        () = pgwire.stopping.draining() => Err(shutting_down()),
    }
}

/// Asks for the password as it is. Neon's driver sends it in a tunnel before it is asked, to save a round trip, and
/// has no other way then.
async fn ask_plainly(
    pgwire: &Pgwire,
    mut asked: Asked<'_>,
    peer: SocketAddr,
    startup: &Startup,
) -> Result<Option<Authority>, PgError> {
    let mut out = BytesMut::new();
    negotiate(startup, &mut out);
    sasl::request_password(&mut out);
    let Some(answer) = asked.ask(&out).await? else {
        return Ok(None);
    };
    let login = Login {
        user: startup.user.clone(),
        database: startup.database.clone(),
        password: Zeroizing::new(sasl::decode_password(answer.body())?.to_owned()),
    };
    let origin = format!("a tunnel of {peer}");
    pgwire.check_password(&login, &origin).await.map(Some)
}

fn negotiate(startup: &Startup, out: &mut BytesMut) {
    if startup.must_negotiate() {
        backend::negotiate_protocol_version(
            out,
            startup.negotiated_minor(),
            &startup.unknown_protocol_options,
        );
    }
}

async fn converse(
    pgwire: &Pgwire,
    administrator: &Administrator,
    mut asked: Asked<'_>,
    peer: SocketAddr,
    startup: &Startup,
) -> Result<Option<Authority>, PgError> {
    let channel = asked.stream.channel();
    let mut out = BytesMut::new();
    negotiate(startup, &mut out);
    sasl::request(&mut out, channel.mechanisms());
    let Some(first) = asked.ask(&out).await? else {
        return Ok(None);
    };
    let first = sasl::InitialResponse::decode(first.body())?;

    let (database, user) = (&*startup.database, &*startup.user);
    let known = pgwire
        .passwords
        .look_up(administrator, database, user)
        .await;
    let known = known.map_err(|error| unreadable(database, user, &error))?;
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|error| {
        PgError::fatal(
            sqlstate::INTERNAL_ERROR,
            format!("the system gave no random bytes for a nonce: {error}"),
        )
    })?;
    let exchange = Exchange::new(known.verifier, channel);
    let data = first.data.unwrap_or_default();
    let (said, challenge) = exchange.challenge(first.mechanism, data, &nonce)?;
    out.clear();
    sasl::challenge(&mut out, said.as_bytes());
    let Some(last) = asked.ask(&out).await? else {
        return Ok(None);
    };
    let outcome = match challenge.judge(last.body()) {
        Ok(outcome) if known.reason.is_none() => outcome,
        Err(Refused::Error(error)) => return Err(error),
        _ => {
            tracing::info!(
                %peer,
                database = startup.database,
                user = startup.user,
                reason = known.reason.as_deref().unwrap_or("the password is wrong"),
                "password authentication failed"
            );
            return Err(wrong_password(&startup.user));
        }
    };
    if let Some(credentials) = &known.credentials {
        credentials.admit()?;
    }
    out.clear();
    sasl::outcome(&mut out, outcome.as_bytes());
    if asked.say(&out).await.is_err() {
        return Ok(None);
    }
    Ok(Some(match known.credentials {
        Some(_) => Authority::Role,
        None => Authority::Node,
    }))
}

impl Asked<'_> {
    async fn say(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Says something, and waits for the answer; nothing if the client went.
    async fn ask(&mut self, bytes: &[u8]) -> Result<Option<Frame>, PgError> {
        if self.say(bytes).await.is_err() {
            return Ok(None);
        }
        let patience = self.patience;
        timeout(patience, self.answer()).await.unwrap_or_else(|_| {
            Err(PgError::fatal(
                sqlstate::PROTOCOL_VIOLATION,
                format!(
                    "no answer to a request for a password within auth.timeout_ms, {}",
                    patience.as_millis()
                ),
            ))
        })
    }

    async fn answer(&mut self) -> Result<Option<Frame>, PgError> {
        loop {
            match self.buffer.first() {
                None | Some(&frontend::kind::PASSWORD) => {}
                // Some clients ask for the password only now, and come again with it.
                Some(&frontend::kind::TERMINATE) => return Ok(None),
                Some(other) => {
                    return Err(PgError::fatal(
                        sqlstate::PROTOCOL_VIOLATION,
                        format!("expected SASL response, got message type {other}"),
                    ));
                }
            }
            let frame = Frame::split(self.buffer, sasl::MESSAGE_BYTES_MAX)
                .map_err(|error| PgError::fatal(error.code(), "invalid SASL response length"))?;
            if let Some(frame) = frame {
                return Ok(Some(frame));
            }
            match self.stream.read_buf(self.buffer).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Ok(None),
            }
        }
    }
}
