//! Who may deploy.

use std::path::Path;

use tempfile::TempDir;

use super::stage::{Archive, Stage};
use crate::harness::{dormouse, run_program};

const UNAUTHORIZED: &str = "Bearer token is not authorized for this GitHub repository.";

fn site() -> Archive {
    Archive::of(&[("out/index.html", "x")])
}

fn create(folder: &Path, name: &str, args: &[&str]) -> String {
    let mut command = dormouse();
    command.args(["token", "create", "--name", name]).args(args);
    let made = run_program(command.env("DORMOUSE_AUTH__TOKENS_FILE", folder.join("tokens")));
    made.done().trim_end().to_owned()
}

/// A server that asks for the tokens of a folder.
fn start(folder: TempDir) -> Option<Stage> {
    Stage::start_in(
        folder,
        &[
            ("DORMOUSE_AUTH__TOKENS_FILE", "tokens"),
            ("DORMOUSE_AUDIT__FILE", "audit"),
        ],
    )
}

/// `token` with another last sign.
fn forged(token: &str) -> String {
    let other = if token.ends_with('x') { "y" } else { "x" };
    format!("{}{other}", &token[..token.len() - 1])
}

#[test]
fn tokens_deploy_what_they_are_for_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let create = |name: &str, args: &[&str]| create(folder.path(), name, args);
    let one = create("one", &["--scope", "deploy", "--repository", "Acme/Shop"]);
    let all = create("all", &["--scope", "deploy", "--repository", "acme/*"]);
    let any = create("any", &["--scope", "deploy"]);
    let admin = create("admin", &["--scope", "admin"]);
    let write = create("write", &["--scope", "write"]);
    let own = create("own", &["--scope", "admin", "--database", "shop"]);
    let Some(mut stage) = start(folder) else {
        return;
    };
    let answer = stage.deploy_with("acme/shop", "", &[], &site());
    assert_eq!(answer.status, 401);
    assert_eq!(answer.json()["error"], "Missing bearer token.");
    assert_eq!(
        answer.header("www-authenticate"),
        Some("Bearer realm=\"dormouse\"")
    );

    for (token, repositories) in [
        (&one, &["acme/shop"][..]),
        (&all, &["acme/shop", "ACME/other"]),
        (&any, &["acme/shop", "ACME/other", "someone/else"]),
        (&admin, &["acme/shop", "ACME/other", "someone/else"]),
        (&write, &[]),
        (&own, &[]),
        (&forged(&any), &[]),
        (&"gho_aTokenOfGitHubs".to_owned(), &[]),
    ] {
        stage = stage.with_token(token);
        for repository in ["acme/shop", "ACME/other", "someone/else"] {
            let answer = stage.deploy_with(repository, "", &[], &site());
            let (owner, name) = repository.split_once('/').unwrap();
            let logs = stage.api(&format!("/api/v1/logs/{owner}/{name}"));
            match repositories.contains(&repository) {
                true => assert_eq!(
                    (answer.status, logs.status),
                    (200, 200),
                    "{}",
                    answer.text()
                ),
                false => {
                    assert_eq!((answer.status, logs.status), (401, 401), "{repository}");
                    assert_eq!(answer.json()["error"], UNAUTHORIZED);
                    assert_eq!(logs.json()["error"], UNAUTHORIZED);
                }
            }
        }
    }
    let stage = stage.with_token(&one);
    let listed = stage.api("/api/v1/deployments").json();
    assert_eq!(listed["data"]["deployments"].as_array().unwrap().len(), 1);
    // A token that deploys does nothing else.
    for (method, path, body) in [
        ("GET", "/v1/databases", None),
        (
            "POST",
            "/v1/databases/shop/query",
            Some(r#"{"sql": "select 1"}"#),
        ),
        ("GET", "/v1/tokens", None),
        ("GET", "/metrics", None),
        ("GET", "/v1/bindings", None),
        ("POST", "/sql", Some(r#"{"query": "select 1"}"#)),
    ] {
        let answer = stage.ask(method, path, body);
        assert_eq!(answer.status, 403, "{path}: {}", answer.text());
        let challenge = answer.header("www-authenticate").unwrap_or_default();
        assert!(
            challenge.contains("error=\"insufficient_scope\""),
            "{path}: {challenge}"
        );
    }
    let audit = std::fs::read_to_string(stage.folder.path().join("audit")).unwrap();
    let line = audit
        .lines()
        .find(|line| line.contains("app.deploy"))
        .unwrap();
    assert!(
        line.contains("\"who\":\"one\"") && line.contains("acme/shop (production)"),
        "{line}"
    );
    for token in [&one, &admin] {
        assert!(!stage.server.log().contains(token.as_str()) && !audit.contains(token.as_str()));
    }
}

#[test]
fn a_token_that_was_revoked_deploys_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let token = create(folder.path(), "ci", &["--scope", "deploy"]);
    let Some(stage) = start(folder) else { return };
    let stage = stage.with_token(&token);
    stage.deploy("acme/shop", &site());
    let mut command = dormouse();
    command.args(["token", "revoke", "ci"]);
    let file = stage.folder.path().join("tokens");
    run_program(command.env("DORMOUSE_AUTH__TOKENS_FILE", file)).done();
    stage.until(
        || stage.deploy_with("acme/shop", "", &[], &site()).status,
        |status| *status == 401,
    );
}

#[test]
fn tokens_that_make_no_sense_are_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |args: &[&str]| {
        let mut command = dormouse();
        command.args(["token", "create", "--name", "x"]).args(args);
        run_program(command.env("DORMOUSE_AUTH__TOKENS_FILE", folder.path().join("tokens")))
            .failed(1)
    };
    let said = refused(&["--scope", "deploy", "--database", "shop"]);
    assert!(said.contains("no database"), "{said}");
    let said = refused(&["--scope", "write", "--repository", "acme/shop"]);
    assert!(said.contains("scope deploy alone"), "{said}");
    let said = refused(&["--scope", "deploy", "--repository", "acme"]);
    assert!(said.contains("OWNER/*"), "{said}");
}
