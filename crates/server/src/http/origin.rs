//! Which web pages may open a WebSocket, and change something where nobody is asked who they are.
//!
//! Browsers let any page open a WebSocket to any address and send it simple requests, and say in `Origin` which page it
//! is. Where nobody is asked who they are, that is all that keeps foreign pages out. Programs send no `Origin`.

use axum::http::header::{HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};

use super::cors::Cors;
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

/// Refuses what changes something if a foreign page asks for it: one that `http.cors.origins` does not name.
///
/// # Errors
/// 403 if it is refused.
pub(super) fn expect_own(head: &Parts, cors: Option<&Cors>) -> Result<(), ApiError> {
    let changes = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    if !changes.contains(&head.method) {
        return Ok(());
    }
    let headers = &head.headers;
    let origin = headers.get(ORIGIN);
    let origin = origin.map(|origin| origin.to_str().unwrap_or("null"));
    let is_foreign = match origin {
        Some(origin) => {
            // HTTP/2 has it in the address of the request.
            let named = head.uri.authority().map(|authority| authority.as_str());
            let is_own = is_own_of(origin, named.or_else(|| host(headers)));
            !is_own && !cors.is_some_and(|cors| cors.allows(origin))
        }
        None => headers
            .get("sec-fetch-site")
            .is_some_and(|site| site == "cross-site"),
    };
    if !is_foreign {
        return Ok(());
    }
    let page = origin.map_or_else(String::new, |origin| format!(" of the origin {origin}"));
    Err(ApiError::request(
        StatusCode::FORBIDDEN,
        format!("a page{page} may change nothing here as long as nobody is asked who they are"),
    )
    .hint(
        "Add the origin to http.cors.origins in Dormouse's configuration, or have it ask for tokens: \
         docs/auth.md.",
    ))
}

fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(HOST)?.to_str().ok()
}

fn is_own(origin: &str, headers: &HeaderMap) -> bool {
    is_own_of(origin, host(headers))
}

fn is_own_of(origin: &str, host: Option<&str>) -> bool {
    let Some((_, authority)) = origin.split_once("://") else {
        return false;
    };
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

    #[test]
    fn foreign_pages_change_nothing() {
        let cors = crate::http::CorsOptions {
            origins: vec!["https://app.example".to_owned()],
            ..crate::http::CorsOptions::default()
        };
        let cors = Cors::new(&cors).unwrap();
        let may = |method: &str, headers: &[(&str, &str)]| {
            let mut request = axum::http::Request::builder().method(method).uri("/query");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let (head, ()) = request.body(()).unwrap().into_parts();
            expect_own(&head, cors.as_ref()).is_ok()
        };
        let host = ("host", "localhost:7433");
        assert!(may("POST", &[host]));
        assert!(may("POST", &[host, ("origin", "http://localhost:7433")]));
        assert!(may("DELETE", &[host, ("origin", "https://app.example")]));
        assert!(may("GET", &[host, ("origin", "https://evil.example")]));
        assert!(may("POST", &[host, ("sec-fetch-site", "none")]));
        for method in ["POST", "PUT", "DELETE"] {
            assert!(!may(method, &[host, ("origin", "https://evil.example")]));
        }
        assert!(!may("POST", &[host, ("origin", "http://localhost:3000")]));
        assert!(!may("POST", &[host, ("origin", "null")]));
        assert!(!may("POST", &[host, ("sec-fetch-site", "cross-site")]));
    }
}
