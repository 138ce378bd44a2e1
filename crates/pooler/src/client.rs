//! One client of a pool: its session, whose transactions run on whatever connection is free.

mod again;
mod cached;
mod greet;
mod held;
mod messages;
mod prepared;
mod relay;
mod rest;
mod stop;
mod taking;
mod touched;
mod unconfirmed;
mod waiting;

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use wire::PgError;
use wire::pg::frontend::Execute;
use wire::pg::startup::Startup;
use wire::pg::{Frame, Severity, TransactionStatus, backend, frontend};

use crate::awaited::{Awaited, StatementId, Whose};
use crate::cancel::Canceller;
use crate::facts::Pin;
use crate::pool::{Lease, Pool};
use crate::replication::Presence;
use crate::server::Parameters;
use crate::settings::Settings;
use crate::side::Side;
use crate::statements::Statement;

use again::Kept;
use cached::{Answer, Cached};
use relay::Relay;
pub use stop::Stop;
use stop::Told;
use taking::Taking;
use touched::Touched;
use unconfirmed::{By, Names, Unconfirmed};
pub(crate) use waiting::cancelled;

/// Bytes that wait in one direction before no more are taken from the other end.
const WAITING_BYTES_MAX: usize = 256 << 10;

/// Bytes of answers that wait for something to be flushed: as many as Postgres keeps back.
const UNFLUSHED_BYTES_MAX: usize = 8 << 10;

/// Messages that wait for their answer before no more are taken from the client.
const WAITING_MESSAGES_MAX: usize = 16 << 10;

/// What no server does: there is no statement of this name, as its log says.
const REFUSED_QUERY: &[u8] = b"EXECUTE \"refused by the pool\"";

/// The same in an extended query: there is no portal of this name.
const REFUSED: Execute<'_> = Execute {
    portal: b"refused by the pool",
    rows_max: 0,
};

/// How long a client may take to hear the last word.
const FAREWELL_MAX: Duration = Duration::from_secs(5);

/// Who a client is to itself and to others.
#[derive(Debug, Clone)]
pub struct ClientIdentity {
    /// For `BackendKeyData`.
    pub pid: u32,
    /// The key that cancels its statements.
    pub key: Vec<u8>,
    /// For people: in hints that say who has a connection.
    pub label: Arc<str>,
    /// By which others cancel its statements.
    pub canceller: Canceller,
}

/// How a session has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The client has left.
    Left,
    /// The client was told why.
    Told,
}

/// A client that has been let in.
pub struct Client<S> {
    side: Side<S>,
    pool: Arc<Pool>,
    _presence: Presence,
    message_bytes_max: usize,
    identity: ClientIdentity,
    number: u64,
    /// What its session has set.
    settings: Settings,
    /// What it has been told with `ParameterStatus`.
    told: Parameters,
    /// Its prepared statements by its names for them.
    statements: Names,
    /// What has become of names, as long as an error may undo it.
    unconfirmed: Unconfirmed,
    /// A portal that drops all statements when it is run.
    dropping: Option<Bytes>,
    /// Portals whose client may have to send data.
    taking: Taking,
    unnamed: Option<Arc<Statement>>,
    lease: Option<Lease>,
    /// The unnamed statement that the server has, if it is of this client.
    unnamed_there: Option<StatementId>,
    relay: Relay,
    /// What the pool knows of the catalog was too old for something: it is asked anew when the transaction is over, beside it.
    by_old_lore: bool,
    /// What binds it to its server.
    pins: BTreeSet<Pin>,
    /// What happens if nothing fails before the next `ReadyForQuery`.
    due: Due,
    /// Settings that may have changed in this transaction.
    touched: Touched,
    /// Settings that have changed until its end; without a name one that nobody knows.
    touched_locally: Touched,
    /// Messages up to the next `Sync` are left out, for an error of ours.
    skips: bool,
    /// It ends when nothing is under way.
    ends: bool,
    /// What may have to be sent again.
    kept: Option<Kept>,
    /// The server's next `ReadyForQuery` ends nothing.
    is_asked_again: bool,
    cached: Cached,
    /// The outbox up to here is what Postgres would not send yet: answers without a server that nothing has flushed. As
    /// long as it has no more than these it waits, for the server's answers to what comes behind.
    unflushed: usize,
}

/// Consequences of statements that succeed.
#[derive(Debug, Default)]
struct Due {
    unpins: BTreeSet<Pin>,
    /// Those of them that a rollback would undo.
    undoable: BTreeSet<Pin>,
    has_failed: bool,
}

