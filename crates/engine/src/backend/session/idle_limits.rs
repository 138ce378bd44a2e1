//! How long a session may do nothing.

use crate::backend::Backend;
use crate::host::read_u32;

/// Limits of Postgres on how long a session may do nothing, as they are set in it, in milliseconds; zero
/// for none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IdleLimits {
    /// `idle_in_transaction_session_timeout`.
    pub in_transaction_ms: u32,
    /// `idle_session_timeout`.
    pub session_ms: u32,
    /// `transaction_timeout`.
    pub transaction_ms: u32,
}

impl Backend {
    /// The limits on idleness that are set in this session.
    pub fn idle_limits(&self) -> IdleLimits {
        let host = self.store.data();
        let memory = host.guest().memory.data(&self.store);
        let [in_transaction, session, transaction] = host.module.addresses.timeouts;
        IdleLimits {
            in_transaction_ms: read_u32(memory, in_transaction),
            session_ms: read_u32(memory, session),
            transaction_ms: read_u32(memory, transaction),
        }
    }
}
