//! The transactions of a visit: how they begin, stay what they are, and end.

use wire::pg::TransactionStatus;
use wire::{PgError, sqlstate};

use super::Visit;

/// Tells whether a transaction is read-only, and its role above that.
const STATE: &str = "SELECT pg_catalog.current_setting('transaction_read_only'), \
    pg_catalog.current_setting('is_superuser')";

impl Visit {
    /// Sees to it that what is run next is still wanted, and can only read, if that is all it may: whether a
    /// transaction was begun for that.
    pub(super) async fn guard(&mut self) -> Result<bool, PgError> {
        self.expect_wanted()?;
        if !self.reads_only {
            return Ok(false);
        }
        match self.status() {
            TransactionStatus::Idle => {
                self.begin("BEGIN READ ONLY").await?;
                Ok(true)
            }
            TransactionStatus::InTransaction => {
                // It may be another one than before, by COMMIT AND CHAIN.
                self.keep_read_only().await?;
                Ok(false)
            }
            TransactionStatus::Failed => Ok(false),
        }
    }

    /// Ends the transaction that was begun for one statement.
    pub(super) async fn release(&mut self, is_own: bool, is_done: bool) -> Result<(), PgError> {
        if !is_own || self.status() == TransactionStatus::Idle {
            return Ok(());
        }
        self.order(if is_done { "COMMIT" } else { "ROLLBACK" })
            .await
    }

    /// Begins a transaction, which of who may only read is one that stays read-only.
    pub(in crate::http) async fn begin(&mut self, begin: &str) -> Result<(), PgError> {
        self.order(begin).await?;
        self.transaction = self.session.transaction_number();
        if !self.reads_only {
            return Ok(());
        }
        self.order("SET TRANSACTION READ ONLY").await?;
        self.keep_read_only().await
    }

    /// Whether the open transaction is read-only, and cannot be made otherwise any more.
    pub(in crate::http) async fn stays_read_only(&mut self) -> Result<bool, PgError> {
        // What has seen data can be made writable no more.
        let found = self.session.query(STATE, &[]).await?;
        let row = found.rows.first().map(Vec::as_slice);
        Ok(matches!(row, Some([Some(read_only), _]) if read_only == "on"))
    }

    /// Whether the transaction that was begun is over: it has ended, or is another one now (`COMMIT AND CHAIN`).
    pub(in crate::http) fn is_over(&self) -> bool {
        match self.status() {
            TransactionStatus::Idle => true,
            TransactionStatus::InTransaction => {
                self.session.transaction_number() != self.transaction
            }
            // It can only be rolled back.
            TransactionStatus::Failed => false,
        }
    }

    /// Commits the transaction that was begun.
    ///
    /// # Errors
    /// What Postgres says, 25P02 if it is rolled back instead, and 57014 if the request is given up.
    pub(in crate::http) async fn commit(&mut self) -> Result<(), PgError> {
        self.expect_wanted()?;
        let ended = self.session.query("COMMIT", &[]).await?;
        if ended.command == "COMMIT" {
            return Ok(());
        }
        Err(PgError::error(
            sqlstate::IN_FAILED_SQL_TRANSACTION,
            "the transaction was rolled back: a statement in it has failed",
        )
        .hint("Begin another transaction, and repeat what is still wanted."))
    }

    /// What has seen data can be made writable no more.
    async fn keep_read_only(&mut self) -> Result<(), PgError> {
        let found = self.session.query(STATE, &[]).await?;
        let row = found.rows.first().map(Vec::as_slice);
        match row {
            Some([Some(read_only), Some(superuser)]) if read_only == "on" && superuser == "off" => {
                Ok(())
            }
            Some([_, Some(superuser)]) if superuser == "on" => Err(PgError::error(
                sqlstate::INSUFFICIENT_PRIVILEGE,
                "the scope \"read\" does not go with a role that is superuser",
            )),
            _ => Err(PgError::error(
                sqlstate::INSUFFICIENT_PRIVILEGE,
                "the scope \"read\" is for transactions that are read-only",
            )
            .hint("Begin it with \"readOnly\": true.")),
        }
    }
}
