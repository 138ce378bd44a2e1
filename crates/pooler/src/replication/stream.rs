//! One stream, from the login to its end.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use tokio::time::{Duration, Instant, interval_at, timeout};
use wire::PgError;
use wire::pg::{backend, frontend};

use super::message::{self, Garbled, Head, Heads, Message};
use super::snapshot::Snapshot;
use super::unseen::{self, Unseen};
use super::{ReplicationFailure, ReplicationReason, ReplicationStanding, Source};
use crate::cache::{Cache, Oid, Writes};
use crate::connect::{self, Link};
use crate::failure::{Failure, FailureKind};
use crate::pool::Pool;

/// The publication that says of which tables is heard.
const PUBLICATION: &str = "dormouse_cache";

/// The first version whose plugin tells of TRUNCATE.
const VERSION_MIN: u32 = 11;

/// How long a slot may wait for transactions that are open.
const SLOT_WAIT_MAX: Duration = Duration::from_secs(600);

/// The origin is told up to where all is heard, and asked whether it lives.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// An origin that says nothing for this long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// A table whose changes would fail if they were published.
const WITHOUT_IDENTITY: &str = "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n \
    ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND c.oid >= 16384 \
    AND c.relreplident <> 'f' AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indimmediate \
    AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident END) ORDER BY 1 LIMIT 1";

/// Raises the versions of what others commit, until it cannot any more.
pub(super) async fn run(
    pool: &Weak<Pool>,
    source: &Source,
    cache: &Arc<Cache>,
) -> ReplicationFailure {
    let set = |standing| {
        if let Some(pool) = pool.upgrade() {
            pool.replication.set(standing);
        }
    };
    let within = match pool.upgrade() {
        Some(pool) => {
            pool.replication.tries();
            pool.options().connect_timeout
        }
        None => return hung_up(),
    };
    let waits = || set(ReplicationStanding::Connecting);
    let mut stream = match Stream::begin(source, cache, within, waits).await {
        Ok(stream) => stream,
        Err(failure) => return failure,
    };
    // What is asked from now on sees all that was committed before what is heard of.
    cache.drop_all();
    set(ReplicationStanding::Streaming);
    stream.hear(pool).await
}

struct Stream {
    link: Link,
    heads: Heads,
    cache: Arc<Cache>,
    /// Up to where all is heard.
    end: u64,
    /// The transaction that is being told.
    xid: u32,
    tables: BTreeSet<Oid>,
    /// It has emptied more tables than can be told apart.
    has_all: bool,
    unseen: Unseen,
}

impl Stream {
    async fn begin(
        source: &Source,
        cache: &Arc<Cache>,
        within: Duration,
        waits: impl Fn(),
    ) -> Result<Self, ReplicationFailure> {
        let settings = [
            ("replication", "database".to_owned()),
            ("search_path", "pg_catalog".to_owned()),
            ("statement_timeout", "0".to_owned()),
        ];
        let Source {
            origin, dialing, ..
        } = source;
        let mut link = connect::connect(origin, dialing, within, &settings).await?;
        expect_logical(&mut link, within).await?;
        publish(&mut link, within).await?;
        let slot = slot_name()?;
        let sql = format!(
            "CREATE_REPLICATION_SLOT \"{slot}\" TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT"
        );
        waits();
        ask(&mut link, &sql, SLOT_WAIT_MAX).await?;
        let sql = format!(
            "START_REPLICATION SLOT \"{slot}\" LOGICAL 0/0 \
             (proto_version '1', publication_names '\"{PUBLICATION}\"')"
        );
        frontend::query(&mut link.side.outbox, sql.as_bytes()).map_err(Failure::said)?;
        let mut stream = Self {
            link,
            heads: Heads::default(),
            cache: Arc::clone(cache),
            end: 0,
            xid: 0,
            tables: BTreeSet::new(),
            has_all: false,
            unseen: Unseen::new(Arc::clone(cache)),
        };
        let started = timeout(within, stream.started()).await;
        started.unwrap_or_else(|_| Err(Failure::silent(within).into()))?;
        Ok(stream)
    }

