//! Messages of a client: which are the backend's, and which the host answers itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use engine::{ClientIo, Company};
use tracing::{Instrument as _, Span};
use volume::{Owed, Volume};
use wire::pg::{Frame, TransactionStatus, backend, frontend, statement};
use wire::{PgError, sqlstate};

use super::measure::Measure;
use super::{Session, SessionEnded, abandon_volume, as_error, sql};
use crate::further::Beside;
use crate::gate::{self, Ahead, Gated};
use crate::node::Node;
use crate::session::seating::Unseated;
use crate::statements::Handling;
use crate::trace::{TRACE, is_traced};
use crate::versions::Exchange;

/// Whose messages are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    Client,
    /// With the superuser's rights, in the client's transaction.
    Host,
}

impl Session {
    /// Runs whole frontend messages in order; the answers, and `io` back.
    ///
    /// `io` is asked for more input only in the middle of something (`COPY FROM STDIN`), and given
    /// output only when there is much; the rest of it is returned. Dropping the future in the
    /// middle costs the database its backend: it starts again from its last commit.
    ///
    /// # Errors
    ///
    /// [`SessionEnded`] if the backend ended; the session can only be closed then.
    pub async fn exchange(
        &mut self,
        messages: Bytes,
        io: Option<Box<dyn ClientIo>>,
    ) -> Result<(Bytes, Option<Box<dyn ClientIo>>), SessionEnded> {
        self.exchange_of(Whose::Client, messages, io).await
    }

    /// The same for messages of the client, or of the host.
    pub(super) async fn exchange_of(
        &mut self,
        whose: Whose,
        messages: Bytes,
        io: Option<Box<dyn ClientIo>>,
    ) -> Result<(Bytes, Option<Box<dyn ClientIo>>), SessionEnded> {
        self.is_traced = is_traced() && !self.is_unasked;
        let mut measure = self.measure(&messages);
        self.exchange_measured(whose, messages, io, &mut measure)
            .await
    }

    async fn exchange_measured(
        &mut self,
        whose: Whose,
        messages: Bytes,
        io: Option<Box<dyn ClientIo>>,
        measure: &mut Measure,
    ) -> Result<(Bytes, Option<Box<dyn ClientIo>>), SessionEnded> {
        if self.slot.is_none()
            && let Some(ended) = self.unusable()
        {
            return Err(ended);
        }
        match self.take_seat(false).await {
            Ok(()) => {}
            Err(Unseated::Busy(error) | Unseated::Broken(error)) => {
                let output = self.refuse(messages, error);
                measure.tally.add(&output);
                self.measured(measure, Duration::ZERO, None);
                return Ok((output, io));
            }
            Err(Unseated::Ended(error)) => return Err(self.ended(error)),
        }
        self.rest().await;
        self.share();
        let exchange = Exchange::begin(&self.database);
        let ahead = Ahead::default();
        let mut ungate = None;
        let is_first = self.slot.as_ref().is_some_and(|slot| !slot.is_further);
        if let Some(slot) = &mut self.slot
            && let Some(backend) = &mut slot.backend
        {
            let io = io.map(|io| {
                let (gated, key) = Gated::new(io, &ahead, backend.volume(), exchange.has_told());
                ungate = Some(key);
                Box::new(gated) as Box<dyn ClientIo>
            });
            backend.attach(io);
            let company = Beside(Arc::downgrade(&self.database));
            backend.expect(is_first.then(|| Arc::new(company) as Arc<dyn Company>));
        }
        let mut output = BytesMut::new();
        let span = measure.runs(self);
        self.watch_reads(&span);
        let wal_began = self.is_traced.then(|| self.wal_end()).flatten();
        let handling = self.handle(whose, messages, &ahead, &mut output);
        let result = handling.instrument(span).await;
        self.leave_reads();
        self.end_exchange(exchange, result.is_ok()).await;
        self.look_at_statement(measure).await;
        if let Some(backend) = self.slot.as_mut().and_then(|slot| slot.backend.as_mut()) {
            backend.attach(None);
            backend.expect(None);
        }
        let volume = self
            .slot
            .as_ref()
            .and_then(|slot| Some(slot.backend.as_ref()?.volume()));
        let volume = volume.or_else(|| self.database.open_volume());
        // Others need not wait for the disk.
        self.park().await;
        // Also after an error: what comes before it may reveal a commit.
        let mut gate = Duration::ZERO;
        let settled = match &volume {
            Some(volume) => {
                let span = match wal_began {
                    // A write has its gate in the trace also where the disk was the faster one.
                    Some(began) if volume.wal_end() > began || volume.owed() != Owed::default() => {
                        tracing::trace_span!(target: TRACE, "gate")
                    }
                    _ => Span::none(),
                };
                wait_for_disk(&self.node, volume, &mut gate)
                    .instrument(span)
                    .await
            }
            None => Ok(()),
        };
        let io = ungate.and_then(|ungate| ungate.take(measure));
        let uncounted = output.get(measure.counted..).unwrap_or_default();
        measure.tally.add(uncounted);
        if let Err(ended) = &result {
            measure.tally.add(&ended.output);
        }
        let wal_end = volume.map(|volume| volume.wal_end());
        self.measured(measure, gate, wal_end);
        if let Err(error) = settled {
            return Err(self.not_durable(error).await);
        }
        match result {
            Ok(()) => Ok((output.freeze(), io)),
            Err(ended) => {
                output.extend_from_slice(&ended.output);
                Err(SessionEnded {
                    output: output.freeze(),
                    ..ended
                })
            }
        }
    }

