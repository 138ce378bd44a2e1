//! One connection to the origin, and what its session there knows.

mod cached;
mod prepared;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use lru::LruCache;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, timeout};
use wire::PgError;
use wire::pg::{Frame, TransactionStatus, backend, frontend};

use crate::awaited::{Account, Awaited, Fate, StatementId, Whose};
use crate::cache::Track;
use crate::connect::{CancelKey, Link};
use crate::failure::{Failure, FailureKind};
use crate::options::PoolOptions;
use crate::pool::Change;
use crate::settings::Settings;
use crate::side::Side;
use crate::stream::Stream;

/// The longest message of a server that is an answer to a statement of ours.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Leaves nothing of what a session had, but for its prepared statements. Says whether there are some of `PREPARE`.
const CLEAN: &str = "CLOSE ALL;SET SESSION AUTHORIZATION DEFAULT;RESET ALL;UNLISTEN *;\
    SELECT pg_catalog.pg_advisory_unlock_all();DISCARD TEMP;DISCARD SEQUENCES;\
    SELECT 'prepared' FROM pg_catalog.pg_prepared_statements s WHERE s.from_sql LIMIT 1;";

/// Whether transactions write nothing, unless their session has said otherwise: of a server that is asked while it has the
/// settings of whoever used it last.
const TAKES_NO_WRITES: &str = "SELECT pg_catalog.pg_is_in_recovery() OR s.reset_val OPERATOR(pg_catalog.=) 'on' \
    FROM pg_catalog.pg_settings s WHERE s.name OPERATOR(pg_catalog.=) 'default_transaction_read_only'";

/// A connection to the origin.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) side: Side<Stream>,
    pub(crate) account: Account,
    pub(crate) key: Arc<CancelKey>,
    /// What it has told with `ParameterStatus`.
    pub(crate) parameters: Parameters,
    /// What its session has set.
    pub(crate) settings: Settings,
    /// Statements that it knows by name, with what it has answered to `Describe` if it was asked.
    pub(crate) prepared: LruCache<StatementId, Option<Bytes>>,
    /// Statements that it still has, and is to know no longer.
    closing: Vec<StatementId>,
    /// Something was sent that drops all of them, and none prepared behind it.
    has_dropped_all: bool,
    /// What its transaction has written.
    pub(crate) track: Track,
    /// The client that has used it last.
    pub(crate) last_client: u64,
    /// Whose numbers `currval` and `lastval` tell in its session.
    numbers: Numbers,
    /// Notifications that came while the pool asked something itself: of the session that has it, if that keeps it.
    pub(crate) heard: BytesMut,
    /// Its transaction may have changed the catalog.
    pub(crate) change: Option<Change>,
    /// Something may have been left in its session that is not known.
    pub(crate) is_tainted: bool,
    /// Nobody knows where it stands: it cannot be used again.
    pub(crate) is_broken: bool,
    /// It has refused to write (25006), which a standby does.
    pub(crate) has_refused_to_write: bool,
    /// Bytes that are still to come of a message that nobody wants any more.
    pub(crate) unread: usize,
    /// How many doubts its pool had when it was last known to take writes: see [`Pool::doubt`](crate::pool::Pool::doubt).
    pub(crate) doubts: u64,
    /// Which version of the origin it was made for.
    pub(crate) epoch: u64,
    pub(crate) since: Instant,
    /// Its number in the pool.
    pub(crate) number: usize,
    /// How long a statement of ours may take.
    patience: Duration,
}

/// Whose numbers, of those that sequences give, a session tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Numbers {
    #[default]
    Nobodys,
    /// Perhaps some of the client's that has used it last.
    LastClients,
    /// Perhaps some of a client's before.
    Others,
}

/// What a server tells of itself; servers and clients for which it is the same share it.
pub(crate) type Parameters = Arc<BTreeMap<String, String>>;

/// Rows of a statement of ours: texts or NULLs.
pub(crate) type Rows = Vec<Vec<Option<String>>>;

