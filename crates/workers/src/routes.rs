//! Which app a request is for, and which of its files. Pure: whoever serves HTTP asks this.
//!
//! `OWNER.BASE/REPOSITORY/..` is an app in production, `ENVIRONMENT--OWNER.BASE/REPOSITORY/..` one of a branch, and never that
//! in production: who asks for a branch must not change production's data. A repository with its owner's name has what no
//! other one has.

use crate::{
    App, Environment, Repository,
    site::INDEX,
    store::{StoredFile, Version},
};
use percent_encoding::percent_decode_str;

/// Names below the base that are no owners.
const RESERVED: [&str; 3] = ["www", "api", "app"];

/// Headers that a backend gets beside those of the request: the owner, the repository, and the path as it was asked.
pub const OWNER_HEADER: &str = "x-w7s-org-slug";
/// See [`OWNER_HEADER`].
pub const REPOSITORY_HEADER: &str = "x-w7s-repo-slug";
/// See [`OWNER_HEADER`].
pub const PATH_HEADER: &str = "x-w7s-original-path";

/// An app that a request may be for, and the path that it has there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The app.
    pub app: App,
    /// The path from its root, with its slash, encoded as in the request.
    pub path: String,
    /// Whether the path had the repository's name before it.
    pub prefixed: bool,
}

impl Route {
    /// Whether a site's first page has been asked for without its slash: relative addresses in it need one, so the
    /// answer is a redirection to the same path with it.
    #[must_use]
    pub fn wants_slash(&self, asked: &str) -> bool {
        self.prefixed && self.path == "/" && !asked.ends_with('/')
    }
}

/// The apps that a request may be for, the first that is there is meant. None if the host is not below `base`.
#[must_use]
pub fn routes(host: &str, base: &str, path: &str) -> Vec<Route> {
    let Some((owner, environment)) = owner(host, base) else {
        return Vec::new();
    };
    let mut places = Vec::new();
    let asked = path.trim_start_matches('/');
    let (first, rest) = asked.split_once('/').unwrap_or((asked, ""));
    let first = percent_decode_str(first).decode_utf8_lossy();
    if let Ok(repository) = Repository::parse(&format!("{owner}/{first}")) {
        places.push((repository, format!("/{rest}"), true));
    }
    if let Ok(repository) = Repository::parse(&format!("{owner}/{owner}"))
        && places.iter().all(|(known, ..)| *known != repository)
    {
        places.push((repository, format!("/{asked}"), false));
    }
    let places = places.into_iter();
    places
        .map(|(repository, path, prefixed)| Route {
            app: App {
                repository,
                environment: environment.clone(),
            },
            path,
            prefixed,
        })
        .collect()
}

/// The owner and the environment that a host names.
fn owner(host: &str, base: &str) -> Option<(String, Environment)> {
    let host = host.trim().to_ascii_lowercase();
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host.as_str(),
    };
    let base = base.trim().to_ascii_lowercase();
    let label = host.strip_suffix(&base)?.strip_suffix('.')?;
    let (owner, environment) = match label.rsplit_once("--") {
        None => (label, Environment::of_branch("main").ok()?),
        Some((branch, owner)) => (owner, Environment::resolve(Some(branch), branch).ok()?),
    };
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_owner = !owner.is_empty() && owner.bytes().all(known) && !RESERVED.contains(&owner);
    is_owner.then(|| (owner.to_owned(), environment))
}

/// The file of a version that a path means exactly: itself, or the first page of a folder. Its path says its type.
#[must_use]
pub fn file<'a>(version: &'a Version, path: &str) -> Option<(&'a str, &'a StoredFile)> {
    let site = version.site.as_ref()?;
    let path = percent_decode_str(path).decode_utf8().ok()?;
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let whole = parts.join("/");
    let folder = if whole.is_empty() {
        INDEX.to_owned()
    } else {
        format!("{whole}/{INDEX}")
    };
    let exact = site.get_key_value(&whole).filter(|_| !path.ends_with('/'));
    let (path, file) = exact.or_else(|| site.get_key_value(&folder))?;
    Some((path, file))
}

/// The page of a version that answers a GET or HEAD for which there is neither a file nor, with a status other than
/// 404 and 405, an answer of the backend: the site is an application of one page.
#[must_use]
pub fn fallback(version: &Version) -> Option<(&str, &StoredFile)> {
    let (path, file) = version.site.as_ref()?.get_key_value(INDEX)?;
    Some((path, file))
}

/// Whether an answer of the backend gives way to [`fallback`].
#[must_use]
pub fn gives_way(method: &str, status: u16) -> bool {
    matches!(method, "GET" | "HEAD") && matches!(status, 404 | 405)
}

#[cfg(test)]
mod tests;
