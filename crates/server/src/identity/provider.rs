//! Asking a provider of identities over HTTP.

use std::path::Path;
use std::time::Duration;

use reqwest::header::{CACHE_CONTROL, HeaderMap};
use reqwest::{Client, RequestBuilder, Url};

use crate::tls;

/// The longest document of a provider.
const DOCUMENT_BYTES_MAX: usize = 1 << 20;

/// A client for providers.
#[derive(Clone)]
pub(super) struct Provider(Client);

/// What a provider says.
pub(super) struct Document {
    pub(super) body: Vec<u8>,
    /// How long it may be kept, if the provider says so.
    pub(super) max_age: Option<Duration>,
}

/// Why there is no document.
pub(super) struct Trouble {
    pub(super) reason: String,
    /// What was asked was not to its liking: it is there.
    pub(super) is_there: bool,
}

impl From<String> for Trouble {
    fn from(reason: String) -> Self {
        Self {
            reason,
            is_there: false,
        }
    }
}

impl Provider {
    /// With the authorities of the system, and those in a file (`auth.provider_ca`).
    ///
    /// # Errors
    /// If they cannot be had.
    pub(super) fn new(ca: Option<&Path>, timeout: Duration, secure: bool) -> Result<Self, String> {
        let config = match secure {
            true => tls::client_config(ca),
            false => tls::client_config_of_nobody(),
        };
        let builder = Client::builder()
            .timeout(timeout)
            // What is asked for is configured: a provider that moved must be configured anew.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("dormouse/", env!("CARGO_PKG_VERSION")))
            .tls_backend_preconfigured(config.map_err(|error| error.to_string())?);
        builder.build().map(Self).map_err(|error| error.to_string())
    }

    pub(super) async fn get(&self, url: &str) -> Result<Document, String> {
        let sent = self.send(self.0.get(url)).await;
        sent.map_err(|trouble| trouble.reason)
    }

    pub(super) fn post(&self, url: &str) -> RequestBuilder {
        self.0.post(url)
    }

    /// The document, if the answer is 200. Errors have no secret in them: the address is without its query, and of the body nothing is shown.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Document, Trouble> {
        let failed = |error: reqwest::Error| Trouble::from(reason(&error.without_url()));
        let mut response = request
            .header("accept", "application/json")
            .send()
            .await
            .map_err(failed)?;
        let status = response.status();
        if status != 200 {
            return Err(Trouble {
                reason: format!("it answered {status}"),
                is_there: status.is_client_error() && status != 429,
            });
        }
        let max_age = max_age(response.headers());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > DOCUMENT_BYTES_MAX {
                return Err(format!("it answered more than {DOCUMENT_BYTES_MAX} bytes").into());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Document { body, max_age })
    }
}

/// Whether an address may be asked: over TLS, or on this machine.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(setting: &str, url: &str) -> Result<(), String> {
    let parsed = Url::parse(url).map_err(|error| format!("{setting} = \"{url}\": {error}"))?;
    let host = parsed.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let here = host == "localhost"
        || address
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    match parsed.scheme() {
        "https" => Ok(()),
        "http" if here => Ok(()),
        _ => Err(format!(
            "{setting} = \"{url}\": it must begin with https://, but on this machine itself: who \
             can change the answers on their way lets in whom they like"
        )),
    }
}

/// The outermost reason, and the innermost.
fn reason(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    format!("{error}: {innermost}")
}

fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(CACHE_CONTROL)?.to_str().ok()?;
    let mut directives = value
        .split(',')
        .map(|directive| directive.trim().to_ascii_lowercase());
    directives.find_map(|directive| {
        if matches!(&*directive, "no-store" | "no-cache") {
            return Some(Duration::ZERO);
        }
        let seconds = directive.strip_prefix("max-age=")?;
        Some(Duration::from_secs(seconds.trim_matches('"').parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_secure_or_here() {
        for good in [
            "https://issuer.example/a",
            "http://localhost:1/a",
            "http://127.0.0.1:1",
            "http://[::1]:1",
        ] {
            check("auth.jwt.issuer", good).unwrap();
        }
        for bad in [
            "http://issuer.example",
            "http://localhost.example",
            "ftp://localhost",
            "issuer",
            "",
        ] {
            assert!(check("auth.jwt.issuer", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ages() {
        let age = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, value.parse().unwrap());
            max_age(&headers).map(|age| age.as_secs())
        };
        assert_eq!(age("public, max-age=300"), Some(300));
        assert_eq!(age("no-store"), Some(0));
        assert_eq!(age("public"), None);
        assert_eq!(max_age(&HeaderMap::new()), None);
    }
}
