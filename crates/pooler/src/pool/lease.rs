//! A connection that somebody has, or is about to have.

use std::sync::{Arc, Weak};

use wire::{PgError, sqlstate};

use super::Pool;
use crate::facts::Pin;
use crate::server::Server;

/// A connection that somebody has. Dropped without a word it is closed.
#[derive(Debug)]
pub(crate) struct Lease {
    server: Option<Box<Server>>,
    pool: Arc<Pool>,
    is_pinned: bool,
}

/// A connection on its way to who waits for it. If nobody takes it, it goes back.
#[derive(Debug)]
pub(super) struct Handed {
    server: Option<Box<Server>>,
    pool: Weak<Pool>,
}

impl Handed {
    pub(super) fn new(server: Box<Server>, pool: Weak<Pool>) -> Self {
        Self {
            server: Some(server),
            pool,
        }
    }

    pub(super) fn take(mut self) -> Option<Box<Server>> {
        self.server.take()
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        if let Some(server) = self.server.take()
            && let Some(pool) = self.pool.upgrade()
        {
            pool.give(server);
        }
    }
}

impl Lease {
    pub(super) fn new(server: Box<Server>, pool: Arc<Pool>) -> Self {
        Self {
            server: Some(server),
            pool,
            is_pinned: false,
        }
    }

    /// Gives it back.
    pub(crate) fn give_back(mut self) {
        if let Some(server) = self.server.take() {
            self.unpin();
            self.pool.give(server);
        }
    }

    /// Gives it back as its client has left it: what is under way is canceled, and rolled back.
    pub(crate) fn abandon(mut self, is_pinned: bool) {
        let Some(mut server) = self.server.take() else {
            return;
        };
        server.has_failed();
        let was_busy = !server.account.is_free() || server.unread > 0;
        let pool = Arc::clone(&self.pool);
        if was_busy {
            pool.state.lock().counts.abandoned += 1;
        }
        if !was_busy && !is_pinned && !server.is_broken {
            self.unpin();
            pool.give(server);
            return;
        }
        let within = pool.options().abandoned_max;
        tokio::spawn(async move {
            let mut works = server.abandon(within).await;
            if works && is_pinned {
                works = server.discard_all().await.is_ok();
            }
            self.unpin();
            match works {
                true => pool.give(server),
                false => pool.lost(server),
            }
        });
    }

    /// Keeps it between transactions, for something that needs it.
    ///
    /// # Errors
    ///
    /// 53300 beyond `pinnedMax`.
    pub(crate) fn pin(&mut self, pin: Pin) -> Result<(), PgError> {
        if self.is_pinned {
            return Ok(());
        }
        let mut state = self.pool.state.lock();
        if state.pinned >= self.pool.options().pinned_max {
            return Err(PgError::error(
                sqlstate::TOO_MANY_CONNECTIONS,
                format!(
                    "{} needs a connection of its own, and {} sessions keep one already, as many as pinnedMax allows",
                    pin.reason(),
                    state.pinned
                ),
            )
            .hint("Raise pinnedMax of the binding, or do without what binds a session to its connection."));
        }
        state.pinned += 1;
        self.is_pinned = true;
        let number = self.server.as_ref().map(|server| server.number);
        let holder = number.and_then(|number| state.holders.get_mut(number)?.as_mut());
        if let Some(holder) = holder {
            holder.pin = Some(pin);
        }
        Ok(())
    }

    /// It need not be kept any more.
    pub(crate) fn unpin(&mut self) {
        if self.is_pinned {
            self.is_pinned = false;
            self.pool.state.lock().pinned -= 1;
        }
    }
}

impl std::ops::Deref for Lease {
    type Target = Server;

    fn deref(&self) -> &Server {
        self.server
            .as_deref()
            .expect("BUG: a lease that was given back is used")
    }
}

impl std::ops::DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Server {
        self.server
            .as_deref_mut()
            .expect("BUG: a lease that was given back is used")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            self.unpin();
            self.pool.lost(server);
        }
    }
}
