//! The end of a transaction, and of a session.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Duration;
use wire::{PgError, sqlstate};

use super::taking::Taking;
use super::{Client, Due};
use crate::facts::Pin;
use crate::failure::{Failure, FailureKind};
use crate::settings::Settings;

/// How often the server is asked once more what a session has set.
const ASKS_MAX: usize = 20;

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Gives the server back if nothing holds it.
    pub(super) async fn settle(&mut self) -> Result<(), PgError> {
        let is_quiet = match &self.lease {
            Some(lease) => lease.account.is_quiet() && self.relay_is_done(),
            None => return Ok(()),
        };
        if !is_quiet {
            return Ok(());
        }
        self.do_what_is_due();
        let is_free = self
            .lease
            .as_ref()
            .is_some_and(|lease| lease.account.is_free());
        if !is_free {
            return Ok(());
        }
        self.touched_locally.clear();
        self.taking = Taking::None;
        let is_pinned = self.is_pinned();
        let asks = !self.touched.is_empty()
            || (self.lease.as_ref()).is_some_and(|lease| lease.has_refused_to_write);
        if asks || !is_pinned {
            // Nor does it hit what the pool asks itself.
            self.identity.canceller.has_none().await;
        }
        if asks {
            self.ask_own().await?;
        }
        if !is_pinned {
            if let Some(mut lease) = self.lease.take() {
                lease.unpin();
                lease.give_back();
            }
            self.side.rest();
        }
        if std::mem::take(&mut self.by_old_lore) {
            self.pool.learn_again();
        }
        Ok(())
    }

    /// What the pool asks at the end of a transaction.
    async fn ask_own(&mut self) -> Result<(), PgError> {
        if !self.touched.is_empty() {
            self.read_settings().await?;
        }
        self.look_for_a_fail_over().await;
        let is_pinned = self.is_pinned();
        let Some(lease) = self.lease.as_deref_mut().filter(|_| is_pinned) else {
            return Ok(());
        };
        self.side.outbox.extend_from_slice(&lease.heard.split());
        if lease.is_broken {
            return Err(PgError::fatal(
                sqlstate::CONNECTION_FAILURE,
                "the connection to the origin was lost, and with it what the session kept there",
            ));
        }
        self.identity.canceller.has(Arc::clone(&lease.key));
        Ok(())
    }

    fn relay_is_done(&self) -> bool {
        self.relay.is_done()
    }

    fn do_what_is_due(&mut self) {
        let due = std::mem::take(&mut self.due);
        self.unconfirmed.clear();
        let Due {
            unpins,
            undoable,
            has_failed,
        } = due;
        if has_failed {
            if let Some(lease) = &mut self.lease {
                lease.has_failed();
            }
            return;
        }
        let is_over = (self.lease.as_ref()).is_none_or(|lease| lease.account.is_free());
        if is_over {
            let pins = self.pins.len();
            self.pins.retain(|pin| !unpins.contains(pin));
            if let Some(lease) = &mut self.lease {
                // What the text says need not have been run.
                lease.is_tainted |= self.pins.len() < pins;
            }
        } else {
            self.due.unpins = unpins;
            self.due.undoable = undoable;
        }
        if let Some(lease) = &mut self.lease {
            lease.has_succeeded();
        }
    }

    /// Asks the server what has become of settings that a transaction may have changed.
    async fn read_settings(&mut self) -> Result<(), PgError> {
        let touched = std::mem::take(&mut self.touched);
        let names = || touched.iter();
        let Some(lease) = &mut self.lease else {
            return Ok(());
        };
        let mut asked = lease.try_ask(&Settings::ask(names()), Duration::ZERO).await;
        for _ in 0..ASKS_MAX {
            let is_refused = |failure: &Failure| failure.kind == FailureKind::Query;
            if !asked.as_ref().is_err_and(is_refused) {
                break;
            }
            // By a timeout that the client has set for its own statements.
            let sql = Settings::ask_without_timeout(names());
            asked = lease.try_ask(&sql, Duration::ZERO).await;
        }
        let rows = asked.map_err(|failure| {
            lease.is_broken = true;
            PgError::fatal(
                sqlstate::CONNECTION_FAILURE,
                "the connection to the origin was lost, and with it what the session has set",
            )
            .detail(failure.to_string())
        })?;
        for row in rows {
            let [Some(name), value, is_default] = row.as_slice() else {
                continue;
            };
            let is_default = is_default.as_deref() == Some("t");
            let value = value.clone().filter(|_| !is_default);
            self.settings.put(name, value);
        }
        lease.settings = self.settings.clone();
        let has_room = self.settings.expect_room();
        if has_room.is_err() {
            // What is known of it may not be all of it.
            lease.is_tainted = true;
            lease.last_client = 0;
        }
        has_room
    }

    /// A server that has refused to write, though the client has not wished for that, may be one that takes no writes any
    /// more: then its connections go, and another host of the origin is looked for.
    async fn look_for_a_fail_over(&mut self) {
        let Some(lease) = &mut self.lease else {
            return;
        };
        if std::mem::take(&mut lease.has_refused_to_write) {
            // One that does not answer is broken, and not used again.
            self.pool.ask_for_writes(lease).await;
        }
    }

    /// The server is gone: whether it has told the client so.
    pub(super) fn lost(&mut self) -> bool {
        let lease = self.lease.as_mut();
        lease.is_some_and(|lease| std::mem::replace(&mut lease.is_broken, true))
    }

    /// Leaves nothing open.
    pub(super) async fn leave(&mut self) {
        let is_pinned = self.is_pinned();
        if is_pinned {
            let reasons: Vec<_> = self.pins().map(|pin| pin.reason()).collect();
            tracing::debug!(
                client = &*self.identity.label,
                ?reasons,
                "a pinned session ends"
            );
        }
        if let Some(mut lease) = self.lease.take() {
            self.identity.canceller.has_none().await;
            // The rest of a message of which the client has heard the beginning is nobody's.
            lease.unread = self.relay.rest();
            if !self.touched.is_empty() {
                lease.is_tainted = true;
                lease.last_client = 0;
            }
            lease.abandon(is_pinned);
        }
    }
}

impl Due {
    /// A statement is done, by what the server calls it: what was let go in a transaction that is rolled back is kept, as
    /// is what was before a savepoint to which one is.
    pub(super) fn completed(&mut self, tag: &[u8]) {
        if tag.starts_with(b"UNLISTEN") {
            self.undoable.insert(Pin::Listen);
        } else if tag.starts_with(b"DISCARD TEMP") {
            self.undoable.insert(Pin::Temporary);
        } else if tag.starts_with(b"ROLLBACK") {
            let undone = std::mem::take(&mut self.undoable);
            self.unpins.retain(|pin| !undone.contains(pin));
        }
    }
}
