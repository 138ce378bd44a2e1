//! A client's prepared statements, by its names for them.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use wire::pg::frontend::{self, Parse};
use wire::pg::{Frame, TransactionStatus, backend};
use wire::{PgError, sqlstate};

use super::Client;
use crate::awaited::{Awaited, StatementId, Whose};
use crate::facts::{Facts, Pin};
use crate::pool::Lease;
use crate::statements::{self, Statement};

/// What a text begins with that may deallocate a statement.
const DEALLOCATE: &[u8] = b"deallocate";

/// Settings that say how dates, times and money are read.
const DATES: [&str; 5] = [
    "datestyle",
    "timezone",
    "intervalstyle",
    "timezone_abbreviations",
    "lc_monetary",
];

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
        let statement = registry.get(parse, &self.settings, facts);
        // Without a name it is prepared anew by each.
        if parse.statement.is_empty() || self.means_the_same(&statement) {
            return statement;
        }
        let facts = Arc::clone(&statement.facts);
        registry.alone(parse.sql, &parse.param_oids, &self.settings, facts)
    }

    /// Whether a text that is prepared at this moment is what it is to others whose sessions have the same settings: its
    /// strings are read by what is set, and the clock, and the statement keeps what they are read as.
    fn means_the_same(&self, statement: &Statement) -> bool {
        let literals = statement.literals;
        let reads_dates = || self.reads_dates_as_told() && self.reads_dates_as(statement);
        !literals.ask_clock && (!literals.have_digits || reads_dates())
    }

    /// Whether what the session has set says the same of how dates are read as when it prepared a statement.
    fn reads_dates_as(&self, statement: &Statement) -> bool {
        let is_same = |name: &&str| self.settings.get(name) == statement.settings.get(name);
        DATES.iter().all(is_same)
    }

    /// Whether a statement may keep dates that its text would not be read as now.
    pub(super) fn keeps_dates(&self, statement: &Statement) -> bool {
        statement.literals.have_digits && (statement.is_alone || !self.reads_dates_as(statement))
    }

    /// Whether nothing but what is known to be set says how the server reads dates at this moment.
    fn reads_dates_as_told(&self) -> bool {
        let is_touched =
            |name: &&str| self.touched.contains(name) || self.touched_locally.contains(name);
        let is_tainted = self.lease.as_ref().is_some_and(|lease| lease.is_tainted);
        !is_tainted && !self.sets_something() && !DATES.iter().any(is_touched)
    }

    /// Whether something may be set that nobody knows by name.
    fn sets_something(&self) -> bool {
        self.touched_locally.contains("") || self.pins.contains(&Pin::Setting)
    }

    /// Whether the parser reads a text as the server does at this moment: it takes strings for standard ones, and bytes for
    /// UTF-8. What a server has told of itself is so when nothing is under way; else something may just change it.
    pub(super) fn is_read_right(&self, sql: &[u8]) -> bool {
        let has_backslash = sql.contains(&b'\\');
        if sql.is_ascii() && !has_backslash {
            return true;
        }
        let is_under_way = |lease: &Lease| {
            (lease.is_tainted || self.sets_something()) && !lease.account.is_quiet()
        };
        let (parameters, is_under_way) = match &self.lease {
            Some(lease) => (&lease.parameters, is_under_way(lease)),
            None => (&self.told, false),
        };
        let is = |name: &str, value: &str| {
            !is_under_way
                && !self.touched.contains(name)
                && !self.touched_locally.contains(name)
                && parameters.get(name).is_some_and(|told| told == value)
        };
        self.settings.is_utf8()
            && is("client_encoding", "UTF8")
            && (!has_backslash || is("standard_conforming_strings", "on"))
    }

    /// As [`statement`](Self::statement), to be sent now. One that others have, too, is another where the server may read
    /// its text otherwise. So is one that this server is still to learn, where its strings may be read otherwise.
    pub(super) fn statement_to_send(&mut self, name: &[u8]) -> Result<Arc<Statement>, PgError> {
        let statement = self.statement(name)?;
        if statement.is_alone {
            return Ok(statement);
        }
        let facts = match self.is_read_right(&statement.sql) {
            false => Arc::new(statement.facts.misread()),
            true if name.is_empty() || self.means_the_same(&statement) => return Ok(statement),
            true if self.is_there(statement.id) => return Ok(statement),
            true => Arc::clone(&statement.facts),
        };
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

    /// Whether the server knows a statement, or may learn it at this moment, for all who have it.
    pub(super) fn may_be_there(&self, statement: &Statement) -> bool {
        statement.is_alone
            || self.is_there(statement.id)
            || self.is_read_right(&statement.sql) && self.means_the_same(statement)
    }

    /// Whether the server knows a statement, or is about to.
    fn is_there(&self, id: StatementId) -> bool {
        let lease = self.lease.as_ref();
        lease.is_some_and(|lease| lease.prepared.contains(&id) || lease.account.will_prepare(id))
    }

    /// # Errors
    ///
    /// 53400 if the client has as many statements as it may, or as long ones.
    pub(super) fn expect_room(&self, parse: &Parse<'_>) -> Result<(), PgError> {
        let bytes = parse.statement.len() + parse.sql.len() + size_of_val(&*parse.param_oids);
        let is_long = bytes + self.settings.bytes() > LONG_TEXT_BYTES;
        let too_many = self.statements.len() >= STATEMENTS_MAX;
        if too_many || is_long && self.statements_bytes() + bytes > STATEMENTS_BYTES_MAX {
            return Err(PgError::error(
                sqlstate::CONFIGURATION_LIMIT_EXCEEDED,
                format!(
                    "a client of a binding may have {STATEMENTS_MAX} prepared statements (client_statements_max), of {STATEMENTS_BYTES_MAX} \
                     bytes where they are long, names, types of parameters and settings included (client_statements_bytes_max)"
                ),
            )
            .hint("Close statements that are not needed any more."));
        }
        Ok(())
    }

    /// Bytes of all statements, of their names, and of each of the settings under which they were prepared.
    fn statements_bytes(&self) -> usize {
        let all = self.statements.iter();
        let mut seen = HashSet::from([self.settings.address()]);
        let mut sum = self.settings.bytes();
        for (name, statement) in all.chain(self.unconfirmed.statements()) {
            sum += name.len() + statement.bytes();
            if seen.insert(statement.settings.address()) {
                sum += statement.settings.bytes();
            }
        }
        sum
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
        let is_there = self.is_there(statement.id);
        let lease = self.leased()?;
        // It is used by that.
        lease.prepared.promote(&statement.id);
        if !is_there {
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
