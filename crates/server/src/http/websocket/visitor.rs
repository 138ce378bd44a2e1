//! Sessions of a conversation: of which database, and as who asks.

use std::collections::BTreeMap;
use std::sync::Arc;

use database::{Answer, Canceller};
use wire::pg::TransactionStatus;
use wire::{PgError, SizeLimit};

use crate::http::error::ApiError;
use crate::http::params::Params;
use crate::http::router::App;
use crate::http::site::Current;
use crate::http::sizes::Sizes;
use crate::http::tenant::Tenant;
use crate::http::visit::{self, Wishes};
use crate::http::work::CancelSlot;
use crate::identity::{Pass, Stay};
use crate::request_limits::Permit;

/// Who has a conversation, and with which database.
pub(super) struct Visitor {
    pub(super) current: Current,
    pub(super) tenant: Tenant,
    pub(super) pass: Arc<Pass>,
}

/// A session of a conversation.
pub(super) struct Visit {
    visit: visit::Visit,
}

impl Visitor {
    /// What is configured now.
    pub(super) fn app(&self) -> App {
        self.current.app()
    }

    /// Whether another one is of the same client.
    pub(super) fn is(&self, other: &Self) -> bool {
        let (one, other) = (&self.tenant, &other.tenant);
        one.name == other.name && one.caller.is_same(&other.caller)
    }

    /// Lets a statement begin: it counts for as long as what this gives lasts, as a request over HTTP does.
    ///
    /// # Errors
    /// 53400 if it is one too many.
    pub(super) fn permit(&self) -> Result<Option<Permit>, PgError> {
        let permit = self
            .app()
            .permit(&self.tenant.caller, Some(&self.tenant.name));
        permit.map_err(ApiError::into_error)
    }

    /// Whether a statement would come too soon.
    pub(super) fn asks_too_often(&self) -> bool {
        let Tenant { caller, name, .. } = &self.tenant;
        self.app().expect_time(caller, Some(name)).is_err()
    }

    /// How large a message may be by what is known without a look at the database.
    pub(super) fn message_max_of_node(&self) -> SizeLimit {
        self.app().sizes_of_node(&self.tenant.caller).message
    }

    /// How large a request and its result may be, as of now.
    ///
    /// # Errors
    /// 58030 or XX001 if the directory of databases cannot be read.
    pub(super) async fn sizes(&self) -> Result<Sizes, PgError> {
        let Tenant { caller, name, .. } = &self.tenant;
        self.app().sizes(caller, Some(name)).await
    }

    /// Whether its client may stay.
    pub(super) async fn may_stay(&self) -> Stay {
        self.app().security.gatekeeper.may_stay(&self.pass).await
    }

    /// Whether more may be done for its client amid work.
    pub(super) async fn may_go_on(&self) -> bool {
        self.app().security.gatekeeper.may_go_on(&self.pass).await
    }

    /// Whether a client that does nothing may stay: of a role nobody looks, which might wake its database.
    pub(super) async fn may_stay_idle(&self) -> Stay {
        match self.pass.is_of_token() {
            true => self.may_stay().await,
            false => Stay::Yes,
        }
    }

    /// Waits until its client may not stay.
    pub(super) async fn has_to_go(&self) {
        self.app().security.gatekeeper.has_to_go(&self.pass).await;
    }

    pub(super) async fn open(
        &self,
        role: Option<String>,
        settings: BTreeMap<String, String>,
    ) -> Result<Visit, PgError> {
        let wishes = Wishes { role, settings };
        let slot = CancelSlot::default();
        let visit = visit::Visit::open(&self.app(), &self.tenant, wishes, &slot).await?;
        Ok(Visit { visit })
    }
}

impl Visit {
    pub(super) fn canceller(&mut self) -> Canceller {
        self.visit.session().canceller()
    }

    pub(super) fn status(&self) -> TransactionStatus {
        self.visit.status()
    }

    pub(super) async fn run<A: Answer>(
        &mut self,
        sql: &str,
        params: &Params,
        answer: A,
    ) -> Result<A, PgError> {
        self.visit.run_into(sql, params, answer).await
    }

    pub(super) async fn begin(&mut self, sql: &str) -> Result<(), PgError> {
        self.visit.begin(sql).await
    }

    pub(super) async fn commit(&mut self) -> Result<(), PgError> {
        self.visit.commit().await
    }

    pub(super) async fn rollback(&mut self) -> Result<(), PgError> {
        self.visit.order("ROLLBACK").await
    }

    /// Waits until another session wants to come in beside this one.
    pub(super) fn share_wanted(&mut self) -> impl Future<Output = ()> + Send + use<> {
        self.visit.session().share_wanted()
    }

    /// Makes room beside itself, between two statements.
    pub(super) fn share(&mut self) {
        self.visit.session().share();
    }

    /// Waits until another process has sent a signal to that of this session.
    pub(super) fn signalled(&mut self) -> impl Future<Output = ()> + Send + use<> {
        self.visit.session().signalled()
    }

    /// Does what it was signalled to. What Postgres tells unasked is told nobody.
    ///
    /// # Errors
    /// What has ended the session, as `pg_terminate_backend` does.
    pub(super) async fn take_signals(&mut self) -> Result<(), PgError> {
        let taken = self.visit.session().take_signals().await;
        taken.map(drop).map_err(|ended| ended.error)
    }

    /// Waits until it has done nothing for longer than it may: the error that ends it.
    pub(super) fn idle_too_long(&mut self) -> impl Future<Output = PgError> + Send + use<> {
        self.visit.session().idle_too_long()
    }

    /// Ends the session; what is open is rolled back.
    pub(super) async fn close(self) {
        self.visit.close().await;
    }
}
