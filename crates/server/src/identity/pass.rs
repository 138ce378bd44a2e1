//! What somebody was let in by who stays: a WebSocket, a tunnel and a transaction last longer than the request that begins them,
//! and no longer than the token does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::http::{Extensions, HeaderMap, StatusCode};
use database::DatabaseName;
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

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
    /// None has to be looked at before anything else.
    checked: Mutex<Option<Checked>>,
}

/// When somebody was looked at last, and in which round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checked {
    at: Instant,
    round: u64,
}

/// The rounds in which all who stay are looked at: there is one more whenever what counts may have changed.
#[derive(Default)]
pub(super) struct Rounds {
    now: AtomicU64,
    begun: Notify,
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

impl Checked {
    /// When the look began.
    pub(crate) fn at(self) -> Instant {
        self.at
    }
}

impl Rounds {
    fn begin(&self) {
        self.now.fetch_add(1, Ordering::AcqRel);
        self.begun.notify_waiters();
    }

    /// A look that begins now.
    fn look(&self) -> Checked {
        Checked {
            // Before the look, so that whatever changes amid it is looked at again.
            round: self.now.load(Ordering::Acquire),
            at: Instant::now(),
        }
    }
}

/// Waits as long as may be between two looks, or until a round begins.
async fn until_next_look(begun: Notified<'_>) {
    // Either will do.
    let _ = tokio::time::timeout(LOOK, begun).await;
}

impl Pass {
    fn new(
        presented: Presented,
        database: Option<&DatabaseName>,
        caller: &Caller,
        checked: Option<Checked>,
    ) -> Self {
        Self(Mutex::new(Arc::new(Shown {
            presented,
            database: database.cloned(),
            caller: caller.clone(),
            checked: Mutex::new(checked),
        })))
    }

    /// Whether what was found out of who has it still counts.
    fn is_believed(&self, now: Checked) -> bool {
        let checked = *self.shown().checked.lock();
        checked.is_some_and(|checked| {
            checked.round == now.round && now.at.saturating_duration_since(checked.at) < LOOK
        })
    }

    /// Whether it was found out in this round, which may be longer ago.
    fn is_of_round(&self, rounds: &Rounds) -> bool {
        let checked = *self.shown().checked.lock();
        checked.is_some_and(|checked| checked.round == rounds.now.load(Ordering::Acquire))
    }

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
    /// The pass of a caller whom a request with these headers has let in, as it was when that was found out: its extensions say
    /// since when.
    pub(crate) fn pass(
        &self,
        (headers, extensions): (&HeaderMap, &Extensions),
        database: Option<&DatabaseName>,
        caller: &Caller,
    ) -> Pass {
        let presented = match self.asks() {
            true => presented::read(headers, self.options.token_bytes_max),
            false => Ok(Presented::Nothing),
        };
        // It could be read a moment ago.
        let presented = presented.unwrap_or(Presented::Nothing);
        Pass::new(presented, database, caller, extensions.get().copied())
    }

    /// Who stays is looked at again at once, and before anything is done for them: what counts may have changed.
    pub(crate) fn look_at_all_again(&self) {
        self.rounds.begin();
    }

    /// A look that begins now.
    pub(crate) fn checked(&self) -> Checked {
        self.rounds.look()
    }

    /// Whether who has this pass may stay, as of a second ago at most.
    pub(crate) async fn may_stay(&self, pass: &Pass) -> Stay {
        if !self.asks() {
            return Stay::Yes;
        }
        let now = self.checked();
        if pass.is_believed(now) {
            return Stay::Yes;
        }
        let shown = pass.shown();
        // It is seldom, and would be large in whatever waits for it.
        let stay = self.look_again(&shown).boxed().await;
        if stay == Stay::Yes {
            *shown.checked.lock() = Some(now);
        }
        stay
    }

    /// Whether more may be done for who has this pass and is looked at each second ([`has_to_go`](Self::has_to_go)): nobody is
    /// asked here unless all are to be looked at again.
    pub(crate) async fn may_go_on(&self, pass: &Pass) -> bool {
        pass.is_of_round(&self.rounds) || self.may_stay(pass).await != Stay::No
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
        loop {
            // Before the look, so that none is missed.
            let begun = self.rounds.begun.notified();
            if self.may_stay(pass).await == Stay::No {
                return;
            }
            until_next_look(begun).await;
        }
    }
}

fn of_status(status: StatusCode) -> Stay {
    match status.is_server_error() {
        true => Stay::Unknown,
        false => Stay::No,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn pass(checked: Option<Checked>) -> Pass {
        Pass::new(Presented::Nothing, None, &Caller::nobody(), checked)
    }

    #[test]
    fn a_pass_is_as_old_as_the_look() {
        let rounds = Rounds::default();
        let before = rounds.look();
        let believed = pass(Some(before));
        assert!(believed.is_believed(rounds.look()) && believed.is_of_round(&rounds));
        assert!(!pass(None).is_believed(rounds.look()));
        rounds.begin();
        // What was found out before counts no more, though the pass is made now.
        for made in [believed, pass(Some(before)), pass(None)] {
            assert!(!made.is_believed(rounds.look()) && !made.is_of_round(&rounds));
        }
        let late = Checked {
            at: before.at + LOOK,
            ..rounds.look()
        };
        let known = pass(Some(Checked {
            at: before.at,
            ..late
        }));
        assert!(!known.is_believed(late) && known.is_of_round(&rounds));
    }

    #[tokio::test]
    async fn who_waits_for_the_next_look_has_it_with_a_new_round() {
        let rounds = Rounds::default();
        // One that begins while somebody looks is not missed.
        let amid = rounds.begun.notified();
        rounds.begin();
        assert!(until_next_look(amid).now_or_never().is_some());
        assert!(
            until_next_look(rounds.begun.notified())
                .now_or_never()
                .is_none()
        );
    }
}
