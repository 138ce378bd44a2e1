//! Which pages of other origins may read answers (CORS).

use std::time::Duration;

use axum::http::header::{
    ALLOW, AUTHORIZATION, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use axum::http::{HeaderName, HeaderValue, Method};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// What requests may have beyond what browsers always allow: all that this server reads.
const OF_REQUESTS: [HeaderName; 20] = [
    AUTHORIZATION,
    CONTENT_TYPE,
    IF_NONE_MATCH,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("neon-connection-string"),
    HeaderName::from_static("neon-raw-text-output"),
    HeaderName::from_static("neon-array-mode"),
    HeaderName::from_static("neon-batch-isolation-level"),
    HeaderName::from_static("neon-batch-read-only"),
    HeaderName::from_static("neon-batch-deferrable"),
    HeaderName::from_static("neon-pool-opt-in"),
    HeaderName::from_static("x-github-repository"),
    HeaderName::from_static("x-github-branch"),
    HeaderName::from_static("x-github-sha"),
    HeaderName::from_static("x-w7s-environment"),
    HeaderName::from_static("x-w7s-application"),
    HeaderName::from_static("x-w7s-vars"),
    HeaderName::from_static("x-w7s-secrets"),
];

/// What pages see of answers beyond what browsers always show.
const OF_ANSWERS: [HeaderName; 11] = [
    ALLOW,
    ETAG,
    LOCATION,
    RETRY_AFTER,
    WWW_AUTHENTICATE,
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("idempotency-replayed"),
    HeaderName::from_static("x-dormouse-cache"),
    HeaderName::from_static("ratelimit"),
    HeaderName::from_static("ratelimit-policy"),
    HeaderName::from_static("traceresponse"),
];

/// Which pages of other origins may read answers (`http.cors`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorsOptions {
    /// `http.cors.origins`: `https://app.example`, or `*` for all; none are allowed if it is empty.
    pub origins: Vec<String>,
    /// `http.cors.headers`: headers of requests besides those that this server reads.
    pub headers: Vec<String>,
    /// `http.cors.credentials`: whether browsers may send what they remember of this server.
    pub credentials: bool,
    /// `http.cors.max_age_s`: how long a browser may remember the answer.
    pub max_age: Duration,
}

impl Default for CorsOptions {
    fn default() -> Self {
        Self {
            origins: Vec::new(),
            headers: Vec::new(),
            credentials: false,
            max_age: Duration::from_secs(600),
        }
    }
}

/// Answers for it.
#[derive(Debug, Clone)]
pub struct Cors {
    layer: CorsLayer,
    origins: Vec<String>,
}

impl Cors {
    /// None if nobody may.
    ///
    /// # Errors
    /// What is wrong, with the setting's name.
    pub fn new(options: &CorsOptions) -> Result<Option<Self>, String> {
        let layer = layer(options)?;
        Ok(layer.map(|layer| Self {
            layer,
            origins: options.origins.clone(),
        }))
    }

    pub(super) fn layer(self) -> CorsLayer {
        self.layer
    }

    /// Whether pages of an origin may.
    pub(super) fn allows(&self, origin: &str) -> bool {
        self.origins.iter().any(|one| one == "*" || one == origin)
    }
}

fn layer(options: &CorsOptions) -> Result<Option<CorsLayer>, String> {
    if options.origins.is_empty() {
        return Ok(None);
    }
    let any = options.origins.iter().any(|origin| origin == "*");
    if any && options.credentials {
        return Err(
            "http.cors.credentials cannot go with http.cors.origins = [\"*\"]: every page could use what a browser remembers".to_owned(),
        );
    }
    let origin = if any {
        AllowOrigin::any()
    } else {
        let origins: Result<Vec<_>, String> =
            options.origins.iter().map(|text| origin(text)).collect();
        AllowOrigin::list(origins?)
    };
    let mut headers = OF_REQUESTS.to_vec();
    for name in &options.headers {
        headers.push(name.parse().map_err(|_| {
            format!("http.cors.headers has \"{name}\", which is no name of a header")
        })?);
    }
    Ok(Some(
        CorsLayer::new()
            .allow_origin(origin)
            .allow_methods([
                Method::GET,
                Method::POST,
                Method::PUT,
                Method::PATCH,
                Method::DELETE,
            ])
            .allow_headers(headers)
            .expose_headers(OF_ANSWERS)
            .allow_credentials(options.credentials)
            .max_age(options.max_age),
    ))
}

/// `scheme://host[:port]`, as browsers write it.
fn origin(text: &str) -> Result<HeaderValue, String> {
    let wrong = || {
        format!(
            "http.cors.origins has \"{text}\": an origin is https://host or https://host:port, without a path"
        )
    };
    let (scheme, host) = text.split_once("://").ok_or_else(wrong)?;
    let is_origin = !scheme.is_empty()
        && !host.is_empty()
        && !host.contains(['/', '*', '?', '#', '@'])
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase());
    if !is_origin {
        return Err(wrong());
    }
    HeaderValue::from_str(text).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(origins: &[&str], credentials: bool) -> Result<bool, String> {
        let options = CorsOptions {
            origins: origins.iter().map(|&origin| origin.to_owned()).collect(),
            credentials,
            ..CorsOptions::default()
        };
        layer(&options).map(|layer| layer.is_some())
    }

    #[test]
    fn origins_are_checked() {
        assert_eq!(check(&[], true), Ok(false));
        assert_eq!(
            check(&["https://app.example", "http://localhost:3000"], true),
            Ok(true)
        );
        assert_eq!(check(&["*"], false), Ok(true));
        assert!(check(&["*"], true).is_err());
        for bad in [
            "app.example",
            "https://app.example/",
            "https://*.example",
            "https://A.example",
            "",
        ] {
            assert!(check(&[bad], false).is_err(), "{bad}");
        }
    }
}
