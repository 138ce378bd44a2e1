//! One session over one socket.

use std::convert::Infallible;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use database::{
    Authority, Canceller, ClientIo, DatabaseName, Doer, Session, SessionEnded, SessionOptions,
};
use parking_lot::Mutex;
use tracing::Instrument as _;
use wire::pg::backend;
use wire::pg::startup::Startup;
use wire::{PgError, Severity, sqlstate};

use super::cancel::Cancels;
use super::client_io::Client;
use super::inbox::{End, Inbox, Reader};
use super::peer::Peer;
use super::stream::{Stream, WriteHalf};
use super::{Pgwire, shutting_down};
use crate::insist::insist;
use crate::linger::linger;

/// How long commits that do not wait for their WAL (`synchronous_commit = off`) stay unwritten while
/// their session is silent, as PostgreSQL's `wal_writer_delay`.
const WAL_WRITER_DELAY: Duration = Duration::from_millis(200);

/// How a connection ended, for the log.
pub(super) enum Ended {
    /// The client closed it.
    ByClient,
    /// The client went in the midst, or its connection broke.
    Gone,
    /// It is to be told why.
    ByError(PgError),
    /// Postgres itself has told it why.
    ByPostgres(PgError),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByClient => f.write_str("closed by the client"),
            Self::Gone => f.write_str("the client is gone"),
            Self::ByError(error) | Self::ByPostgres(error) => error.for_log().fmt(f),
        }
    }
}

impl From<End> for Ended {
    fn from(end: End) -> Self {
        match end {
            End::Terminate => Self::ByClient,
            End::Gone => Self::Gone,
            End::Error(error) => Self::ByError(error),
        }
    }
}

/// Who was let in.
pub(super) struct Newcomer {
    pub(super) peer: Peer,
    pub(super) startup: Startup,
    pub(super) authority: Authority,
    /// It was asked for a password, and so has been told which version is spoken.
    pub(super) was_asked: bool,
    /// What logs call it.
    pub(super) label: String,
}

/// Serves a client from its startup packet to its end. `buffer` is what came after the packet.
pub(super) async fn run(
    pgwire: &Pgwire,
    stream: Stream,
    newcomer: Newcomer,
    buffer: BytesMut,
) -> Ended {
    let message_bytes_max = pgwire.options().message_bytes_max;
    let inbox = match stream.is_tunnel() && !newcomer.was_asked {
        true => Inbox::with_password(buffer, message_bytes_max),
        false => Inbox::new(buffer, message_bytes_max),
    };
    let inbox = Arc::new(Mutex::new(inbox));
    let (read, write) = stream.into_split();
    let mut socket = Socket {
        reader: Reader::new(read, Arc::clone(&inbox)),
        inbox,
        writer: Arc::new(write),
    };
    let Err(ended) = Box::pin(socket.serve(pgwire, newcomer)).await;
    let hears_why = match &ended {
        Ended::ByError(error) => {
            let mut out = BytesMut::new();
            fatal(error).encode(&mut out);
            socket.write(&out).await.is_ok()
        }
        Ended::ByPostgres(_) => true,
        Ended::ByClient | Ended::Gone => false,
    };
    socket.writer.say_goodbye().await;
    if hears_why {
        // Dropping the last handle on it shuts our direction down.
        drop(socket.writer);
        linger(&mut socket.reader.into_half()).await;
    }
    ended
}

/// The client's side.
struct Socket {
    reader: Reader,
    inbox: Arc<Mutex<Inbox>>,
    writer: Arc<WriteHalf>,
}

impl Socket {
    async fn serve(&mut self, pgwire: &Pgwire, newcomer: Newcomer) -> Result<Infallible, Ended> {
        let database = &newcomer.startup.database;
        let span = pgwire.telemetry.connect(database, &newcomer.label);
        let opening = self.open(pgwire, &newcomer).instrument(span);
        let session = Box::pin(opening).await?;
        let canceller = session.canceller();
        let mut served = Served {
            session,
            canceller,
            socket: self,
        };
        let Err(ended) = served.greet_and_serve(pgwire, &newcomer).await;
        Box::pin(served.session.close()).await;
        Err(ended)
    }

    /// Waits for the session's turn, but not longer than the client does.
    async fn open(&mut self, pgwire: &Pgwire, newcomer: &Newcomer) -> Result<Session, Ended> {
        let Newcomer { peer, startup, .. } = newcomer;
        let name = DatabaseName::parse(&startup.database).map_err(|rule| {
            Ended::ByError(
                PgError::fatal(
                    sqlstate::INVALID_CATALOG_NAME,
                    format!("database \"{}\" does not exist", startup.database),
                )
                .detail(format!("It cannot exist: {rule}.")),
            )
        })?;
        let program = startup
            .settings
            .iter()
            .find(|(name, _)| name == "application_name")
            .map_or("pgwire", |(_, program)| program);
        let options = SessionOptions {
            user: startup.user.clone(),
            settings: startup.settings.clone(),
            origin: format!("{program} {peer}"),
            label: newcomer.label.clone(),
            authority: newcomer.authority,
        };
        let databases = pgwire.databases.by(Doer {
            who: match newcomer.authority {
                // Everybody is the administrator of what a binding leads to.
                Authority::Database => newcomer.label.clone(),
                _ => startup.user.clone(),
            },
            from: peer.address(),
        });
        tokio::select! {
            biased;
            session = databases.session(&name, options) => session.map_err(Ended::ByError),
            end = self.reader.read_to_end() => Err(end.into()),
            () = pgwire.stopping.draining() => Err(Ended::ByError(shutting_down())),
        }
    }

    async fn write(&self, bytes: &[u8]) -> Result<(), Ended> {
        self.writer.write(bytes).await.map_err(|_| Ended::Gone)
    }
}

