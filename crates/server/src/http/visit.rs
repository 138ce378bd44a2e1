//! A session that is opened for one request, as who asks.
//!
//! Who may only read runs statements in transactions that Postgres keeps read-only: one is always open before a
//! statement of theirs runs, and it has seen data, after which Postgres lets nobody make it writable.

mod transaction;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use database::{Answer, ClientIo, Session, SessionOptions};
use serde::Deserialize;
use tracing::Instrument as _;
use wire::http::{ResultWriter, RowMode};
use wire::pg::TransactionStatus;
use wire::{PgError, Severity, SizeLimit, sqlstate};

use super::caller::{Caller, Scope};
use super::params::Params;
use super::router::App;
use super::tenant::Tenant;
use super::work::CancelSlot;
use crate::telemetry::Telemetry;

/// Where a session finds its caller's claims, as in PostgREST.
const CLAIMS: &str = "request.jwt.claims";

/// The setting that a session must not take from a request: it belongs to who checks the caller.
const CLAIMS_PREFIX: &str = "request.jwt.";

/// How long what has come of a request waits for the end of its session (`http.close_ms_max`): as a rule that takes
/// less, and then the next request finds the database free.
const CLOSE_MAX: Duration = Duration::from_millis(100);

/// What a request wants of its session.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    pub(super) role: Option<String>,
    pub(super) settings: BTreeMap<String, String>,
}

/// One statement.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Statement {
    pub(super) sql: String,
    #[serde(default)]
    pub(super) params: Params,
}

impl Statement {
    /// One without parameters.
    pub(super) fn of(sql: &str) -> Self {
        Self {
            sql: sql.to_owned(),
            params: Params::default(),
        }
    }
}

/// How rows are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Rows {
    #[default]
    Object,
    Array,
}

impl Rows {
    pub(super) fn mode(self) -> RowMode {
        match self {
            Self::Object => RowMode::Objects,
            Self::Array => RowMode::Arrays,
        }
    }
}

/// A session that is opened for one request.
pub(super) struct Visit {
    session: Session,
    telemetry: Telemetry,
    /// Every transaction of it is read-only.
    reads_only: bool,
    /// Of the document of a result.
    result_max: SizeLimit,
    /// The number of the transaction that was begun last.
    transaction: u32,
    /// Of the request that it is opened for.
    slot: CancelSlot,
}

impl Visit {
    /// Opens a session for who asks. `slot` gets what cancels it. The database is made if it is not there, if who
    /// asks may write and the configuration has it so.
    pub(super) async fn open(
        app: &App,
        tenant: &Tenant,
        wishes: Wishes,
        slot: &CancelSlot,
    ) -> Result<Self, PgError> {
        let may_create = tenant.caller.scope >= Scope::Write;
        Self::open_or_make(app, tenant, wishes, slot, may_create).await
    }

    /// The same in a database that is there. What GET asks for changes nothing.
    pub(super) async fn open_existing(
        app: &App,
        tenant: &Tenant,
        wishes: Wishes,
        slot: &CancelSlot,
    ) -> Result<Self, PgError> {
        Self::open_or_make(app, tenant, wishes, slot, false).await
    }

    async fn open_or_make(
        app: &App,
        tenant: &Tenant,
        wishes: Wishes,
        slot: &CancelSlot,
        may_create: bool,
    ) -> Result<Self, PgError> {
        let caller = &tenant.caller;
        let settings = Self::settings(caller, &wishes)?;
        let options = SessionOptions {
            user: caller.role().to_owned(),
            settings,
            origin: format!("http, {}", caller.name),
            label: tenant.label.clone(),
            authority: caller.authority(),
        };
        let databases = app.databases.by(tenant.doer());
        let opening = databases.session_of_scope(&tenant.name, options, may_create);
        let session = opening.await?;
        slot.set(session.canceller());
        let mut visit = Self {
            session,
            telemetry: app.telemetry.clone(),
            reads_only: caller.scope == Scope::Read,
            result_max: tenant.sizes.result,
            transaction: 0,
            slot: slot.clone(),
        };
        let begun = visit.take_role(wishes.role.as_deref()).await;
        match begun {
            Ok(()) => Ok(visit),
            Err(error) => {
                visit.close().await;
                Err(error)
            }
        }
    }

