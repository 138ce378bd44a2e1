//! From the zip that somebody sends to the answer of the backend in it.

use crate::harness::{Stage, get_by};
use dormouse_workers::{
    App, BindingAddress, Bindings, DeployLimits, Environment, PostgresBinding, Refusal, Repository,
    Values,
    bindings::{self, Answer, Purpose},
    deployments::{Deployed, Deployments, Parts, Request, envelope},
    domains::DomainRules,
    modules::Compiler,
    runtime::{RuntimeOptions, Supervisor},
    store::{Source, Store, Vault},
};
use std::{
    io::{self, Cursor, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{io::AsyncReadExt as _, net::UnixListener};
use zip::{ZipWriter, write::SimpleFileOptions};

const MANIFEST: &str =
    r#"{ "bindings": { "hyperdrive": [ { "binding": "DB", "id": "postgres-binding-id" } ] } }"#;

/// One configuration, which `owner/shop` may use.
#[derive(Debug)]
struct OneBinding(PathBuf, Told);

/// What was told of bindings in use, one after the other.
type Told = Arc<Mutex<Vec<(String, Vec<String>)>>>;

impl Bindings for OneBinding {
    fn id_of(&self, binding: &PostgresBinding) -> Result<String, Refusal> {
        match binding.id.as_str() {
            "postgres-binding-id" | "shop" => Ok("postgres-binding-id".to_owned()),
            _ => Err(bindings::unknown(binding)),
        }
    }

    fn address<'a>(
        &'a self,
        binding: &'a PostgresBinding,
        app: &'a App,
        _purpose: Purpose,
    ) -> Answer<'a, Result<BindingAddress, Refusal>> {
        Box::pin(async move {
            if binding.id != "postgres-binding-id" {
                return Err(bindings::unknown(binding));
            }
            if app.repository.to_string() != "owner/shop" {
                return Err(bindings::not_allowed(binding, app));
            }
            Ok(BindingAddress {
                socket: self.0.clone(),
                user: "u".to_owned(),
                password: "p".to_owned(),
                database: "d".to_owned(),
                scheme: "postgres".to_owned(),
                grant: bindings::Grant::default(),
            })
        })
    }

    fn abandoned<'a>(&'a self, _: Vec<BindingAddress>) -> Answer<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    fn bound(&self, app: &App, ids: &[String]) {
        let told = (app.repository.to_string(), ids.to_vec());
        self.1.lock().unwrap().push(told);
    }

    fn undeployed(&self, _app: &App) {}
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

fn deployments(stage: &Stage) -> Deployments {
    telling(stage, Told::default())
}

fn telling(stage: &Stage, told: Told) -> Deployments {
    supervised(stage, Arc::clone(&stage.supervisor), told)
}

fn supervised(stage: &Stage, supervisor: Arc<Supervisor>, told: Told) -> Deployments {
    let folder = stage.folder.path();
    let parts = Parts {
        store: Store::open(folder.join("store"), 10, Arc::new(Open)).unwrap(),
        supervisor: Some(supervisor),
        compiler: Compiler {
            program: env!("CARGO_BIN_EXE_dormouse-workers-child").into(),
            args: vec!["compile".into()],
            deadline: Duration::from_secs(60),
        },
        bindings: Arc::new(OneBinding(socket(folder), told)),
        limits: DeployLimits::default(),
        domains: DomainRules::new(&["*.shop.example".to_owned()], &[]),
    };
    Deployments::open(parts).unwrap()
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("postgres.sock")
}

fn app(repository: &str) -> App {
    App {
        repository: Repository::parse(repository).unwrap(),
        environment: Environment::of_branch("main").unwrap(),
    }
}

