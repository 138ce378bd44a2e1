//! Which database a request is for.
//!
//! It is named by, in this order: the path (`/v1/databases/NAME/...`), a header, a label before the base domain
//! in the host's name, the caller's token. The first that names one counts.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, StatusCode, Uri, header};
use database::{DatabaseName, Doer};
use wire::{PgError, sqlstate};

use super::RequestId;
use super::bodies::Counted;
use super::caller::{Caller, Reach};
use super::connection::Peer;
use super::error::ApiError;
use super::router::{App, database_name};
use super::sizes::Sizes;
use crate::options::RoutingOptions;

/// The database that a request is for, and who asks. The caller may use it.
pub(super) struct Tenant {
    pub(super) name: DatabaseName,
    pub(super) caller: Caller,
    /// What the request is called in logs, and so the sessions that are opened for it.
    pub(super) label: String,
    /// Where it comes from.
    pub(super) from: Option<SocketAddr>,
    /// How large it and its result may be.
    pub(super) sizes: Sizes,
    /// Its body, if it has one, counts for as long as this lives: whoever works on it has this, also when nobody waits
    /// for the answer any more.
    pub(super) body: Option<Arc<Counted>>,
}

/// What a request is about: a database, or, if it names none, the node.
pub(super) struct About {
    pub(super) tenant: Option<Tenant>,
}

/// Who makes a request.
pub(super) struct By(pub(super) Caller);

/// What named a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Path,
    Header,
    Host,
    Token,
}

impl<S: Send + Sync> FromRequestParts<S> for By {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        caller(parts).map(Self)
    }
}

impl FromRequestParts<App> for Tenant {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let tenant = tenant(parts, app, RoutingOptions::tenant).await?;
        tenant.ok_or_else(|| app.options.routing.unnamed(parts))
    }
}

impl FromRequestParts<App> for About {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let tenant = tenant(parts, app, RoutingOptions::tenant_or_node).await?;
        Ok(Self { tenant })
    }
}

/// The database that a request names in one of its ways, if it names one and says who asks.
async fn tenant(
    parts: &mut Parts,
    app: &App,
    find: FindTenant,
) -> Result<Option<Tenant>, ApiError> {
    let path = RawPathParams::from_request_parts(parts, app).await;
    let path = path
        .map_err(|rejection| ApiError::request(StatusCode::BAD_REQUEST, rejection.body_text()))?;
    let in_path = path.iter().find(|(key, _)| *key == "name");
    let in_path = in_path.map(|(_, name)| name.to_owned());
    // Who has not said who they are may ask about the node alone.
    let Ok(caller) = caller(parts) else {
        return Ok(None);
    };
    let Some(name) = find(&app.options.routing, in_path.as_deref(), parts, &caller)? else {
        return Ok(None);
    };
    caller.expect_database(&name)?;
    let sizes = app.sizes(&caller, Some(&name)).await?;
    Ok(Some(Tenant {
        name,
        sizes,
        caller,
        label: label(&parts.extensions),
        from: from(&parts.extensions),
        body: parts.extensions.get().cloned(),
    }))
}

type FindTenant =
    fn(&RoutingOptions, Option<&str>, &Parts, &Caller) -> Result<Option<DatabaseName>, ApiError>;

impl Tenant {
    /// Who makes it, where databases are changed.
    pub(super) fn doer(&self) -> Doer {
        Doer {
            who: self.caller.name.to_string(),
            from: self.from,
        }
    }
}

/// Where a request comes from.
pub(super) fn from(extensions: &Extensions) -> Option<SocketAddr> {
    extensions.get::<Peer>().map(|peer| peer.address)
}

/// What a request is called in logs.
pub(super) fn label(extensions: &Extensions) -> String {
    let id = extensions.get::<RequestId>();
    id.map_or_else(String::new, |RequestId(id)| id.clone())
}

/// Who asks.
///
/// # Errors
/// 401 where nobody has said so.
pub(super) fn caller(parts: &Parts) -> Result<Caller, ApiError> {
    let caller = parts.extensions.get::<Caller>();
    caller.cloned().ok_or_else(|| {
        ApiError::request(
            StatusCode::UNAUTHORIZED,
            "nobody has said who makes this request",
        )
    })
}