    async fn started(&mut self) -> Result<(), ReplicationFailure> {
        loop {
            self.link.side.drain().await.map_err(broke)?;
            while let Some(head) = self
                .heads
                .next(&mut self.link.side.inbox)
                .map_err(garbled)?
            {
                match head.kind {
                    backend::kind::COPY_BOTH_RESPONSE => return Ok(()),
                    backend::kind::ERROR_RESPONSE => return Err(said(&head)),
                    _ => {}
                }
            }
            if self.link.side.fill().await.map_err(broke)? == 0 {
                return Err(hung_up());
            }
        }
    }

    /// Hears until the end, and says why it came.
    async fn hear(&mut self, pool: &Weak<Pool>) -> ReplicationFailure {
        let mut says = interval_at(Instant::now() + SAID_EVERY, SAID_EVERY);
        let mut last = Instant::now();
        let mut asking: Option<(usize, Asking)> = None;
        let mut is_again = false;
        loop {
            if asking.is_none() && !self.unseen.is_empty() {
                let snapshot = unseen::ask(Weak::clone(pool), is_again);
                asking = Some((self.unseen.len(), Box::pin(snapshot)));
            }
            let side = &mut self.link.side;
            let said = tokio::select! {
                filled = side.fill() => {
                    last = Instant::now();
                    match filled {
                        Ok(0) => return hung_up(),
                        Ok(_) => self.take(),
                        Err(error) => return broke(error),
                    }
                }
                _ = says.tick() => match last.elapsed() > SILENCE_MAX {
                    true => return Failure::silent(SILENCE_MAX).into(),
                    false => self.say(),
                },
                snapshot = answer(&mut asking) => {
                    let first = asking.take().map_or(0, |(first, _)| first);
                    let Some(snapshot) = snapshot else {
                        return hung_up();
                    };
                    let before = self.unseen.len();
                    self.unseen.show(&snapshot, first);
                    is_again = self.unseen.len() == before;
                    Ok(())
                }
            };
            if let Err(failure) = said {
                return failure;
            }
            // An answer of ours is short; whoever does not take it is gone.
            match timeout(SILENCE_MAX, self.link.side.drain()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return broke(error),
                Err(_) => return Failure::silent(SILENCE_MAX).into(),
            }
        }
    }

    /// All that has arrived.
    fn take(&mut self) -> Result<(), ReplicationFailure> {
        while let Some(head) = self
            .heads
            .next(&mut self.link.side.inbox)
            .map_err(garbled)?
        {
            match head.kind {
                backend::kind::COPY_DATA => {
                    let message = Message::decode(&head.body, head.is_cut).map_err(garbled)?;
                    self.message(message)?;
                }
                backend::kind::ERROR_RESPONSE => return Err(said(&head)),
                backend::kind::NOTICE_RESPONSE | backend::kind::PARAMETER_STATUS => {}
                _ => return Err(hung_up()),
            }
        }
        Ok(())
    }

    fn message(&mut self, message: Message) -> Result<(), ReplicationFailure> {
        match message {
            Message::Alive { end, wants_reply } => {
                self.end = self.end.max(end);
                if wants_reply {
                    self.say()?;
                }
            }
            Message::Begin { xid } => {
                self.xid = xid;
                self.tables.clear();
                self.has_all = false;
            }
            Message::Row(table) => drop(self.tables.insert(table)),
            Message::Truncate(Some(tables)) => self.tables.extend(tables),
            Message::Truncate(None) => self.has_all = true,
            Message::Commit { end } => {
                self.end = self.end.max(end);
                let tables = std::mem::take(&mut self.tables);
                if self.has_all {
                    self.unseen.add(self.xid, Writes::any_table());
                } else if !tables.is_empty() {
                    self.unseen.add(self.xid, self.cache.written(&tables));
                }
            }
            Message::Other => {}
        }
        Ok(())
    }

    /// Says up to where all is heard: the origin need not keep it any more.
    fn say(&mut self) -> Result<(), ReplicationFailure> {
        let said = frontend::copy_data(&mut self.link.side.outbox, &message::heard(self.end));
        said.map_err(|error| Failure::said(error).into())
    }
}

