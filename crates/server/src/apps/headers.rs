//! Headers on their way to a backend and back: those of one connection stay there, and where a request came from is told.

use std::net::IpAddr;

use axum::http::header::{
    CONNECTION, COOKIE, EXPECT, HOST, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use axum::http::{HeaderMap, HeaderValue};
use workers::routes::{OWNER_HEADER, PATH_HEADER, REPOSITORY_HEADER};
use workers::{App, Repository};

use crate::proxies::{CameFrom, FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO};

/// Headers of one connection, beside those that `Connection` names.
const OF_ONE_CONNECTION: [HeaderName; 10] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    EXPECT,
];

const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// What all headers begin with by which proxies tell of who came to them.
const OF_PROXIES: &str = "x-forwarded-";

/// Where a request came from, and to what.
#[derive(Debug)]
pub(super) struct Origin<'a> {
    /// None where there is no network.
    pub(super) came_from: Option<CameFrom>,
    /// Whether the one that asks us is a proxy that is believed.
    pub(super) by_proxy: bool,
    pub(super) is_encrypted: bool,
    /// Host and port as the client has them.
    pub(super) authority: &'a str,
    /// The path as the client has asked for it.
    pub(super) asked: &'a str,
    pub(super) app: &'a App,
    /// What stands for this request in a trace.
    pub(super) trace: Option<HeaderValue>,
}

/// Whether a client asks to go on with another protocol: with which.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asks = tokens(headers).any(|token| token.eq_ignore_ascii_case("upgrade"));
    headers.get(UPGRADE).filter(|_| asks).cloned()
}

