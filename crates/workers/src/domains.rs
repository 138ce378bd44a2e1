//! Host names that an app asks for in its `CNAME` file, and which of them it gets. Pure.
//!
//! Whoever may deploy may write any name there. So the operator says which names apps may have at all; a name of the
//! server itself is never one of them; and one that an app has, no other app gets.

use crate::{App, Routing};
use serde::{Deserialize, Serialize};

/// Which host names apps may have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DomainRules {
    /// Names, `*.` and what they end with, or `*` for all. Setting `workers.domains`.
    allowed: Vec<String>,
    /// The server's own: these, and what is below them, no app has.
    own: Vec<String>,
    /// Names at which the server itself is asked, written as the allowed ones. Setting `workers.hosts_reserved`.
    reserved: Vec<String>,
}

/// A host name that an app has asked for and did not get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockedDomain {
    /// The name.
    pub hostname: String,
    /// Why, and what to do.
    pub reason: String,
    /// Whose it is, if that is why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_repository: Option<String>,
}

impl DomainRules {
    /// Rules of names in any case.
    #[must_use]
    pub fn new(allowed: &[String], own: &[String]) -> Self {
        Self {
            allowed: lower(allowed),
            own: lower(own),
            reserved: Vec::new(),
        }
    }

    /// The same without names at which the server itself is asked: names, or `*.` and what they end with.
    #[must_use]
    pub fn with_reserved(mut self, reserved: &[String]) -> Self {
        self.reserved = lower(reserved);
        self
    }

    /// The first of these names that covers others, which may be the server's own.
    #[must_use]
    pub fn wildcard(allowed: &[String]) -> Option<&str> {
        let mut names = allowed.iter().map(|name| name.trim());
        names.find(|name| name.starts_with('*'))
    }

    /// Whether an app may have a name.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, host: &str) -> Result<(), &'static str> {
        let is_number = host.parse::<std::net::IpAddr>().is_ok();
        if is_number
            || is_below(host, "localhost")
            || self.own.iter().any(|own| is_below(host, own))
        {
            return Err("it is the server's own");
        }
        let is_meant = |pattern: &String| match pattern.strip_prefix('*') {
            Some("") => true,
            Some(end) => host.ends_with(end) && host.len() > end.len(),
            None => pattern == host,
        };
        if self.reserved.iter().any(is_meant) {
            return Err("it is the server's own: workers.hosts_reserved keeps it from apps");
        }
        match self.allowed.iter().any(is_meant) {
            true => Ok(()),
            false => {
                Err("workers.domains does not name it: the operator of the server has to add it")
            }
        }
    }
}

fn lower(names: &[String]) -> Vec<String> {
    let names = names.iter().map(|name| name.trim().to_ascii_lowercase());
    names.filter(|name| !name.is_empty()).collect()
}

/// Whether a host is this domain, or below it.
fn is_below(host: &str, domain: &str) -> bool {
    let above = host.strip_suffix(domain);
    above.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The name by which an app has a host of its `CNAME` file: that of another branch has it before.
#[must_use]
pub fn host_of(app: &App, routing: &Routing, name: &str) -> String {
    match app.environment.is_production() || !routing.prefixed_branches {
        true => name.to_owned(),
        false => format!("{}--{name}", app.environment),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Environment, Repository};

    fn rules(allowed: &[&str], own: &[&str]) -> DomainRules {
        let owned = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        DomainRules::new(&owned(allowed), &owned(own))
    }

    #[test]
    fn the_operator_says_which_names_there_are() {
        let some = rules(&["Shop.Example", "*.apps.example"], &[]);
        for good in ["shop.example", "a.apps.example", "dev--a.apps.example"] {
            some.check(good).unwrap();
        }
        for bad in ["apps.example", "xapps.example", "a.shop.example", "example"] {
            some.check(bad).unwrap_err();
        }
        rules(&[], &[]).check("shop.example").unwrap_err();
        rules(&["*"], &[]).check("shop.example").unwrap();
    }

    #[test]
    fn what_is_the_servers_own_is_nobody_elses() {
        let all = rules(&["*"], &["db.example", "apps.localhost"]);
        for own in [
            "db.example",
            "shop.db.example",
            "a.apps.localhost",
            "x.localhost",
            "127.0.0.1",
        ] {
            all.check(own).unwrap_err();
        }
        all.check("otherdb.example").unwrap();
    }

    #[test]
    fn names_of_the_server_are_kept_from_apps() {
        let reserved = ["Db.Example".to_owned(), "*.admin.example".to_owned()];
        let some = rules(&["*"], &[]).with_reserved(&reserved);
        for own in ["db.example", "a.admin.example", "b.a.admin.example"] {
            let why = some.check(own).unwrap_err();
            assert!(why.contains("workers.hosts_reserved"), "{why}");
        }
        // What is below a name that is not a domain of ours may be an app's.
        for free in ["shop.db.example", "admin.example", "otherdb.example"] {
            some.check(free).unwrap();
        }
    }

    #[test]
    fn wildcards_are_found() {
        let find = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            DomainRules::wildcard(&names).map(str::to_owned)
        };
        assert_eq!(
            find(&["a.example", " *.b.example"]).as_deref(),
            Some("*.b.example")
        );
        assert_eq!(find(&["*"]).as_deref(), Some("*"));
        assert_eq!(find(&["a.example"]), None);
    }

    #[test]
    fn branches_come_before_the_name() {
        let app = |branch: &str| App {
            repository: Repository::parse("o/r").unwrap(),
            environment: Environment::of_branch(branch).unwrap(),
        };
        let direct = Routing {
            prefixed_branches: false,
            ..Routing::default()
        };
        let of = |branch: &str, routing: &Routing| host_of(&app(branch), routing, "a.b");
        assert_eq!(of("main", &Routing::default()), "a.b");
        assert_eq!(of("dev", &Routing::default()), "dev--a.b");
        assert_eq!(of("dev", &direct), "a.b");
    }
}
