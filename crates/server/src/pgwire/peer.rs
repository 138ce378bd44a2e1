//! Who is at the other end of a connection.

use std::fmt;
use std::net::SocketAddr;

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Over the network.
    Network(SocketAddr),
    /// By the local socket.
    Local,
}

impl Peer {
    /// Its address, if it has one.
    pub(super) fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Network(address) => Some(address),
            Self::Local => None,
        }
    }
}

/// As PostgreSQL writes them.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(address) => address.fmt(f),
            Self::Local => f.write_str("[local]"),
        }
    }
}