fn request(sha: &str, files: &[(&str, &str)]) -> Request {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (path, text) in files {
        zip.start_file(*path, SimpleFileOptions::default()).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    Request {
        app: app("owner/shop"),
        source: Source {
            repository: "Owner/Shop".to_owned(),
            branch: "main".to_owned(),
            commit_sha: sha.to_owned(),
        },
        application: None,
        archive: zip.finish().unwrap().into_inner(),
        vars: Values::default(),
        secrets: Values::default(),
        came_by: vec!["api.shop.example".to_owned()],
    }
}

fn saying(text: &str) -> String {
    format!(
        "export default {{ async fetch(): Promise<Response> {{ return new Response('{text}'); }} }};"
    )
}

async fn answer(deployments: &Deployments) -> String {
    let lease = deployments
        .lease(&app("owner/shop"))
        .await
        .unwrap()
        .unwrap();
    get_by(lease, "/").await.unwrap().1
}

/// The platform's manifest and flags, the layout of its bundles, and a backend that reads from its binding.
#[tokio::test]
async fn the_documented_deployment() {
    let Some(stage) = Stage::new() else { return };
    let deployments = deployments(&stage);
    let backend = "export default { async fetch(_request, env) {\n\
                   const reader = env.DB.connect().readable.getReader(); const { value } = await reader.read();\n\
                   return Response.json({ said: new TextDecoder().decode(value), url: env.DB.connectionString, \
                   region: env.REGION, key: env.KEY }); } };";
    let mut sent = request(
        "abc",
        &[
            ("w7s.json", MANIFEST),
            ("dist/server/index.js", backend),
            (
                "dist/server/wrangler.json",
                "{\n\"compatibility_flags\": [\"nodejs_compat_v2\"]\n}",
            ),
            ("dist/client/app.css", "a{}"),
        ],
    );
    let value = |name: &str, value: &str| [(name.to_owned(), value.to_owned())];
    sent.vars = value("REGION", "eu").into_iter().collect();
    sent.secrets = value("KEY", "s3cret").into_iter().collect();
    let deployed = deployments.deploy(sent, 1_795_311_178_206).await.unwrap();
    let body = envelope(&deployed, Some("http://shop.test/"));
    assert_eq!(body["status"], "success");
    let deployment = &body["data"]["deployment"];
    assert_eq!(deployment["repository"], "Owner/Shop");
    assert_eq!(deployment["environment"], "production");
    assert_eq!(deployment["branch"], "main");
    assert_eq!(deployment["commitSha"], "abc");
    assert_eq!(deployment["deployedAt"], "2026-11-22T01:32:58.206Z");
    assert_eq!(
        deployment["targets"]["worker"]["entrypoint"],
        "dist/server/index.js"
    );
    assert_eq!(deployment["targets"]["static"]["fileCount"], 1);
    assert_eq!(
        deployment["bindings"]["vars"],
        serde_json::json!(["REGION"])
    );
    assert_eq!(
        deployment["bindings"]["secrets"],
        serde_json::json!(["KEY"])
    );
    assert_eq!(
        deployment["bindings"]["hyperdrive"][0]["id"],
        "postgres-binding-id"
    );
    assert!(!body.to_string().contains("s3cret"));

    let listener = UnixListener::bind(socket(stage.folder.path())).unwrap();
    let speak = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"rows")
            .await
            .unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
    };
    let (answer, ()) = tokio::join!(answer(&deployments), speak);
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["said"], "rows");
    assert_eq!(
        (&answer["region"], &answer["key"]),
        (&"eu".into(), &"s3cret".into())
    );
    let url = answer["url"].as_str().unwrap();
    assert!(url.starts_with("postgres://u:p@") && url.ends_with(":5432/d?sslmode=disable"));

    let version = &deployed.version;
    let css = &version.site.as_ref().unwrap()["app.css"];
    assert_eq!(deployments.store().read(version, css).unwrap(), b"a{}");
    deployments.stop().await;
}

