//! What a client gets from the cache, and what the cache takes down for it.
//!
//! A client without a server has its `Bind`, `Describe` and `Execute` held until `Sync`: then it is known what they ask,
//! and whether a server is needed. Whatever comes in another order goes to a server as it came.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use wire::PgError;
use wire::pg::frontend::{self, Bind, kind};
use wire::pg::{Frame, Severity, Target, TransactionStatus, backend};

use super::held::Held;
use super::{Client, WAITING_BYTES_MAX, cancelled};
use crate::awaited::{Awaited, StatementId};
use crate::cache::{
    Asked, Boarding, CacheStatus, Looked, Question, Recording, SHARED_WAIT_MAX, Stamp,
};
use crate::facts::{Facts, Pin};
use crate::statements::Statement;

/// What the cache has to do with one client.
#[derive(Debug, Default)]
pub(super) struct Cached {
    pub(super) held: Held,
    /// What has become of the query that is about to be sent.
    judged: Option<CacheStatus>,
    pub(super) recording: Option<Recording>,
    /// What is left of an answer that is given.
    giving: Bytes,
    is_giving: bool,
    pub(super) describing: Option<Describing>,
    /// What the client was told of a statement without asking a server.
    told: Option<(StatementId, Bytes)>,
    /// Relations that the session has made for itself.
    pub(super) temporary: BTreeSet<String>,
    /// The portal that was bound last since the last `Sync`.
    pub(super) bound: Option<Bytes>,
}

/// The answer to a `Describe` that is taken down.
#[derive(Debug)]
pub(super) struct Describing {
    statement: Arc<Statement>,
    stamp: Stamp,
    asked: Instant,
    answer: BytesMut,
}

/// What has become of a message.
pub(super) enum Answer {
    /// It is done with.
    Done,
    /// It goes the usual way.
    Pass,
    /// The client has left.
    Left,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// A message of a client that has no server.
    pub(super) async fn try_cache(&mut self, frame: &Frame) -> Result<Answer, PgError> {
        if !self.pool.cache.is_on() && self.cached.held.frames.is_empty() {
            return Ok(Answer::Pass);
        }
        if frame.kind() == kind::QUERY && self.cached.held.frames.is_empty() {
            return self.simple(frame).await;
        }
        if frame.kind() == kind::SYNC && self.is_whole() {
            return self.batch(frame).await;
        }
        if self.hold(frame) {
            return Ok(Answer::Done);
        }
        if !self.cached.held.frames.is_empty() {
            return self.release(frame).await;
        }
        if frame.kind() == kind::DESCRIBE
            && let Ok((Target::Statement, name)) = frontend::decode_target(frame.body())
            && let Ok(statement) = self.statement(name)
            && let Some(described) = statement.described(&self.pool.cache)
        {
            self.side.outbox.extend_from_slice(&described);
            self.cached.told = Some((statement.id, described));
            return Ok(Answer::Done);
        }
        Ok(Answer::Pass)
    }

    /// A query in one message.
    async fn simple(&mut self, frame: &Frame) -> Result<Answer, PgError> {
        let Ok(sql) = frontend::decode_query(frame.body()) else {
            return Ok(Answer::Pass);
        };
        let cache = Arc::clone(&self.pool.cache);
        let text = cache.text(sql, || self.pool.facts(sql));
        let conforms = self.conforms();
        match cache.judge(&text, &self.settings, conforms, Asked::Simple) {
            Ok(question) => self.answer(question, frame).await,
            Err(status) => {
                self.cached.judged = Some(status);
                Ok(Answer::Pass)
            }
        }
    }

    /// A query in several messages, of which this is the `Sync`.
    async fn batch(&mut self, sync: &Frame) -> Result<Answer, PgError> {
        let Some(statement) = self.cached.held.statement.clone() else {
            return self.release(sync).await;
        };
        let cache = Arc::clone(&self.pool.cache);
        let text = statement.text(&cache);
        let bind = self.cached.held.bind.clone();
        let asked = Asked::Extended {
            oids: &statement.oids,
            bind: &bind,
            describes: self.cached.held.describes,
        };
        match cache.judge(&text, &self.settings, self.conforms(), asked) {
            Ok(question) => match self.answer(question, sync).await? {
                Answer::Pass => self.release(sync).await,
                answer => Ok(answer),
            },
            Err(status) => {
                self.cached.judged = Some(status);
                self.release(sync).await
            }
        }
    }