    /// LSN past the last WAL that was written, if a volume is open.
    fn wal_end(&self) -> Option<u64> {
        let volume = self.database.open_volume()?;
        Some(volume.wal_end())
    }

    /// Why nothing can be asked of the session any more.
    fn unusable(&self) -> Option<SessionEnded> {
        if self.database.is_dropped() {
            return Some(self.ended(self.database.dropped_error()));
        }
        self.node.is_closing().then(|| {
            self.ended(PgError::fatal(
                sqlstate::ADMIN_SHUTDOWN,
                "terminating connection due to administrator command",
            ))
        })
    }

    /// Answers messages with an error of ours, as Postgres does: a query fails, and of an extended one
    /// everything up to the next `Sync`.
    fn refuse(&mut self, messages: Bytes, error: PgError) -> Bytes {
        let error = as_error(error);
        let mut output = BytesMut::new();
        let mut rest = BytesMut::from(messages);
        while let Ok(Some(frame)) = Frame::split(&mut rest, usize::MAX) {
            match frame.kind() {
                frontend::kind::SYNC => {
                    self.skipping = false;
                    backend::ready_for_query(&mut output, TransactionStatus::Idle);
                }
                frontend::kind::TERMINATE => break,
                _ if self.skipping => {}
                frontend::kind::QUERY | frontend::kind::FUNCTION_CALL => {
                    error.encode(&mut output);
                    backend::ready_for_query(&mut output, TransactionStatus::Idle);
                }
                frontend::kind::COPY_DATA
                | frontend::kind::COPY_DONE
                | frontend::kind::COPY_FAIL
                | frontend::kind::FLUSH => {}
                _ => {
                    error.encode(&mut output);
                    self.skipping = true;
                }
            }
        }
        output.freeze()
    }

    /// Handles messages one after the other. Those that it has not come to yet are `ahead`, where a `COPY` finds
    /// them.
    async fn handle(
        &mut self,
        whose: Whose,
        messages: Bytes,
        ahead: &Ahead,
        output: &mut BytesMut,
    ) -> Result<(), SessionEnded> {
        if let Some(ended) = self.unusable() {
            return Err(ended);
        }
        if let Err(error) = self.mind_the_disk().await {
            return Err(self.ended(error));
        }
        if whose == Whose::Host {
            return self.handle_host(messages, output).await;
        }
        self.provide_sql(&messages, output).await?;
        *ahead.lock() = BytesMut::from(messages);
        let mut pending = BytesMut::new();
        loop {
            let split = Frame::split(&mut ahead.lock(), usize::MAX);
            let frame = match split {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => return Err(self.ended(error)),
            };
            if self.skipping {
                if frame.kind() != frontend::kind::SYNC {
                    continue;
                }
                self.skipping = false;
            }
            if frame.kind() == frontend::kind::TERMINATE {
                break;
            }
            if !self.absent.is_empty() {
                let wanted = self.absent.wanted(&frame);
                if !wanted.is_empty() {
                    if !pending.is_empty() {
                        self.absent.add(wanted);
                        put_back(&frame, &mut ahead.lock());
                        self.run(&mut pending, output).await?;
                        continue;
                    }
                    let is_query = frame.kind() == frontend::kind::QUERY;
                    self.provide(wanted, is_query, output).await?;
                }
            }
            if self.is_plain(&frame) {
                pending.extend_from_slice(frame.bytes());
                continue;
            }
            if !pending.is_empty() {
                // What came before must have happened before. A COPY in it may want this one too.
                put_back(&frame, &mut ahead.lock());
                self.run(&mut pending, output).await?;
                continue;
            }
            self.special(frame, &mut pending, output).await?;
        }
        self.run(&mut pending, output).await
    }