/// Acceptance behaviours 11 and 27: what is broken leaves the old one serving, and a server that comes back serves it.
#[tokio::test]
async fn versions_follow_and_come_back() {
    let Some(stage) = Stage::new() else { return };
    let deployments = deployments(&stage);
    let app = app("owner/shop");
    let one = saying("one");
    let send = async |sha: &str, text: &str| {
        let sent = request(sha, &[("backend/index.ts", text), ("w7s.json", "{}")]);
        deployments.deploy(sent, 1).await
    };
    assert!(deployments.lease(&app).await.unwrap().is_none());
    let first = send("a", &one).await.unwrap();
    assert!(first.new);
    assert_eq!(answer(&deployments).await, "one");
    let again: Deployed = send("a", &one).await.unwrap();
    assert!(
        !again.new && again.version.number == 1,
        "the same commit again"
    );

    for (broken, words) in [
        (
            "import postgres from 'postgres'; postgres();",
            "Unsupported import: postgres",
        ),
        (
            "import './nothing';",
            "Could not resolve ./nothing from backend/index.ts.",
        ),
        (
            "const x: = 1;",
            "TypeScript does not compile: backend/index.ts:1:10",
        ),
        ("throw new Error('early');", "Error: early"),
        (
            "export default { other: 1 };",
            "does not export a fetch() function",
        ),
    ] {
        let refused = send("b", broken).await.unwrap_err();
        assert_eq!(refused.status, 400);
        assert!(refused.to_string().contains(words), "{refused}");
    }
    // A parser that reads by recursion does not take the server with it.
    let deep = format!("{}1{}", "(".repeat(1_000_000), ")".repeat(1_000_000));
    let refused = send("b", &deep).await.unwrap_err();
    assert_eq!(refused.status, 400);
    assert!(refused.message.contains("nested"), "{refused}");
    assert_eq!(answer(&deployments).await, "one");
    assert_eq!(deployments.store().history(&app).unwrap().len(), 1);

    send("b", &saying("two")).await.unwrap();
    assert_eq!(answer(&deployments).await, "two");
    deployments.roll_back(&app, 1).await.unwrap();
    assert_eq!(answer(&deployments).await, "one");
    assert_eq!(
        deployments.roll_back(&app, 9).await.unwrap_err().status,
        404
    );
    deployments.stop().await;
    drop(deployments);

    let deployments = self::deployments(&stage);
    assert_eq!(answer(&deployments).await, "one");
    assert_eq!(deployments.current(&app).unwrap().number, 1);
    deployments.delete(&app).await.unwrap();
    assert!(deployments.lease(&app).await.unwrap().is_none());
    assert!(deployments.current(&app).is_none());
}

/// Acceptance behaviour 7, as far as it is this room's: binding and id are named.
#[tokio::test]
async fn bindings_that_are_unknown_or_not_allowed() {
    let Some(stage) = Stage::new() else { return };
    let deployments = deployments(&stage);
    let code = saying("x");
    let manifest = MANIFEST.replace("postgres-binding-id", "other");
    let sent = request("a", &[("w7s.json", &manifest), ("worker/index.ts", &code)]);
    let refused = deployments.deploy(sent, 1).await.unwrap_err();
    assert_eq!(refused.status, 400);
    assert!(
        refused.message.contains("DB") && refused.message.contains("'other'"),
        "{refused}"
    );
    let mut sent = request("a", &[("w7s.json", MANIFEST), ("worker/index.ts", &code)]);
    sent.app = app("someone/else");
    let refused = deployments.deploy(sent, 1).await.unwrap_err();
    assert_eq!(refused.status, 403);
    assert!(refused.message.contains("someone/else"), "{refused}");
    let mut sent = request("a", &[("w7s.json", MANIFEST), ("worker/index.ts", &code)]);
    sent.vars = [("DB".to_owned(), "x".to_owned())].into_iter().collect();
    let refused = deployments.deploy(sent, 1).await.unwrap_err();
    assert_eq!(
        (refused.status, refused.message.contains("DB")),
        (400, true)
    );
}

/// What a name means may change: a version keeps what it has meant.
#[tokio::test]
async fn a_binding_by_its_name_is_kept_by_its_id() {
    let Some(stage) = Stage::new() else { return };
    let told = Told::default();
    let deployments = telling(&stage, Arc::clone(&told));
    let code = saying("x");
    let by = |id: &str| {
        let manifest = MANIFEST.replace("postgres-binding-id", id);
        request("a", &[("w7s.json", &manifest), ("worker/index.ts", &code)])
    };
    let deployed = deployments.deploy(by("shop"), 1).await.unwrap();
    assert_eq!(deployed.version.hyperdrive[0].id, "postgres-binding-id");
    let again = deployments.deploy(by("postgres-binding-id"), 2).await;
    assert!(!again.unwrap().new);
    let told = told.lock().unwrap().clone();
    let ids = vec!["postgres-binding-id".to_owned()];
    assert_eq!(told, [("owner/shop".to_owned(), ids)]);
}

