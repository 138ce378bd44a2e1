//! Sessions of a conversation: of which database, and as who asks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use database::{Answer, Authority, Canceller, DatabaseName, Session, SessionOptions};
use serde_json::value::RawValue;
use wire::pg::TransactionStatus;
use wire::{PgError, sqlstate};

use crate::http::Http;

/// Who has a conversation, and with which database.
pub(super) struct Visitor {
    pub(super) app: Arc<Http>,
    pub(super) database: DatabaseName,
}

/// A session of a conversation.
pub(super) struct Visit {
    session: Session,
}

impl Visitor {
    /// Whether another one is the same.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.database == other.database
    }

    pub(super) async fn open(
        &self,
        role: Option<String>,
        settings: BTreeMap<String, String>,
    ) -> Result<Visit, PgError> {
        let mut settings: Vec<_> = settings.into_iter().collect();
        settings.extend(role.map(|role| ("role".to_owned(), role)));
        let options = SessionOptions {
            user: "postgres".to_owned(),
            settings,
            origin: "a WebSocket".to_owned(),
            authority: Authority::Node,
        };
        let session = self.app.databases.session(&self.database, options).await?;
        Ok(Visit { session })
    }

    /// How long a request may take.
    ///
    /// # Errors
    /// 22023 if it wants more than it may have.
    pub(super) fn time_limit(&self, wanted: Option<u64>) -> Result<Duration, PgError> {
        let max = self.app.options.request_timeout;
        let Some(wanted) = wanted else {
            return Ok(max);
        };
        let limit = Duration::from_millis(wanted);
        if wanted > 0 && limit <= max {
            return Ok(limit);
        }
        Err(PgError::error(
            sqlstate::INVALID_PARAMETER_VALUE,
            format!(
                "\"timeoutMs\" is {wanted}; it must be from 1 to http.request_timeout_ms, {}",
                max.as_millis()
            ),
        ))
    }
}

impl Visit {
    pub(super) fn canceller(&self) -> Canceller {
        self.session.canceller()
    }

    pub(super) fn status(&self) -> TransactionStatus {
        self.session.transaction_status()
    }

    pub(super) async fn run<A: Answer>(
        &mut self,
        sql: &str,
        params: &[Box<RawValue>],
        answer: A,
    ) -> Result<A, PgError> {
        self.session.query_json_into(sql, params, answer).await
    }

    pub(super) async fn begin(&mut self, sql: &str) -> Result<(), PgError> {
        self.session.query(sql, &[]).await.map(drop)
    }

    pub(super) async fn commit(&mut self) -> Result<(), PgError> {
        let done = self.session.query("COMMIT", &[]).await?;
        if done.command == "COMMIT" {
            return Ok(());
        }
        Err(PgError::error(
            sqlstate::IN_FAILED_SQL_TRANSACTION,
            "the transaction was rolled back: a statement in it had failed",
        ))
    }

    pub(super) async fn rollback(&mut self) -> Result<(), PgError> {
        self.session.query("ROLLBACK", &[]).await.map(drop)
    }

    /// Waits until another session wants to come in beside this one.
    pub(super) fn share_wanted(&self) -> impl Future<Output = ()> + Send + use<> {
        self.session.share_wanted()
    }

    /// Makes room beside itself, between two statements.
    pub(super) fn share(&mut self) {
        self.session.share();
    }

    /// Waits until it has done nothing for longer than it may: the error that ends it.
    pub(super) fn idle_too_long(&self) -> impl Future<Output = PgError> + Send + use<> {
        self.session.idle_too_long()
    }

    /// Ends the session; what is open is rolled back.
    pub(super) async fn close(self) {
        self.session.close().await;
    }
}
