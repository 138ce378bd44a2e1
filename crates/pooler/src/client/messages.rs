//! What becomes of a client's message.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use wire::pg::frontend::{self, Bind, Execute, Parse, kind};
use wire::pg::{Frame, Target, TransactionStatus, backend};
use wire::{PgError, sqlstate};

use super::Client;
use super::again::Kept;
use super::prepared::expect_own_names;
use super::unconfirmed::By;
use crate::awaited::{Awaited, Whose};
use crate::cache::{Ends, Writes};
use crate::cancel::Waiting;
use crate::facts::{Facts, Pin};
use crate::pool::Lease;
use crate::settings::unite;

const CLIENT: Whose = Whose::Client;

const NOTHING_ENDS: Ends = Ends {
    may_commit: false,
    may_end: false,
};

const MAY_END: Ends = Ends {
    may_commit: true,
    may_end: true,
};

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Passes a message on, or answers it.
    pub(super) fn message(&mut self, frame: Frame) -> Result<(), PgError> {
        if let Some(kept) = &mut self.kept
            && !kept.takes(&frame)
        {
            self.kept = None;
        }
        if frame.kind() != kind::QUERY {
            self.leased()?.discard_numbers()?;
        }
        match frame.kind() {
            kind::QUERY if self.deallocates(&frame) => Ok(()),
            kind::QUERY => self.query(&frame),
            kind::PARSE => self.parse(&frame),
            kind::BIND => self.bind(&frame),
            kind::DESCRIBE => self.describe(&frame),
            kind::CLOSE => self.close(&frame),
            kind::EXECUTE => self.execute(&frame),
            kind::SYNC => {
                self.cached.bound = None;
                self.pass(&frame, Awaited::Sync(CLIENT)).map(drop)
            }
            kind::FLUSH => {
                self.unflushed = 0;
                self.pass_unanswered(&frame)
            }
            kind::COPY_DATA => self.pass_unanswered(&frame),
            kind::COPY_DONE | kind::COPY_FAIL => {
                self.pass_unanswered(&frame)?;
                self.leased()?.account.copy_ends();
                Ok(())
            }
            kind::FUNCTION_CALL => {
                self.leased()?.is_tainted = true;
                self.sends(&Writes::unknown(), NOTHING_ENDS)?;
                self.pass(&frame, Awaited::FunctionCall).map(drop)
            }
            other => Err(PgError::fatal(
                sqlstate::PROTOCOL_VIOLATION,
                format!("invalid frontend message type {other}"),
            )),
        }
    }

    pub(super) fn leased(&mut self) -> Result<&mut Lease, PgError> {
        self.lease.as_mut().ok_or_else(|| {
            PgError::fatal(
                sqlstate::INTERNAL_ERROR,
                "BUG: a message of a client without a connection",
            )
        })
    }

    /// Whether it is answered: not so behind an error.
    fn pass(&mut self, frame: &Frame, awaited: Awaited) -> Result<bool, PgError> {
        let lease = self.leased()?;
        if awaited == Awaited::Sync(CLIENT) && lease.account.copies_in() {
            // It is ignored: where the server reads it, it does so too.
            return Ok(false);
        }
        lease.side.outbox.extend_from_slice(frame.bytes());
        let end = match awaited {
            Awaited::Sync(CLIENT) => Some(By::Sync),
            Awaited::Query(CLIENT) | Awaited::FunctionCall => Some(By::Query),
            _ => None,
        };
        let is_sent = lease.account.sent(awaited);
        if is_sent && let Some(by) = end {
            self.unconfirmed.ends(by);
        }
        Ok(is_sent)
    }

    fn pass_unanswered(&mut self, frame: &Frame) -> Result<(), PgError> {
        let outbox = &mut self.leased()?.side.outbox;
        outbox.extend_from_slice(frame.bytes());
        Ok(())
    }

    fn query(&mut self, frame: &Frame) -> Result<(), PgError> {
        let sql = frontend::decode_query(frame.body())?;
        let mut facts = self.pool.facts(sql);
        if !self.is_read_right(sql) {
            facts = Arc::new(facts.misread());
        }
        self.before(&facts)?;
        self.count(&facts, sql.len());
        let lease = self.leased()?;
        lease.side.outbox.extend_from_slice(frame.bytes());
        if lease.account.sent(Awaited::Query(CLIENT)) {
            if facts.takes_data {
                lease.account.expects_copy();
            }
            // As in Postgres, it takes the unnamed statement along.
            self.unnamed = None;
            self.unnamed_there = None;
            if facts.deallocates {
                self.drops_statements()?;
            }
            self.unconfirmed.ends(By::Query);
        }
        Ok(())
    }

    fn parse(&mut self, frame: &Frame) -> Result<(), PgError> {
        let parse = Parse::decode(frame.body())?;
        let statement = self.statement_of(&parse);
        if parse.statement.is_empty() {
            let awaited = Awaited::Parse {
                named: None,
                whose: CLIENT,
            };
            // Behind an error it is left out.
            if self.pass(frame, awaited)? {
                self.unconfirmed.prepares(Bytes::new(), &statement);
                self.unnamed_there = Some(statement.id);
                self.unnamed = Some(statement);
            }
            return Ok(());
        }
        let name = self.new_name(&parse)?;
        let lease = self.leased()?;
        let is_sent = if lease.prepared.get(&statement.id).is_some() {
            let mut told = BytesMut::new();
            backend::parse_complete(&mut told);
            lease.account.sent(Awaited::Told(told.freeze()))
        } else {
            lease.prepares(&statement, CLIENT)?
        };
        if is_sent {
            self.unconfirmed.prepares(name.clone(), &statement);
            self.statements.insert(name, statement);
        }
        Ok(())
    }

    /// Answers what needs no server, of a client that has none: statements that servers have taken before, and what is
    /// about names alone. Drivers prepare and describe in a round trip of its own; who only prepares waits for nobody.
    pub(super) fn needs_no_server(&mut self, frame: &Frame) -> Result<bool, PgError> {
        match frame.kind() {
            kind::QUERY => return Ok(self.deallocates(frame)),
            kind::PARSE => {
                let Ok(parse) = Parse::decode(frame.body()) else {
                    return Ok(false);
                };
                let statement = self.statement_of(&parse);
                if !statement.is_valid()
                    || self.statements.contains_key(parse.statement)
                    || self.expect_room(&parse).is_err()
                {
                    return Ok(false);
                }
                match parse.statement.is_empty() {
                    true => self.unnamed = Some(statement),
                    false => {
                        let name = Bytes::copy_from_slice(parse.statement);
                        self.statements.insert(name, statement);
                    }
                }
                self.tell_later(backend::parse_complete);
            }
            kind::CLOSE => {
                let Ok((Target::Statement, name)) = frontend::decode_target(frame.body()) else {
                    return Ok(false);
                };
                match name.is_empty() {
                    true => self.unnamed = None,
                    false => drop(self.statements.remove(name)),
                }
                self.tell_later(backend::close_complete);
            }
            kind::SYNC => backend::ready_for_query(&mut self.side.outbox, TransactionStatus::Idle),
            kind::FLUSH => self.unflushed = 0,
            // What is left of a `COPY` that has failed.
            kind::COPY_DATA | kind::COPY_DONE | kind::COPY_FAIL => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Puts an answer of ours into the outbox that may wait there until something is flushed.
    fn tell_later(&mut self, answer: impl FnOnce(&mut BytesMut)) {
        let out = &mut self.side.outbox;
        let is_held = out.is_empty() || out.len() == self.unflushed;
        answer(out);
        self.unflushed = match is_held {
            true => out.len(),
            false => 0,
        };
    }

    fn bind(&mut self, frame: &Frame) -> Result<(), PgError> {
        let (portal, name) = Bind::decode_names(frame.body())?;
        let rest = frame.body().get(portal.len() + name.len() + 2..);
        let rest = rest.unwrap_or_default();
        let statement = self.statement_to_send(name)?;
        self.before(&Arc::clone(&statement.facts))?;
        self.count(&statement.facts, statement.sql.len() + rest.len());
        self.cached.bound = Some(Bytes::copy_from_slice(portal));
        let there = self.known_there(&statement, name.is_empty())?;
        let lease = self.leased()?;
        let is_first = lease.account.has_begun_nothing();
        let begin = lease.side.outbox.len();
        put(
            &mut lease.side.outbox,
            kind::BIND,
            &[portal, b"\0", there.as_bytes(), b"\0", rest],
        )?;
        let kept = match is_first && !name.is_empty() {
            true => Kept::new(&statement, &lease.side.outbox[begin..]),
            false => None,
        };
        let is_sent = lease.account.sent(Awaited::Bind);
        self.kept = kept;
        self.taking.binds(portal, statement.facts.takes_data);
        if is_sent && statement.facts.deallocates {
            self.dropping = Some(Bytes::copy_from_slice(portal));
        } else if is_sent && self.dropping.as_deref() == Some(portal) {
            self.dropping = None;
        }
        Ok(())
    }

    fn execute(&mut self, frame: &Frame) -> Result<(), PgError> {
        let execute = Execute::decode(frame.body())?;
        if self.cached.bound.as_deref() != Some(execute.portal) {
            // Of a portal of before, which may be a `COMMIT`.
            self.sends(&Writes::default(), MAY_END)?;
        }
        let is_sent = self.pass(frame, Awaited::Execute)?;
        if is_sent && self.taking.takes(execute.portal) {
            let lease = self.leased()?;
            lease.account.expects_copy();
            // What comes behind waits for its answer.
            frontend::flush(&mut lease.side.outbox);
        }
        if is_sent && self.dropping.as_deref() == Some(execute.portal) {
            self.dropping = None;
            self.drops_statements()?;
        }
        Ok(())
    }

    /// What drops all statements was sent: those of behind it are others.
    fn drops_statements(&mut self) -> Result<(), PgError> {
        self.leased()?.drops_all();
        self.unconfirmed.drops(std::mem::take(&mut self.statements));
        Ok(())
    }

    /// Tells the cache what the server is about to do.
    fn sends(&mut self, writes: &Writes, ends: Ends) -> Result<(), PgError> {
        let cache = Arc::clone(&self.pool.cache);
        self.leased()?.sends(&cache, writes, ends);
        Ok(())
    }

    fn describe(&mut self, frame: &Frame) -> Result<(), PgError> {
        let (target, name) = frontend::decode_target(frame.body())?;
        if target == Target::Portal {
            return self.pass(frame, Awaited::Describe).map(drop);
        }
        let statement = self.statement_to_send(name)?;
        let there = self.known_there(&statement, name.is_empty())?;
        self.describes(&statement);
        let lease = self.leased()?;
        frontend::describe(&mut lease.side.outbox, Target::Statement, there.as_bytes())?;
        lease.account.sent(Awaited::Describe);
        Ok(())
    }

    fn close(&mut self, frame: &Frame) -> Result<(), PgError> {
        let (target, name) = frontend::decode_target(frame.body())?;
        if target == Target::Portal || name.is_empty() {
            let awaited = Awaited::Close {
                named: None,
                whose: CLIENT,
            };
            if self.pass(frame, awaited)? && target == Target::Statement {
                self.unnamed = None;
                self.unnamed_there = None;
            }
            return Ok(());
        }
        // Servers keep it for others.
        let mut told = BytesMut::new();
        backend::close_complete(&mut told);
        if self.leased()?.account.sent(Awaited::Told(told.freeze())) {
            self.unconfirmed.closes(self.statements.remove_entry(name));
        }
        Ok(())
    }

    /// What a statement does to its session, before it does it.
    fn before(&mut self, facts: &Facts) -> Result<(), PgError> {
        expect_own_names(facts)?;
        self.touched.expect_room(&facts.sets)?;
        let judged = self.pool.judge(facts);
        self.by_old_lore |= judged.by_old_lore;
        let is_known = judged.is_known;
        let change = facts
            .reading
            .writes
            .catalog
            .then(|| self.pool.changes_catalog());
        let names: Vec<String> = match facts.resets_all {
            true => self.settings.names().map(str::to_owned).collect(),
            false => Vec::new(),
        };
        let cache = Arc::clone(&self.pool.cache);
        let writes = cache.writes(facts, is_known, &self.cached.temporary);
        let lease = self.leased()?;
        if let Some(pin) = facts.pins.first() {
            lease.pin(*pin)?;
        }
        lease.discard_numbers()?;
        if facts.gives_numbers {
            lease.gives_numbers();
        }
        lease.is_tainted |= judged.may_leave;
        if lease.change.is_none() {
            lease.change = change;
        }
        let writing = &facts.reading.writes;
        let ends = Ends {
            may_commit: writing.may_commit,
            may_end: writing.may_end,
        };
        lease.sends(&cache, &writes, ends);
        if writing.everything {
            // It may have dropped them.
            self.cached.temporary.clear();
        }
        self.cached
            .temporary
            .extend(writing.temporary.iter().cloned());
        self.touched.extend(names);
        self.touched.extend(facts.sets.iter().cloned());
        self.touched_locally.extend_or_forget(&facts.sets_locally);
        self.pins.extend(facts.pins.iter().copied());
        self.due.unpins.extend(facts.unpins.iter().copied());
        // The one may stand before the other.
        self.due.unpins.retain(|pin| !facts.pins.contains(pin));
        Ok(())
    }

    /// Gets a server for a message: false if the client has left meanwhile. Without one the message is answered, or
    /// has failed.
    pub(super) async fn lease_for(&mut self, frame: &Frame) -> Result<bool, PgError> {
        let waiting = self.identity.canceller.waits();
        let Some(taken) = self.take_lease(&waiting).await else {
            return Ok(false);
        };
        match taken {
            Ok(lease) => self.has(lease, waiting, frame).await,
            Err(error) => self.refuse(error, frame),
        }
        Ok(true)
    }

    /// A server whose session is this client's; nothing if the client leaves while it waits.
    async fn take_lease(&mut self, waiting: &Waiting) -> Option<Result<Lease, PgError>> {
        let taking = async {
            let mut may_try_another = true;
            loop {
                let mut lease = self.pool.lease(&self.identity.label).await?;
                let was_anothers = lease.is_tainted && lease.last_client != self.number;
                let became = lease.become_of(self.number, &mut self.settings).await;
                let Err(failure) = became else {
                    return Ok(lease);
                };
                if was_anothers && std::mem::take(&mut may_try_another) {
                    // What another has left is in the way, and ends with its connection.
                    tracing::warn!(binding = &*self.pool.name(), %failure, "a connection could not be made ready for another session");
                    continue;
                }
                let error = failure.to_error();
                return Err(PgError::error(error.code(), error.message()).detail(
                    "The settings of this session could not be restored on another connection.",
                ));
            }
        };
        let side = &mut self.side;
        let max = self.message_bytes_max;
        let taken = tokio::select! {
            biased;
            taken = taking => taken,
            () = waiting.cancelled() => Err(self.pool.cancelled_unsent()),
            () = left(side, max) => return None,
        };
        let mut lease = match taken {
            Ok(taken) => taken,
            Err(error) => return Some(Err(error)),
        };
        self.unnamed_there = None;
        unite(&mut self.told, &mut lease.parameters);
        if !Arc::ptr_eq(&self.told, &lease.parameters) {
            for (name, value) in lease.parameters.iter() {
                if self.told.get(name) != Some(value) {
                    backend::parameter_status(&mut self.side.outbox, name, value);
                }
            }
            self.told = Arc::clone(&lease.parameters);
        }
        Some(Ok(lease))
    }
}

/// Ends when a client is gone. What it sends meanwhile is kept, up to a limit.
pub(super) async fn left<S: AsyncRead + AsyncWrite + Unpin>(
    side: &mut crate::side::Side<S>,
    max: usize,
) {
    let begun = side.inbox.len();
    while side.inbox.len() - begun < super::WAITING_BYTES_MAX.min(max) {
        if !matches!(side.fill().await, Ok(read) if read > 0) {
            return;
        }
    }
    std::future::pending().await
}

/// Writes a message of these parts.
pub(super) fn put(out: &mut BytesMut, kind: u8, parts: &[&[u8]]) -> Result<(), PgError> {
    let body: usize = parts.iter().map(|part| part.len()).sum();
    let length = i32::try_from(body + 4).map_err(|_| {
        PgError::error(
            sqlstate::PROGRAM_LIMIT_EXCEEDED,
            "the message is longer than 2 GiB",
        )
    })?;
    out.reserve(body + 5);
    out.extend_from_slice(&[kind]);
    out.extend_from_slice(&length.to_be_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part));
    Ok(())
}

impl<S> Client<S> {
    /// Whether it must keep its server.
    pub(super) fn is_pinned(&self) -> bool {
        !self.pins.is_empty()
    }

    /// Why.
    pub(super) fn pins(&self) -> impl Iterator<Item = Pin> {
        self.pins.iter().copied()
    }
}
