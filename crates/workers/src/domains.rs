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
        let lower = |names: &[String]| {
            let names = names.iter().map(|name| name.trim().to_ascii_lowercase());
            names.filter(|name| !name.is_empty()).collect()
        };
        Self {
            allowed: lower(allowed),
            own: lower(own),
        }
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
        let allows = |pattern: &String| match pattern.strip_prefix('*') {
            Some("") => true,
            Some(end) => host.ends_with(end) && host.len() > end.len(),
            None => pattern == host,
        };
        match self.allowed.iter().any(allows) {
            true => Ok(()),
            false => {
                Err("workers.domains does not name it: the operator of the server has to add it")
            }
        }
    }
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
