//! What the transaction of one connection has written, and when that is about to be committed.

use std::sync::Arc;

use super::doubt::Doubt;
use super::{Cache, Writes};

/// Of one connection.
#[derive(Debug, Default)]
pub(crate) struct Track {
    /// What its transaction has written, and perhaps some of the one before.
    collected: Writes,
    /// What it may commit at this moment.
    doubt: Option<Doubt>,
    /// Something that may end the transaction is under way.
    is_ending: bool,
}

/// What a message may do with a transaction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) may_commit: bool,
    pub(crate) may_end: bool,
}

impl Track {
    /// A statement is sent. `in_transaction` is what the server has told last.
    pub(crate) fn sends(
        &mut self,
        cache: &Arc<Cache>,
        pid: u32,
        writes: &Writes,
        ends: Ends,
        in_transaction: bool,
    ) {
        self.collected.add(writes);
        let stays_open = in_transaction && !self.is_ending && !ends.may_commit;
        self.is_ending |= ends.may_end;
        if !stays_open && !self.collected.is_empty() {
            let doubt = self
                .doubt
                .get_or_insert_with(|| Doubt::new(Arc::clone(cache), pid));
            doubt.add(&self.collected);
        }
    }

    /// The server has answered everything: what it has committed it has committed.
    pub(crate) fn settled(&mut self, in_transaction: bool) {
        if let Some(doubt) = self.doubt.take() {
            doubt.end();
        }
        self.is_ending = false;
        if !in_transaction {
            self.collected = Writes::default();
        }
    }

    /// Whether its transaction has written nothing.
    pub(crate) fn is_clean(&self) -> bool {
        self.collected.is_empty()
    }
}