impl Server {
    pub(crate) fn new(link: Link, options: &PoolOptions, epoch: u64) -> Self {
        Self {
            side: link.side,
            account: Account::idle(),
            key: Arc::new(link.key),
            parameters: Arc::new(link.parameters),
            settings: Settings::default(),
            prepared: LruCache::new(options.statements_max),
            closing: Vec::new(),
            has_dropped_all: false,
            track: Track::default(),
            last_client: 0,
            numbers: Numbers::default(),
            heard: BytesMut::new(),
            change: None,
            is_tainted: false,
            is_broken: false,
            has_refused_to_write: false,
            unread: 0,
            doubts: 0,
            epoch,
            since: Instant::now(),
            number: 0,
            patience: options.connect_timeout,
        }
    }

    /// Whether the server has hung up, or said something that nobody asked for, while it was idle.
    pub(crate) async fn is_gone(&mut self) -> bool {
        loop {
            // Notices and changed parameters do no harm; an error is the server's farewell.
            match Frame::split(&mut self.side.inbox, MESSAGE_BYTES_MAX) {
                Ok(None) if self.side.inbox.is_empty() => {}
                Ok(Some(frame)) if frame.kind() == backend::kind::PARAMETER_STATUS => {
                    self.parameter(frame.body());
                    continue;
                }
                Ok(Some(frame)) if frame.kind() == backend::kind::NOTICE_RESPONSE => continue,
                _ => return true,
            }
            let looked = poll_fn(|cx| {
                Poll::Ready(match self.side.poll_fill(cx) {
                    Poll::Pending => None,
                    Poll::Ready(read) => Some(read),
                })
            });
            match looked.await {
                None => return false,
                Some(Err(_) | Ok(0)) => return true,
                Some(Ok(_)) => {}
            }
        }
    }

    /// Remembers a `ParameterStatus`.
    pub(crate) fn parameter(&mut self, body: &[u8]) {
        if let Ok((name, value)) = backend::decode_parameter_status(body) {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            Arc::make_mut(&mut self.parameters).insert(text(name), text(value));
        }
    }

    /// Makes its session that of a client.
    ///
    /// # Errors
    ///
    /// What the server says; it cannot be used again then.
    pub(crate) async fn become_of(
        &mut self,
        client: u64,
        settings: &mut Settings,
    ) -> Result<(), Failure> {
        let is_another = self.last_client != client;
        if self.is_tainted && is_another {
            // In one breath with what the client has set.
            let mut sql = CLEAN.to_owned();
            sql.extend(Settings::default().turn_into(settings));
            let rows = self.ask(&sql).await?;
            if rows.contains(&vec![Some("prepared".to_owned())]) {
                // By a function: the pool's own are prepared again.
                self.ask("DEALLOCATE ALL").await?;
                self.has_none_prepared();
            }
            self.is_tainted = false;
            self.numbers = Numbers::Nobodys;
            self.settings = settings.clone();
        }
        if is_another && self.numbers == Numbers::LastClients {
            self.numbers = Numbers::Others;
        }
        match self.settings.turn_into(settings) {
            Some(sql) => {
                self.ask(&sql).await?;
                self.settings = settings.clone();
            }
            None => self.settings.unite(settings),
        }
        self.last_client = client;
        // It was for whoever was here before.
        self.heard = BytesMut::new();
        Ok(())
    }

    /// Leaves nothing of its session.
    ///
    /// # Errors
    ///
    /// What the server says; it cannot be used again then.
    pub(crate) async fn discard_all(&mut self) -> Result<(), Failure> {
        self.ask("DISCARD ALL").await?;
        self.settings = Settings::default();
        self.has_none_prepared();
        self.numbers = Numbers::Nobodys;
        self.is_tainted = false;
        Ok(())
    }

    /// Discards the numbers that sequences have given to others. Goes in front of the first message of a client, in the
    /// same breath: behind it there may be a transaction or a pipeline, in which the client has numbers of its own.
    ///
    /// # Errors
    ///
    /// If the message cannot be made.
    pub(crate) fn discard_numbers(&mut self) -> Result<(), PgError> {
        if self.numbers != Numbers::Others {
            return Ok(());
        }
        frontend::query(&mut self.side.outbox, b"DISCARD SEQUENCES")?;
        self.account.sent(Awaited::Query(Whose::Pool));
        self.numbers = Numbers::Nobodys;
        Ok(())
    }

