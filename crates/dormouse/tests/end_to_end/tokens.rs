//! Static tokens, passwords over HTTP, and what stands around them: TLS, CORS, limits, the audit log.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::audit::deeds;
use crate::harness::{
    ADMIN, Authority, Login, Output, Response, SCRAM, Server, dormouse, has_psql, run_program,
    until,
};

/// The command line with a file of tokens.
fn token(file: &Path, args: &[&str]) -> Output {
    let mut command = dormouse();
    command.arg("token").args(args);
    run_program(command.env("DORMOUSE_AUTH__TOKENS_FILE", file))
}

fn create(file: &Path, args: &[&str]) -> String {
    let args = [&["create"], args].concat();
    token(file, &args).done().trim_end().to_owned()
}

fn ask(server: &Server, method: &str, path: &str, token: &str, body: Option<Value>) -> Response {
    let bearer = format!("Bearer {token}");
    let body = body.map(|body| body.to_string());
    server
        .http()
        .request_with(method, path, &[("authorization", &bearer)], body.as_deref())
}

fn query(server: &Server, database: &str, token: &str) -> u16 {
    let path = format!("/v1/databases/{database}/query");
    ask(
        server,
        "POST",
        &path,
        token,
        Some(json!({"sql": "select 1"})),
    )
    .status
}

#[test]
fn tokens_are_made_used_and_revoked_while_the_server_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    let audit = folder.path().join("audit");
    let admin = create(&file, &["--name", "root", "--scope", "admin"]);
    let server = Server::start_with(&[
        ("DORMOUSE_AUTH__TOKENS_FILE", file.to_str().unwrap()),
        ("DORMOUSE_AUDIT__FILE", audit.to_str().unwrap()),
        ("DORMOUSE_LOG", "debug"),
    ]);
    assert_eq!(server.http().query("shop", "select 1").status, 401);
    assert_eq!(server.http().get("/health").status, 200);
    assert_eq!(query(&server, "shop", &admin), 200);

    // One of the command line, which the server finds by itself.
    let args = [
        "--name",
        "shop's",
        "--scope",
        "write",
        "--database",
        "shop",
        "--role",
        "postgres",
        "--expires",
        "30d",
    ];
    let shop = create(&file, &args);
    until(|| query(&server, "shop", &shop), |status| *status == 200);
    assert_eq!(query(&server, "other", &shop), 403);
    assert_eq!(
        ask(&server, "GET", "/v1/databases", &shop, None).status,
        403
    );
    assert_eq!(ask(&server, "GET", "/v1/tokens", &shop, None).status, 403);
    assert_eq!(ask(&server, "GET", "/metrics", &shop, None).status, 403);
    assert_eq!(ask(&server, "GET", "/metrics", &admin, None).status, 200);
    assert_eq!(ask(&server, "GET", "/v1/figures", &shop, None).status, 403);
    assert_eq!(ask(&server, "GET", "/v1/figures", &admin, None).status, 200);
    for (database, status) in [("shop", 200), ("other", 403)] {
        let figures = format!("/v1/databases/{database}/figures");
        assert_eq!(ask(&server, "GET", &figures, &shop, None).status, status);
    }
    let mut damaged = shop.clone();
    damaged.pop();
    assert_eq!(query(&server, "shop", &damaged), 401);

    // One of the server.
    let new = json!({"name": "made here", "scope": "admin", "database": "shop"});
    let made = ask(&server, "POST", "/v1/tokens", &admin, Some(new.clone()));
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(made.header("cache-control"), Some("no-store"));
    let (id, other) = (made.json()["id"].clone(), made.json()["token"].clone());
    let (id, other) = (id.as_str().unwrap(), other.as_str().unwrap());
    assert_eq!(query(&server, "shop", other), 200);
    assert_eq!(
        ask(&server, "POST", "/v1/tokens", &admin, Some(new)).status,
        409
    );
    let listed = ask(&server, "GET", "/v1/tokens", &admin, None);
    assert_eq!(listed.json()["tokens"].as_array().unwrap().len(), 3);
    assert!(!listed.text().contains("dm_"), "{}", listed.text());
    let path = format!("/v1/tokens/{id}");
    assert_eq!(ask(&server, "DELETE", &path, &admin, None).status, 204);
    assert_eq!(ask(&server, "DELETE", &path, &admin, None).status, 404);
    assert_eq!(query(&server, "shop", other), 401);

    token(&file, &["revoke", "shop's"]).done();
    until(|| query(&server, "shop", &shop), |status| *status == 401);

    let lines = deeds(&audit);
    let audit = std::fs::read_to_string(&audit).unwrap();
    let deeds: Vec<_> = lines
        .iter()
        .map(|line| (&line["who"], &line["action"], &line["outcome"]))
        .collect();
    assert_eq!(
        json!(deeds),
        json!([
            ["root", "database.create", "ok"],
            ["root", "token.create", "ok"],
            ["root", "token.create", "42710"],
            ["root", "token.revoke", "ok"],
            ["root", "token.revoke", "42704"],
        ])
    );
    let kept = std::fs::read_to_string(&file).unwrap();
    for text in [&server.log(), &audit, &kept] {
        for secret in [&*admin, &shop, other] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[test]
fn the_command_line_shows_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    let admin = create(&file, &["--name", "root", "--scope", "admin"]);
    let kept = folder.path().join("admin-token");
    std::fs::write(&kept, format!("{admin}\n")).unwrap();
    let settings = [("DORMOUSE_AUTH__TOKENS_FILE", file.to_str().unwrap())];
    let server = Server::start_with(&settings);
    let url = format!("http://{}", server.http);
    let run = |args: &[&str], token: Option<&str>| {
        let mut command = dormouse();
        command.args(args).args(["--server", &url]);
        command.envs(token.map(|token| ("DORMOUSE_TOKEN", token)));
        run_program(&mut command)
    };
    let said = run(&["db", "list"], None).failed(1);
    assert!(said.contains("docs/auth.md"), "{said}");
    run(&["db", "create", "shop"], Some(&admin)).done();
    run(&["sql", "shop", "select 1"], Some(&admin)).done();
    let listed = run(
        &["token", "list", "--token-file", kept.to_str().unwrap()],
        None,
    )
    .done();
    assert!(
        listed.contains("root") && listed.contains("admin"),
        "{listed}"
    );
    let args = [
        "token", "create", "--name", "ci", "--scope", "read", "--json",
    ];
    let made: Value = serde_json::from_str(&run(&args, Some(&admin)).done()).unwrap();
    assert_eq!(made["scope"], "read");
    run(&["token", "revoke", "ci"], Some(&admin)).done();
    let said = run(&["token", "revoke", "ci"], Some(&admin)).failed(1);
    assert!(said.contains("no token"), "{said}");
    let said = run_program(dormouse().args(["token", "list"])).failed(2);
    assert!(said.contains("auth.tokens_file"), "{said}");
}

