//! Deployments: as the platform's action makes them, and what is answered at their hosts.

mod commands;
mod dev_bindings;
mod keeping;
mod refused;
mod serving;
pub(crate) mod stage;
mod tokens;

use serde_json::json;

use stage::{Archive, Stage, TYPESCRIPT};

/// The manifest of the platform's page about Postgres bindings.
const MANIFEST: &str = r#"{
"bindings": {
"hyperdrive": [
{
"binding": "DB",
"id": "postgres-binding-id"
}
]
}
}"#;

#[test]
fn a_deployment_as_the_action_makes_it() {
    let Some(stage) = Stage::start() else { return };
    let backend = "export default { async fetch(request, env) { console.log('asked'); return Response.json({ \
                   greeting: env.GREETING, key: env.KEY, owner: env.W7S_OWNER, repo: env.W7S_REPO, \
                   where: env.W7S_ENVIRONMENT, url: request.url }); } };";
    let archive = Archive::of(&[
        ("w7s.json", r#"{"vars": ["GREETING"], "secrets": ["KEY"]}"#),
        ("dist/server/index.js", backend),
        (
            "dist/server/wrangler.json",
            "{\n\"compatibility_flags\": [\"nodejs_compat_v2\"]\n}",
        ),
        ("dist/client/app.css", "a{}"),
    ]);
    let values = |text: &str| stage::base64url(text);
    let (vars, secrets) = (
        values(r#"{"GREETING":"hello"}"#),
        values(r#"{"KEY":"s3cret-value"}"#),
    );
    let more = [("x-w7s-vars", &*vars), ("x-w7s-secrets", &*secrets)];
    let answer = stage.deploy_with("Acme/Shop", "?environment=", &more, &archive);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["status"], "success");
    let deployment = &body["data"]["deployment"];
    assert_eq!(deployment["repository"], "Acme/Shop");
    assert_eq!(deployment["environment"], "production");
    assert_eq!(deployment["branch"], "main");
    assert_eq!(deployment["commitSha"], "abc");
    assert_eq!(
        deployment["targets"]["worker"]["entrypoint"],
        "dist/server/index.js"
    );
    assert_eq!(deployment["targets"]["static"]["fileCount"], 1);
    assert_eq!(deployment["bindings"]["vars"], json!(["GREETING"]));
    assert_eq!(deployment["bindings"]["secrets"], json!(["KEY"]));
    let port = stage.server.http.port();
    let url = format!("http://acme.apps.localhost:{port}/shop/");
    assert_eq!(body["data"]["url"], url);
    assert!(!body.to_string().contains("s3cret-value"));

    let said = stage.get("/shop/x?y=1").json();
    assert_eq!(said["greeting"], "hello");
    assert_eq!(said["key"], "s3cret-value");
    assert_eq!(
        (&said["owner"], &said["repo"]),
        (&json!("acme"), &json!("shop"))
    );
    assert_eq!(said["where"], "production");
    assert_eq!(
        said["url"],
        format!("http://acme.apps.localhost:{port}/x?y=1")
    );
    assert_eq!(stage.get("/shop/app.css").text(), "a{}");
    stage.keeps_no("s3cret-value");

    let again = stage.deploy_with("acme/shop", "", &more, &archive);
    assert_eq!(
        again.json()["data"]["new"],
        true,
        "the repository is written otherwise"
    );
    let again = stage.deploy_with("acme/shop", "", &more, &archive);
    assert_eq!(again.json()["data"]["new"], false);

    // What the action asks for afterwards.
    let date = deployment["deployedAt"].as_str().unwrap()[..10].to_owned();
    let usage = stage.api(&format!(
        "/api/v1/usage/Acme/Shop?date={date}&environment=production"
    ));
    let usage = usage.json();
    assert_eq!(
        usage["data"]["usage"]["metrics"],
        json!({ "requests": 2, "errors": 0 })
    );
    assert_eq!(usage["data"]["warnings"], json!([]));
    let path =
        "/api/v1/logs/Acme/Shop?environment=production&hours=1&limit=50&kind=console&level=log";
    let logs = stage.until(
        || stage.api(path).json(),
        |logs| logs["data"]["logs"]["records"] != json!([]),
    );
    let record = &logs["data"]["logs"]["records"][0];
    assert_eq!(
        (&record["text"], &record["kind"]),
        (&json!("asked"), &json!("console"))
    );
    assert!(logs["data"]["logs"]["cursor"].is_null());
}

#[test]
fn versions_follow_and_come_back() {
    let Some(stage) = Stage::start() else { return };
    let saying = |text: &str| Archive::of(&[("backend/index.ts", &stage::saying(text))]);
    stage.deploy("acme/shop", &saying("one"));
    assert_eq!(stage.get("/shop/").text(), "one");
    for broken in [
        "throw new Error('early');",
        "export default {};",
        "const x: = 1;",
        "import 'pg';",
    ] {
        let archive = Archive::of(&[("backend/index.ts", broken)]);
        let refused = stage.deploy_with("acme/shop", "", &[], &archive);
        assert_eq!(refused.status, 400, "{broken}: {}", refused.text());
        assert_eq!(refused.json()["status"], "error");
        assert_eq!(stage.get("/shop/").text(), "one");
    }
    stage.deploy("acme/shop", &saying("two"));
    assert_eq!(stage.get("/shop/").text(), "two");

    let history = stage.api("/api/v1/deployments/acme/shop").json();
    let all = history["data"]["deployments"].as_array().unwrap();
    let numbers: Vec<_> = all
        .iter()
        .map(|one| (&one["version"], &one["current"]))
        .collect();
    assert_eq!(
        numbers,
        [(&json!(2), &json!(true)), (&json!(1), &json!(false))]
    );
    let back = "/api/v1/deployments/acme/shop/rollback";
    let rolled = stage.ask("POST", back, None);
    assert_eq!(rolled.json()["data"]["deployment"]["version"], 1);
    assert_eq!(stage.get("/shop/").text(), "one");
    assert_eq!(stage.ask("POST", back, None).status, 409);
    assert_eq!(
        stage.ask("POST", back, Some(r#"{"version": 9}"#)).status,
        404
    );
    assert_eq!(
        stage.ask("POST", back, Some(r#"{"version": 2}"#)).status,
        200
    );
    assert_eq!(stage.get("/shop/").text(), "two");

    let listed = stage.api("/api/v1/deployments").json();
    assert_eq!(listed["data"]["deployments"][0]["backend"]["running"], true);
    let gone = stage.ask("DELETE", "/api/v1/deployments/acme/shop", None);
    assert_eq!(gone.status, 200, "{}", gone.text());
    assert_eq!(stage.get("/shop/").status, 404);
    assert_eq!(
        stage
            .ask("DELETE", "/api/v1/deployments/acme/shop", None)
            .status,
        404
    );
    assert_eq!(stage.api("/api/v1/logs/acme/shop").status, 404);
    assert_eq!(
        stage.api("/api/v1/deployments").json()["data"]["deployments"],
        json!([])
    );
}

#[test]
fn branches_are_beside_production() {
    let Some(stage) = Stage::start() else { return };
    let saying = |text: &str| Archive::of(&[("worker/index.ts", &stage::saying(text))]);
    stage.deploy("acme/shop", &saying("main"));
    // A branch that is not there is never production, whose data a preview would change.
    let is_nothing = || {
        let answer = stage.get_at("dev--acme.apps.localhost", "/shop/");
        assert_eq!(answer.status, 404, "{}", answer.text());
        let said = answer.text();
        assert!(said.contains("none in the environment dev"), "{said}");
    };
    is_nothing();
    let deployed = stage.deploy_with("acme/shop", "?environment=Dev", &[], &saying("dev"));
    let url = deployed.json()["data"]["url"].as_str().unwrap().to_owned();
    assert!(url.starts_with("http://dev--acme.apps.localhost:"), "{url}");
    assert_eq!(
        stage.get_at("dev--acme.apps.localhost", "/shop/").text(),
        "dev"
    );
    assert_eq!(stage.get("/shop/").text(), "main");
    // A repository with its owner's name has the rest.
    stage.deploy("acme/acme", &saying("root"));
    assert_eq!(stage.get("/").text(), "root");
    assert_eq!(stage.get("/shop/").text(), "main");
    let path = "/api/v1/deployments/acme/shop?environment=dev";
    assert_eq!(stage.ask("DELETE", path, None).status, 200);
    is_nothing();
}

#[test]
fn typescript_with_modules_of_its_own() {
    let Some(stage) = Stage::start() else { return };
    stage.deploy("acme/shop", &Archive::of(TYPESCRIPT));
    assert_eq!(stage.get("/shop/").text(), "3 fig");
}

#[test]
fn the_documented_manifest_is_read() {
    let Some(stage) = Stage::start() else { return };
    let archive = Archive::of(&[
        ("w7s.json", MANIFEST),
        ("dist/server/index.js", &stage::saying("x")),
    ]);
    let refused = stage.deploy_with("acme/shop", "", &[], &archive);
    assert_eq!(refused.status, 400);
    let error = refused.json()["error"].as_str().unwrap().to_owned();
    assert!(
        error.contains("DB") && error.contains("'postgres-binding-id'"),
        "{error}"
    );
}