impl Drop for Stream {
    /// Says farewell, so that the origin does not take it for a fault; what cannot be said at once is left unsaid.
    fn drop(&mut self) {
        let side = &mut self.link.side;
        if !side.outbox.is_empty() {
            return;
        }
        frontend::copy_done(&mut side.outbox);
        frontend::terminate(&mut side.outbox);
        if let Poll::Ready(Err(error)) = side.poll_drain(&mut Context::from_waker(Waker::noop())) {
            tracing::debug!(%error, "an origin was gone before it was told so");
        }
    }
}

type Asking = Pin<Box<dyn Future<Output = Option<Snapshot>> + Send>>;

/// The answer to what is asked; never, if nothing is.
async fn answer(asking: &mut Option<(usize, Asking)>) -> Option<Snapshot> {
    match asking {
        Some((_, snapshot)) => snapshot.await,
        None => std::future::pending().await,
    }
}

async fn expect_logical(link: &mut Link, within: Duration) -> Result<(), ReplicationFailure> {
    let version = link.parameters.get("server_version").map_or("", |v| v);
    let digits = version.split(|c: char| !c.is_ascii_digit()).next();
    let major: u32 = digits.and_then(|major| major.parse().ok()).unwrap_or(0);
    if major < VERSION_MIN {
        let message = format!(
            "the origin says it is version {version:?}: PostgreSQL {VERSION_MIN} is needed"
        );
        return Err(ReplicationFailure::new(ReplicationReason::Version, message));
    }
    let level = ask(link, "SHOW wal_level", within).await?;
    match level.first().map(String::as_str) {
        Some("logical") => Ok(()),
        level => {
            let level = level.unwrap_or("unknown");
            let message =
                format!("the origin's wal_level is {level}: set it to logical, and restart it");
            Err(ReplicationFailure::new(
                ReplicationReason::WalLevel,
                message,
            ))
        }
    }
}

/// Makes the publication if it is not there, and if that makes nobody's statements fail.
async fn publish(link: &mut Link, within: Duration) -> Result<(), ReplicationFailure> {
    let is_there = format!("SELECT pubname FROM pg_publication WHERE pubname = '{PUBLICATION}'");
    if !ask(link, &is_there, within).await?.is_empty() {
        return Ok(());
    }
    if let Some(table) = ask(link, WITHOUT_IDENTITY, within).await?.first() {
        let message = format!(
            "table {table} has no replica identity: with a publication of all tables its UPDATE and DELETE would fail. \
             Give it a primary key, or REPLICA IDENTITY FULL, or make the publication {PUBLICATION} yourself, of what \
             is to be heard of"
        );
        return Err(ReplicationFailure::new(
            ReplicationReason::Identity,
            message,
        ));
    }
    let made = ask(
        link,
        &format!("CREATE PUBLICATION {PUBLICATION} FOR ALL TABLES"),
        within,
    )
    .await;
    match made {
        // Another pool was faster.
        Err(failure) if is(&failure, "42710") || is(&failure, "23505") => Ok(()),
        made => Ok(made.map(drop)?),
    }
}

fn is(failure: &Failure, code: &str) -> bool {
    failure
        .error
        .as_ref()
        .is_some_and(|error| error.code() == code)
}

async fn ask(link: &mut Link, sql: &str, within: Duration) -> Result<Vec<String>, Failure> {
    let asked = timeout(within, connect::query(link, sql)).await;
    asked.unwrap_or_else(|_| Err(Failure::silent(within)))
}

/// A name that nobody else has.
fn slot_name() -> Result<String, Failure> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new(FailureKind::Protocol, format!("no randomness: {error}")))?;
    Ok(format!("{PUBLICATION}_{:016x}", u64::from_be_bytes(bytes)))
}

fn said(head: &Head) -> ReplicationFailure {
    Failure::said(PgError::decode(&head.body).unwrap_or_else(|error| error)).into()
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn broke(error: std::io::Error) -> ReplicationFailure {
    Failure::of_io(&error, "hearing of the origin's commits").into()
}

fn garbled(_: Garbled) -> ReplicationFailure {
    let message = "the origin sent what is not of the protocol of replication";
    ReplicationFailure::new(ReplicationReason::Refused, message)
}

fn hung_up() -> ReplicationFailure {
    let message = "the origin ended the stream of its commits";
    ReplicationFailure::new(ReplicationReason::Connection, message)
}
