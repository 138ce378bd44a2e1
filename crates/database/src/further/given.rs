//! A slot that others are told of when it is let go.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

use crate::database::Database;
use crate::slot::Slot;

/// A slot that others are told of when it is let go, even by a task that nobody waits for any more.
pub(crate) struct Given {
    /// There until it is kept.
    slot: Option<OwnedMutexGuard<Slot>>,
    database: Arc<Database>,
}

impl Given {
    pub(crate) fn new(slot: OwnedMutexGuard<Slot>, database: &Arc<Database>) -> Self {
        Self {
            slot: Some(slot),
            database: Arc::clone(database),
        }
    }

    /// Who keeps it tells the others itself.
    pub(crate) fn keep(mut self) -> OwnedMutexGuard<Slot> {
        self.slot.take().expect(KEPT)
    }
}

const KEPT: &str = "BUG: keeping a slot consumes what it was given by";

impl Deref for Given {
    type Target = Slot;

    fn deref(&self) -> &Slot {
        self.slot.as_deref().expect(KEPT)
    }
}

impl DerefMut for Given {
    fn deref_mut(&mut self) -> &mut Slot {
        self.slot.as_deref_mut().expect(KEPT)
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            drop(slot);
            self.database.further.freed();
        }
    }
}