    /// All settings that a session begins with.
    ///
    /// # Errors
    /// 42501 for one that is not a request's to set.
    pub(super) fn settings(
        caller: &Caller,
        wishes: &Wishes,
    ) -> Result<Vec<(String, String)>, PgError> {
        let mut settings = Vec::new();
        for (name, value) in &wishes.settings {
            if name.to_ascii_lowercase().starts_with(CLAIMS_PREFIX) {
                return Err(PgError::error(
                    sqlstate::INSUFFICIENT_PRIVILEGE,
                    format!("the setting {name} is the server's, from the claims of a token"),
                ));
            }
            settings.push((name.clone(), value.clone()));
        }
        if let Some(claims) = &caller.claims {
            settings.push((CLAIMS.to_owned(), claims.to_string()));
        }
        Ok(settings)
    }

    async fn take_role(&mut self, role: Option<&str>) -> Result<(), PgError> {
        let Some(role) = role else {
            return Ok(());
        };
        if role.contains('\0') {
            return Err(PgError::error(
                sqlstate::CHARACTER_NOT_IN_REPERTOIRE,
                "the name of a role has no character U+0000",
            ));
        }
        let quoted = role.replace('"', "\"\"");
        self.order(&format!("SET ROLE \"{quoted}\"")).await
    }

    /// Runs one statement: the document of its result.
    pub(super) async fn run(
        &mut self,
        statement: &Statement,
        rows: Rows,
    ) -> Result<Vec<u8>, PgError> {
        let (sql, params) = (&statement.sql, statement.params.values()?);
        let is_own = self.guard().await?;
        let span = self.telemetry.statement(sql, &self.session);
        let running = self
            .session
            .query_json(sql, &params, rows.mode(), self.result_max);
        let document = running.instrument(span).await;
        self.release(is_own, document.is_ok()).await?;
        document
    }

    /// Runs one statement, its answer going to `io`: what that has not taken.
    pub(super) async fn stream(
        &mut self,
        statement: &Statement,
        io: Box<dyn ClientIo>,
    ) -> Result<Bytes, PgError> {
        let (sql, params) = (&statement.sql, statement.params.values()?);
        let is_own = self.guard().await?;
        let span = self.telemetry.statement(sql, &self.session);
        let running = self.session.query_stream(sql, &params, io);
        let rest = running.instrument(span).await;
        let is_done = rest.is_ok() && self.status() == TransactionStatus::InTransaction;
        self.release(is_own, is_done).await?;
        rest
    }

    /// Runs one statement: the document that a writer makes of its result.
    pub(super) async fn write(
        &mut self,
        sql: &str,
        params: &[Option<Vec<u8>>],
        writer: ResultWriter,
    ) -> Result<Vec<u8>, PgError> {
        let is_own = self.guard().await?;
        let span = self.telemetry.statement(sql, &self.session);
        let running = self.session.query_document(sql, params, writer);
        let document = running.instrument(span).await;
        self.release(is_own, document.is_ok()).await?;
        document
    }

    /// Runs one statement that is a request by itself, not a part of one: what takes its result.
    pub(super) async fn run_into<A: Answer>(
        &mut self,
        sql: &str,
        params: &Params,
        answer: A,
    ) -> Result<A, PgError> {
        let params = params.values()?;
        let is_own = self.guard().await?;
        let span = self.telemetry.message(sql, &self.session);
        let running = self.session.query_json_into(sql, &params, answer);
        let answered = running.instrument(span).await;
        self.release(is_own, answered.is_ok()).await?;
        answered
    }

    /// No document of a result may be larger from now on.
    pub(super) fn limit_results(&mut self, max: SizeLimit) {
        self.result_max = max;
    }

    /// The limit on the document of a result.
    pub(super) fn result_max(&self) -> SizeLimit {
        self.result_max
    }

    /// Whether nothing can be asked of the session after this error.
    pub(super) fn has_ended(&self, error: &PgError) -> bool {
        matches!(error.severity(), Severity::Fatal | Severity::Panic)
    }

    /// Whether nothing more of the request is to be begun.
    pub(super) fn is_given_up(&self) -> bool {
        self.slot.is_given_up()
    }

    /// # Errors
    /// 57014 if nothing more of the request is to be begun.
    pub(super) fn expect_wanted(&self) -> Result<(), PgError> {
        self.slot.expect_wanted()
    }

    /// Runs a statement of ours, which has no result.
    pub(super) async fn order(&mut self, sql: &str) -> Result<(), PgError> {
        self.expect_wanted()?;
        self.session.query(sql, &[]).await.map(drop)
    }

    pub(super) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    pub(super) fn status(&self) -> TransactionStatus {
        self.session.transaction_status()
    }

    /// Ends the session; what is open is rolled back. What has come of the request is known by then, and is not lost if
    /// that takes long.
    pub(super) async fn close(self) {
        self.session.close_within(CLOSE_MAX).await;
    }
}