    /// Answers from the cache, or has a server for it whose answer is taken down.
    async fn answer(&mut self, mut question: Question, frame: &Frame) -> Result<Answer, PgError> {
        let cache = Arc::clone(&self.pool.cache);
        match cache.look(&mut question) {
            Looked::Fresh(answer) => {
                self.give(answer);
                return Ok(Answer::Done);
            }
            Looked::Stale(answer) => {
                cache.refresh(question, || self.again(frame));
                self.give(answer);
                return Ok(Answer::Done);
            }
            Looked::Oversized => {
                self.cached.judged = Some(CacheStatus::OversizedResult);
                return Ok(Answer::Pass);
            }
            Looked::Nothing => {}
        }
        if let Some(Err(status)) = cache.known_tables(&question) {
            self.cached.judged = Some(status);
            return Ok(Answer::Pass);
        }
        let wanted = self.identity.canceller.waits();
        let flight = match cache.board(&question) {
            Boarding::First(flight) => Some(flight),
            Boarding::Other(waiting) => {
                let max = self.message_bytes_max;
                tokio::select! {
                    biased;
                    _ = waiting.within(SHARED_WAIT_MAX) => {}
                    // No server is had, then, for what nobody wants.
                    () = wanted.cancelled() => {}
                    () = super::messages::left(&mut self.side, max) => return Ok(Answer::Left),
                }
                if let Looked::Fresh(answer) = cache.look(&mut question) {
                    // It has come, whoever wanted it cancelled.
                    cache.counters.shared.fetch_add(1, Ordering::Relaxed);
                    self.give(answer);
                    return Ok(Answer::Done);
                }
                None
            }
        };
        if !self.lease_for(frame).await? {
            return Ok(Answer::Left);
        }
        let Some(lease) = &mut self.lease else {
            return Ok(self.failed(frame));
        };
        let tables = match lease.prepare_to_read(&self.settings).await {
            Ok(()) => cache.tables(lease, &question).await,
            Err(failure) => Err(failure),
        };
        match tables {
            Err(_) if wanted.is_cancelled() => {
                // Nobody knows where it stands.
                lease.is_broken = true;
                return self.unwanted(frame).await;
            }
            Ok(Ok(depends)) => {
                self.cached.judged = Some(CacheStatus::Miss);
                self.cached.recording = cache.record(lease, question, depends, flight);
            }
            Ok(Err(status)) => self.cached.judged = Some(status),
            Err(failure) => {
                tracing::warn!(binding = &*self.pool.name(), %failure, "the origin did not tell on what a query depends");
                cache.give_up(&question);
                self.cached.judged = Some(CacheStatus::Uncacheable);
                // Nobody knows where it stands.
                self.identity.canceller.has_none().await;
                self.lease = None;
                if !self.lease_for(frame).await? {
                    return Ok(Answer::Left);
                }
                if self.lease.is_none() {
                    return Ok(self.failed(frame));
                }
            }
        }
        match wanted.ends() {
            true => self.unwanted(frame).await,
            false => Ok(Answer::Pass),
        }
    }

    /// A query was cancelled while the server was asked on what its answer depends.
    async fn unwanted(&mut self, frame: &Frame) -> Result<Answer, PgError> {
        self.cached.recording = None;
        self.cached.judged = None;
        self.identity.canceller.has_none().await;
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
        self.refuse(cancelled(), frame);
        Ok(self.failed(frame))
    }

    /// There is no server, which the client has been told.
    fn failed(&mut self, frame: &Frame) -> Answer {
        self.cached.held = Held::default();
        if self.skips {
            self.skip(frame);
        }
        Answer::Done
    }

    /// Gives an answer of the cache.
    fn give(&mut self, answer: Bytes) {
        let cache = &self.pool.cache;
        cache.counters.count(CacheStatus::Hit);
        cache
            .counters
            .hit_bytes
            .fetch_add(answer.len() as u64, Ordering::Relaxed);
        let held = std::mem::take(&mut self.cached.held);
        let notice = self.notice(CacheStatus::Hit);
        if let (Some(name), Some(statement)) = (held.name, &held.statement) {
            match name.is_empty() {
                true => self.unnamed = Some(Arc::clone(statement)),
                false => drop(self.statements.insert(name, Arc::clone(statement))),
            }
            backend::parse_complete(&mut self.side.outbox);
        }
        if held.statement.is_some() {
            backend::bind_complete(&mut self.side.outbox);
        } else {
            // As in Postgres, a simple query takes the unnamed statement along.
            self.unnamed = None;
        }
        self.side.outbox.extend_from_slice(&notice);
        self.cached.giving = answer;
        self.cached.is_giving = true;
        self.pour();
    }

    /// Gives as much of an answer as the client takes now: whether that is all.
    pub(super) fn pour(&mut self) -> bool {
        let cached = &mut self.cached;
        let out = &mut self.side.outbox;
        while !cached.giving.is_empty() {
            if out.len() > WAITING_BYTES_MAX {
                return false;
            }
            let now = cached.giving.len().min(WAITING_BYTES_MAX + 1);
            out.extend_from_slice(&cached.giving[..now]);
            cached.giving.advance(now);
        }
        if std::mem::take(&mut cached.is_giving) {
            cached.giving = Bytes::new();
            backend::ready_for_query(out, TransactionStatus::Idle);
        }
        true
    }

    /// Whether an answer is being given.
    pub(super) fn is_giving(&self) -> bool {
        !self.cached.giving.is_empty()
    }

    /// Counts a query that goes to a server, and tells its status if the session wants to know.
    pub(super) fn count(&mut self, facts: &Facts, bytes: usize) {
        let cache = Arc::clone(&self.pool.cache);
        let judged = self.cached.judged.take();
        cache
            .counters
            .query_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
        if self.cached.recording.is_some() && judged.is_some() {
            // At its end.
            return;
        }
        let status = judged.unwrap_or_else(|| self.status_of(facts));
        cache.counters.count(status);
        let notice = self.notice(status);
        if let Some(lease) = &mut self.lease
            && !notice.is_empty()
        {
            lease.account.sent(Awaited::Told(notice));
        }
    }