/// What a client waits for when nothing can be done.
enum Next {
    /// Something has arrived, or has left.
    Progress,
    /// It has to end.
    Told(Told),
    /// The client is gone.
    Left,
    /// The server is gone.
    Lost(io::Error),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// A client whose login is done, with what has arrived behind it, and what is still to be said before it is greeted.
    pub fn new(
        pool: Arc<Pool>,
        stream: S,
        (arrived, unsaid): (BytesMut, BytesMut),
        identity: ClientIdentity,
    ) -> Self {
        let mut side = Side::new(stream);
        side.inbox = arrived;
        side.outbox = unsaid;
        Self {
            side,
            number: pool.new_client(),
            _presence: Presence::new(&pool),
            message_bytes_max: pool.options().message_bytes_max,
            pool,
            identity,
            settings: Settings::default(),
            told: Parameters::default(),
            statements: Names::new(),
            unconfirmed: Unconfirmed::default(),
            dropping: None,
            taking: Taking::default(),
            unnamed: None,
            lease: None,
            unnamed_there: None,
            relay: Relay::default(),
            by_old_lore: false,
            pins: BTreeSet::new(),
            due: Due::default(),
            touched: Touched::default(),
            touched_locally: Touched::default(),
            skips: false,
            ends: false,
            kept: None,
            is_asked_again: false,
            cached: Cached::default(),
            unflushed: 0,
        }
    }

    /// Serves it until it leaves, or has to; an error says that its connection broke. What it leaves open is rolled
    /// back at once. The stream is given back, to be closed.
    pub async fn serve(mut self, startup: &Startup, stop: Stop) -> (S, io::Result<Ended>) {
        let served = self.session(startup, stop).await;
        // Others need the connection more than this one needs to hear why.
        self.leave().await;
        let told = timeout(FAREWELL_MAX, self.side.drain()).await;
        let served = served.and_then(|ended| match told {
            Ok(told) => told.map(|()| ended),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        });
        (self.side.stream, served)
    }

    async fn session(&mut self, startup: &Startup, mut stop: Stop) -> io::Result<Ended> {
        if let Err(error) = self.greet(startup).await {
            return self.farewell(&error);
        }
        loop {
            match self.work().await {
                Ok(true) => {}
                Ok(false) => return Ok(Ended::Left),
                Err(error) => return self.farewell(&error),
            }
            if self.ends && self.is_at_rest() {
                let error = PgError::fatal(
                    wire::sqlstate::ADMIN_SHUTDOWN,
                    "terminating connection due to administrator command",
                );
                return self.farewell(&error);
            }
            match self.wait(&mut stop).await? {
                Next::Progress => {}
                Next::Told(Told::Drain) => self.ends = true,
                Next::Told(Told::Cancel) => {
                    // The answer to it comes the way that the statement's would have.
                    let canceller = self.identity.canceller.clone();
                    tokio::spawn(async move { canceller.cancel().await });
                }
                Next::Left => return Ok(Ended::Left),
                Next::Lost(error) => {
                    if self.lost() {
                        // It has said why.
                        return Ok(Ended::Told);
                    }
                    let error = PgError::fatal(
                        wire::sqlstate::CONNECTION_FAILURE,
                        "the connection to the origin was lost",
                    )
                    .detail(error.to_string());
                    return self.farewell(&error);
                }
            }
        }
    }

    /// Does all that can be done with what has arrived: whether the client stays.
    async fn work(&mut self) -> Result<bool, PgError> {
        loop {
            self.relay_all()?;
            self.settle().await?;
            if !self.pour() || self.is_full() || self.is_held() {
                return Ok(true);
            }
            if self.ends && self.is_at_rest() {
                return Ok(true);
            }
            let Some(frame) = Frame::split(&mut self.side.inbox, self.message_bytes_max)? else {
                return Ok(true);
            };
            if frame.kind() == frontend::kind::TERMINATE {
                return Ok(false);
            }
            if self.skips {
                self.skip(&frame);
                continue;
            }
            if self.lease.is_none() {
                match self.try_cache(&frame).await? {
                    Answer::Done => continue,
                    Answer::Left => return Ok(false),
                    Answer::Pass => {}
                }
            }
            if self.lease.is_none() {
                if self.needs_no_server(&frame)? {
                    continue;
                }
                if !self.lease_for(&frame).await? {
                    return Ok(false);
                }
                if self.lease.is_none() {
                    continue;
                }
            }
            self.deliver(frame).await?;
        }
    }

    /// A message for the server that there is.
    async fn deliver(&mut self, frame: Frame) -> Result<(), PgError> {
        let is_simple = matches!(
            frame.kind(),
            frontend::kind::QUERY | frontend::kind::FUNCTION_CALL
        );
        let expected = self.expect_told(&frame).await;
        match expected.and_then(|()| self.message(frame)) {
            Err(error) if error.severity() == Severity::Fatal => Err(error),
            Err(error) => self.fail(error, is_simple),
            Ok(()) => Ok(()),
        }
    }

    /// Whether so much waits for the server, or for the client, that no more is taken from the client.
    fn is_full(&self) -> bool {
        let is_full = |lease: &Lease| {
            lease.side.outbox.len() > WAITING_BYTES_MAX
                || lease.account.outstanding() > WAITING_MESSAGES_MAX
        };
        self.is_giving()
            || self.side.outbox.len() > WAITING_BYTES_MAX
            || self.lease.as_ref().is_some_and(is_full)
    }

    /// Whether what it has sent has to wait until the server has said whether it takes data.
    fn is_held(&self) -> bool {
        (self.lease.as_ref()).is_some_and(|lease| lease.account.holds())
    }

