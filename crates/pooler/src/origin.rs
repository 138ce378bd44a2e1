//! Where an external Postgres is, and how to log in there.

mod url;

use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroizing;

pub use url::UrlError;

/// The port of a Postgres for which none is named.
pub(crate) const PORT: u16 = 5432;

/// PostgreSQL's `NAMEDATALEN - 1`: what is longer is no name of a role or a database.
pub(crate) const NAME_BYTES_MAX: usize = 63;

/// An external Postgres.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Where it is; several are tried in order until one serves. Never empty.
    pub hosts: Vec<Host>,
    /// The database.
    pub database: String,
    /// The role.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// How the way there is protected.
    pub tls: Tls,
    /// Which of the hosts will do.
    pub target: Target,
}

/// One address of a Postgres.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A name or an address, and a port.
    Tcp(String, u16),
    /// The folder of a socket, and the port in its name.
    Unix(PathBuf, u16),
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(name, port) if name.contains(':') => write!(formatter, "[{name}]:{port}"),
            Self::Tcp(name, port) => write!(formatter, "{name}:{port}"),
            Self::Unix(folder, port) => write!(formatter, "{}:{port}", folder.display()),
        }
    }
}

/// Which server of several will do, as libpq's `target_session_attrs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Target {
    /// Any that lets us in.
    #[default]
    Any,
    /// One that takes writes.
    ReadWrite,
}

/// How the way to an origin is protected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// How much is asked for.
    pub mode: TlsMode,
    /// Authorities in PEM that are believed instead of the system's.
    pub authorities: Option<String>,
    /// A certificate chain and its key in PEM, to show to a server that asks.
    pub identity: Option<Identity>,
    /// Whether a login is bound to the server's certificate.
    pub channel_binding: ChannelBinding,
}

/// As libpq's `channel_binding`: whether a login by SCRAM is of no use to whoever stands between, with a certificate of his own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChannelBinding {
    /// It is not.
    Disable,
    /// It is, if there is TLS and the server offers it.
    #[default]
    Prefer,
    /// There is no login without.
    Require,
}

impl ChannelBinding {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Disable, Self::Prefer, Self::Require];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
        }
    }

    /// The one of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|binding| binding.name() == name)
    }
}

/// A client's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate and those up to its authority, in PEM.
    pub chain: String,
    /// Its private key in PEM.
    pub key: Secret,
}

/// As libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// In clear.
    Disable,
    /// TLS if the server has it, and in clear otherwise. The certificate is not looked at.
    Prefer,
    /// TLS. The certificate is not looked at, but where authorities are named it must be theirs.
    Require,
    /// TLS, with a certificate of an authority that is believed, for whatever name.
    VerifyCa,
    /// TLS, with a certificate of such an authority for this host.
    #[default]
    VerifyFull,
}

impl TlsMode {
    /// All of them, from the least to the most.
    pub const ALL: [Self; 5] = [
        Self::Disable,
        Self::Prefer,
        Self::Require,
        Self::VerifyCa,
        Self::VerifyFull,
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }

    /// The one of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }
}

/// A text that is in no log, and is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Of a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}
