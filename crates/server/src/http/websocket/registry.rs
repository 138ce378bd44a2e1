//! Conversations that a client which was cut off can go on with.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::conversation::Conversation;
use super::request::Resume;

/// All conversations that can be gone on with.
#[derive(Default)]
pub(crate) struct Registry(Mutex<HashMap<u64, Entry>>);

struct Entry {
    /// The hash of its secret: looking for it tells nothing by the time that it takes.
    secret: [u8; 32],
    conversation: Arc<Conversation>,
}

/// What a client must say to go on with a conversation.
pub(super) struct Keys {
    pub(super) session: u64,
    pub(super) secret: String,
}

/// A conversation that a client goes on with.
pub(super) struct Resumed {
    pub(super) conversation: Arc<Conversation>,
    pub(super) session: u64,
    /// The number of its socket.
    pub(super) epoch: u64,
    /// How many answers are sent again, or for the first time.
    pub(super) answers: u64,
}

impl Registry {
    /// Adds a conversation.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub(super) fn add(&self, conversation: &Arc<Conversation>) -> Result<Keys, getrandom::Error> {
        let mut random = [0; 40];
        getrandom::fill(&mut random)?;
        let (session, secret) = random.split_at(8);
        let session = session
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte));
        let secret: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let entry = Entry {
            secret: Sha256::digest(&secret).into(),
            conversation: Arc::clone(conversation),
        };
        self.0.lock().insert(session, entry);
        Ok(Keys { session, secret })
    }

    /// Goes on with a conversation, in place of the socket that has it, if that is still there. It must be of the
    /// same client as the one that asks.
    pub(super) fn resume(&self, resume: &Resume, asking: &Conversation) -> Option<Resumed> {
        let session = u64::from_str_radix(&resume.session, 16).ok()?;
        let secret: [u8; 32] = Sha256::digest(&resume.secret).into();
        let entries = self.0.lock();
        let entry = entries.get(&session)?;
        let found = &entry.conversation;
        if entry.secret != secret || found.is_over() || !found.visitor.is(&asking.visitor) {
            return None;
        }
        let answers = found.outbox.rewind(resume.received)?;
        // It goes on by what its client shows now.
        found.visitor.pass.renew(&asking.visitor.pass);
        Some(Resumed {
            conversation: Arc::clone(found),
            session,
            epoch: found.outbox.attach(),
            answers,
        })
    }

    /// Takes a conversation out, unless another socket has it by now: whether it is out.
    pub(super) fn remove(&self, session: u64, epoch: u64) -> bool {
        let mut entries = self.0.lock();
        let is_ours = entries
            .get(&session)
            .is_none_or(|entry| entry.conversation.outbox.is_attached(epoch));
        if is_ours {
            entries.remove(&session);
            let room = entries.len().saturating_mul(2);
            entries.shrink_to(room);
        }
        is_ours
    }
}
