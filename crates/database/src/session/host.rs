//! Statements of the host in a transaction of a client: what it keeps there besides what the client writes is
//! committed with it, or not at all.
//!
//! They have the superuser's rights, and the client's settings. So each name in them, of an operator too, says its
//! schema, and they touch nothing on which the client could have put something that runs with them (a trigger, a
//! rule, a policy, a default).

use bytes::{Bytes, BytesMut};
use wire::pg::backend::{self, CommandTag, DataRow};
use wire::pg::frontend::{self, Bind, Execute, Param, Parse};
use wire::pg::{Format, Target, TransactionStatus, frames};
use wire::{PgError, sqlstate};

use super::exchange::Whose;
use super::{Session, SessionEnded};
use crate::slot;

/// A statement of the host.
#[derive(Debug, Clone, Copy)]
pub struct HostStatement<'a> {
    /// One statement; whatever it names it names with its schema.
    pub sql: &'a str,
    /// Its parameters, in PostgreSQL's binary format.
    pub params: &'a [&'a [u8]],
}

/// What one has answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostResult {
    /// The rows, each with one value a column in PostgreSQL's binary format; `None` is NULL.
    pub rows: Vec<Vec<Option<Vec<u8>>>>,
    /// Rows returned or changed, where the command counts them.
    pub row_count: Option<u64>,
}

impl Session {
    /// Runs statements of the host in the transaction that is open, with the superuser's rights: a result for each.
    /// They are in no figures, no trace and no log.
    ///
    /// # Errors
    /// 25P01 if no transaction is open, what Postgres says, and 57P02 if the backend ended. The transaction has failed
    /// then, and has its own rights again.
    pub async fn run_as_host(
        &mut self,
        statements: &[HostStatement<'_>],
    ) -> Result<Vec<HostResult>, PgError> {
        if self.status != TransactionStatus::InTransaction || !self.at_rest {
            return Err(PgError::error(
                sqlstate::NO_ACTIVE_SQL_TRANSACTION,
                "no transaction is open in which the host could keep something",
            ));
        }
        let mut messages = BytesMut::new();
        for statement in statements {
            statement.encode(&mut messages)?;
        }
        frontend::sync(&mut messages);
        let was_traced = std::mem::replace(&mut self.is_traced, false);
        self.is_unasked = true;
        let messages = messages.freeze();
        let answer = self.exchange_of(Whose::Host, messages, None).await;
        self.is_unasked = false;
        self.is_traced = was_traced;
        let (answer, _) = answer.map_err(|ended| ended.error)?;
        slot::check(&answer)?;
        read(&answer)
    }

    /// Gives messages of the host to the backend.
    pub(super) async fn handle_host(
        &mut self,
        messages: Bytes,
        output: &mut BytesMut,
    ) -> Result<(), SessionEnded> {
        let user = self.become_superuser().await?;
        self.run(&mut BytesMut::from(messages), output).await?;
        match self.status {
            // Postgres has given it its own rights back.
            TransactionStatus::Failed => Ok(()),
            TransactionStatus::Idle | TransactionStatus::InTransaction => self.set_user(user).await,
        }
    }
}

impl HostStatement<'_> {
    fn encode(&self, messages: &mut BytesMut) -> Result<(), PgError> {
        let parse = Parse {
            statement: b"",
            sql: self.sql.as_bytes(),
            param_oids: Vec::new(),
        };
        parse.encode(messages)?;
        let params = self.params.iter();
        let bind = Bind {
            portal: b"",
            statement: b"",
            params: params.map(|value| Param::binary(Some(value))).collect(),
            result_formats: vec![Format::Binary],
        };
        bind.encode(messages)?;
        frontend::describe(messages, Target::Portal, b"")?;
        let execute = Execute {
            portal: b"",
            rows_max: 0,
        };
        execute.encode(messages)
    }
}

/// The results in an answer without errors.
fn read(answer: &[u8]) -> Result<Vec<HostResult>, PgError> {
    let mut results = Vec::new();
    let mut rows = Vec::new();
    for (kind, body) in frames(answer) {
        match kind {
            backend::kind::DATA_ROW => {
                let row = DataRow::decode(body)?;
                rows.push(row.map(|value| value.map(<[u8]>::to_vec)).collect());
            }
            backend::kind::COMMAND_COMPLETE => results.push(HostResult {
                rows: std::mem::take(&mut rows),
                row_count: CommandTag::decode(body)?.row_count,
            }),
            _ => {}
        }
    }
    Ok(results)
}
