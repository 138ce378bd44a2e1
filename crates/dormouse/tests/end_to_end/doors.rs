//! What stands before every door: which request is for whom, who is asked, and what counts.

use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use tungstenite::Message;
use tungstenite::client::IntoClientRequest as _;
use wire::pg::startup::Startup;

use crate::harness::{
    ADMIN, Authority, Client, Http, Response, SCRAM, Server, dormouse, run_program, until,
};

fn create(file: &Path, args: &[&str]) -> String {
    let mut command = dormouse();
    command.args(["token", "create"]).args(args);
    let made = run_program(command.env("DORMOUSE_AUTH__TOKENS_FILE", file));
    made.done().trim_end().to_owned()
}

fn ask(server: &Server, token: &str, method: &str, path: &str, body: Option<Value>) -> Response {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", &*bearer)];
    let body = body.map(|body| body.to_string());
    let mut http = server.http();
    http.request_with(method, path, &headers, body.as_deref())
}

fn query(server: &Server, token: &str, database: &str) -> Response {
    let path = format!("/v1/databases/{database}/query");
    ask(
        server,
        token,
        "POST",
        &path,
        Some(json!({"sql": "select 1"})),
    )
}

/// `POST /sql` with a connection string.
fn neon(server: &Server, string: &str, query: &str) -> Response {
    let headers = [("neon-connection-string", string)];
    let body = json!({ "query": query }).to_string();
    server
        .http()
        .request_with("POST", "/sql", &headers, Some(&body))
}

/// The tokens `shop` and `other`, each the administrator of the database of its name, and `root`.
struct Tenants {
    server: Server,
    _folder: tempfile::TempDir,
    root: String,
    shop: String,
    other: String,
}

impl Tenants {
    fn start(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens");
        let of = |name| {
            create(
                &file,
                &["--name", name, "--scope", "admin", "--database", name],
            )
        };
        let (shop, other) = (of("shop"), of("other"));
        let root = create(&file, &["--name", "root", "--scope", "admin"]);
        let tokens = [("DORMOUSE_AUTH__TOKENS_FILE", file.to_str().unwrap())];
        let server = Server::start_with(&[&tokens, settings].concat());
        Self {
            server,
            _folder: folder,
            root,
            shop,
            other,
        }
    }
}

#[test]
fn a_rate_is_used_up_by_none_but_its_own() {
    let tenants = Tenants::start(&[
        ("DORMOUSE_LIMITS__DATABASE_REQUESTS_PER_SECOND", "1"),
        ("DORMOUSE_LIMITS__REQUESTS_BURST", "2"),
    ]);
    for _ in 0..10 {
        assert_eq!(query(&tenants.server, &tenants.shop, "other").status, 403);
    }
    assert_eq!(query(&tenants.server, &tenants.other, "other").status, 200);
}

#[test]
fn every_door_counts() {
    let limits = [
        ("DORMOUSE_LIMITS__DATABASE_REQUESTS_PER_SECOND", "1"),
        ("DORMOUSE_LIMITS__REQUESTS_BURST", "3"),
    ];
    let server = Server::start_with(&limits);
    let neon = |_| neon(&server, "postgres://postgres@h/shop", "select 1").status;
    assert!((0..50).map(neon).any(|status| status == 429));

    let mut client = Client::open(&server, "socket");
    let codes: Vec<Value> = (0..50)
        .map(|id| client.ask(&json!({"id": id, "sql": "select 1"}))["error"]["code"].clone())
        .collect();
    assert!(codes.contains(&json!("53400")), "{codes:?}");
    assert!(codes.contains(&Value::Null), "{codes:?}");

    let server = Server::start_with(&[("DORMOUSE_LIMITS__DATABASE_CONCURRENCY_MAX", "1")]);
    let mut client = Client::open(&server, "shop");
    assert_eq!(client.ask(&json!({"id": 1, "begin": {}}))["transaction"], 1);
    let mut id = 1;
    let status = || {
        // One may be turned away for the request before.
        id += 1;
        client.send(&json!({"id": id, "transaction": 1, "sql": "select pg_sleep(600)"}));
        server.http().query("shop", "select 1").status
    };
    until(status, |status| *status == 429);
}

