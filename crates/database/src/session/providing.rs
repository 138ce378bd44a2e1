//! Prepared statements that a session has and its process not, prepared before they are wanted.

use bytes::BytesMut;
use engine::PreparedStatement;
use wire::pg::{backend, frames};

use super::{Session, SessionEnded};
use crate::prepared;
use crate::slot;

impl Session {
    /// Prepares, before a query or the first message of an extended one, the statements of `PREPARE` that the
    /// session has and its process not, if a message may mean them: that needs a simple query.
    pub(super) async fn provide_sql(
        &mut self,
        messages: &[u8],
        output: &mut BytesMut,
    ) -> Result<(), SessionEnded> {
        if self.absent.is_empty() || !self.at_rest {
            return Ok(());
        }
        let wanted = self.absent.wanted_sql(messages);
        self.provide(wanted, true, output).await
    }

    /// Prepares statements that the session has and its process not: before the message that wants them, in
    /// the same transaction. If one cannot be prepared any more, the client is told.
    pub(super) async fn provide(
        &mut self,
        wanted: Vec<PreparedStatement>,
        is_query: bool,
        output: &mut BytesMut,
    ) -> Result<(), SessionEnded> {
        for statement in wanted {
            let mut messages = BytesMut::new();
            prepared::prepare(&mut messages, &statement, is_query)
                .map_err(|error| self.ended(error))?;
            if messages.is_empty() {
                self.absent.add(vec![statement]);
                continue;
            }
            let status = self.status;
            let mut said = BytesMut::new();
            self.run(&mut messages, &mut said).await?;
            self.status = status;
            let prepared = match is_query {
                true => slot::check(&said).is_ok(),
                // Of its answer the client gets an error, as that of the message that wants the statement.
                false => frames(&said).any(|(kind, _)| kind == backend::kind::PARSE_COMPLETE),
            };
            if !prepared {
                if !is_query {
                    output.extend_from_slice(&said);
                }
                // Whoever asks for it again is told again, or gets it.
                self.absent.add(vec![statement]);
            }
        }
        Ok(())
    }
}
