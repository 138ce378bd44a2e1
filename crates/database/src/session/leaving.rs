//! How a session ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

use super::{Session, abandon_volume};
use crate::database::Database;
use crate::node::Node;
use crate::slot::Slot;

impl Session {
    /// Ends the session: rolls back, takes its traces off the backend, and lets the next one in.
    pub async fn close(mut self) {
        if let Some(leaving) = self.leaving() {
            leaving.await;
        }
    }

    /// The same, but waits no longer than this: what takes more time, a checkpoint for instance, goes on by itself.
    pub async fn close_within(mut self, patience: Duration) {
        let Some(leaving) = self.leaving() else {
            return;
        };
        let mut leaving = Box::pin(leaving);
        if timeout(patience, &mut leaving).await.is_err() {
            self.node.leaving.spawn(leaving);
        }
    }

    /// What is to be done at the end; `None` if that was done.
    pub(super) fn leaving(&mut self) -> Option<impl Future<Output = ()> + Send + 'static> {
        if std::mem::replace(&mut self.has_left, true) {
            return None;
        }
        self.line.set(None);
        let parked = self.own_slot();
        let held = self.slot.take();
        let permit = self.permit.take();
        let (node, database) = (Arc::clone(&self.node), Arc::clone(&self.database));
        let present = self.present;
        Some(async move {
            if let Some(mut slot) = parked {
                // Whoever comes next clears what is left.
                slot.occupant.forget();
            }
            if let Some(slot) = held {
                leave(slot, &node, &database).await;
            }
            let mut sessions = database.sessions.lock();
            sessions.retain(|session| session.id != present);
            drop(sessions);
            drop(permit);
            database.further.freed();
            database.session_left();
            node.admission.left();
        })
    }
}

async fn leave(mut slot: OwnedMutexGuard<Slot>, node: &Arc<Node>, database: &Arc<Database>) {
    if database.is_dropped() {
        slot.lose(database);
        return;
    }
    slot.reset(database).await;
    if let Err(error) = slot.checkpoint_if_due(node, database).await {
        tracing::warn!(database = %database.name(), %error, "a backend ended");
        slot.lose(database);
    }
    if database.volume_is_broken() {
        slot.lose(database);
        abandon_volume(database).await;
    }
}
