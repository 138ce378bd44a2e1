//! How a pool stands, for people and for metrics.

use super::Durations;

/// How a pool stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Connections, those included that are being made or closed.
    pub connections: usize,
    /// Of them, those that nobody has.
    pub idle: usize,
    /// Of them, those that sessions keep between transactions.
    pub pinned: usize,
    /// Clients that wait for one.
    pub waiting: usize,
    /// What was counted.
    pub counts: Counts,
}

/// What a pool has counted since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Connections that were made.
    pub connected: u64,
    /// Those that could not be made.
    pub failed: u64,
    /// How often a client got a connection.
    pub given: u64,
    /// Of these, after a wait.
    pub waited: u64,
    /// Waits that ended with an error.
    pub refused: u64,
    /// How long clients have waited for one, those that got none in the end included; who got one at once did not.
    pub waits: Durations,
    /// How long clients have had connections: of each, from when it was given until it came back or was lost.
    pub held: Durations,
    /// How long the logins at the origin took that were made.
    pub connects: Durations,
    /// Clients that left amid a transaction or a statement.
    pub abandoned: u64,
    /// Cancellations that the origin took.
    pub cancels: u64,
    /// Those that it did not.
    pub cancels_failed: u64,
    /// Those that were not sent, as others were on their way for too long: of the same client, or `cancels_max`.
    pub cancels_refused: u64,
    /// Those of statements that waited for a connection, of which the origin has heard nothing.
    pub cancels_unsent: u64,
}
