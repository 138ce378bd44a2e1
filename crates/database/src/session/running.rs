//! What the backend of a session is given to run.

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;
use wire::pg::{TransactionStatus, backend, frames, frontend};
use wire::sqlstate;

use super::{Session, SessionEnded};
use crate::refusal::{self, Refused};
use crate::slot;

impl Session {
    /// Runs statements of our own: their answers.
    pub(crate) async fn run_all(&mut self, sql: &str) -> Result<Bytes, SessionEnded> {
        let mut messages = BytesMut::new();
        if let Err(error) = frontend::query(&mut messages, sql.as_bytes()) {
            return Err(self.ended(error));
        }
        let mut output = BytesMut::new();
        self.run(&mut messages, &mut output).await?;
        Ok(output.freeze())
    }

    /// Gives messages to the backend, and appends its answers.
    pub(super) async fn run(
        &mut self,
        messages: &mut BytesMut,
        output: &mut BytesMut,
    ) -> Result<(), SessionEnded> {
        if messages.is_empty() {
            return Ok(());
        }
        let Some(backend) = self.slot.as_mut().and_then(|slot| slot.backend.as_mut()) else {
            return Err(self.ended(slot::no_backend()));
        };
        backend.clear_cancel();
        let last = frames(messages).last().map(|(kind, _)| kind);
        let ends = last.is_some_and(|kind| {
            use frontend::kind::{FUNCTION_CALL, QUERY, SYNC};
            [FUNCTION_CALL, QUERY, SYNC].contains(&kind)
        });
        let is_nothing = frames(messages).all(|(kind, _)| {
            use frontend::kind::{COPY_DATA, COPY_DONE, COPY_FAIL, FLUSH};
            [COPY_DATA, COPY_DONE, COPY_FAIL, FLUSH].contains(&kind)
        });
        // What was answered before goes out before what is answered now, though that is large.
        backend.output().unsplit(std::mem::take(output));
        let input = backend.input();
        if input.is_empty() {
            std::mem::swap(input, messages);
        } else {
            input.unsplit(messages.split());
        }
        let began = Instant::now();
        self.runs.send_modify(|run| *run += 1);
        let outcome = self.line.beats.count(backend.exchange()).await;
        self.runs.send_modify(|run| *run += 1);
        let answer = backend.output().split();
        let answer = self.explained(answer);
        if let Err(error) = outcome {
            return Err(self.backend_ended(&error, answer.freeze()));
        }
        let mut status = last_status(&answer);
        if answer.is_empty() && ends {
            // The client has got all of it already, the end too.
            status = self.status_in_backend().await;
        }
        // What comes behind the error of a COPY, or with nothing to flush, changes nothing.
        self.at_rest = status.is_some() || self.at_rest && is_nothing && answer.is_empty();
        if let Some(status) = status {
            let backend = self.slot.as_ref().and_then(|slot| slot.backend.as_ref());
            let number = backend.map_or(0, engine::Backend::transaction_number);
            if self.status == TransactionStatus::Idle {
                self.transaction_since = began;
            } else if number != self.transaction_number {
                // One has ended and another one begun, as by COMMIT AND CHAIN.
                self.transaction_since = Instant::now();
            }
            self.transaction_number = number;
            self.status = status;
        }
        *output = answer;
        Ok(())
    }

    /// Whether a transaction is open, asked of the backend.
    async fn status_in_backend(&mut self) -> Option<TransactionStatus> {
        let backend = self.slot.as_mut()?.backend.as_mut()?;
        match backend.in_transaction().await {
            Ok(true) => Some(TransactionStatus::InTransaction),
            Ok(false) => Some(TransactionStatus::Idle),
            // The next exchange tells.
            Err(_) => None,
        }
    }

    /// The backend has ended under the session, with this as its last word.
    pub(super) fn backend_ended(
        &mut self,
        error: &engine::BackendError,
        output: Bytes,
    ) -> SessionEnded {
        let fatal = slot::ended(error, &output);
        // Who is ended by an error of its own has said so, be it before what is still to be told.
        let by_itself = matches!(error, engine::BackendError::Exited(1));
        let told = by_itself || fatal.code() != sqlstate::CRASH_SHUTDOWN;
        tracing::warn!(database = %self.database.name(), %error, "a backend ended");
        if let Some(slot) = &mut self.slot {
            slot.lose(&self.database);
        }
        SessionEnded {
            output,
            error: fatal,
            told,
        }
    }

    /// An answer of the backend, with the name of the limit where one of ours has caused an error.
    fn explained(&self, answer: BytesMut) -> BytesMut {
        let refused = self.database.take_refused().or_else(|| {
            let reserve = self.node.disk.reserve();
            self.read_only.then_some(Refused::ReadOnly { reserve })
        });
        match refused {
            Some(refused) => refusal::explain(&answer.freeze(), &refused),
            None => answer,
        }
    }
}

/// The status in the `ReadyForQuery` that ends a backend's answer, if one does.
fn last_status(output: &[u8]) -> Option<TransactionStatus> {
    let (_, tail) = output.split_last_chunk::<6>()?;
    let body = tail.strip_prefix(&[backend::kind::READY_FOR_QUERY, 0, 0, 0, 5])?;
    backend::decode_ready_for_query(body).ok()
}
