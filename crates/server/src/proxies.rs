//! Proxies before us: who is believed what it says of where a request came from, and what that is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName};
use workers::AddressRange;

pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Addresses of proxies that are believed (`http.proxies`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxies(Arc<[AddressRange]>);

/// The way that a request has come, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CameFrom {
    /// The client, and the proxies that it came by, the last of them the one that asks us.
    pub(crate) addresses: Vec<IpAddr>,
    /// Host and port as the client has them, if a proxy tells them.
    pub(crate) host: Option<String>,
    /// `http` or `https`, if a proxy tells it.
    pub(crate) scheme: Option<String>,
}

impl Default for Proxies {
    /// This machine's.
    fn default() -> Self {
        let of_four = AddressRange::beginning(Ipv4Addr::LOCALHOST.into(), 8);
        let of_six = AddressRange::one(Ipv6Addr::LOCALHOST.into());
        Self::new(&[of_four, of_six])
    }
}

impl Proxies {
    /// Of these addresses.
    #[must_use]
    pub fn new(ranges: &[AddressRange]) -> Self {
        Self(ranges.into())
    }

    /// The addresses, as they are written.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(AddressRange::to_string).collect()
    }

    /// Whether what asks us is one of them.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        self.0.iter().any(|range| range.contains(address))
    }

    /// Where a request came from. Each proxy writes whom it was asked by behind what it was told, so the list is read from
    /// its end, as far as it was written by who is believed: what comes before that may be anything.
    pub(crate) fn came_from(&self, peer: SocketAddr, headers: &HeaderMap) -> CameFrom {
        let mut addresses = vec![peer.ip().to_canonical()];
        if !self.has(peer.ip()) {
            return CameFrom {
                addresses,
                host: None,
                scheme: None,
            };
        }
        let told = all(headers, FORWARDED_FOR);
        for before in told.iter().rev() {
            let Some(address) = address(before) else {
                break;
            };
            addresses.push(address);
            if !self.has(address) {
                break;
            }
        }
        addresses.reverse();
        let last = |name| all(headers, name).pop();
        let scheme = last(FORWARDED_PROTO).map(|scheme| scheme.to_ascii_lowercase());
        CameFrom {
            addresses,
            host: last(FORWARDED_HOST),
            scheme: scheme.filter(|scheme| scheme == "http" || scheme == "https"),
        }
    }
}

impl CameFrom {
    /// The client, or the last before it that is known.
    pub(crate) fn client(&self) -> Option<IpAddr> {
        self.addresses.first().copied()
    }
}

/// What all headers of a name list, one after the other.
fn all(headers: &HeaderMap, name: HeaderName) -> Vec<String> {
    let values = headers.get_all(name).iter();
    // What is no text is of nobody who is believed.
    let texts = values.map(|value| value.to_str().unwrap_or("?"));
    let entries = texts.flat_map(|text| text.split(',')).map(str::trim);
    entries
        .filter(|entry| !entry.is_empty())
        .map(str::to_owned)
        .collect()
}

/// An address, which some write with a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let address = bare.parse::<IpAddr>().ok();
    let with_port = || Some(text.parse::<SocketAddr>().ok()?.ip());
    address
        .or_else(with_port)
        .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn proxies(ranges: &[&str]) -> Proxies {
        let ranges = ranges
            .iter()
            .map(|range| AddressRange::parse(range).unwrap());
        Proxies::new(&ranges.collect::<Vec<_>>())
    }

    fn came(proxies: &Proxies, peer: &str, headers: &[(&'static str, &'static str)]) -> CameFrom {
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.append(*name, HeaderValue::from_static(value));
        }
        proxies.came_from(peer.parse().unwrap(), &all)
    }

    fn addresses(came: &CameFrom) -> String {
        let all: Vec<_> = came.addresses.iter().map(IpAddr::to_string).collect();
        all.join(" ")
    }

    #[test]
    fn strangers_are_not_believed() {
        let lies = [
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-proto", "https"),
        ];
        let far = came(&Proxies::default(), "9.9.9.9:1", &lies);
        assert_eq!(addresses(&far), "9.9.9.9");
        assert_eq!((far.host, far.scheme), (None, None));
        let near = came(&Proxies::default(), "[::1]:1", &lies);
        assert_eq!(addresses(&near), "1.2.3.4 ::1");
        assert_eq!(near.host.as_deref(), Some("evil"));
        assert_eq!(near.scheme.as_deref(), Some("https"));
        let nobody = came(&proxies(&[]), "127.0.0.1:1", &lies);
        assert_eq!(addresses(&nobody), "127.0.0.1");
    }

    #[test]
    fn a_list_is_read_from_its_end() {
        let two = proxies(&["127.0.0.0/8", "10.0.0.0/8"]);
        for (lists, expected) in [
            // What the client itself has sent comes first, in a header of its own or in the same.
            (&["6.6.6.6", "7.7.7.7"][..], "7.7.7.7 127.0.0.1"),
            (&["6.6.6.6, 7.7.7.7"], "7.7.7.7 127.0.0.1"),
            (
                &["6.6.6.6, 7.7.7.7, 10.0.0.1"],
                "7.7.7.7 10.0.0.1 127.0.0.1",
            ),
            (
                &["7.7.7.7", "10.0.0.1,10.0.0.2"],
                "7.7.7.7 10.0.0.1 10.0.0.2 127.0.0.1",
            ),
            (&["10.0.0.1"], "10.0.0.1 127.0.0.1"),
            (&["6.6.6.6, unknown"], "127.0.0.1"),
            (&["7.7.7.7:443"], "7.7.7.7 127.0.0.1"),
            (&["[2001:db8::1]:443"], "2001:db8::1 127.0.0.1"),
            (&["::ffff:7.7.7.7"], "7.7.7.7 127.0.0.1"),
            (&[], "127.0.0.1"),
        ] {
            let headers: Vec<_> = lists
                .iter()
                .map(|list| ("x-forwarded-for", *list))
                .collect();
            let came = came(&two, "127.0.0.1:1", &headers);
            assert_eq!(addresses(&came), expected, "{lists:?}");
        }
        let twice = [
            ("x-forwarded-proto", "https"),
            ("x-forwarded-proto", "http, HTTPS"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-host", "shop.example"),
        ];
        let came = came(&two, "127.0.0.1:1", &twice);
        assert_eq!(came.scheme.as_deref(), Some("https"));
        assert_eq!(came.host.as_deref(), Some("shop.example"));
    }
}