    /// Whether it has asked nothing that is not answered.
    fn is_at_rest(&self) -> bool {
        let lease = self.lease.as_ref();
        lease.is_none_or(|lease| lease.account.is_quiet()) && self.relay.is_done()
    }

    /// Waits until something can be done.
    async fn wait(&mut self, stop: &mut Stop) -> io::Result<Next> {
        let is_full = self.is_full();
        // Also while what it sends is held: so it is seen to leave.
        let has_room = self.side.inbox.len() <= WAITING_BYTES_MAX || !self.is_held();
        let may_read = !is_full && has_room;
        let may_send = self.side.outbox.len() != self.unflushed
            || self.unflushed > UNFLUSHED_BYTES_MAX
            || self.side.is_unflushed;
        if may_send {
            self.unflushed = 0;
        }
        let side = &mut self.side;
        let mut server = self.lease.as_deref_mut();
        poll_fn(|cx| {
            let mut moved = false;
            let waited = side.outbox.len();
            if may_send && let Poll::Ready(Err(_)) = side.poll_drain(cx) {
                return Poll::Ready(Ok(Next::Left));
            }
            moved |= waited > WAITING_BYTES_MAX && side.outbox.len() <= WAITING_BYTES_MAX;
            if let Some(server) = &mut server {
                let waited = server.side.outbox.len();
                if let Poll::Ready(Err(error)) = server.side.poll_drain(cx) {
                    return Poll::Ready(Ok(Next::Lost(error)));
                }
                moved |= is_full && server.side.outbox.len() < waited;
                if side.outbox.len() <= WAITING_BYTES_MAX {
                    match server.side.poll_fill(cx) {
                        Poll::Ready(Ok(0)) => {
                            let error = io::ErrorKind::UnexpectedEof.into();
                            return Poll::Ready(Ok(Next::Lost(error)));
                        }
                        Poll::Ready(Ok(_)) => moved = true,
                        Poll::Ready(Err(error)) => return Poll::Ready(Ok(Next::Lost(error))),
                        Poll::Pending => {}
                    }
                }
            }
            if may_read {
                match side.poll_fill(cx) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Ok(Next::Left)),
                    Poll::Ready(Ok(_)) => moved = true,
                    Poll::Pending => {}
                }
            }
            if moved {
                return Poll::Ready(Ok(Next::Progress));
            }
            stop.poll(cx).map(|told| Ok(Next::Told(told)))
        })
        .await
    }

    /// Tells an error of ours, as Postgres does: what was asked fails, and of an extended query the rest is left out. Where
    /// something goes with it, the server is made to fail too.
    fn fail(&mut self, error: PgError, is_simple: bool) -> Result<(), PgError> {
        let mut told = BytesMut::new();
        as_error(error).encode(&mut told);
        self.due.has_failed = true;
        self.skips = !is_simple;
        // What comes from here is not what could be sent again.
        self.kept = None;
        if let Some(lease) = self.lease.as_deref_mut()
            && !(lease.account.is_quiet()
                && lease.account.status() != TransactionStatus::InTransaction)
        {
            let refused = Awaited::Refused {
                answer: told.freeze(),
                by_query: is_simple,
            };
            // Behind an error it is left out by the server, and nothing is told.
            if lease.account.sent(refused) {
                let out = &mut lease.side.outbox;
                match is_simple {
                    true => frontend::query(out, REFUSED_QUERY)?,
                    false => REFUSED.encode(out)?,
                }
                if is_simple {
                    self.unconfirmed.ends(By::Query);
                }
            }
            return Ok(());
        }
        self.side.outbox.extend_from_slice(&told);
        if is_simple {
            // It has no `Sync` behind it.
            let status = self.lease.as_ref().map(|lease| lease.account.status());
            let status = status.unwrap_or(TransactionStatus::Idle);
            backend::ready_for_query(&mut self.side.outbox, status);
        }
        Ok(())
    }

    /// A message behind an error of ours.
    fn skip(&mut self, frame: &Frame) {
        if frame.kind() != frontend::kind::SYNC {
            return;
        }
        self.skips = false;
        match &mut self.lease {
            // As in `pass`.
            Some(lease) if lease.account.copies_in() => {}
            Some(lease) => {
                lease.side.outbox.extend_from_slice(frame.bytes());
                if lease.account.sent(Awaited::Sync(Whose::Client)) {
                    self.unconfirmed.ends(By::Sync);
                }
            }
            None => backend::ready_for_query(&mut self.side.outbox, TransactionStatus::Idle),
        }
    }

    fn farewell(&mut self, error: &PgError) -> io::Result<Ended> {
        error.encode(&mut self.side.outbox);
        Ok(Ended::Told)
    }
}

/// An error after which the session goes on.
fn as_error(error: PgError) -> PgError {
    let mut milder = PgError::error(error.code(), error.message());
    for (field, text) in error.fields() {
        match field {
            b'D' => milder = milder.detail(text),
            b'H' => milder = milder.hint(text),
            _ => {}
        }
    }
    milder
}