    /// Of a query of a client that has a server already.
    fn status_of(&self, facts: &Facts) -> CacheStatus {
        if let Err(status) = self.pool.cache.judge_text(facts, &self.settings) {
            return status;
        }
        let status = self.lease.as_ref().map(|lease| lease.account.status());
        match status {
            Some(status) if status != TransactionStatus::Idle => CacheStatus::Transaction,
            _ if self.is_pinned() => CacheStatus::Uncacheable,
            _ => CacheStatus::Miss,
        }
    }

    /// What a session is told that has asked for it; else nothing.
    fn notice(&self, status: CacheStatus) -> Bytes {
        if self.settings.get("dormouse.cache_notice") != Some("on") {
            return Bytes::new();
        }
        let mut notice = BytesMut::new();
        let text = format!("dormouse cache: {}", status.name());
        PgError::new(Severity::Notice, "00000", text).encode_notice(&mut notice);
        notice.freeze()
    }

    /// The answer that was taken down has come to its end.
    pub(super) fn recorded(&mut self, status: TransactionStatus) {
        if let Some(recording) = self.cached.recording.take() {
            let status = recording.finish(status);
            let notice = self.notice(status);
            self.side.outbox.extend_from_slice(&notice);
        }
    }

    /// A `Describe` of a statement is sent: its answer may be of use to others.
    pub(super) fn describes(&mut self, statement: &Arc<Statement>) {
        let cache = &self.pool.cache;
        let Some(lease) = &self.lease else {
            return;
        };
        let is_alone = lease.account.status() == TransactionStatus::Idle
            && lease.track.is_clean()
            && !lease.is_tainted
            && self.touched.is_empty()
            && self.touched_locally.is_empty()
            && !self.pins.contains(&Pin::Setting)
            && !lease.account.awaits_describe();
        if is_alone
            && cache.is_on()
            && self.cached.describing.is_none()
            && let Some(stamp) = cache.catalog_stamp()
        {
            self.cached.describing = Some(Describing {
                statement: Arc::clone(statement),
                stamp,
                asked: Instant::now(),
                answer: BytesMut::new(),
            });
        }
    }

    /// Before a `Bind` on a connection that is idle: whoever was told from memory what a statement gives is not given
    /// something else, if the catalog was changed elsewhere meanwhile.
    pub(super) async fn expect_told(&mut self, frame: &Frame) -> Result<(), PgError> {
        let Some((id, _)) = &self.cached.told else {
            return Ok(());
        };
        if frame.kind() != kind::BIND {
            return Ok(());
        }
        // What is wrong with it is told where it is sent.
        let Ok((_, name)) = Bind::decode_names(frame.body()) else {
            return Ok(());
        };
        let Ok(statement) = self.statement(name) else {
            return Ok(());
        };
        // Nor is it prepared for this alone where others, who have it too, would have it read otherwise.
        if statement.id == *id && !self.may_be_there(&statement) {
            self.cached.told = None;
            return Ok(());
        }
        let Some(lease) = &mut self.lease else {
            return Ok(());
        };
        if statement.id != *id || !lease.account.is_free_for_clients() || !self.relay.is_done() {
            return Ok(());
        }
        let Some((id, told)) = self.cached.told.take() else {
            return Ok(());
        };
        // A server that has said so keeps to it, or says an error itself.
        if !name.is_empty() && lease.prepared.get(&id).and_then(Option::as_ref) == Some(&told) {
            return Ok(());
        }
        let wanted = self.identity.canceller.waits();
        let described = lease.describe(&statement).await;
        self.side.outbox.extend_from_slice(&lease.heard.split());
        let described = described.map_err(|failure| failure.to_error())?;
        self.expect_wanted(wanted).await?;
        match described {
            Some(now) if now != told => {
                statement.forget_description();
                Err(PgError::error(
                    "0A000",
                    "cached plan must not change result type",
                ))
            }
            _ => Ok(()),
        }
    }

    /// Whether strings mean what they say.
    fn conforms(&self) -> bool {
        let conforms = self.told.get("standard_conforming_strings");
        conforms.is_some_and(|conforms| conforms == "on")
    }
}

impl Describing {
    /// A message of a server: whether that was the last of the answer.
    pub(super) fn message(&mut self, message: u8, bytes: &[u8]) -> bool {
        match message {
            backend::kind::PARAMETER_DESCRIPTION if self.answer.is_empty() => {
                self.answer.extend_from_slice(bytes);
                false
            }
            backend::kind::ROW_DESCRIPTION | backend::kind::NO_DATA if !self.answer.is_empty() => {
                self.answer.extend_from_slice(bytes);
                true
            }
            _ => false,
        }
    }

    /// The answer is whole.
    pub(super) fn finish(self) {
        self.statement
            .was_described(self.answer.freeze(), self.stamp, self.asked);
    }
}