    /// Sequences may give numbers to its client now.
    pub(crate) fn gives_numbers(&mut self) {
        self.numbers = Numbers::LastClients;
    }

    /// Asks it, amid no transaction, whether it takes writes.
    ///
    /// # Errors
    ///
    /// What the server says; it cannot be used again then.
    pub(crate) async fn takes_writes(&mut self) -> Result<bool, Failure> {
        let rows = self.ask(TAKES_NO_WRITES).await?;
        Ok(rows != [[Some("t".to_owned())]])
    }

    /// Runs statements of ours.
    ///
    /// # Errors
    ///
    /// What the server says; it cannot be used again then.
    pub(crate) async fn ask(&mut self, sql: &str) -> Result<Rows, Failure> {
        let asked = self.try_ask(sql, Duration::ZERO).await;
        self.is_broken |= asked.is_err();
        asked
    }

    /// As [`ask`](Self::ask), of what may be refused, and take longer by so much: who has refused can be used again.
    pub(crate) async fn try_ask(&mut self, sql: &str, longer: Duration) -> Result<Rows, Failure> {
        frontend::query(&mut self.side.outbox, sql.as_bytes()).map_err(Failure::said)?;
        self.account.sent(Awaited::Query(Whose::Pool));
        // A network that is cut says nothing.
        let patience = self.patience + longer;
        let asked = timeout(patience, self.answer()).await;
        let asked = asked.unwrap_or_else(|_| Err(Failure::silent(patience)));
        let is_lost = |failure: &Failure| failure.kind != FailureKind::Query;
        self.is_broken |= asked.as_ref().is_err_and(is_lost);
        asked
    }

    /// Everything up to the end of what it still has to answer, the pool's own.
    async fn answer(&mut self) -> Result<Rows, Failure> {
        let broke = |error: std::io::Error| Failure::of_io(&error, "talking to the server");
        let mut rows = Rows::new();
        let mut failed = None;
        self.side.drain().await.map_err(broke)?;
        loop {
            while let Some(frame) =
                Frame::split(&mut self.side.inbox, MESSAGE_BYTES_MAX).map_err(Failure::said)?
            {
                let status = match frame.kind() {
                    backend::kind::READY_FOR_QUERY => {
                        let status = backend::decode_ready_for_query(frame.body());
                        Some(status.map_err(Failure::said)?)
                    }
                    _ => None,
                };
                let fate = self.received(frame.kind(), status);
                match frame.kind() {
                    backend::kind::PARAMETER_STATUS => self.parameter(frame.body()),
                    backend::kind::NOTIFICATION_RESPONSE => {
                        self.heard.extend_from_slice(frame.bytes());
                    }
                    backend::kind::DATA_ROW if fate == Fate::Swallow => {
                        rows.push(row(frame.body()).map_err(Failure::said)?);
                    }
                    backend::kind::ERROR_RESPONSE => {
                        let error = PgError::decode(frame.body()).unwrap_or_else(|error| error);
                        let mut failure = Failure::said(error);
                        failure.kind = FailureKind::Query;
                        failed.get_or_insert(failure);
                    }
                    _ if fate == Fate::Unexpected => {
                        return Err(Failure::new(
                            FailureKind::Protocol,
                            "the server sent an answer to nothing",
                        ));
                    }
                    _ => {}
                }
                if self.account.is_quiet() {
                    return failed.map_or(Ok(rows), Err);
                }
            }
            if self.side.fill().await.map_err(broke)? == 0 {
                return Err(Failure::new(FailureKind::Network, "the server hung up"));
            }
        }
    }

