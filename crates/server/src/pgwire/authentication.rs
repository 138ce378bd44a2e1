//! Asking a client for its password.
//!
//! 1. Until a client has proved who it is, it learns nothing of roles and databases: one that is not
//!    there goes the same way as one with another password.
//! 2. A database is woken only for a client that answers, and makes none.
//! 3. Why somebody was not let in is in the log, not in the answer. No password and no verifier is in
//!    either.

use std::time::Duration;

use bytes::BytesMut;
use database::Authority;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use wire::pg::scram::{Exchange, NONCE_BYTES, Refused, Verifier};
use wire::pg::startup::Startup;
use wire::pg::{Frame, backend, frontend, sasl};
use wire::{PgError, sqlstate};
use zeroize::Zeroizing;

use super::guest;
use super::login::{Login, unreadable, wrong_password};
use super::peer::Peer;
use super::stream::Stream;
use super::{Pgwire, shutting_down};
use crate::auth::{Administrator, Auth};
use crate::bindings::{Guest, Proof, Way};

/// A client that was asked.
struct Asked<'a> {
    stream: &'a mut Stream,
    /// What has come and was not read.
    buffer: &'a mut BytesMut,
    patience: Duration,
    peer: Peer,
    startup: &'a Startup,
}

/// What somebody may do who was let in.
pub(super) enum Admitted {
    /// A session in the database that it has named.
    Session(Authority),
    /// What its binding leads to, and what is to be said before the session's first word: it leaves with it.
    Guest(Guest, BytesMut),
}

/// Asks for a password, if one is asked for: what the session may do. Nothing if the client went.
///
/// `buffer` is what came behind the startup packet, and then what came behind the last answer.
pub(super) async fn authenticate(
    pgwire: &Pgwire,
    stream: &mut Stream,
    peer: Peer,
    startup: &Startup,
    buffer: &mut BytesMut,
) -> Result<Option<Admitted>, PgError> {
    let is_local = peer == Peer::Local;
    let way = match is_local {
        true => Way::Socket,
        false => Way::Network,
    };
    let bindings = pgwire.bindings.as_deref();
    let guest = bindings.and_then(|bindings| Some((bindings, bindings.proof(&startup.user, way)?)));
    let administrator = match &pgwire.auth {
        Auth::Scram(administrator) => Some(administrator),
        _ => None,
    };
    if guest.is_none() && is_local {
        return Err(guest::no_credential(peer));
    }
    if guest.is_none() && administrator.is_none() {
        return Ok(Some(Admitted::Session(Authority::Node)));
    }
    let in_tunnel = stream.is_tunnel();
    let asked = Asked {
        stream,
        buffer,
        patience: pgwire.options().auth_timeout,
        peer,
        startup,
    };
    let conversation = async {
        match (guest, administrator) {
            (Some((bindings, proof)), _) => {
                let proved = asked.prove(pgwire, proof, in_tunnel).await?;
                let Some(unsaid) = proved else {
                    return Ok(None);
                };
                let guest = bindings.enter(&startup.user, way)?;
                Ok(Some(Admitted::Guest(guest, unsaid)))
            }
            (None, Some(administrator)) => {
                let authority = match in_tunnel {
                    true => ask_plainly(pgwire, asked).await?,
                    false => converse(pgwire, administrator, asked).await?,
                };
                Ok(authority.map(Admitted::Session))
            }
            (None, None) => Ok(Some(Admitted::Session(Authority::Node))),
        }
    };
    tokio::select! {
        admitted = conversation => admitted,
        () = pgwire.stopping.draining() => Err(shutting_down()),
    }
}

/// Asks for the password as it is. Neon's driver sends it in a tunnel before it is asked, to save a round trip, and
/// has no other way then.
async fn ask_plainly(pgwire: &Pgwire, mut asked: Asked<'_>) -> Result<Option<Authority>, PgError> {
    let Some(password) = asked.password().await? else {
        return Ok(None);
    };
    let login = Login {
        user: asked.startup.user.clone(),
        database: asked.startup.database.clone(),
        password,
    };
    let origin = format!("a tunnel of {}", asked.peer);
    pgwire.check_password(&login, &origin).await.map(Some)
}

