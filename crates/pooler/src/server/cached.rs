//! What the cache asks of a connection, and is told of it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::time::timeout;
use wire::pg::{Frame, Target, TransactionStatus, backend, frontend};

use super::{MESSAGE_BYTES_MAX, Server};
use crate::awaited::{Awaited, Whose};
use crate::cache::{Again, Cache, Ends, Recording, Writes};
use crate::failure::{Failure, FailureKind};
use crate::settings::Settings;
use crate::statements::Statement;

/// Leaves nothing on which an answer to a query depends.
const CLEAN_FOR_READING: &str = "SET SESSION AUTHORIZATION DEFAULT;RESET ALL;DISCARD TEMP";

impl Server {
    /// A statement that writes these is about to be sent.
    pub(crate) fn sends(&mut self, cache: &Arc<Cache>, writes: &Writes, ends: Ends) {
        let in_transaction = self.account.status() != TransactionStatus::Idle;
        let pid = self.key.pid();
        self.track.sends(cache, pid, writes, ends, in_transaction);
    }

    /// To be called when answers have come: what has been committed is known when none is outstanding.
    pub(crate) fn settle(&mut self) {
        if self.account.is_quiet() {
            let in_transaction = self.account.status() != TransactionStatus::Idle;
            self.track.settled(in_transaction);
            if !in_transaction {
                self.change = None;
            }
        }
    }

    /// Asks what a client has asked before, for the cache.
    ///
    /// # Errors
    ///
    /// If the server does not answer to the end; it cannot be used again then.
    pub(crate) async fn answer_again(
        &mut self,
        again: Again,
        mut recording: Recording,
    ) -> Result<(), Failure> {
        let broke = |error: std::io::Error| Failure::of_io(&error, "talking to the server");
        self.side.outbox.extend_from_slice(&again.messages);
        for awaited in again.awaited {
            self.account.sent(awaited);
        }
        self.side.drain().await.map_err(broke)?;
        loop {
            while let Some(frame) =
                Frame::split(&mut self.side.inbox, usize::MAX).map_err(Failure::said)?
            {
                let status = match frame.kind() {
                    backend::kind::READY_FOR_QUERY => {
                        let status = backend::decode_ready_for_query(frame.body());
                        Some(status.map_err(Failure::said)?)
                    }
                    _ => None,
                };
                let received = self.received_expected(frame.kind(), status);
                received.map_err(Failure::said)?;
                if frame.kind() == backend::kind::PARAMETER_STATUS {
                    self.parameter(frame.body());
                }
                if let Some(status) = status {
                    recording.finish(status);
                    return Ok(());
                }
                recording.message(frame.kind());
                recording.bytes(frame.bytes());
            }
            if self.side.fill().await.map_err(broke)? == 0 {
                return Err(Failure::new(FailureKind::Network, "the server hung up"));
            }
        }
    }

    /// Makes its session one of these settings and nothing else on which an answer depends, whatever functions have
    /// left there.
    ///
    /// # Errors
    ///
    /// What the server says; it cannot be used again then.
    pub(crate) async fn prepare_to_read(&mut self, settings: &Settings) -> Result<(), Failure> {
        if !self.is_tainted {
            return Ok(());
        }
        let mut sql = CLEAN_FOR_READING.to_owned();
        if let Some(set) = Settings::default().turn_into(settings) {
            sql.push(';');
            sql.push_str(&set);
        }
        self.ask(&sql).await?;
        self.settings = settings.clone();
        Ok(())
    }

    /// What a statement gives, as this server has it; nothing if it does not take it.
    ///
    /// # Errors
    ///
    /// If the server does not answer to the end; it cannot be used again then.
    pub(crate) async fn describe(
        &mut self,
        statement: &Statement,
    ) -> Result<Option<Bytes>, Failure> {
        let id = statement.id;
        let whose = Whose::Pool;
        if self.prepared.get(&id).is_none() {
            self.prepares(statement, whose).map_err(Failure::said)?;
        }
        let out = &mut self.side.outbox;
        let name = statement.name.as_bytes();
        frontend::describe(out, Target::Statement, name).map_err(Failure::said)?;
        frontend::sync(out);
        self.account.sent(Awaited::Describe);
        self.account.sent(Awaited::Sync(whose));
        let patience = self.patience;
        let described = timeout(patience, self.description()).await;
        let described = described.unwrap_or_else(|_| Err(Failure::silent(patience)));
        self.is_broken |= described.is_err();
        if let Ok(Some(answer)) = &described {
            self.knows(id, Some(answer.clone()));
        }
        described
    }

    async fn description(&mut self) -> Result<Option<Bytes>, Failure> {
        let broke = |error: std::io::Error| Failure::of_io(&error, "talking to the server");
        let mut answer = BytesMut::new();
        let mut has_failed = false;
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
                let received = self.received_expected(frame.kind(), status);
                received.map_err(Failure::said)?;
                match frame.kind() {
                    backend::kind::PARAMETER_STATUS => self.parameter(frame.body()),
                    backend::kind::NOTIFICATION_RESPONSE => {
                        self.heard.extend_from_slice(frame.bytes());
                    }
                    backend::kind::ERROR_RESPONSE => has_failed = true,
                    backend::kind::PARAMETER_DESCRIPTION
                    | backend::kind::ROW_DESCRIPTION
                    | backend::kind::NO_DATA => answer.extend_from_slice(frame.bytes()),
                    _ => {}
                }
                if self.account.is_quiet() {
                    return Ok((!has_failed).then(|| answer.freeze()));
                }
            }
            if self.side.fill().await.map_err(broke)? == 0 {
                return Err(Failure::new(FailureKind::Network, "the server hung up"));
            }
        }
    }
}