#[tokio::test]
async fn static_files_need_no_runtime_and_end_the_backend_before_them() {
    let Some(stage) = Stage::new() else { return };
    let deployments = deployments(&stage);
    let code = saying("x");
    let both = [("worker/index.ts", code.as_str()), ("out/index.html", "1")];
    deployments.deploy(request("a", &both), 1).await.unwrap();
    assert!(
        deployments
            .lease(&app("owner/shop"))
            .await
            .unwrap()
            .is_some()
    );
    let site = [
        ("out/index.html", "2"),
        ("w7s.json", r#"{"secrets":["KEY"]}"#),
    ];
    let deployed = deployments.deploy(request("b", &site), 1).await.unwrap();
    assert_eq!(deployed.warnings[0].code, "value_missing");
    assert!(
        deployments
            .lease(&app("owner/shop"))
            .await
            .unwrap()
            .is_none()
    );
    assert!(deployed.version.backend.is_none() && deployed.version.site.is_some());
}

/// Whoever has the bindings knows at all times which of them are in use.
#[tokio::test]
async fn bindings_in_use_are_told() {
    let Some(stage) = Stage::new() else { return };
    let told = Told::default();
    let first = telling(&stage, Arc::clone(&told));
    let code = saying("x");
    let with = [("w7s.json", MANIFEST), ("worker/index.ts", code.as_str())];
    first.deploy(request("a", &with), 1).await.unwrap();
    first.deploy(request("b", &with[1..]), 1).await.unwrap();
    first.roll_back(&app("owner/shop"), 1).await.unwrap();
    first.stop().await;
    let second = telling(&stage, Arc::clone(&told));
    second.delete(&app("owner/shop")).await.unwrap();
    let ids: Vec<_> = told
        .lock()
        .unwrap()
        .iter()
        .map(|(_, ids)| ids.len())
        .collect();
    assert_eq!(ids, [1, 0, 1, 1, 0]);
    assert_eq!(told.lock().unwrap()[3].1, ["postgres-binding-id"]);
    telling(&stage, Arc::clone(&told));
    let count = told.lock().unwrap().len();
    assert_eq!(count, 5, "an app that is gone binds nothing");
}

/// A host is that of the app that has asked for it first, if the operator lets apps have it.
#[tokio::test]
async fn hosts_of_their_own() {
    let Some(stage) = Stage::new() else { return };
    let deployments = deployments(&stage);
    let site = |names: &str| request("a", &[("out/index.html", "1"), ("CNAME", names)]);
    let first = site("one.shop.example\nelsewhere.example");
    let first = deployments.deploy(first, 1).await.unwrap();
    assert_eq!(first.version.domains, ["one.shop.example"]);
    assert_eq!(first.blocked[0].hostname, "elsewhere.example");
    assert!(first.blocked[0].reason.contains("workers.domains"));
    let mut second = site("one.shop.example\ntwo.shop.example");
    second.app = app("someone/else");
    let second = deployments.deploy(second, 1).await.unwrap();
    assert_eq!(second.version.domains, ["two.shop.example"]);
    assert_eq!(
        second.blocked[0].current_repository.as_deref(),
        Some("owner/shop")
    );
    let of = |deployments: &Deployments, host: &str| {
        deployments
            .of_host(host)
            .map(|app| app.repository.to_string())
    };
    assert_eq!(
        of(&deployments, "one.shop.example").as_deref(),
        Some("owner/shop")
    );
    drop(deployments);
    let deployments = self::deployments(&stage);
    assert_eq!(
        of(&deployments, "one.shop.example").as_deref(),
        Some("owner/shop")
    );
    assert_eq!(
        of(&deployments, "two.shop.example").as_deref(),
        Some("someone/else")
    );
    deployments.delete(&app("owner/shop")).await.unwrap();
    assert_eq!(of(&deployments, "one.shop.example"), None);
}

/// The name of an application is that of its manifest.
#[tokio::test]
async fn applications_by_name() {
    let Some(stage) = Stage::new() else { return };
    let deployments = deployments(&stage);
    let send = async |named: Option<&str>, manifest: &str| {
        let mut sent = request("a", &[("out/index.html", "1"), ("w7s.json", manifest)]);
        sent.application = named.map(str::to_owned);
        deployments.deploy(sent, 1).await
    };
    send(Some("shop"), r#"{"name":"shop"}"#).await.unwrap();
    send(None, r#"{"name":"shop"}"#).await.unwrap();
    let refused = send(Some("other"), r#"{"name":"shop"}"#).await.unwrap_err();
    assert!(refused.message.contains("'other'") && refused.message.contains("'shop'"));
    send(Some("other"), "{}").await.unwrap_err();
}

/// Who asks for what does not start is told so, and does not start it again each time.
#[tokio::test]
async fn what_does_not_start_is_left_alone_for_a_while() {
    let Some(stage) = Stage::new() else { return };
    let app = app("owner/shop");
    {
        let deployments = deployments(&stage);
        let sent = request("a", &[("backend/index.ts", &saying("one"))]);
        deployments.deploy(sent, 1).await.unwrap();
        deployments.stop().await;
    }
    // A runtime that counts its starts, and ends.
    let starts = stage.folder.path().join("starts");
    let program = stage.folder.path().join("broken");
    let script = format!("#!/bin/sh\necho x >> {}\nexit 1\n", starts.display());
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    let count = || {
        std::fs::read_to_string(&starts)
            .unwrap_or_default()
            .lines()
            .count()
    };
    let broken = |pause: Duration| {
        let folder = stage.folder.path();
        let mut options = RuntimeOptions::new(program.clone(), folder.join("broken-sockets"));
        (options.restart_min, options.restart_max) = (pause, pause);
        let supervisor = Supervisor::new(options).unwrap();
        supervised(&stage, supervisor, Told::default())
    };
    let deployments = broken(Duration::from_secs(600));
    for _ in 0..5 {
        let refused = deployments.lease(&app).await.unwrap_err();
        assert!(refused.message.contains("does not start"), "{refused}");
    }
    assert_eq!(count(), 1);
    // Whoever reads the log of a backend that never ran hears why.
    let log = deployments.log(&app).unwrap();
    let said = log.after(0, usize::MAX);
    assert_eq!((said.len(), said[0].version), (1, 1));
    assert!(
        said[0].text.contains("version 1 does not start: "),
        "{said:?}"
    );
    drop(deployments);
    // Later it is tried again.
    let deployments = broken(Duration::ZERO);
    for _ in 0..3 {
        deployments.lease(&app).await.unwrap_err();
    }
    assert_eq!(count(), 4);
}

/// Who comes back to a version with a host that another app has by now does not get it, also after a restart.
#[tokio::test]
async fn a_host_that_another_app_was_given_stays_its_own() {
    let Some(stage) = Stage::new() else { return };
    let (shop, zoo) = (app("owner/shop"), app("owner/zoo"));
    let host = "a.shop.example";
    let deployments = deployments(&stage);
    let send = async |app: &App, at_ms: u64, files: &[(&str, &str)]| {
        let mut sent = request(&at_ms.to_string(), files);
        sent.app = app.clone();
        deployments.deploy(sent, at_ms).await.unwrap()
    };
    let (page, name) = (("out/index.html", "x"), ("CNAME", host));
    send(&shop, 1, &[page, name]).await;
    assert_eq!(deployments.of_host(host), Some(shop.clone()));
    assert_eq!(send(&zoo, 2, &[page, name]).await.blocked.len(), 1);
    send(&shop, 3, &[page]).await;
    assert!(send(&zoo, 4, &[page, name]).await.blocked.is_empty());
    deployments.roll_back(&shop, 1).await.unwrap();
    assert_eq!(deployments.of_host(host), Some(zoo.clone()));
    drop(deployments);
    let deployments = self::deployments(&stage);
    assert_eq!(deployments.of_host(host), Some(zoo));
}
