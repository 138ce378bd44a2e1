//! A client's prepared statements, by its names for them.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use wire::pg::frontend::{self, Parse};
use wire::pg::{Frame, TransactionStatus, backend};
use wire::{PgError, sqlstate};

use super::Client;
use crate::awaited::{Awaited, Whose};
use crate::facts::Facts;
use crate::pool::Lease;
use crate::statements::{self, Statement};

/// What a text begins with that may deallocate a statement.
const DEALLOCATE: &[u8] = b"deallocate";

/// Prepared statements of one client (`client_statements_max`).
const STATEMENTS_MAX: usize = 10_000;

/// Bytes of them, looked at when a long one comes (`client_statements_bytes_max`).
const STATEMENTS_BYTES_MAX: usize = 64 << 20;
const LONG_TEXT_BYTES: usize = 4 << 10;

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(super) fn statement_of(&self, parse: &Parse<'_>) -> Arc<Statement> {
        let facts = || self.pool.facts(parse.sql);
        let registry = &self.pool.statements;
        if !self.is_read_right(parse.sql) {
            let facts = Arc::new(facts().misread());
            return registry.alone(parse.sql, &parse.param_oids, &self.settings, facts);
        }
        registry.get(parse, &self.settings, facts)
    }

    /// Whether the parser reads a text as the server does at this moment: it takes strings for standard ones, and bytes for
    /// UTF-8. What a server has told of itself is so when nothing is under way; else something may just change it.
    pub(super) fn is_read_right(&self, sql: &[u8]) -> bool {
        let has_backslash = sql.contains(&b'\\');
        if sql.is_ascii() && !has_backslash {
            return true;
        }
        let is_under_way = |lease: &Lease| lease.is_tainted && !lease.account.is_quiet();
        let (parameters, is_under_way) = match &self.lease {
            Some(lease) => (&lease.parameters, is_under_way(lease)),
            None => (&self.told, false),
        };
        let is = |name: &str, value: &str| {
            !is_under_way
                && !self.touched.contains(name)
                && parameters.get(name).is_some_and(|told| told == value)
        };
        self.settings.is_utf8()
            && is("client_encoding", "UTF8")
            && (!has_backslash || is("standard_conforming_strings", "on"))
    }

    /// As [`statement`](Self::statement), to be sent now. One that others have, too, is another where the server may read
    /// its text otherwise.
    pub(super) fn statement_to_send(&mut self, name: &[u8]) -> Result<Arc<Statement>, PgError> {
        let statement = self.statement(name)?;
        if statement.is_alone || self.is_read_right(&statement.sql) {
            return Ok(statement);
        }
        let facts = Arc::new(statement.facts.misread());
        let registry = &self.pool.statements;
        let alone = registry.alone(&statement.sql, &statement.oids, &self.settings, facts);
        match name.is_empty() {
            true => self.unnamed = Some(Arc::clone(&alone)),
            false => {
                let name = Bytes::copy_from_slice(name);
                self.statements.insert(name, Arc::clone(&alone));
            }
        }
        Ok(alone)
    }

    /// # Errors
    ///
    /// 53400 if the client has as many statements as it may, or as long ones.
    pub(super) fn expect_room(&self, parse: &Parse<'_>) -> Result<(), PgError> {
        let is_long = parse.sql.len() > LONG_TEXT_BYTES;
        let bytes = || {
            self.statements
                .values()
                .map(|one| one.sql.len())
                .sum::<usize>()
        };
        let too_many = self.statements.len() >= STATEMENTS_MAX;
        if too_many || is_long && bytes() + parse.sql.len() > STATEMENTS_BYTES_MAX {
            return Err(PgError::error(
                sqlstate::CONFIGURATION_LIMIT_EXCEEDED,
                format!(
                    "a client of a binding may have {STATEMENTS_MAX} prepared statements (client_statements_max), of {STATEMENTS_BYTES_MAX} \
                     bytes where they are long (client_statements_bytes_max)"
                ),
            )
            .hint("Close statements that are not needed any more."));
        }
        Ok(())
    }

    /// The name that a statement gets.
    pub(super) fn new_name(&self, parse: &Parse<'_>) -> Result<Bytes, PgError> {
        self.expect_room(parse)?;
        if self.statements.contains_key(parse.statement) {
            let name = String::from_utf8_lossy(parse.statement).into_owned();
            return Err(PgError::error(
                "42P05",
                format!("prepared statement \"{name}\" already exists"),
            ));
        }
        Ok(Bytes::copy_from_slice(parse.statement))
    }

    /// The statement that the client has by this name.
    pub(super) fn statement(&self, name: &[u8]) -> Result<Arc<Statement>, PgError> {
        let found = match name.is_empty() {
            true => self.unnamed.as_ref(),
            false => self.statements.get(name),
        };
        found.map(Arc::clone).ok_or_else(|| {
            let message = match name.is_empty() {
                true => "unnamed prepared statement does not exist".to_owned(),
                false => format!(
                    "prepared statement \"{}\" does not exist",
                    String::from_utf8_lossy(name)
                ),
            };
            PgError::error("26000", message)
        })
    }

    /// Makes a statement known to the server, if it is not: its name there.
    pub(super) fn known_there<'a>(
        &mut self,
        statement: &'a Arc<Statement>,
        unnamed: bool,
    ) -> Result<&'a str, PgError> {
        if unnamed {
            if self.unnamed_there != Some(statement.id) {
                let lease = self.leased()?;
                statement.parse(false, &mut lease.side.outbox)?;
                let is_sent = lease.account.sent(Awaited::Parse {
                    named: None,
                    whose: Whose::Pool,
                });
                self.unnamed_there = is_sent.then_some(statement.id);
            }
            return Ok("");
        }
        let lease = self.leased()?;
        if lease.prepared.get(&statement.id).is_none() && !lease.account.will_prepare(statement.id)
        {
            lease.prepares(statement, Whose::Pool)?;
        }
        Ok(&statement.name)
    }

    /// Answers a `DEALLOCATE` of a statement that the client has prepared by the protocol, as some drivers send it: servers
    /// know it by another name, and keep it for others.
    pub(super) fn deallocates(&mut self, frame: &Frame) -> bool {
        let status = match &self.lease {
            Some(lease) if !lease.account.is_quiet() => return false,
            Some(lease) => lease.account.status(),
            None => TransactionStatus::Idle,
        };
        let Ok(sql) = frontend::decode_query(frame.body()) else {
            return false;
        };
        let begin = sql.trim_ascii_start().get(..DEALLOCATE.len());
        if status == TransactionStatus::Failed
            || !begin.is_some_and(|begin| begin.eq_ignore_ascii_case(DEALLOCATE))
        {
            return false;
        }
        let facts = self.pool.facts(sql);
        let name = facts.deallocated.first().filter(|_| facts.statements == 1);
        if name.is_none_or(|name| self.statements.remove(name.as_bytes()).is_none()) {
            return false;
        }
        self.unnamed = None;
        let out = &mut self.side.outbox;
        backend::command_complete(out, "DEALLOCATE");
        backend::ready_for_query(out, status);
        true
    }
}

/// # Errors
///
/// If a text names a statement of the pool's.
pub(super) fn expect_own_names(facts: &Facts) -> Result<(), PgError> {
    let is_ours = |name: &&String| name.starts_with(statements::PREFIX);
    if let Some(name) = facts.prepares.iter().find(is_ours) {
        return Err(PgError::error(
            sqlstate::INVALID_NAME,
            format!("prepared statement \"{name}\" cannot be made"),
        )
        .hint("Names that begin with \"dormouse_\" are those of the pool."));
    }
    match facts.deallocated.iter().find(is_ours) {
        None => Ok(()),
        Some(name) => Err(PgError::error(
            "26000",
            format!("prepared statement \"{name}\" does not exist"),
        )),
    }
}
