//! Deployed backends with a binding: the document's own, and the drivers of the field, over an external Postgres and over a
//! database of ours.

pub(crate) mod backends;
mod grants;
mod names;
mod prisma;

use serde_json::{Value, json};

use crate::apps::stage::{Archive, Stage};
use crate::harness::{Origin, SECRET, until};

use backends::{DOCUMENTED, FLAGS, SUITE, bundled, manifest};

/// Deploys a backend that was bundled, with `DB` bound to a binding.
fn deploy(stage: &Stage, repository: &str, query: &str, id: &str, code: &str) -> Value {
    let archive = archive(id, code);
    let answer = stage.deploy_with(repository, query, &[], &archive);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn archive(id: &str, code: &str) -> Archive {
    Archive::of(&[
        ("w7s.json", &manifest(id)),
        ("dist/server/index.js", code),
        ("dist/server/wrangler.json", FLAGS),
    ])
}

fn bind(stage: &Stage, new: &Value) -> String {
    let made = stage.server.http().post("/v1/bindings", new);
    assert_eq!(made.status, 201, "{}", made.text());
    made.json()["id"].as_str().unwrap().to_owned()
}

/// An external Postgres through its pool, and a database of ours, as bindings.
fn both() -> Option<(Stage, Origin, [String; 2])> {
    let stage = Stage::start()?;
    let origin = Origin::start()?;
    stage.server.sql("own", "select 1");
    let external = json!({ "name": "external", "connectionString": origin.url() });
    let own = json!({ "name": "own", "database": "own" });
    let ids = [bind(&stage, &external), bind(&stage, &own)];
    Some((stage, origin, ids))
}

/// Behaviour 10: manifest, backend and flags as the document prints them.
#[test]
fn the_documented_backend() {
    let Some((stage, _origin, ids)) = both() else {
        return;
    };
    let code = bundled(
        DOCUMENTED,
        &["--conditions=workerd,worker,browser", "--external:node:*"],
    );
    for (id, repository) in ids.iter().zip(["acme/external", "acme/own"]) {
        let deployed = deploy(&stage, repository, "", id, &code);
        let binding = &deployed["data"]["deployment"]["bindings"]["hyperdrive"][0];
        assert_eq!(*binding, json!({ "binding": "DB", "id": id }));
        let path = repository.replace("acme", "");
        for _ in 0..3 {
            let answer = stage.get(&format!("{path}/"));
            assert_eq!(answer.status, 200, "{}", answer.text());
            let now = answer.json()["now"].as_str().unwrap().to_owned();
            assert!(now.starts_with("20") && now.ends_with('Z'), "{now}");
        }
    }
}

/// Behaviours 14, 15 and 20: what `env.DB` is, and drivers that find it.
#[test]
fn drivers_through_the_binding() {
    let Some((stage, origin, ids)) = both() else {
        return;
    };
    let code = bundled(
        SUITE,
        &[
            "--platform=node",
            "--conditions=workerd",
            "--banner:js=import{createRequire}from\"node:module\";const require=createRequire(\"file:///worker.js\");",
        ],
    );
    for (id, repository) in ids.iter().zip(["acme/external", "acme/own"]) {
        deploy(&stage, repository, "", id, &code);
        let path = repository.replace("acme", "");
        for case in [
            "members",
            "postgres.js",
            "postgres.js-unprepared",
            "postgres.js-untyped",
            "pg-client",
            "pg-pool",
            "drizzle-postgres.js",
            "drizzle-node-postgres",
            "kysely",
            "copy",
            "cursor",
            "abandoned",
        ] {
            let answer = stage.get(&format!("{path}/{case}"));
            let (status, said) = (answer.status, answer.text());
            assert_eq!((status, &*said), (200, "\"passed\""), "{repository} {case}");
        }
    }
    // The origin's own password and address are nowhere in the backend.
    let env = stage.get("/external/env").text();
    let port = origin.native.address.port().to_string();
    assert!(!env.contains(SECRET) && !env.contains(&port), "{env}");
    // Behaviour 18: what was left open amid a transaction is gone.
    let open = "select count(*) from pg_stat_activity where state like 'idle in transaction%'";
    let user = crate::harness::User::of(&stage.server, "external");
    if crate::harness::has_psql() {
        until(
            || user.login(&stage.server).gives(open),
            |count| count == "0",
        );
    }
}

/// Behaviours 2 and 7: bindings that are not there, not allowed, or in use.
#[test]
fn who_may_bind_what() {
    let Some((stage, _origin, [external, _])) = both() else {
        return;
    };
    let code = super::apps::stage::saying("bound");
    let refused = stage.deploy_with("acme/shop", "", &[], &archive("postgres-binding-id", &code));
    assert_eq!(refused.status, 400, "{}", refused.text());
    let only = json!({ "allowed": [{ "repository": "acme/shop", "environment": "production" }] });
    let path = format!("/v1/bindings/{external}");
    let changed = stage.ask("PATCH", &path, Some(&only.to_string()));
    assert_eq!(changed.status, 200, "{}", changed.text());
    for (repository, query) in [("acme/other", ""), ("acme/shop", "?environment=dev")] {
        let refused = stage.deploy_with(repository, query, &[], &archive(&external, &code));
        assert_eq!(refused.status, 403, "{}", refused.text());
        assert!(refused.text().contains(&external), "{}", refused.text());
    }
    deploy(&stage, "acme/shop", "", &external, &code);
    assert_eq!(stage.get("/shop/").text(), "bound");
    let refused = stage.ask("DELETE", &path, None);
    assert_eq!(refused.status, 409);
    assert!(refused.text().contains("acme/shop"), "{}", refused.text());
    assert_eq!(
        stage
            .ask("DELETE", "/api/v1/deployments/acme/shop", None)
            .status,
        200
    );
    assert_eq!(stage.ask("DELETE", &path, None).status, 204);
}

/// The documented backend, over a database of ours: the id of its binding, `own`.
fn deploy_to_own(stage: &Stage) -> String {
    stage.server.sql("own", "select 1");
    let id = bind(stage, &json!({ "name": "own", "database": "own" }));
    let code = bundled(
        DOCUMENTED,
        &["--conditions=workerd,worker,browser", "--external:node:*"],
    );
    deploy(stage, "acme/shop", "", &id, &code);
    id
}

/// A binding in use is known again after a restart, before its app is asked for.
#[test]
fn who_uses_a_binding_is_known_after_a_kill() {
    let Some(stage) = Stage::start() else { return };
    deploy_to_own(&stage);
    let Stage { server, folder, .. } = stage;
    drop(server);
    let Some(stage) = Stage::start_in(folder, &[]) else {
        return;
    };
    let shown = stage.api("/v1/bindings/own").json();
    assert_eq!(shown["usedBy"], json!(["acme/shop (production)"]));
    assert_eq!(stage.ask("DELETE", "/v1/bindings/own", None).status, 409);
    // Its credentials are new ones, and its backend finds them.
    let answer = stage.get("/shop/");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// What serves goes on when its binding is for others from now on, also after a restart: only deployments are refused.
#[test]
fn what_was_allowed_once_starts_again() {
    let Some(stage) = Stage::start() else { return };
    let id = deploy_to_own(&stage);
    let others = json!({ "allowed": [{ "repository": "acme/other" }] });
    let path = format!("/v1/bindings/{id}");
    let changed = stage.ask("PATCH", &path, Some(&others.to_string()));
    assert_eq!(changed.status, 200, "{}", changed.text());
    let Stage { server, folder, .. } = stage;
    drop(server);
    let Some(stage) = Stage::start_in(folder, &[]) else {
        return;
    };
    let answer = stage.get("/shop/");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let refused = stage.deploy_with("acme/shop", "", &[], &archive(&id, "export default {};"));
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert_eq!(stage.get("/shop/").status, 200);
}

/// A database for each application and environment; previews begin as production is.
#[test]
fn previews_have_a_fork_of_productions_database() {
    let Some(stage) = Stage::start() else { return };
    let id = bind(&stage, &json!({ "name": "apps", "databasePerApp": {} }));
    let code = bundled(
        r#"import postgres from "postgres";
        export default { async fetch(request: Request, env: { DB: { connectionString: string } }) {
            const sql = postgres(env.DB.connectionString);
            const text = decodeURIComponent(new URL(request.url).search.slice(1));
            return Response.json(await sql.unsafe(text));
        } };"#,
        &["--conditions=workerd,worker,browser", "--external:node:*"],
    );
    let ask = |host: &str, path: &str, sql: &str| {
        let query: String = sql.replace(' ', "%20");
        let answer = stage.get_at(host, &format!("{path}?{query}"));
        assert_eq!(answer.status, 200, "{sql}: {}", answer.text());
        answer.json()
    };
    let (main, dev) = ("acme.apps.localhost", "dev--acme.apps.localhost");
    deploy(&stage, "acme/shop", "", &id, &code);
    ask(main, "/shop/", "create table fruit as select 'fig' as name");
    deploy(&stage, "acme/shop", "?environment=dev", &id, &code);
    assert_eq!(
        ask(dev, "/shop/", "select name from fruit"),
        json!([{ "name": "fig" }])
    );
    ask(dev, "/shop/", "insert into fruit values ('kiwi')");
    assert_eq!(
        ask(main, "/shop/", "select name from fruit"),
        json!([{ "name": "fig" }])
    );
    // Another application has another one.
    deploy(&stage, "acme/other", "", &id, &code);
    assert_eq!(
        ask(main, "/other/", "select to_regclass('fruit') as t"),
        json!([{ "t": null }])
    );
    let names = stage.api("/v1/databases").json();
    let names = names["databases"].as_array().unwrap();
    let names: Vec<_> = names
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names
            .iter()
            .filter(|name| name.starts_with("app-acme-"))
            .count(),
        3,
        "{names:?}"
    );
}
