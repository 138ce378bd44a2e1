//! What a version is given of its bindings, and for how long.

use serde_json::{Value, json};

use super::{archive, bind};
use crate::apps::stage::{Archive, Stage, saying};
use crate::harness::{Login, Server, has_psql, until};

/// A backend that tells its credentials.
const TELLS: &str = "export default { async fetch(request, env) { if (request.method === 'POST') { \
                     console.log('begun'); await request.text(); } \
                     return Response.json([env.DB?.user, env.DB?.password]); } };";

/// A server whose bindings' socket is in a folder that is known.
fn start() -> Option<(Stage, tempfile::TempDir)> {
    let folder = tempfile::tempdir().unwrap();
    let path = sockets(&folder);
    let settings = [
        ("DORMOUSE_BINDINGS__SOCKET_DIRECTORY", path.as_str()),
        // Nobody is cut off here.
        ("DORMOUSE_WORKERS__DRAIN_MS_MAX", "600000"),
    ];
    let stage = has_psql().then(|| Stage::start_with(&settings)).flatten()?;
    stage.server.sql("own", "select 1");
    Some((stage, folder))
}

/// The folder of the bindings' socket, which the server makes.
fn sockets(folder: &tempfile::TempDir) -> String {
    format!("{}/s", folder.path().display())
}

/// A user and a password, at the bindings' socket.
struct Credential {
    user: String,
    password: String,
    more: String,
}

impl Credential {
    fn of(told: &Value, folder: &tempfile::TempDir) -> Self {
        let text = |at: usize| told[at].as_str().unwrap().to_owned();
        let folder = sockets(folder);
        Self {
            user: text(0),
            password: text(1),
            more: format!("host={folder} hostaddr='' port=5432"),
        }
    }

    fn login<'a>(&'a self, server: &'a Server) -> Login<'a> {
        Login::new(server, &self.user, &self.password).with(&self.more)
    }

    fn is_good(&self, server: &Server) -> bool {
        self.login(server).run("select 1").code == Some(0)
    }

    /// A process that has no requests any more ends soon.
    #[track_caller]
    fn ends(&self, server: &Server) {
        until(|| self.is_good(server), |good| !good);
        let said = self.login(server).is_refused();
        assert!(said.contains("password authentication failed"), "{said}");
    }
}

#[test]
fn a_credential_ends_with_the_version_that_bound_it() {
    let Some((stage, folder)) = start() else {
        return;
    };
    let server = &stage.server;
    let id = bind(&stage, &json!({ "name": "own", "database": "own" }));
    let told = || Credential::of(&stage.get("/shop/").json(), &folder);
    let deploy = |archive: &Archive| stage.deploy("acme/shop", archive);

    deploy(&archive(&id, TELLS));
    let first = told();
    assert_eq!(
        first.login(server).gives("select current_database()"),
        "own"
    );
    deploy(&archive(&id, &format!("{TELLS}\n")));
    let second = told();
    assert!(first.user != second.user && second.is_good(server));
    first.ends(server);

    // A request that has begun goes on with what it has.
    let mut http = stage.http();
    http.send("POST /shop/ HTTP/1.1\r\nhost: acme.apps.localhost\r\ncontent-length: 1\r\n\r\n");
    let begun = || stage.api("/api/v1/logs/acme/shop").text();
    stage.until(begun, |logs| logs.contains("begun"));
    let without = Archive::of(&[("dist/server/index.js", TELLS)]);
    deploy(&without);
    assert_eq!(stage.get("/shop/").json(), json!([null, null]));
    assert!(second.is_good(server));
    assert_eq!(stage.api("/v1/bindings/own").json()["usedBy"], json!([]));
    let path = "/v1/bindings/own";
    assert_eq!(stage.ask("DELETE", path, None).status, 409);
    http.send("x");
    assert_eq!(http.response().json()[0], second.user);
    second.ends(server);

    // Back to one that binds it, and to one that does not.
    let back = |version: u64| {
        let wanted = json!({ "version": version }).to_string();
        let path = "/api/v1/deployments/acme/shop/rollback";
        assert_eq!(stage.ask("POST", path, Some(&wanted)).status, 200);
    };
    back(1);
    let third = told();
    assert!(third.is_good(server) && third.user != first.user);
    back(3);
    third.ends(server);
    until(
        || stage.ask("DELETE", path, None).status,
        |status| *status == 204,
    );
}

#[test]
fn a_deployment_that_fails_leaves_nothing() {
    let Some(stage) = Stage::start() else { return };
    let id = bind(&stage, &json!({ "name": "apps", "databasePerApp": {} }));
    let databases = || {
        let names = stage.api("/v1/databases").json();
        let names = names["databases"].as_array().unwrap().iter();
        let own = names.filter(|one| one["name"].as_str().unwrap().starts_with("app-"));
        own.count()
    };
    let refused = |query: &str, archive: &Archive| {
        let refused = stage.deploy_with("acme/shop", query, &[], archive);
        assert_eq!(refused.status, 400, "{}", refused.text());
    };
    let broken = archive(&id, "throw new Error('early');");
    refused("", &broken);
    refused("?environment=dev", &broken);
    // The first binding is there, the second is not.
    let manifest = json!({ "bindings": { "hyperdrive": [
        { "binding": "DB", "id": id }, { "binding": "OTHER", "id": "none" },
    ] } });
    let half = Archive::of(&[
        ("w7s.json", &manifest.to_string()),
        ("dist/server/index.js", TELLS),
    ]);
    refused("", &half);
    assert_eq!(databases(), 0);
    // What one that works has made stays when a later one fails, and when it does not bind it any more.
    stage.deploy("acme/shop", &archive(&id, TELLS));
    assert_eq!(databases(), 1);
    refused("", &broken);
    refused("?environment=dev", &broken);
    assert_eq!(databases(), 1);
    stage.deploy(
        "acme/shop",
        &Archive::of(&[("dist/server/index.js", TELLS)]),
    );
    refused("", &broken);
    assert_eq!(databases(), 1);
    // No credential keeps the binding.
    until(
        || stage.ask("DELETE", "/v1/bindings/apps", None).status,
        |status| *status == 204,
    );
}

#[test]
fn a_binding_that_a_deployment_is_about_to_bind_stays() {
    let Some(stage) = Stage::start() else { return };
    stage.server.sql("own", "select 1");
    let id = bind(&stage, &json!({ "name": "own", "database": "own" }));
    // It takes its time to start.
    let slow = format!(
        "let sum = 0; for (let i = 0; i < 1e9; i += 1) sum += i; globalThis.sum = sum;\n{}",
        saying("bound")
    );
    let slow = archive(&id, &slow);
    std::thread::scope(|scope| {
        let deploying = scope.spawn(|| stage.deploy_with("acme/shop", "", &[], &slow));
        until(|| stage.backends(), |processes| !processes.is_empty());
        let refused = stage.ask("DELETE", "/v1/bindings/own", None);
        assert_eq!(refused.status, 409, "{}", refused.text());
        assert!(refused.text().contains("acme/shop"), "{}", refused.text());
        let deployed = deploying.join().unwrap();
        assert_eq!(deployed.status, 200, "{}", deployed.text());
    });
    assert_eq!(stage.get("/shop/").text(), "bound");
    assert_eq!(stage.ask("DELETE", "/v1/bindings/own", None).status, 409);
}