/// Takes out what is of one connection. `upgrade` is the protocol to go on with, which stays.
pub(super) fn of_this_connection_only(headers: &mut HeaderMap, upgrade: Option<HeaderValue>) {
    let named: Vec<String> = tokens(headers).map(str::to_owned).collect();
    for name in named {
        headers.remove(name);
    }
    for name in OF_ONE_CONNECTION {
        headers.remove(name);
    }
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

/// Adds what a backend is told of a request.
pub(super) fn tell(headers: &mut HeaderMap, origin: Origin<'_>) {
    forwarded(headers, &origin);
    insert(headers, HOST, origin.authority);
    let repository: &Repository = &origin.app.repository;
    for (name, value) in [
        (OWNER_HEADER, repository.owner()),
        (REPOSITORY_HEADER, repository.name()),
        (PATH_HEADER, origin.asked),
    ] {
        insert(headers, HeaderName::from_static(name), value);
    }
    if let Some(trace) = origin.trace {
        headers.insert(HeaderName::from_static("traceparent"), trace);
    }
    one_cookie(headers);
}

/// Where the request came from: in our words, whatever a stranger has said of it.
fn forwarded(headers: &mut HeaderMap, origin: &Origin<'_>) {
    if !origin.by_proxy {
        let names: Vec<HeaderName> = headers.keys().cloned().collect();
        let said = names
            .into_iter()
            .filter(|name| name.as_str().starts_with(OF_PROXIES));
        for name in said {
            headers.remove(name);
        }
    }
    // Nobody writes behind what it was told there: what a proxy has passed on may be its client's.
    for name in [FORWARDED, REAL_IP, FORWARDED_FOR] {
        headers.remove(name);
    }
    let came_from = origin.came_from.as_ref();
    let own = if origin.is_encrypted { "https" } else { "http" };
    let scheme = came_from
        .and_then(|came| came.scheme.as_deref())
        .unwrap_or(own);
    let host = came_from
        .and_then(|came| came.host.as_deref())
        .unwrap_or(origin.authority);
    insert(headers, FORWARDED_HOST, host);
    insert(headers, FORWARDED_PROTO, scheme);
    let Some(client) = came_from.and_then(CameFrom::client) else {
        return;
    };
    let all = came_from.into_iter().flat_map(|came| &came.addresses);
    let all: Vec<String> = all.map(IpAddr::to_string).collect();
    insert(headers, FORWARDED_FOR, &all.join(", "));
    insert(headers, REAL_IP, &client.to_string());
    let client = match client {
        IpAddr::V4(client) => client.to_string(),
        IpAddr::V6(client) => format!("\"[{client}]\""),
    };
    let quoted = host.replace(['\\', '"'], "");
    insert(
        headers,
        FORWARDED,
        &format!("for={client};host=\"{quoted}\";proto={scheme}"),
    );
}

/// HTTP/2 may send cookies one by one; in HTTP/1.1 they are one header.
fn one_cookie(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().count() < 2 {
        return;
    }
    let all: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// What `Connection` names.
fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(CONNECTION).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(str::trim)
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => {
            headers.insert(name, value);
        }
        // What the client has sent of that name must not stand for it.
        Err(_) => {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxies::Proxies;
    use std::net::SocketAddr;
    use workers::Environment;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn told(mut headers: HeaderMap, peer: &str) -> HeaderMap {
        let app = App {
            repository: Repository::parse("acme/shop").unwrap(),
            environment: Environment::of_branch("main").unwrap(),
        };
        let (peer, proxies) = (peer.parse::<SocketAddr>().unwrap(), Proxies::default());
        let origin = Origin {
            came_from: Some(proxies.came_from(peer, &headers)),
            by_proxy: proxies.has(peer.ip()),
            is_encrypted: true,
            authority: "acme.apps.localhost:7433",
            asked: "/shop/x",
            app: &app,
            trace: None,
        };
        tell(&mut headers, origin);
        headers
    }

    #[test]
    fn what_is_of_one_connection_stays_there() {
        let mut all = headers(&[
            ("connection", "close, X-Own"),
            ("x-own", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("expect", "100-continue"),
            ("accept", "*/*"),
        ]);
        assert_eq!(upgrade(&all), None);
        of_this_connection_only(&mut all, None);
        assert_eq!(all, headers(&[("accept", "*/*")]));
        let mut all = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
        ]);
        let protocol = upgrade(&all);
        of_this_connection_only(&mut all, protocol);
        assert_eq!(
            all,
            headers(&[("connection", "upgrade"), ("upgrade", "websocket")])
        );
    }

    #[test]
    fn only_a_proxy_is_believed() {
        let lie = [
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-port", "22"),
            ("x-real-ip", "1.2.3.4"),
            ("forwarded", "for=1.2.3.4;host=evil"),
            ("x-w7s-org-slug", "evil"),
        ];
        let far = told(headers(&lie), "9.9.9.9:1");
        assert_eq!(far["x-forwarded-for"], "9.9.9.9");
        assert_eq!(far["x-forwarded-proto"], "https");
        assert_eq!(far["x-forwarded-host"], "acme.apps.localhost:7433");
        assert!(!far.contains_key("x-forwarded-port"));
        assert_eq!(far["x-real-ip"], "9.9.9.9");
        let forwarded = "for=9.9.9.9;host=\"acme.apps.localhost:7433\";proto=https";
        assert_eq!(far["forwarded"], forwarded);
        assert_eq!(far.get_all("forwarded").iter().count(), 1);
        assert_eq!(far["x-w7s-org-slug"], "acme");
        assert_eq!(far["x-w7s-repo-slug"], "shop");
        assert_eq!(far["x-w7s-original-path"], "/shop/x");
        assert_eq!(far["host"], "acme.apps.localhost:7433");
        let near = told(headers(&lie), "127.0.0.1:1");
        assert_eq!(near["x-forwarded-for"], "1.2.3.4, 127.0.0.1");
        assert_eq!(near["x-forwarded-proto"], "http");
        assert_eq!(near["x-forwarded-port"], "22");
        assert_eq!(near["x-real-ip"], "1.2.3.4");
        let forwarded = "for=1.2.3.4;host=\"acme.apps.localhost:7433\";proto=http";
        assert_eq!(near["forwarded"], forwarded);
        let of_six = told(headers(&[]), "[2001:db8::1]:1");
        assert!(
            of_six["forwarded"]
                .to_str()
                .unwrap()
                .starts_with("for=\"[2001:db8::1]\";")
        );
        assert_eq!(near["x-w7s-org-slug"], "acme");
    }

    #[test]
    fn cookies_are_one_header() {
        let both = told(
            headers(&[("cookie", "a=1"), ("cookie", "b=2")]),
            "9.9.9.9:1",
        );
        assert_eq!(both["cookie"], "a=1; b=2");
    }
}