    /// Ends what a client has left behind: whether the server can be used again.
    pub(crate) async fn abandon(&mut self, within: Duration) -> bool {
        if self.is_broken {
            return false;
        }
        self.pass_over();
        if self.is_free() {
            return true;
        }
        let ending = async {
            if self.account.is_waiting() || self.account.copies_in() {
                // A `COPY` that is still to begin takes nothing else; where there is none it is ignored.
                frontend::copy_fail(&mut self.side.outbox, b"the client has left")?;
                self.account.copy_fails();
                // It waits until the server has the signal: what comes after this is not canceled.
                if let Some(cancels) = &self.key.cancels {
                    let cancelled = cancels.cancel(&self.key, within).await;
                    cancelled.map_err(|error| {
                        PgError::error(wire::sqlstate::SYSTEM_ERROR, error.to_string())
                    })?;
                }
            }
            // Ends an extended query that is half told, in which a simple one would be left out.
            frontend::sync(&mut self.side.outbox);
            self.account.sent(Awaited::Sync(Whose::Pool));
            frontend::query(&mut self.side.outbox, b"ROLLBACK")?;
            self.account.sent(Awaited::Query(Whose::Pool));
            self.skim().await
        };
        let ended = timeout(within, ending).await;
        let is_free = matches!(ended, Ok(Ok(()))) && self.account.is_free();
        if is_free {
            self.settle();
        }
        is_free
    }

    /// Whether somebody else can have it as it is.
    pub(crate) fn is_free(&self) -> bool {
        self.account.is_free() && self.unread == 0 && self.side.outbox.is_empty()
    }

    /// Throws away what has come of a message that nobody wants.
    fn pass_over(&mut self) {
        let now = self.unread.min(self.side.inbox.len());
        self.side.inbox.advance(now);
        self.unread -= now;
    }

    /// Reads and forgets answers until none is awaited.
    async fn skim(&mut self) -> Result<(), PgError> {
        let broke =
            |error: std::io::Error| PgError::error(wire::sqlstate::SYSTEM_ERROR, error.to_string());
        loop {
            self.pass_over();
            while self.unread == 0
                && let Some(frame) = Frame::split(&mut self.side.inbox, usize::MAX)?
            {
                let status = match frame.kind() {
                    backend::kind::READY_FOR_QUERY => {
                        Some(backend::decode_ready_for_query(frame.body())?)
                    }
                    backend::kind::PARAMETER_STATUS => {
                        self.parameter(frame.body());
                        None
                    }
                    backend::kind::COPY_IN_RESPONSE => {
                        self.received_expected(frame.kind(), None)?;
                        if self.account.copies_in() {
                            // One that has come before another.
                            frontend::copy_fail(&mut self.side.outbox, b"the client has left")?;
                            self.account.copy_fails();
                        }
                        continue;
                    }
                    _ => None,
                };
                self.received_expected(frame.kind(), status)?;
                while self.account.told().is_some() {}
                if self.account.is_quiet() {
                    return Ok(());
                }
            }
            let side = &mut self.side;
            let read = poll_fn(|cx| {
                // What is still to leave leaves while answers come in: neither waits for the other.
                if let Poll::Ready(Err(error)) = side.poll_drain(cx) {
                    return Poll::Ready(Err(error));
                }
                side.poll_fill(cx)
            });
            if read.await.map_err(broke)? == 0 {
                return Err(broke(std::io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// As [`received`](Self::received), of an answer that somebody must have asked for.
    pub(super) fn received_expected(
        &mut self,
        kind: u8,
        status: Option<TransactionStatus>,
    ) -> Result<(), PgError> {
        match self.received(kind, status) {
            Fate::Unexpected => Err(PgError::fatal(
                wire::sqlstate::PROTOCOL_VIOLATION,
                "the server sent an answer to nothing",
            )),
            _ => Ok(()),
        }
    }

    /// Says farewell, and waits for the server to hang up; what cannot be said any more is left unsaid.
    pub(crate) async fn close(mut self, within: Duration) {
        self.side.outbox = BytesMut::new();
        frontend::terminate(&mut self.side.outbox);
        let ending = async {
            self.side.drain().await?;
            self.side.stream.shutdown().await?;
            while !self.side.is_ended {
                self.side.fill().await?;
                self.side.inbox.clear();
            }
            std::io::Result::Ok(())
        };
        match timeout(within, ending).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a server was gone before it was told so"),
            Err(_) => tracing::debug!("a server was told to end, and has not hung up"),
        }
    }
}

fn row(body: &[u8]) -> Result<Vec<Option<String>>, PgError> {
    let values = backend::DataRow::decode(body)?;
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    Ok(values.map(|value| value.map(text)).collect())
}
