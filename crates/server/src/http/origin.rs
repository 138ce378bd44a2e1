//! Which web pages may open a WebSocket.
//!
//! Browsers let any page open one to any address, and say in `Origin` which page it is. Where nobody is asked who they
//! are, that is all that keeps foreign pages out. Programs send no `Origin`.

use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};

use super::error::ApiError;

/// Whether a page may, if it is one: those of the allowed origins, and our own where the name of the host is an
/// address or `localhost`, which no foreign name server can point at us.
///
/// # Errors
/// 403 if it may not.
pub(super) fn check(headers: &HeaderMap, allowed: &[String]) -> Result<(), ApiError> {
    let Some(origin) = headers.get(ORIGIN) else {
        return Ok(());
    };
    let origin = origin.to_str().unwrap_or("null");
    if allowed.iter().any(|one| one == "*" || one == origin) || is_own(origin, headers) {
        return Ok(());
    }
    Err(ApiError::request(
        StatusCode::FORBIDDEN,
        format!("pages of the origin {origin} may not open a WebSocket here"),
    )
    .hint("Add the origin to websocket.origins in Dormouse's configuration."))
}

fn is_own(origin: &str, headers: &HeaderMap) -> bool {
    let Some((_, authority)) = origin.split_once("://") else {
        return false;
    };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    if host != Some(authority) {
        return false;
    }
    let name = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => authority.split(':').next().unwrap_or(authority),
    };
    name == "localhost" || name.ends_with(".localhost") || name.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        let allowed = ["https://app.example".to_owned()];
        let may = |origin: Option<&'static str>, host: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(ORIGIN, origin.parse().unwrap());
            }
            check(&headers, &allowed).is_ok()
        };
        assert!(may(None, "x"));
        assert!(may(Some("https://app.example"), "db.example"));
        assert!(may(Some("http://127.0.0.1:7433"), "127.0.0.1:7433"));
        assert!(may(Some("http://[::1]:7433"), "[::1]:7433"));
        assert!(may(
            Some("http://shop.localhost:7433"),
            "shop.localhost:7433"
        ));
        // A page whose name was made to point here.
        assert!(!may(Some("http://evil.example:7433"), "evil.example:7433"));
        assert!(!may(Some("http://127.0.0.1:80"), "127.0.0.1:7433"));
        assert!(!may(Some("null"), "127.0.0.1:7433"));
    }
}
