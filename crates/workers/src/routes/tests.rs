use super::*;
use crate::{
    Manifest, Values,
    store::{NewVersion, Source, Store, Vault},
};
use std::{collections::BTreeMap, io, sync::Arc};

/// Apps and paths, written short.
fn of(host: &str, path: &str) -> Vec<String> {
    let routes = routes(host, "Apps.Test", path);
    let short = |route: Route| {
        let slash = if route.wants_slash(path) { " +/" } else { "" };
        format!("{} {}{slash}", route.app, route.path)
    };
    routes.into_iter().map(short).collect()
}

#[test]
fn owners_repositories_and_their_own() {
    assert_eq!(
        of("Acme.apps.test:8080", "/shop/a%20b/?x"),
        [
            "acme/shop (production) /a%20b/?x",
            "acme/acme (production) /shop/a%20b/?x"
        ]
    );
    assert_eq!(of("acme.apps.test", "/"), ["acme/acme (production) /"]);
    assert_eq!(
        of("acme.apps.test", "/acme/x"),
        ["acme/acme (production) /x"]
    );
    assert_eq!(
        of("acme.apps.test", "/shop"),
        [
            "acme/shop (production) / +/",
            "acme/acme (production) /shop"
        ]
    );
}

#[test]
fn branches_never_lead_to_production() {
    assert_eq!(
        of("fix-1--acme.apps.test", "/shop/"),
        ["acme/shop (fix-1) /", "acme/acme (fix-1) /shop/"]
    );
    assert_eq!(
        of("production--acme.apps.test", "/acme/"),
        ["acme/acme (production) /"]
    );
}

#[test]
fn other_hosts_are_nobodys() {
    for host in [
        "apps.test",
        "www.apps.test",
        "x--api.apps.test",
        "a.b.apps.test",
        "evilapps.test",
        "acme.apps.test.evil",
        "--acme.apps.test",
        "..apps.test",
        "",
    ] {
        assert!(of(host, "/shop/").is_empty(), "{host}");
    }
    assert_eq!(
        of("acme.apps.test", "/../x"),
        ["acme/acme (production) /../x"]
    );
}

#[derive(Debug)]
struct Open;

impl Vault for Open {
    fn seal(&self, _context: &str, bytes: &[u8]) -> io::Result<Vec<u8>> {
        Ok(bytes.to_vec())
    }

    fn open(&self, _context: &str, sealed: &[u8]) -> io::Result<Vec<u8>> {
        Ok(sealed.to_vec())
    }
}

#[test]
fn files_first_pages_and_the_page_for_all_else() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_owned(), 1, Arc::new(Open)).unwrap();
    let paths = [
        "index.html",
        "a b.css",
        "docs/index.html",
        "docs/x",
        "plain",
    ];
    let files: BTreeMap<_, _> = paths
        .iter()
        .map(|path| ((*path).to_owned(), vec![1]))
        .collect();
    let app = App {
        repository: Repository::parse("o/r").unwrap(),
        environment: Environment::of_branch("main").unwrap(),
    };
    let new = NewVersion {
        source: Source {
            repository: "o/r".to_owned(),
            branch: "main".to_owned(),
            commit_sha: "x".to_owned(),
        },
        manifest: Manifest::default(),
        backend: None,
        site: Some(files),
        vars: Values::default(),
        secrets: Values::default(),
        domains: Vec::new(),
    };
    let version = store.add(&app, new, 0).unwrap();
    let of = |path| file(&version, path).map(|(path, _)| path);
    assert_eq!(of("/"), Some("index.html"));
    assert_eq!(of("/a%20b.css"), Some("a b.css"));
    assert_eq!(of("/docs"), Some("docs/index.html"));
    assert_eq!(of("//docs//"), Some("docs/index.html"));
    assert_eq!(of("/docs/x"), Some("docs/x"));
    assert_eq!(of("/plain/"), None);
    for nothing in ["/nothing", "/../index.html", "/%2e%2e/index.html", "/%ff"] {
        assert_eq!(of(nothing), None, "{nothing}");
    }
    assert_eq!(fallback(&version).map(|(path, _)| path), Some("index.html"));
    assert!(gives_way("GET", 404) && gives_way("HEAD", 405));
    assert!(!gives_way("POST", 404) && !gives_way("GET", 500));
}
