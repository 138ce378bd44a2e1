//! What a route is about, and so what is found out before it is answered.

/// What a route is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// A database, which the request names somehow.
    Database,
    /// A database, or the node if none is named.
    Either,
    /// A database of the directory, which need not be one that requests are for.
    Directory,
    /// Deployments, which find out by themselves who asks.
    Apps,
    /// Neon's `/sql`, whose header names the database.
    Neon,
    /// The node, or what is nowhere.
    Node,
}

/// Where routes that name a database in their path stand.
const PREFIX: &str = "/v1/databases/{name}";

/// Where endpoints of deployments stand.
const DEPLOYMENTS: &str = "/api/v1/";

impl Door {
    /// Of a route as the router has it; none is a request that goes nowhere.
    pub(super) fn of(route: Option<&str>) -> Self {
        let Some(route) = route else {
            return Self::Node;
        };
        let named = route.strip_prefix(PREFIX);
        match named.unwrap_or(route) {
            "" => Self::Directory,
            "/ping" | "/health" | "/config" | "/liveness" | "/readiness" => Self::Either,
            "/query" | "/ws" | "/batch" | "/transaction" | "/schema" => Self::Database,
            rest if rest.starts_with("/transactions") => Self::Database,
            "/sql" => Self::Neon,
            rest if rest.starts_with(DEPLOYMENTS) => Self::Apps,
            _ if named.is_some() => Self::Database,
            _ => Self::Node,
        }
    }

    /// Whether a database that is named limits how large a request may be: not where its settings are changed, or
    /// what they forbid would have to be sent to allow it.
    pub(super) fn is_limited(self, route: Option<&str>) -> bool {
        let is_asked = matches!(self, Self::Database | Self::Either | Self::Neon);
        let named = route.and_then(|route| route.strip_prefix(PREFIX));
        is_asked && named != Some("/settings")
    }
}

/// Whether everybody may ask it: whether the server is there, of databases nothing; or what says in its own way who asks.
pub(super) fn is_open(route: Option<&str>, metrics_open: bool) -> bool {
    let Some(route) = route else {
        return false;
    };
    match route {
        "/ping" | "/health" | "/liveness" | "/readiness" | "/sql" | "/v2" => true,
        "/metrics" => metrics_open,
        _ => route.strip_prefix(PREFIX) == Some("/ping"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        for (route, door) in [
            ("/query", Door::Database),
            ("/v1/databases/{name}/query", Door::Database),
            ("/transactions/{id}/commit", Door::Database),
            ("/v1/databases/{name}/transactions", Door::Database),
            ("/v1/databases/{name}/settings", Door::Database),
            ("/v1/databases/{name}/figures", Door::Database),
            ("/v1/databases/{name}", Door::Directory),
            ("/v1/databases", Door::Node),
            ("/health", Door::Either),
            ("/v1/databases/{name}/health", Door::Either),
            ("/sql", Door::Neon),
            ("/v2", Door::Node),
            ("/metrics", Door::Node),
            ("/v1/tokens/{id}", Door::Node),
            ("/v1/figures", Door::Node),
            ("/api/v1/deploy", Door::Apps),
            ("/api/v1/logs/{owner}/{repository}", Door::Apps),
        ] {
            assert_eq!(Door::of(Some(route)), door, "{route}");
        }
        assert_eq!(Door::of(None), Door::Node);
    }

    #[test]
    fn settings_are_not_limited_by_themselves() {
        let is_limited = |route: &str| Door::of(Some(route)).is_limited(Some(route));
        for route in [
            "/query",
            "/v1/databases/{name}/query",
            "/transactions/{id}/query",
            "/sql",
        ] {
            assert!(is_limited(route), "{route}");
        }
        for route in [
            "/v1/databases/{name}/settings",
            "/v1/databases/{name}",
            "/v1/tokens",
        ] {
            assert!(!is_limited(route), "{route}");
        }
    }

    #[test]
    fn few_are_open() {
        for route in ["/ping", "/v1/databases/{name}/ping", "/readiness", "/sql"] {
            assert!(is_open(Some(route), false), "{route}");
        }
        for route in [
            "/v1/tokens/{id}",
            "/v1/databases/{name}",
            "/metrics",
            "/config",
        ] {
            assert!(!is_open(Some(route), false), "{route}");
        }
        assert!(is_open(Some("/metrics"), true) && !is_open(None, true));
    }
}