async fn converse(
    pgwire: &Pgwire,
    administrator: &Administrator,
    mut asked: Asked<'_>,
) -> Result<Option<Authority>, PgError> {
    let Some(first) = asked.first_of_scram().await? else {
        return Ok(None);
    };
    let (database, user) = (&*asked.startup.database, &*asked.startup.user);
    let known = pgwire
        .passwords
        .look_up(administrator, database, user)
        .await;
    let known = known.map_err(|error| unreadable(database, user, &error))?;
    let exchange = (known.verifier, known.reason.as_deref());
    let Some(outcome) = asked.scram(&first, exchange).await? else {
        return Ok(None);
    };
    if let Some(credentials) = &known.credentials {
        credentials.admit()?;
    }
    if asked.let_in(&outcome).await.is_err() {
        return Ok(None);
    }
    Ok(Some(match known.credentials {
        Some(_) => Authority::Role,
        None => Authority::Node,
    }))
}

impl Asked<'_> {
    /// Has a user of a binding prove that it is one: what is still to be said to it, or nothing if it went.
    async fn prove(
        mut self,
        pgwire: &Pgwire,
        proof: Proof,
        in_tunnel: bool,
    ) -> Result<Option<BytesMut>, PgError> {
        let user = &self.startup.user;
        match proof {
            Proof::Verifier(verifier) if !in_tunnel => {
                let Some(first) = self.first_of_scram().await? else {
                    return Ok(None);
                };
                let outcome = self.scram(&first, (verifier, None)).await?;
                Ok(outcome.map(|outcome| {
                    let mut unsaid = BytesMut::new();
                    sasl::outcome(&mut unsaid, outcome.as_bytes());
                    unsaid
                }))
            }
            proof => {
                let Some(password) = self.password().await? else {
                    return Ok(None);
                };
                let is_right = match proof {
                    Proof::Digest(digest) => Proof::is_digest_of(&digest, &password),
                    Proof::Verifier(verifier) => {
                        let checked = pgwire.passwords.is_of(verifier, &password).await;
                        checked.map_err(|error| unreadable(&self.startup.database, user, &error))?
                    }
                };
                match is_right {
                    true => Ok(Some(BytesMut::new())),
                    false => {
                        tracing::info!(peer = %self.peer, user, "a binding's user has another password");
                        Err(wrong_password(user))
                    }
                }
            }
        }
    }

    /// Asks for the password as it is.
    async fn password(&mut self) -> Result<Option<Zeroizing<String>>, PgError> {
        let mut out = self.opening();
        sasl::request_password(&mut out);
        let Some(answer) = self.ask(&out).await? else {
            return Ok(None);
        };
        let password = sasl::decode_password(answer.body())?;
        Ok(Some(Zeroizing::new(password.to_owned())))
    }

    /// Which version is spoken, where that is another than the client's.
    fn opening(&self) -> BytesMut {
        let mut out = BytesMut::new();
        if self.startup.must_negotiate() {
            backend::negotiate_protocol_version(
                &mut out,
                self.startup.negotiated_minor(),
                &self.startup.unknown_protocol_options,
            );
        }
        out
    }

    /// Asks for SCRAM.
    async fn first_of_scram(&mut self) -> Result<Option<Frame>, PgError> {
        let mut out = self.opening();
        sasl::request(&mut out, self.stream.channel().mechanisms());
        self.ask(&out).await
    }

    /// The rest of SCRAM: what is to be said to a client that has proved who it is.
    async fn scram(
        &mut self,
        first: &Frame,
        (verifier, reason): (Verifier, Option<&str>),
    ) -> Result<Option<String>, PgError> {
        let first = sasl::InitialResponse::decode(first.body())?;
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|error| {
            PgError::fatal(
                sqlstate::INTERNAL_ERROR,
                format!("the system gave no random bytes for a nonce: {error}"),
            )
        })?;
        let exchange = Exchange::new(verifier, self.stream.channel());
        let data = first.data.unwrap_or_default();
        let (said, challenge) = exchange.challenge(first.mechanism, data, &nonce)?;
        let mut out = BytesMut::new();
        sasl::challenge(&mut out, said.as_bytes());
        let Some(last) = self.ask(&out).await? else {
            return Ok(None);
        };
        match challenge.judge(last.body()) {
            Ok(outcome) if reason.is_none() => Ok(Some(outcome)),
            Err(Refused::Error(error)) => Err(error),
            _ => {
                tracing::info!(
                    peer = %self.peer,
                    database = self.startup.database,
                    user = self.startup.user,
                    reason = reason.unwrap_or("the password is wrong"),
                    "password authentication failed"
                );
                Err(wrong_password(&self.startup.user))
            }
        }
    }

    async fn let_in(&mut self, outcome: &str) -> std::io::Result<()> {
        let mut out = BytesMut::new();
        sasl::outcome(&mut out, outcome.as_bytes());
        self.say(&out).await
    }

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