/// A client with its session.
struct Served<'a> {
    session: Session,
    canceller: Canceller,
    socket: &'a mut Socket,
}

impl Served<'_> {
    async fn greet_and_serve(
        &mut self,
        pgwire: &Pgwire,
        newcomer: &Newcomer,
    ) -> Result<Infallible, Ended> {
        let startup = &newcomer.startup;
        let cancel_key = pgwire
            .cancel_keys
            .register(
                self.session.process_id(),
                startup.negotiated_minor(),
                Cancels::Session(self.canceller.clone()),
            )
            .map_err(Ended::ByError)?;
        let greeting = self.greeting(startup, newcomer.was_asked, cancel_key.key());
        self.socket.write(&greeting).await?;

        // A connection always ends with a reason, so this only returns errors.
        let mut draining = pin!(pgwire.stopping.draining());
        let mut client: Option<Box<dyn ClientIo>> = None;
        let mut settled = true;
        loop {
            let batch = loop {
                if let Some(taken) = self.socket.inbox.lock().take() {
                    break taken?;
                }
                tokio::select! {
                    biased;
                    () = self.socket.reader.read() => {}
                    () = self.session.share_wanted() => self.session.share(),
                    () = self.session.signalled() => {
                        let told = Box::pin(self.session.take_signals()).await;
                        let told = or_ended(self.socket, told).await?;
                        self.socket.write(&told).await?;
                    }
                    error = self.session.idle_too_long() => return Err(Ended::ByError(error)),
                    () = &mut draining => return Err(Ended::ByError(shutting_down())),
                    () = tokio::time::sleep(WAL_WRITER_DELAY), if !settled => {
                        Box::pin(self.session.flush_wal()).await;
                        self.socket.inbox.lock().release();
                        client = None;
                        settled = true;
                    }
                }
            };
            settled = false;
            let io = client.take().unwrap_or_else(|| self.client());
            let answer;
            (answer, client) = self.exchange(pgwire, batch, io).await?;
            self.give(pgwire, &answer).await?;
            if self.session.wants_rest() {
                Box::pin(self.session.rest()).await;
            }
        }
    }

    /// Writes an answer. A client that does not take it keeps neither others from the database nor the server
    /// from stopping.
    async fn give(&mut self, pgwire: &Pgwire, answer: &[u8]) -> Result<(), Ended> {
        let mut writing = pin!(self.socket.write(answer));
        loop {
            tokio::select! {
                biased;
                written = &mut writing => return written,
                () = self.session.share_wanted() => self.session.share(),
                () = pgwire.stopping.cancelling() => return Err(Ended::Gone),
            }
        }
    }

    /// `was_told`: which version is spoken.
    fn greeting(&self, startup: &Startup, was_told: bool, cancel_key: &[u8]) -> BytesMut {
        let mut out = BytesMut::with_capacity(1024);
        if startup.must_negotiate() && !was_told {
            backend::negotiate_protocol_version(
                &mut out,
                startup.negotiated_minor(),
                &startup.unknown_protocol_options,
            );
        }
        backend::authentication_ok(&mut out);
        for (name, value) in self.session.parameters() {
            backend::parameter_status(&mut out, name, value);
        }
        backend::backend_key_data(&mut out, self.session.process_id(), cancel_key);
        backend::ready_for_query(&mut out, self.session.transaction_status());
        out
    }

    fn client(&self) -> Box<dyn ClientIo> {
        Box::new(Client::new(
            Arc::clone(&self.socket.inbox),
            Arc::clone(&self.socket.writer),
        ))
    }

    /// Runs messages. If meanwhile the client goes, or the server's patience ends, the statement
    /// is cancelled, and still waited for: the session must come to rest.
    async fn exchange(
        &mut self,
        pgwire: &Pgwire,
        batch: Bytes,
        io: Box<dyn ClientIo>,
    ) -> Result<(Bytes, Option<Box<dyn ClientIo>>), Ended> {
        // What is large in a connection is there only while it runs: idle ones are many.
        let span = pgwire.telemetry.batch(&batch, &self.session);
        let mut exchange = Box::pin(self.session.exchange(batch, Some(io)).instrument(span));
        let canceller = &self.canceller;
        let mut gone = false;
        // The exchange is looked at first: if it is done at once, nothing else has been touched.
        let done = tokio::select! {
            biased;
            done = &mut exchange => done,
            () = self.socket.reader.read_until_gone() => {
                gone = true;
                insist(canceller, exchange).await
            }
            () = pgwire.stopping.cancelling() => {
                // A COPY that waits for data cannot be cancelled, but it can be told the end.
                self.socket.inbox.lock().close(shutting_down());
                insist(canceller, exchange).await
            }
        };
        match done {
            Ok(_) if gone => Err(Ended::Gone),
            done => or_ended(self.socket, done).await,
        }
    }
}

/// What a session gave; or its end, once the client has what it said before.
async fn or_ended<T>(socket: &Socket, outcome: Result<T, SessionEnded>) -> Result<T, Ended> {
    match outcome {
        Ok(done) => Ok(done),
        Err(SessionEnded {
            output,
            error,
            told,
        }) => {
            socket.write(&output).await?;
            Err(if told {
                Ended::ByPostgres(error)
            } else {
                Ended::ByError(error)
            })
        }
    }
}

/// The last word to a client is always fatal: after it the connection is closed.
pub(super) fn fatal(error: &PgError) -> PgError {
    use wire::pg::ErrorField;
    match error.severity() {
        Severity::Fatal | Severity::Panic => error.clone(),
        _ => error
            .clone()
            .with(ErrorField::Severity, Severity::Fatal.as_str())
            .with(ErrorField::SeverityNonlocalized, Severity::Fatal.as_str()),
    }
}
