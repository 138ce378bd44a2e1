//! Who a deployment belongs to: a repository and an environment.

use crate::Refusal;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest name of an owner or a repository, in bytes; GitHub's own are shorter.
const NAME_BYTES_MAX: usize = 100;

/// Longest name of an environment, in bytes: one label of a host name.
const ENVIRONMENT_BYTES_MAX: usize = 63;

/// A GitHub repository, in lower case: GitHub's names do not tell cases apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Repository {
    owner: String,
    name: String,
}

impl Repository {
    /// Reads `owner/repo`.
    ///
    /// # Errors
    /// 400 if it is not of that form.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let refused = || Refusal::bad("x-github-repository must be in owner/repo form.");
        let (owner, name) = text.trim().split_once('/').ok_or_else(refused)?;
        if !is_name(owner) || !is_name(name) {
            return Err(refused());
        }
        Ok(Self {
            owner: owner.to_ascii_lowercase(),
            name: name.to_ascii_lowercase(),
        })
    }

    /// The user or organization.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The repository's own name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// A name that is safe as one part of a path too.
fn is_name(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !text.is_empty()
        && text.len() <= NAME_BYTES_MAX
        && text.bytes().all(known)
        && text.bytes().any(|byte| byte != b'.')
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

impl TryFrom<String> for Repository {
    type Error = Refusal;

    fn try_from(text: String) -> Result<Self, Refusal> {
        Self::parse(&text)
    }
}

impl From<Repository> for String {
    fn from(repository: Repository) -> Self {
        repository.to_string()
    }
}

/// One of a repository's deployments side by side: `production`, or one of a branch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Environment(String);

impl Environment {
    /// That of `main` and `master`.
    pub const PRODUCTION: &'static str = "production";

    /// The environment of a branch: `production` for `main` and `master`, else the branch in lower case, with
    /// `-` for what is no letter and no digit.
    ///
    /// # Errors
    /// 400 if nothing is left of the name.
    pub fn of_branch(branch: &str) -> Result<Self, Refusal> {
        match branch.trim() {
            "main" | "master" => Ok(Self(Self::PRODUCTION.to_owned())),
            branch => Self::named(branch),
        }
    }

    /// The environment that a request names, or that of its branch.
    ///
    /// # Errors
    /// 400 if nothing is left of the name.
    pub fn resolve(named: Option<&str>, branch: &str) -> Result<Self, Refusal> {
        match named.map(str::trim).filter(|name| !name.is_empty()) {
            Some(name) => Self::named(name),
            None => Self::of_branch(branch),
        }
    }

    fn named(text: &str) -> Result<Self, Refusal> {
        let lower = text.trim().to_ascii_lowercase();
        let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let parts = lower.split(|c| !known(c)).filter(|part| !part.is_empty());
        let mut name = parts.collect::<Vec<_>>().join("-");
        name.truncate(ENVIRONMENT_BYTES_MAX);
        let name = name.trim_end_matches('-');
        if name.is_empty() {
            return Err(Refusal::bad(format!(
                "'{}' names no environment: it must have a letter or a digit.",
                text.escape_debug()
            )));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is production.
    #[must_use]
    pub fn is_production(&self) -> bool {
        self.0 == Self::PRODUCTION
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Environment {
    type Error = Refusal;

    fn try_from(text: String) -> Result<Self, Refusal> {
        Self::named(&text)
    }
}

impl From<Environment> for String {
    fn from(environment: Environment) -> Self {
        environment.0
    }
}

/// What a deployment replaces, and is replaced by: an environment of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct App {
    /// The repository.
    pub repository: Repository,
    /// The environment.
    pub environment: Environment,
}

impl fmt::Display for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.repository, self.environment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_two_names_in_lower_case() {
        let repository = Repository::parse(" W7S-io/Example.App ").unwrap();
        assert_eq!(repository.to_string(), "w7s-io/example.app");
        assert!(Repository::parse("o/.github").is_ok());
        for bad in [
            "", "owner", "/", "a/", "/b", "a/b/c", "a/..", "../b", "a/.", "a b/c", "ä/b",
        ] {
            let refused = Repository::parse(bad).unwrap_err();
            assert_eq!(
                refused.message, "x-github-repository must be in owner/repo form.",
                "{bad}"
            );
        }
    }

    #[test]
    fn environments_come_from_branches() {
        let of = |branch| Environment::of_branch(branch).map(String::from);
        assert_eq!(of("main").unwrap(), "production");
        assert_eq!(of("master").unwrap(), "production");
        assert_eq!(of("Feature/New_Thing").unwrap(), "feature-new-thing");
        assert_eq!(of("--x--").unwrap(), "x");
        assert!(of("///").is_err());
        let long = of(&"a-".repeat(60)).unwrap();
        assert!(long.len() <= 63 && !long.ends_with('-'));
    }

    #[test]
    fn a_named_environment_wins() {
        let resolve = |named, branch| Environment::resolve(named, branch).unwrap();
        assert_eq!(resolve(Some("Staging"), "main").as_str(), "staging");
        assert!(resolve(Some(" "), "main").is_production());
        assert!(resolve(None, "main").is_production());
    }
}
