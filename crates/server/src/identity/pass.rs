//! What somebody was let in by who stays: a WebSocket, a tunnel and a transaction last longer than the request that begins them,
//! and no longer than the token does.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, StatusCode};
use database::DatabaseName;
use futures_util::FutureExt as _;
use parking_lot::Mutex;

use super::presented::{self, Presented};
use super::{Admitted, Gatekeeper};
use crate::http::caller::Caller;

/// How long what was found out of who stays is believed.
const LOOK: Duration = Duration::from_secs(1);

/// What somebody shows who stays. The secret is in memory as long as they do: whoever can revoke it must be asked again.
pub(crate) struct Pass(Mutex<Arc<Shown>>);

struct Shown {
    presented: Presented,
    database: Option<DatabaseName>,
    caller: Caller,
    checked: Mutex<Checked>,
}

/// When somebody who stays was looked at last, and in which round.
struct Checked {
    at: Instant,
    round: u64,
}

/// Whether somebody may stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stay {
    Yes,
    /// What they show is not accepted any more, or is not for the same any more.
    No,
    /// Whoever could say does not answer.
    Unknown,
}

impl Pass {
    /// For who keeps this one, and has come again with another: the newer counts.
    pub(crate) fn renew(&self, newer: &Self) {
        let newer = Arc::clone(&newer.0.lock());
        *self.0.lock() = newer;
    }

    /// Whether a token was shown, and no password.
    pub(crate) fn is_of_token(&self) -> bool {
        matches!(self.0.lock().presented, Presented::Bearer(_))
    }

    fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.0.lock())
    }
}

impl Gatekeeper {
    /// The pass of a caller whom a request with these headers has let in just now.
    pub(crate) fn pass(
        &self,
        headers: &HeaderMap,
        database: Option<&DatabaseName>,
        caller: &Caller,
    ) -> Pass {
        let presented = match self.asks() {
            true => presented::read(headers, self.options.token_bytes_max),
            false => Ok(Presented::Nothing),
        };
        Pass(Mutex::new(Arc::new(Shown {
            // It could be read a moment ago.
            presented: presented.unwrap_or(Presented::Nothing),
            database: database.cloned(),
            caller: caller.clone(),
            checked: Mutex::new(self.checked()),
        })))
    }

    /// Who stays is looked at again before anything is done for them: what counts may have changed.
    pub(crate) fn look_at_all_again(&self) {
        self.round.fetch_add(1, Ordering::AcqRel);
    }

    fn checked(&self) -> Checked {
        Checked {
            // Before the look, so that whatever changes amid it is looked at again.
            round: self.round.load(Ordering::Acquire),
            at: Instant::now(),
        }
    }

    /// Whether who has this pass may stay, as of a second ago at most.
    pub(crate) async fn may_stay(&self, pass: &Pass) -> Stay {
        if !self.asks() {
            return Stay::Yes;
        }
        let shown = pass.shown();
        let now = self.checked();
        let is_known = |checked: &Checked| {
            checked.round == now.round && now.at.saturating_duration_since(checked.at) < LOOK
        };
        if is_known(&shown.checked.lock()) {
            return Stay::Yes;
        }
        // It is seldom, and would be large in whatever waits for it.
        let stay = self.look_again(&shown).boxed().await;
        if stay == Stay::Yes {
            *shown.checked.lock() = now;
        }
        stay
    }

    async fn look_again(&self, shown: &Shown) -> Stay {
        let admitted = match self.judge(shown.presented.clone()).await {
            Ok(admitted @ (Admitted::Caller(_) | Admitted::Role(_))) => admitted,
            Ok(Admitted::Nobody) => return Stay::No,
            Err(error) => return of_status(error.status()),
        };
        match self.confirm(admitted, shown.database.as_ref()).await {
            Ok(caller) if caller.is_same(&shown.caller) => Stay::Yes,
            Ok(_somebody_else) => Stay::No,
            Err(error) => of_status(error.status()),
        }
    }

    /// Waits until who has this pass may not stay.
    pub(crate) async fn has_to_go(&self, pass: &Pass) {
        if !self.asks() {
            return std::future::pending().await;
        }
        while self.may_stay(pass).await != Stay::No {
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn of_status(status: StatusCode) -> Stay {
    match status.is_server_error() {
        true => Stay::Unknown,
        false => Stay::No,
    }
}