impl RoutingOptions {
    /// The database that a request names, if it names one.
    pub(super) fn tenant(
        &self,
        in_path: Option<&str>,
        parts: &Parts,
        caller: &Caller,
    ) -> Result<Option<DatabaseName>, ApiError> {
        let named = self.named(in_path, parts, caller)?;
        let Some((source, text)) = named else {
            return Ok(None);
        };
        if self.is_blocked(&text) {
            return Err(blocked(Some(source), &text));
        }
        database_name(&text).map(Some)
    }

    /// The same where the node is meant if none is named, as by the host `api.`.
    pub(super) fn tenant_or_node(
        &self,
        in_path: Option<&str>,
        parts: &Parts,
        caller: &Caller,
    ) -> Result<Option<DatabaseName>, ApiError> {
        match self.named(in_path, parts, caller)? {
            Some((Source::Host, label)) if self.is_blocked(&label) => Ok(None),
            _ => self.tenant(in_path, parts, caller),
        }
    }

    /// # Errors
    /// 403 for a name that requests may not have for their database.
    pub(super) fn expect_unblocked(&self, name: &DatabaseName) -> Result<(), ApiError> {
        match self.is_blocked(name.as_str()) {
            true => Err(blocked(None, name.as_str())),
            false => Ok(()),
        }
    }

    /// What names a database, and how.
    fn named(
        &self,
        in_path: Option<&str>,
        parts: &Parts,
        caller: &Caller,
    ) -> Result<Option<(Source, String)>, ApiError> {
        if let Some(name) = in_path {
            return Ok(Some((Source::Path, name.to_owned())));
        }
        if let Some(name) = self.in_header(&parts.headers)? {
            return Ok(Some((Source::Header, name)));
        }
        let label = host(&parts.uri, &parts.headers).and_then(|host| self.label(host));
        let token = match &caller.reach {
            Reach::One(name) if self.token => Some(name.to_string()),
            _ => None,
        };
        Ok(match (label, token) {
            // A token's own database is as well asked for at `api.`.
            (Some(label), Some(token)) if self.is_blocked(&label) => Some((Source::Token, token)),
            (Some(label), _) => Some((Source::Host, label)),
            (None, token) => token.map(|token| (Source::Token, token)),
        })
    }

    fn in_header(&self, headers: &HeaderMap) -> Result<Option<String>, ApiError> {
        let Some(name) = &self.header else {
            return Ok(None);
        };
        let mut values = headers.get_all(name.as_str()).iter();
        let (Some(value), next) = (values.next(), values.next()) else {
            return Ok(None);
        };
        if next.is_some() {
            let message = format!("the header {name} is there more than once");
            return Err(ApiError::request(StatusCode::BAD_REQUEST, message));
        }
        let text = value.to_str().map_err(|_| {
            let message = format!("the header {name} is not ASCII");
            ApiError::request(StatusCode::BAD_REQUEST, message)
        })?;
        Ok(Some(text.trim().to_owned()))
    }

    /// What stands before the base domain, in lower case as host names are.
    fn label(&self, host: &str) -> Option<String> {
        let domain = self.base_domain.as_deref()?;
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let label = host.strip_suffix(domain)?.strip_suffix('.')?;
        Some(label.to_owned())
    }

    fn is_blocked(&self, name: &str) -> bool {
        self.blocked_names
            .iter()
            .any(|blocked| blocked.eq_ignore_ascii_case(name))
    }

    fn unnamed(&self, parts: &Parts) -> ApiError {
        let mut ways = vec!["the path, /v1/databases/NAME/...".to_owned()];
        ways.extend(
            self.header
                .as_ref()
                .map(|name| format!("the header {name}")),
        );
        let domain = self.base_domain.as_ref();
        ways.extend(domain.map(|domain| format!("the host, NAME.{domain}")));
        if self.token {
            ways.push("a token of one database".to_owned());
        }
        let path = parts.uri.path();
        let message = format!("{path} is asked of a database, and the request names none");
        ApiError::request(StatusCode::BAD_REQUEST, message)
            .hint(&format!("Name it by {}.", ways.join(", or by ")))
    }
}

