//! For which host a request is: against pages that have their own name resolve to this machine.
//!
//! A browser keeps a page from other hosts' answers. A page whose host's name suddenly means 127.0.0.1 (DNS rebinding) gets
//! around that, but its requests still name that host. Where credentials are asked for it gains nothing.

use axum::http::StatusCode;
use axum::http::header::HOST;
use axum::http::request::Parts;

use super::error::ApiError;

/// Refuses a request for a foreign host. Ours are addresses, `localhost`, and the `domains` with what is below them.
///
/// # Errors
/// 421 if it is for a host that is none of these.
pub(crate) fn expect_own(head: &Parts, domains: &[&str]) -> Result<(), ApiError> {
    // HTTP/2 has it in the address of the request.
    let named = head.uri.authority().map(|authority| authority.as_str());
    let header = head.headers.get(HOST).map(|host| host.to_str());
    let host = match (named, header) {
        (Some(named), _) => named,
        (None, Some(Ok(host))) => host,
        (None, Some(Err(_))) => "?",
        // HTTP/1.0 has none; no browser speaks it.
        (None, None) => return Ok(()),
    };
    if is_own(host, domains) {
        return Ok(());
    }
    Err(ApiError::request(
        StatusCode::MISDIRECTED_REQUEST,
        "the request is for a host that this server is not",
    )
    .hint(
        "As long as nobody is asked who they are, requests must name localhost, an address, or a \
         domain that is configured; docs/auth.md says why.",
    ))
}

fn is_own(host: &str, domains: &[&str]) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    if address.unwrap_or(name).parse::<std::net::IpAddr>().is_ok() {
        return true;
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let is_below = |domain: &str| {
        let domain = domain.to_ascii_lowercase();
        let above = name.strip_suffix(&domain);
        !domain.is_empty() && above.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    is_below("localhost") || domains.iter().any(|domain| is_below(domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for own in [
            "localhost",
            "LOCALHOST:7433",
            "localhost.:7433",
            "shop.localhost:7433",
            "127.0.0.1",
            "127.0.0.1:7433",
            "10.0.0.1:7433",
            "[::1]",
            "[::1]:7433",
            "db.example.com",
            "shop.db.example.com:443",
        ] {
            assert!(is_own(own, &["DB.example.com"]), "{own}");
        }
        for foreign in [
            "",
            "evil.example",
            "evildb.example.com",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "notlocalhost",
            "example.com",
            "?",
        ] {
            assert!(!is_own(foreign, &["db.example.com", ""]), "{foreign}");
        }
    }
}