    /// Whether a message is the backend's alone.
    fn is_plain(&self, frame: &Frame) -> bool {
        let Some(text) = sql(frame) else {
            return !self.statements.concerns(frame);
        };
        let catalog = statement::mentions(text, "pg_database");
        let ours = frame.kind() == frontend::kind::QUERY
            && matches!(statement::database_statement(text), Ok(Some(_)) | Err(_));
        !catalog && !ours && !self.statements.concerns(frame)
    }

    /// A message that this host answers itself, or does something before.
    async fn special(
        &mut self,
        frame: Frame,
        pending: &mut BytesMut,
        output: &mut BytesMut,
    ) -> Result<(), SessionEnded> {
        // In a transaction block the backend refuses database statements itself, with the right
        // error and the right consequences.
        let idle = self.status == TransactionStatus::Idle;
        if frame.kind() == frontend::kind::QUERY && idle {
            let text = frontend::decode_query(frame.body()).unwrap_or_default();
            match statement::database_statement(text) {
                Ok(Some(found)) => {
                    match self.run_database_statement(&found).await {
                        Ok(()) => backend::command_complete(output, found.command_tag()),
                        Err(error) => error.encode(output),
                    }
                    backend::ready_for_query(output, TransactionStatus::Idle);
                    return Ok(());
                }
                Ok(None) => {}
                Err(error) => {
                    error.encode(output);
                    backend::ready_for_query(output, TransactionStatus::Idle);
                    return Ok(());
                }
            }
        } else if idle && self.statements.concerns(&frame) {
            let refused = match self.statements.handle(&frame, output) {
                Handling::Backend => None,
                Handling::Answered => return Ok(()),
                Handling::Refused(error) => Some(error),
                Handling::Execute(found) => match self.run_database_statement(&found).await {
                    Ok(()) => {
                        backend::command_complete(output, found.command_tag());
                        return Ok(());
                    }
                    Err(error) => Some(error),
                },
            };
            if let Some(error) = refused {
                error.encode(output);
                self.skipping = true;
                return Ok(());
            }
        }
        if idle && self.at_rest {
            self.refresh_catalog(&frame).await?;
        }
        pending.extend_from_slice(frame.bytes());
        Ok(())
    }

    /// What was committed could not be made durable: nobody may see it, so the backend goes, and what
    /// it answered is not told.
    async fn not_durable(&mut self, error: PgError) -> SessionEnded {
        tracing::error!(database = %self.database.name(), %error, "a commit is not durable");
        // It has let go of its process by now, which others see the commit in, as do all that share its memory.
        self.database.further.stop();
        let mut own = self.own_slot();
        if let Some(slot) = self.slot.as_deref_mut().or(own.as_deref_mut()) {
            slot.lose(&self.database);
        }
        drop(own);
        abandon_volume(&self.database).await;
        let error = PgError::fatal(error.code(), error.message().to_owned())
            .detail("The last statements are not acknowledged: they may or may not be kept.")
            .hint("Connect again: the database starts from its last durable commit.");
        self.ended(error)
    }
}

/// Puts a message before the others again.
fn put_back(frame: &Frame, messages: &mut BytesMut) {
    let mut all = BytesMut::from(&frame.bytes()[..]);
    all.unsplit(std::mem::take(messages));
    *messages = all;
}

/// Waits for the disk if something is owed, and counts how long in `waited`.
async fn wait_for_disk(
    node: &Node,
    volume: &Arc<Volume>,
    waited: &mut Duration,
) -> Result<(), PgError> {
    if volume.owed() == Owed::default() {
        return Ok(());
    }
    let began = Instant::now();
    let settled = gate::settle(volume).await;
    *waited = began.elapsed();
    node.counters.gate_waits.took(*waited);
    settled
}
