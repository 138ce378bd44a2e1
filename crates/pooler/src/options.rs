//! What a pool may use.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::dialing::Dialing;

/// Limits of a pool, each by the name that its error tells: those of a binding as users set them.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// `connectionsMax`: connections to the origin at any time, those included that are being made or closed.
    pub connections_max: usize,
    /// `connectTimeoutMs`: from the first packet to the login, and for each statement of the pool's own.
    pub connect_timeout: Duration,
    /// `waitMsMax`: for a connection, while others have them all.
    pub wait_max: Duration,
    /// `waiting_max`: clients that wait for one.
    pub waiting_max: usize,
    /// `idleMs`: a connection that nobody has used for this long is closed.
    pub idle: Duration,
    /// `statementTimeoutMs`: of a statement, where a client has set no other; zero for none.
    pub statement_timeout: Duration,
    /// `check_ms`: one that was idle for this long is asked whether it still lives before it is used.
    pub check_after: Duration,
    /// `statements_max`: prepared statements that one server keeps.
    pub statements_max: NonZeroUsize,
    /// `pinnedMax`: connections that sessions may keep between transactions.
    pub pinned_max: usize,
    /// `message_bytes_max`: of a client.
    pub message_bytes_max: usize,
    /// `cancels_max`: connections to the origin that cancel, at once. Others wait.
    pub cancels_max: usize,
    /// `cancel_ms_max`: how long one may take, its wait included.
    pub cancel_max: Duration,
    /// `abandoned_ms_max`: in which a server must be done with what its client has left, and one that is told to end must have hung up.
    pub abandoned_max: Duration,
    /// How hosts are found and reached.
    pub dialing: Dialing,
}

impl PoolOptions {
    /// What sessions at the origin begin with: what `RESET` goes back to.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        match self.statement_timeout.as_millis() {
            0 => Vec::new(),
            ms => vec![("statement_timeout", ms.to_string())],
        }
    }
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            connections_max: 20,
            connect_timeout: Duration::from_secs(15),
            wait_max: Duration::from_secs(15),
            waiting_max: 10_000,
            idle: Duration::from_secs(600),
            statement_timeout: Duration::ZERO,
            check_after: Duration::from_secs(30),
            statements_max: NonZeroUsize::new(500).unwrap_or(NonZeroUsize::MIN),
            pinned_max: 10,
            message_bytes_max: 64 << 20,
            cancels_max: 10,
            cancel_max: Duration::from_secs(10),
            abandoned_max: Duration::from_secs(2),
            dialing: Dialing::default(),
        }
    }
}