#[test]
fn passwords_come_in_over_http_too() {
    if !has_psql() {
        return;
    }
    let rounds = [("DORMOUSE_AUTH__SCRAM_ITERATIONS_MAX", "5000")];
    let server = Server::start_with(&[&SCRAM[..], &rounds].concat());
    Login::admin(&server)
        .gives("create role app login password 'first'; create role shut nologin password 'first'");
    Login::admin(&server)
        .gives("set scram_iterations = 5001; create role slow login password 'first'");
    let status = |database: &str, user: &str, password: &str| {
        let basic = STANDARD.encode(format!("{user}:{password}"));
        let headers = [("authorization", &*format!("Basic {basic}"))];
        let path = format!("/v1/databases/{database}/query");
        let body = json!({"sql": "select session_user::text as who"}).to_string();
        let response = server
            .http()
            .request_with("POST", &path, &headers, Some(&body));
        if response.status == 200 {
            assert_eq!(response.json()["rows"][0]["who"], user);
        }
        response.status
    };
    assert_eq!(status("shop", "postgres", ADMIN), 200);
    assert_eq!(status("new", "postgres", ADMIN), 200);
    assert_eq!(status("shop", "postgres", "first"), 401);
    for _ in 0..2 {
        assert_eq!(status("shop", "app", "first"), 200);
    }
    assert_eq!(status("shop", "app", ADMIN), 401);
    assert_eq!(status("new", "app", "first"), 401);
    assert_eq!(status("nowhere", "app", "first"), 401);
    assert_eq!(status("shop", "shut", "first"), 403);
    assert_eq!(status("shop", "slow", "first"), 401);
    assert!(server.log().contains("auth.scram_iterations_max, 5000"));
    Login::admin(&server).gives("alter role app password 'second'");
    assert_eq!(status("shop", "app", "first"), 401);
    assert_eq!(status("shop", "app", "second"), 200);
    let nobody = server.http().query("shop", "select 1");
    assert_eq!(nobody.status, 401);
    let log = server.log();
    assert!(!log.contains(ADMIN) && !log.contains("second"), "{log}");
}

#[test]
fn http_over_tls_and_a_new_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "root");
    let files = authority.issue(folder.path(), "server", "localhost");
    let file = folder.path().join("tokens");
    let admin = create(&file, &["--name", "root", "--scope", "admin"]);
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let server = Server::start_in(
        folder.path(),
        &[
            ("DORMOUSE_TLS__CERTIFICATE", &path(&files.certificate)),
            ("DORMOUSE_TLS__KEY", &path(&files.key)),
            ("DORMOUSE_HTTP__TLS", "require"),
            ("DORMOUSE_AUTH__TOKENS_FILE", &path(&file)),
        ],
    );
    let run = |ca: &Path| {
        let url = format!("https://localhost:{}", server.http.port());
        let mut command = dormouse();
        command.args([
            "sql",
            "shop",
            "select 1 as one",
            "--json",
            "--server",
            &url,
            "--ca",
        ]);
        run_program(command.arg(ca).env("DORMOUSE_TOKEN", &admin))
    };
    assert!(run(&authority.root).done().contains("\"one\":1"));
    let stranger = Authority::new(folder.path(), "stranger");
    run(&stranger.root).failed(3);
    stranger.issue(folder.path(), "server", "localhost");
    server.signal(rustix::process::Signal::HUP);
    until(|| run(&stranger.root).code, |code| *code == Some(0));
    run(&authority.root).failed(3);
}

