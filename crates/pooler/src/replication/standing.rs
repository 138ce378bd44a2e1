//! How the stream of an origin's commits stands, for people and for metrics.

use crate::failure::{Failure, FailureKind};

/// How a pool stands with what is written at its origin by others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ReplicationStanding {
    /// It is not wanted: `caching.replication` is off, or nothing is kept until it is written.
    #[default]
    Off,
    /// Nobody uses the binding.
    Idle,
    /// It is being begun; open transactions at the origin are waited for.
    Connecting,
    /// Commits are heard of.
    Streaming,
    /// It could not be begun, or has ended; it is tried again. Until then `max_age` alone counts for what others write.
    Failed(ReplicationFailure),
}

/// Why there is no stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ReplicationFailure {
    /// For programs.
    pub reason: ReplicationReason,
    /// What happened, and what to do, for people.
    pub message: String,
}

/// The kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicationReason {
    /// The origin's `wal_level` is not `logical`.
    WalLevel,
    /// The role may not replicate, or not make the publication.
    Permission,
    /// All slots are used.
    NoSlotLeft,
    /// All walsenders are used.
    NoSenderLeft,
    /// The origin is older than PostgreSQL 11.
    Version,
    /// A table has no replica identity: publishing it would make its changes fail.
    Identity,
    /// The connection could not be made, or broke.
    Connection,
    /// The origin said something else.
    Refused,
}

impl ReplicationReason {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::WalLevel,
        Self::Permission,
        Self::NoSlotLeft,
        Self::NoSenderLeft,
        Self::Version,
        Self::Identity,
        Self::Connection,
        Self::Refused,
    ];

    /// For programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::WalLevel => "wal_level",
            Self::Permission => "permission",
            Self::NoSlotLeft => "no_slot_left",
            Self::NoSenderLeft => "no_sender_left",
            Self::Version => "version",
            Self::Identity => "identity",
            Self::Connection => "connection",
            Self::Refused => "refused",
        }
    }
}

impl ReplicationStanding {
    /// For programs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Streaming => "streaming",
            Self::Failed(_) => "failed",
        }
    }
}

impl ReplicationFailure {
    pub(super) fn new(reason: ReplicationReason, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { reason, message }
    }
}

impl From<Failure> for ReplicationFailure {
    fn from(failure: Failure) -> Self {
        use ReplicationReason as Reason;
        let code = failure.error.as_ref().map(|error| error.code().to_owned());
        let (reason, hint) = match (code.as_deref(), failure.kind) {
            (Some("42501"), _) => (
                Reason::Permission,
                ": the origin's role needs REPLICATION, and to be a superuser to make the publication dormouse_cache for \
                 all tables; or make it yourself",
            ),
            (Some("53400"), _) => (Reason::NoSlotLeft, ": raise max_replication_slots"),
            (Some("53300"), _) => (
                Reason::NoSenderLeft,
                ": raise max_wal_senders, or the role's or the database's limit of connections",
            ),
            (_, FailureKind::Query | FailureKind::Protocol) => (Reason::Refused, ""),
            _ => (Reason::Connection, ""),
        };
        Self::new(reason, format!("{}{hint}", failure.reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::PgError;

    #[test]
    fn what_an_origin_says_is_sorted() {
        let reason = |code| {
            let failure = Failure::said(PgError::error(code, "x"));
            ReplicationFailure::from(failure).reason
        };
        assert_eq!(reason("42501"), ReplicationReason::Permission);
        assert_eq!(reason("53400"), ReplicationReason::NoSlotLeft);
        assert_eq!(reason("53300"), ReplicationReason::NoSenderLeft);
        assert_eq!(reason("XX000"), ReplicationReason::Refused);
        assert_eq!(reason("28P01"), ReplicationReason::Connection);
    }

    #[test]
    fn each_reason_has_a_name() {
        let names: std::collections::BTreeSet<_> =
            ReplicationReason::ALL.map(ReplicationReason::name).into();
        assert_eq!(names.len(), ReplicationReason::ALL.len());
    }
}
