//! Addresses of the network: ranges of them, and those of this machine.

use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};
use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Bits of an IPv6 network in which a machine takes new addresses by itself.
const OWN_NETWORK_BITS: u8 = 64;

/// Addresses that begin alike: `192.0.2.0/24`, `2001:db8::/32`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddressRange {
    /// The first of them.
    first: IpAddr,
    /// How many bits they have in common.
    bits: u8,
}

impl AddressRange {
    /// One address.
    #[must_use]
    pub fn one(address: IpAddr) -> Self {
        Self::beginning(address, bits_of(address))
    }

    /// Those that have so many bits in common with an address.
    #[must_use]
    pub fn beginning(address: IpAddr, bits: u8) -> Self {
        let bits = bits.min(bits_of(address));
        let first = match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(u32::from(32 - bits)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(u32::from(128 - bits)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
            }
        };
        Self { first, bits }
    }

    /// Reads an address, or one with a slash and a number of bits.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong = || {
            format!("\"{text}\" is neither an address nor a range of them, such as 192.0.2.0/24")
        };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = bits_of(address);
        let bits = match bits {
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= most),
            None => Some(most),
        };
        Ok(Self::beginning(address, bits.ok_or_else(wrong)?))
    }

    /// Whether an address is one of them; of an IPv4 address in its IPv6 form, what it is.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.first.is_ipv4() && Self::beginning(address, self.bits) == *self
    }
}

/// Always with the number of bits.
impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

/// What of the network backends reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkRules {
    /// Kinds of addresses, as the runtime calls them; none: no network.
    pub allow: Vec<String>,
    /// What they do not reach of it, beside this machine's own addresses.
    pub deny: Vec<AddressRange>,
}

impl NetworkRules {
    /// Public addresses. Private ones are none.
    #[must_use]
    pub fn public() -> Self {
        Self {
            allow: vec!["public".to_owned()],
            deny: Vec::new(),
        }
    }

    /// No address at all.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            allow: Vec::new(),
            deny: Vec::new(),
        }
    }

    /// All that is denied at this moment.
    ///
    /// # Errors
    /// If this machine's addresses cannot be known.
    pub(crate) fn denied(&self) -> io::Result<Vec<String>> {
        if self.allow.is_empty() {
            return Ok(Vec::new());
        }
        let mut denied = own_addresses()?;
        denied.extend(&self.deny);
        denied.sort();
        denied.dedup();
        Ok(denied.iter().map(AddressRange::to_string).collect())
    }
}

/// The addresses of this machine's interfaces. Of IPv6 the networks that these are in: a machine changes its address there
/// by itself, and a backend may live longer than one.
fn own_addresses() -> io::Result<Vec<AddressRange>> {
    let interfaces = getifaddrs()?;
    let own = interfaces.filter_map(|interface| {
        let address = ip(&interface.address?)?;
        let bits = match (address, interface.netmask.as_ref().and_then(ip)) {
            (IpAddr::V6(_), Some(IpAddr::V6(mask))) => {
                let bits = mask.to_bits().leading_ones() as u8;
                bits.max(OWN_NETWORK_BITS)
            }
            _ => bits_of(address),
        };
        Some(AddressRange::beginning(address, bits))
    });
    Ok(own.collect())
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| address.ip().into());
    v4.or_else(|| Some(address.as_sockaddr_in6()?.ip().into()))
}

fn bits_of(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_written() {
        for (text, written) in [
            ("192.0.2.7", "192.0.2.7/32"),
            (" 192.0.2.7/24 ", "192.0.2.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:DB8::1/32", "2001:db8::/32"),
            ("::1", "::1/128"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(AddressRange::parse(text).unwrap().to_string(), written);
        }
        for bad in [
            "",
            "localhost",
            "192.0.2",
            "192.0.2.0/33",
            "192.0.2.0/",
            "192.0.2.0/-1",
            "::1/129",
            "public",
        ] {
            let why = AddressRange::parse(bad).unwrap_err();
            assert!(why.contains(bad), "{why}");
        }
    }

    #[test]
    fn ranges_have_what_begins_like_them() {
        let has = |range: &str, address: &str| {
            let range = AddressRange::parse(range).unwrap();
            range.contains(address.parse().unwrap())
        };
        assert!(has("192.0.2.0/24", "192.0.2.255") && !has("192.0.2.0/24", "192.0.3.0"));
        assert!(has("127.0.0.0/8", "::ffff:127.0.0.1"));
        assert!(has("0.0.0.0/0", "8.8.8.8") && !has("0.0.0.0/0", "::1"));
        assert!(has("2001:db8::/32", "2001:db8:1::") && !has("::1", "::2"));
    }

    #[test]
    fn this_machines_own_addresses_are_denied() {
        let mut rules = NetworkRules::public();
        rules.deny = vec![AddressRange::parse("198.51.100.0/24").unwrap()];
        let denied = rules.denied().unwrap();
        for wanted in ["127.0.0.1/32", "198.51.100.0/24"] {
            assert!(denied.iter().any(|range| range == wanted), "{denied:?}");
        }
        // The address that this machine has on the way to others, if it has one.
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        if socket.connect("198.51.100.1:9").is_ok() {
            let own = AddressRange::one(socket.local_addr().unwrap().ip()).to_string();
            assert!(denied.contains(&own), "{own}: {denied:?}");
        }
        assert!(NetworkRules::nothing().denied().unwrap().is_empty());
    }
}