/// Begins a request with a body that does not come.
fn begin(server: &Server, path: &str, more: &str) -> Http {
    let mut http = server.http();
    http.send(&format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{more}\
         content-length: 1000000\r\n\r\n{{"
    ));
    http
}

#[test]
fn a_body_that_does_not_come_takes_no_place_and_has_a_time() {
    let server = Server::start_with(&[
        ("DORMOUSE_LIMITS__DATABASE_CONCURRENCY_MAX", "1"),
        ("DORMOUSE_HTTP__BODY_TIMEOUT_MS", "1500"),
    ]);
    let mut slow = begin(&server, "/v1/databases/shop/query", "");
    let string = "neon-connection-string: postgres://postgres@h/shop\r\n";
    let mut slow_neon = begin(&server, "/sql", string);
    assert_eq!(server.http().query("shop", "select 1").status, 200);
    for slow in [&mut slow, &mut slow_neon] {
        let answer = slow.response();
        assert_eq!(answer.header("connection"), Some("close"));
        let (_, message) = answer.error(408);
        assert!(message.contains("http.body_timeout_ms"), "{message}");
    }
}

#[test]
fn who_asks_too_often_sends_no_body() {
    let server = Server::start_with(&[
        ("DORMOUSE_LIMITS__DATABASE_REQUESTS_PER_SECOND", "1"),
        ("DORMOUSE_LIMITS__REQUESTS_BURST", "1"),
    ]);
    let string = "neon-connection-string: postgres://postgres@h/shop\r\n";
    for (path, more) in [("/v1/databases/shop/query", ""), ("/sql", string)] {
        // The next one may come when a second is over.
        let refused = || {
            server.http().query("shop", "select 1");
            let mut asked = begin(&server, path, more);
            asked.response_within(std::time::Duration::from_millis(500))
        };
        let refused = until(refused, Option::is_some).unwrap();
        let (code, message) = refused.error(429);
        assert_eq!(code, "53400");
        assert!(message.contains("requests_per_second is 1"), "{message}");
        assert!(refused.header("retry-after").is_some());
    }
}

#[test]
fn who_is_not_let_in_sends_no_body() {
    let server = Server::start_with(&SCRAM);
    let string = "neon-connection-string: postgres://postgres:wrong@h/shop\r\n";
    let refused = begin(&server, "/sql", string).response();
    assert_eq!(
        (refused.status, &refused.json()["code"]),
        (400, &json!("28P01"))
    );
    let refused = begin(&server, "/v1/databases/shop/query", "").response();
    assert_eq!(refused.status, 401);
}

#[test]
fn a_quota_is_the_nodes() {
    let tenants = Tenants::start(&[]);
    assert_eq!(query(&tenants.server, &tenants.shop, "shop").status, 200);
    let put = |token: &str, body: Value| {
        let path = "/v1/databases/shop/settings";
        ask(&tenants.server, token, "PUT", path, Some(body))
    };
    assert_eq!(put(&tenants.root, json!({"bytesMax": 4 << 20})).status, 200);
    for other in [
        json!({"bytesMax": 5 << 20}),
        json!({"bytesWarn": 1}),
        json!({"bodyBytesMax": 1_000}),
        json!({"resultBytesMax": 1_000}),
    ] {
        assert_eq!(put(&tenants.shop, other).error(403).0, "42501");
    }
    for same in [
        json!({}),
        json!({"durability": "relaxed", "bytesMax": 4 << 20}),
    ] {
        let set = put(&tenants.shop, same).json();
        assert_eq!(set["settings"]["bytesMax"], 4 << 20);
    }
    let delete = |token: &str| ask(&tenants.server, token, "DELETE", "/v1/databases/shop", None);
    // The next one of its name would have none.
    assert_eq!(delete(&tenants.shop).error(403).0, "42501");
    for limit in [
        json!({"bodyBytesMax": 1_000}),
        json!({"resultBytesMax": 1_000}),
    ] {
        let set = put(&tenants.root, limit.clone()).json();
        assert_eq!(set["settings"], limit);
        assert_eq!(put(&tenants.shop, json!({})).json()["settings"], limit);
        assert_eq!(delete(&tenants.shop).error(403).0, "42501");
    }
    assert_eq!(put(&tenants.root, json!({})).json()["settings"], json!({}));
    assert_eq!(delete(&tenants.shop).status, 204);
}

#[test]
fn without_a_token_little_is_told() {
    let tenants = Tenants::start(&[]);
    let nobody = tenants.server.http().get("/health").json();
    let told: Vec<&String> = nobody.as_object().unwrap().keys().collect();
    assert_eq!(told, ["status", "latencyMs"]);
    assert_eq!(query(&tenants.server, &tenants.shop, "shop").status, 200);
    let shop = ask(&tenants.server, &tenants.shop, "GET", "/health", None).json();
    assert_eq!(
        (&shop["database"], &shop["databases"]),
        (&json!("shop"), &Value::Null)
    );
    let root = ask(&tenants.server, &tenants.root, "GET", "/health", None).json();
    assert!(root["databases"]["total"].is_u64() && root["version"].is_string());

    let mut http = tenants.server.http();
    for (method, path) in [
        ("DELETE", "/v1/tokens/ping"),
        ("GET", "/v1/databases/ping"),
        ("DELETE", "/v1/databases/ping"),
        ("GET", "/nowhere/ping"),
    ] {
        let refused = http.request(method, path, None);
        assert_eq!(refused.error(401).0, "28000", "{method} {path}");
    }
    assert_eq!(http.get("/v1/databases/shop/ping").status, 200);
}

#[test]
fn blocked_names_are_no_databases_and_the_node_is_at_their_hosts() {
    let settings = [("DORMOUSE_ROUTING__BASE_DOMAIN", "example.com")];
    let server = Server::start_with(&settings);
    let at = |method: &str, path: &str, body: Option<&str>| {
        let headers = [("host", "api.example.com")];
        server.http().request_with(method, path, &headers, body)
    };
    for path in [
        "/v1/databases",
        "/health",
        "/config",
        "/readiness",
        "/metrics",
        "/openapi.json",
    ] {
        assert_eq!(at("GET", path, None).status, 200, "{path}");
    }
    let made = at("POST", "/v1/databases", Some(r#"{"name": "shop"}"#));
    assert_eq!(made.status, 201, "{}", made.text());
    let asked = at("POST", "/query", Some(r#"{"sql": "select 1"}"#));
    assert_eq!(asked.error(403).0, "42501");

    let mut http = server.http();
    for name in ["api", "Admin"] {
        let (code, message) = http
            .post("/v1/databases", &json!({ "name": name }))
            .error(403);
        assert_eq!(code, "42501");
        assert!(message.contains("routing.blocked_names"), "{message}");
    }
    let refused = neon(&server, "postgres://postgres@h/admin", "select 1");
    assert_eq!(refused.json()["code"], "42501", "{}", refused.text());
    // PostgreSQL's protocol routes nobody by hosts.
    server.connect("admin").query("select 1").unwrap();
    assert_eq!(http.get("/v1/databases/admin").json()["name"], "admin");
    assert_eq!(http.delete("/v1/databases/admin?force=true").status, 204);
}

#[test]
fn a_tunnel_in_tls_is_encrypted() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "root");
    let files = authority.issue(folder.path(), "server", "localhost");
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (certificate, key) = (text(&files.certificate), text(&files.key));
    let mut settings = SCRAM.to_vec();
    settings.extend([
        ("DORMOUSE_TLS__CERTIFICATE", &*certificate),
        ("DORMOUSE_TLS__KEY", &*key),
        ("DORMOUSE_HTTP__TLS", "require"),
        ("DORMOUSE_PGWIRE__TLS", "require"),
    ]);
    let server = Server::start_in(folder.path(), &settings);
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_file(&authority.root).unwrap();
    roots.add(root).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let host = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), host).unwrap();
    let socket = std::net::TcpStream::connect(server.http).unwrap();
    socket
        .set_read_timeout(Some(crate::harness::PATIENCE))
        .unwrap();
    let stream = StreamOwned::new(connection, socket);
    let request = "ws://localhost/v2?address=h:1"
        .into_client_request()
        .unwrap();
    let (mut socket, _) = tungstenite::client(request, stream).unwrap();

    let mut out = BytesMut::new();
    Startup::new("postgres", "shop").encode(&mut out).unwrap();
    let length = u32::try_from(ADMIN.len() + 5).unwrap();
    out.extend_from_slice(b"p");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(ADMIN.as_bytes());
    out.extend_from_slice(b"\0");
    wire::pg::frontend::query(&mut out, b"select 42 as answer").unwrap();
    socket.send(Message::binary(out.freeze())).unwrap();
    let mut seen = Vec::new();
    while !seen.windows(2).any(|pair| pair == b"42") {
        match socket.read().unwrap() {
            Message::Binary(bytes) => seen.extend_from_slice(&bytes),
            Message::Close(_) => panic!("{}", String::from_utf8_lossy(&seen)),
            _ => {}
        }
    }
}
