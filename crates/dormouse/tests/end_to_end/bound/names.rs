//! Bindings that `w7s.json` names by their names.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{archive, bind, bundled};
use crate::apps::stage::Stage;
use crate::harness::until;

/// A backend that tells which database it has.
fn asks() -> String {
    bundled(
        r#"import postgres from "postgres";
        export default { async fetch(_: Request, env: { DB: { connectionString: string } }) {
            const sql = postgres(env.DB.connectionString);
            const [row] = await sql`select current_database() as name`;
            return new Response(row.name);
        } };"#,
        &["--conditions=workerd,worker,browser", "--external:node:*"],
    )
}

fn binding_of(answer: &Value) -> &Value {
    &answer["data"]["deployment"]["bindings"]["hyperdrive"][0]["id"]
}

fn change(stage: &Stage, id: &str, change: &Value) {
    let path = format!("/v1/bindings/{id}");
    let changed = stage.ask("PATCH", &path, Some(&change.to_string()));
    assert_eq!(changed.status, 200, "{}", changed.text());
}

/// The server ends, something happens to its data, and it starts again.
fn restarted(stage: Stage, meanwhile: impl Fn(&TempDir)) -> Stage {
    let Stage { server, folder, .. } = stage;
    drop(server);
    meanwhile(&folder);
    Stage::start_in(folder, &[]).unwrap()
}

#[test]
fn a_name_is_what_it_was_when_it_was_deployed() {
    let Some(stage) = Stage::start() else { return };
    stage.server.sql("mine", "select 1");
    stage.server.sql("other", "select 1");
    let id = bind(&stage, &json!({ "name": "shop", "database": "mine" }));
    let by_name = archive("shop", &asks());
    let deployed = stage.deploy_with("acme/shop", "", &[], &by_name);
    assert_eq!(deployed.status, 200, "{}", deployed.text());
    assert_eq!(*binding_of(&deployed.json()), json!(id));
    // The same again is the same.
    let again = stage.deploy_with("acme/shop", "", &[], &by_name).json();
    assert_eq!(again["data"]["new"], false, "{again}");

    change(&stage, &id, &json!({ "name": "shop2" }));
    let taken = json!({
        "name": "shop", "database": "other", "allowed": [{ "repository": "acme/other" }],
    });
    bind(&stage, &taken);
    let stage = restarted(stage, |_| {});
    let shown = stage.api("/v1/bindings/shop2").json();
    assert_eq!(shown["usedBy"], json!(["acme/shop (production)"]));
    let refused = stage.ask("DELETE", "/v1/bindings/shop2", None);
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert_eq!(stage.get("/shop/").text(), "mine");
    // The name means another one from now on.
    let refused = stage.deploy_with("acme/shop", "", &[], &by_name);
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert_eq!(stage.get("/shop/").text(), "mine");
    let deleted = stage.ask("DELETE", "/v1/bindings/shop", None);
    assert_eq!(deleted.status, 204, "{}", deleted.text());
}

/// Versions that were kept before names were looked up are started as they are, with what is allowed now.
#[test]
fn a_version_that_kept_a_name_gets_what_it_may_have() {
    let Some(stage) = Stage::start() else { return };
    stage.server.sql("mine", "select 1");
    let id = bind(&stage, &json!({ "name": "shop", "database": "mine" }));
    stage.deploy("acme/shop", &archive(&id, &asks()));
    let stage = restarted(stage, |folder| {
        let record = folder.path().join("data/apps/acme/shop/production/1.json");
        let text = fs::read_to_string(&record).unwrap();
        assert!(text.contains(&id), "{text}");
        fs::write(&record, text.replace(&id, "shop")).unwrap();
    });
    let shown = || stage.api("/v1/bindings/shop").json();
    assert_eq!(shown()["usedBy"], json!(["acme/shop (production)"]));
    assert_eq!(stage.get("/shop/").text(), "mine");

    change(
        &stage,
        &id,
        &json!({ "allowed": [{ "repository": "acme/other" }] }),
    );
    assert_eq!(stage.get("/shop/").text(), "mine");
    let stage = restarted(stage, |_| {});
    let answer = stage.get("/shop/");
    assert_eq!(answer.status, 502, "{}", answer.text());
    let logs = stage.api("/api/v1/logs/acme/shop").text();
    assert!(logs.contains("not allowed to use"), "{logs}");
    assert_eq!(stage.api("/v1/bindings/shop").json()["usedBy"], json!([]));
    change(&stage, &id, &json!({ "allowed": [] }));
    until(|| stage.get("/shop/").text(), |text| text == "mine");
}
