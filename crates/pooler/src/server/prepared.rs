//! Statements that a server knows by name.

use bytes::Bytes;
use wire::PgError;
use wire::pg::{Target, TransactionStatus, frontend};

use super::Server;
use crate::awaited::{Awaited, Fate, StatementId, Whose};
use crate::statements::{self, Statement};

impl Server {
    /// Writes what makes a statement known to the server by name. What it is to know no longer goes first, and so does the
    /// same statement if it is on its way: whether it will be taken nobody knows yet. False behind an error, where the
    /// server leaves it out.
    ///
    /// # Errors
    ///
    /// If a message is longer than one can be.
    pub(crate) fn prepares(
        &mut self,
        statement: &Statement,
        whose: Whose,
    ) -> Result<bool, PgError> {
        self.has_dropped_all = false;
        let under_way = self.account.will_prepare(statement.id);
        let again = under_way.then_some(statement.id);
        for id in std::mem::take(&mut self.closing).into_iter().chain(again) {
            let name = statements::name(id);
            frontend::close(&mut self.side.outbox, Target::Statement, name.as_bytes())?;
            self.account.sent(Awaited::Close {
                named: Some(id),
                whose: Whose::Pool,
            });
        }
        statement.parse(true, &mut self.side.outbox)?;
        Ok(self.account.sent(Awaited::Parse {
            named: Some(statement.id),
            whose,
        }))
    }

    /// Takes note of a message of its own, and of statements that it has come to know by it, whoever reads it: see
    /// [`Account::received`](crate::awaited::Account::received).
    pub(crate) fn received(&mut self, kind: u8, status: Option<TransactionStatus>) -> Fate {
        let fate = self.account.received(kind, status);
        for id in std::mem::take(&mut self.account.closed) {
            self.prepared.pop(&id);
        }
        for id in std::mem::take(&mut self.account.unclosed) {
            if !self.prepared.contains(&id) && !self.closing.contains(&id) {
                self.closing.push(id);
            }
        }
        for id in std::mem::take(&mut self.account.prepared) {
            self.knows(id, None);
        }
        fate
    }

    /// It knows a statement now, with what it has answered to `Describe` if it was asked. Of more than `statements_max` the
    /// least used is closed with the next that is prepared.
    pub(crate) fn knows(&mut self, id: StatementId, described: Option<Bytes>) {
        if let Some((gone, _)) = self.prepared.push(id, described)
            && gone != id
        {
            self.closing.push(gone);
        }
    }

    /// A statement is prepared again before it is used again.
    pub(crate) fn forgets(&mut self, id: StatementId) {
        if self.prepared.pop(&id).is_some() {
            self.closing.push(id);
        }
    }

    /// All of them are.
    pub(crate) fn forgets_statements(&mut self) {
        while let Some((id, _)) = self.prepared.pop_lru() {
            self.closing.push(id);
        }
    }

    /// It still has one that it was thought not to have.
    pub(crate) fn has_still(&mut self, id: StatementId) {
        self.prepared.pop(&id);
        if !self.closing.contains(&id) {
            self.closing.push(id);
        }
    }

    /// A text is sent that drops all of them, if it is run: what is used behind it is prepared again.
    pub(crate) fn drops_all(&mut self) {
        self.forgets_statements();
        for id in self.account.drops_prepared() {
            self.has_still(id);
        }
        self.has_dropped_all = true;
    }

    /// Nothing is under way, and nothing has failed: if it was to drop all of them, and has learned none since, it has none.
    pub(crate) fn has_succeeded(&mut self) {
        if std::mem::take(&mut self.has_dropped_all) {
            self.closing.clear();
        }
    }

    /// Something has failed, or nobody has heard whether: if it was to drop all of them, it may still have them.
    pub(crate) fn has_failed(&mut self) {
        self.has_dropped_all = false;
    }

    /// Its session has none any more.
    pub(crate) fn has_none_prepared(&mut self) {
        self.has_dropped_all = false;
        self.prepared.clear();
        self.closing.clear();
    }
}