#[test]
fn foreign_hosts_and_origins() {
    let server = Server::start_with(&[("DORMOUSE_HTTP__CORS__ORIGINS", "https://app.example")]);
    let host = |host: &str| {
        let headers = [("host", host)];
        server
            .http()
            .request_with("GET", "/v1/databases", &headers, None)
            .status
    };
    assert_eq!(host("localhost:7433"), 200);
    assert_eq!(host("127.0.0.1"), 200);
    assert_eq!(host("rebound.example"), 421);
    let trusting = Server::start_with(&[("DORMOUSE_SERVER__INSECURE_LISTEN", "true")]);
    let headers = [("host", "dormouse")];
    let answer = trusting
        .http()
        .request_with("GET", "/v1/databases", &headers, None);
    assert_eq!(answer.status, 200);
    let preflight = |origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            (
                "access-control-request-headers",
                "authorization,content-type",
            ),
        ];
        let response =
            server
                .http()
                .request_with("OPTIONS", "/v1/databases/shop/query", &headers, None);
        response
            .header("access-control-allow-origin")
            .map(str::to_owned)
    };
    assert_eq!(
        preflight("https://app.example").as_deref(),
        Some("https://app.example")
    );
    assert_eq!(preflight("https://evil.example"), None);
}

#[test]
fn foreign_pages_make_and_change_nothing() {
    let server = Server::start_with(&[("DORMOUSE_HTTP__CORS__ORIGINS", "https://app.example")]);
    let mut http = server.http();
    for path in ["liveness", "schema", "health", "config", "readiness"] {
        let answer = http.get(&format!("/v1/databases/made/{path}"));
        assert_eq!(answer.error(404).0, "3D000", "{path}");
    }
    server.sql("shop", "create table t (n int)");
    let begun = http.post("/v1/databases/shop/transactions", &json!({}));
    let commit = format!("{}/commit", begun.header("location").unwrap());
    let query = json!({ "sql": "drop table t" }).to_string();
    let mut from = |method: &str, path: &str, (name, value): (&str, &str), body: Option<&str>| {
        let answer = http.request_with(method, path, &[(name, value)], body);
        if answer.status == 403 {
            let message = answer.error(403).1;
            assert!(
                message.contains("nobody is asked who they are"),
                "{message}"
            );
        }
        answer.status
    };
    let path = "/v1/databases/shop/query";
    for foreign in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
    ] {
        assert_eq!(from("POST", path, foreign, Some(&query)), 403);
        assert_eq!(from("POST", &commit, foreign, None), 403);
        assert_eq!(from("DELETE", "/v1/databases/shop", foreign, None), 403);
        assert_eq!(from("POST", "/v1/databases/shop/flush", foreign, None), 403);
    }
    let app = ("origin", "https://app.example");
    assert_eq!(from("POST", path, app, Some(&query)), 200);
    assert_eq!(from("POST", &commit, ("sec-fetch-site", "none"), None), 204);
    // Where tokens are asked for, they decide.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    let token = create(&file, &["--name", "root", "--scope", "admin"]);
    let server = Server::start_with(&[("DORMOUSE_AUTH__TOKENS_FILE", file.to_str().unwrap())]);
    let bearer = format!("Bearer {token}");
    let headers = [
        ("origin", "https://evil.example"),
        ("authorization", bearer.as_str()),
    ];
    let create = json!({ "name": "shop" }).to_string();
    let made = server
        .http()
        .request_with("POST", "/v1/databases", &headers, Some(&create));
    assert_eq!(made.status, 201, "{}", made.text());
}

#[test]
fn too_many_requests() {
    let server = Server::start_with(&[
        ("DORMOUSE_LIMITS__DATABASE_REQUESTS_PER_SECOND", "1"),
        ("DORMOUSE_LIMITS__REQUESTS_BURST", "2"),
    ]);
    let mut http = server.http();
    let mut refused = None;
    for _ in 0..100 {
        let response = http.query("shop", "select 1");
        if response.status != 200 {
            refused = Some(response);
            break;
        }
    }
    let refused = refused.unwrap();
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("retry-after"), Some("1"));
    let (code, message) = refused.error(429);
    assert_eq!(code, "53400");
    assert!(
        message.contains("limits.database_requests_per_second"),
        "{message}"
    );
    assert_eq!(http.get("/ping").status, 200);
}
