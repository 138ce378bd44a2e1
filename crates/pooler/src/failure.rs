//! Why a server cannot be had.

use std::io;
use std::time::Duration;

use wire::{PgError, sqlstate};

/// Why an origin did not let us in. Each kind has a name for programs and a number as Hyperdrive's interface has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Failure {
    /// Which one.
    pub kind: FailureKind,
    /// What happened, for people.
    pub reason: String,
    /// What the server said, if it said something.
    pub error: Option<Box<PgError>>,
}

/// The kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The host's name has no address.
    Dns,
    /// Nobody listens there.
    Refused,
    /// Nothing came back in time.
    Timeout,
    /// The connection broke.
    Network,
    /// The server has no TLS.
    TlsNotOffered,
    /// Its certificate is not one to believe.
    Certificate,
    /// The handshake failed otherwise.
    Tls,
    /// The role or the password is wrong.
    Credentials,
    /// There is no such database.
    Database,
    /// It has no more room for connections, or is starting or stopping.
    Unavailable,
    /// It takes no writes.
    ReadOnly,
    /// It wants something that is not spoken here.
    Protocol,
    /// It let us in, but a query failed.
    Query,
}

impl FailureKind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Dns,
        Self::Refused,
        Self::Timeout,
        Self::Network,
        Self::TlsNotOffered,
        Self::Certificate,
        Self::Tls,
        Self::Credentials,
        Self::Database,
        Self::Unavailable,
        Self::ReadOnly,
        Self::Protocol,
        Self::Query,
    ];

    /// For programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Refused => "connection_refused",
            Self::Timeout => "timeout",
            Self::Network => "network",
            Self::TlsNotOffered => "tls_not_offered",
            Self::Certificate => "certificate_invalid",
            Self::Tls => "tls",
            Self::Credentials => "credentials",
            Self::Database => "no_such_database",
            Self::Unavailable => "unavailable",
            Self::ReadOnly => "read_only",
            Self::Protocol => "protocol",
            Self::Query => "query_failed",
        }
    }

    /// The number of Hyperdrive's interface, where it has one for this; 2015 is its word for all others.
    pub fn code(self) -> u16 {
        match self {
            Self::Dns => 2008,
            Self::Timeout | Self::Network => 2010,
            Self::Refused => 2011,
            Self::TlsNotOffered => 2012,
            Self::Credentials => 2013,
            Self::Database => 2014,
            Self::Query => 2016,
            Self::Certificate | Self::Tls | Self::Unavailable | Self::ReadOnly | Self::Protocol => {
                2015
            }
        }
    }

    /// Whether another host of the same origin may do better.
    pub(crate) fn is_of_the_host(self) -> bool {
        !matches!(self, Self::Credentials | Self::Database | Self::Query)
    }
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self {
            kind,
            reason,
            error: None,
        }
    }

    /// Of a server that does not answer.
    pub(crate) fn silent(within: Duration) -> Self {
        let ms = within.as_millis();
        Self::new(
            FailureKind::Timeout,
            format!("the server did not answer within {ms} ms"),
        )
    }

    /// Of what a server said while it should let us in.
    pub(crate) fn said(error: PgError) -> Self {
        let kind = match error.code() {
            "28000" | "28P01" => FailureKind::Credentials,
            "3D000" => FailureKind::Database,
            "53300" | "57P03" | "57P01" | "57P02" => FailureKind::Unavailable,
            _ => FailureKind::Protocol,
        };
        Self {
            kind,
            reason: error.message().to_owned(),
            error: Some(Box::new(error)),
        }
    }

    pub(crate) fn of_io(error: &io::Error, doing: &str) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => FailureKind::Refused,
            io::ErrorKind::TimedOut => FailureKind::Timeout,
            _ => FailureKind::Network,
        };
        Self::new(kind, format!("{doing}: {error}"))
    }

    /// What a client is told who wanted a server.
    pub fn to_error(&self) -> PgError {
        if let Some(error) = &self.error {
            return PgError::fatal(error.code(), error.message())
                .hint("The origin of this binding said so when the pool connected.");
        }
        let code = match self.kind {
            FailureKind::Credentials => sqlstate::INVALID_AUTHORIZATION_SPECIFICATION,
            _ => sqlstate::SYSTEM_ERROR,
        };
        PgError::fatal(
            code,
            format!("Server connection attempt failed: {}", self.kind.name()),
        )
        .detail(self.reason.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_sorted() {
        let kind = |code| Failure::said(PgError::fatal(code, "x")).kind;
        assert_eq!(kind("28P01"), FailureKind::Credentials);
        assert_eq!(kind("3D000"), FailureKind::Database);
        assert_eq!(kind("53300"), FailureKind::Unavailable);
        assert_eq!(kind("XX000"), FailureKind::Protocol);
    }

    #[test]
    fn each_kind_has_a_name_and_a_number() {
        let mut names: Vec<_> = FailureKind::ALL.map(FailureKind::name).to_vec();
        names.dedup();
        assert_eq!(names.len(), FailureKind::ALL.len());
        assert!(
            FailureKind::ALL
                .iter()
                .all(|kind| (2008..=2016).contains(&kind.code()))
        );
    }

    #[test]
    fn clients_are_told_as_by_hyperdrive() {
        let failure = Failure::of_io(&io::ErrorKind::ConnectionRefused.into(), "connecting");
        let error = failure.to_error();
        assert_eq!(error.code(), "58000");
        assert_eq!(
            error.message(),
            "Server connection attempt failed: connection_refused"
        );
    }
}