/// The host's name without its port: of the request's target, or of the header.
pub(super) fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    if let Some(host) = uri.host() {
        return Some(host);
    }
    let value = headers.get(header::HOST)?.to_str().ok()?;
    Some(match value.rsplit_once(':') {
        // Within brackets a colon is part of an address.
        Some((host, port)) if !port.ends_with(']') => host,
        _ => value,
    })
}

fn blocked(source: Option<Source>, name: &str) -> ApiError {
    let place = match source {
        Some(Source::Path) => ", which the path names,",
        Some(Source::Header) => ", which the header names,",
        Some(Source::Host) => ", which the host names,",
        Some(Source::Token) => ", which the token names,",
        None => "",
    };
    let error = PgError::error(
        sqlstate::INSUFFICIENT_PRIVILEGE,
        format!("\"{name}\"{place} is among routing.blocked_names"),
    );
    ApiError::new(StatusCode::FORBIDDEN, error)
        .hint("It is no tenant. Use another name, or take this one off the list.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::caller::Scope;
    use axum::http::Request;

    fn options() -> RoutingOptions {
        RoutingOptions {
            base_domain: Some("example.com".to_owned()),
            ..RoutingOptions::default()
        }
    }

    fn of(token: Option<&str>) -> Caller {
        Caller {
            scope: Scope::Write,
            reach: token.map_or(Reach::All, |name| {
                Reach::One(DatabaseName::parse(name).unwrap())
            }),
            ..Caller::anyone()
        }
    }

    fn found(
        path: Option<&str>,
        headers: &[(&str, &str)],
        token: Option<&str>,
    ) -> Result<String, StatusCode> {
        let mut request = Request::get("/query");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let found = options().tenant(path, &parts, &of(token));
        let found = found.map_err(|error| error.status())?;
        let found = found.ok_or_else(|| options().unnamed(&parts).status())?;
        Ok(found.to_string())
    }

    #[test]
    fn the_first_that_names_one_counts() {
        let header = ("x-dormouse-database", "header");
        let host = ("host", "Tenant.Example.com:8080");
        let all = [header, host];
        assert_eq!(found(Some("path"), &all, Some("t")).unwrap(), "path");
        assert_eq!(found(None, &all, Some("t")).unwrap(), "header");
        assert_eq!(found(None, &[host], Some("t")).unwrap(), "tenant");
        assert_eq!(found(None, &[], Some("t")).unwrap(), "t");
        assert_eq!(
            found(None, &[("host", "example.com")], Some("t")).unwrap(),
            "t"
        );
        assert_eq!(
            found(None, &[("host", "other.org")], Some("t")).unwrap(),
            "t"
        );
    }

    #[test]
    fn what_names_none_is_refused() {
        let bad = Err(StatusCode::BAD_REQUEST);
        assert_eq!(found(None, &[], None), bad);
        for host in [
            "example.com",
            "127.0.0.1:7433",
            "[::1]:7433",
            "notexample.com",
        ] {
            assert_eq!(found(None, &[("host", host)], None), bad, "{host}");
        }
        assert_eq!(found(None, &[("x-dormouse-database", "")], None), bad);
        assert_eq!(found(None, &[("host", "-a.example.com")], None), bad);
        let twice = [("x-dormouse-database", "a"), ("x-dormouse-database", "b")];
        assert_eq!(found(None, &twice, None), bad);
    }

    #[test]
    fn blocked_names_are_no_tenants() {
        let forbidden = Err(StatusCode::FORBIDDEN);
        assert_eq!(found(Some("Admin"), &[], None), forbidden);
        assert_eq!(
            found(None, &[("x-dormouse-database", "api")], None),
            forbidden
        );
        assert_eq!(found(None, &[("host", "www.example.com")], None), forbidden);
        let api = [("host", "api.example.com")];
        assert_eq!(found(None, &api, Some("t")).unwrap(), "t");
    }
}
