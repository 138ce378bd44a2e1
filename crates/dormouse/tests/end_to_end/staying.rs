//! Who stays longer than a request stays no longer than what let them in is accepted.

use std::path::Path;

use bytes::BytesMut;
use serde_json::{Value, json};
use tungstenite::Message;
use wire::pg::startup::Startup;

use crate::harness::provider::{Provider, SigningKey, now};
use crate::harness::{Client, Http, Response, Server, connect_as, dormouse, run_program, until};
use crate::websockets::resume;

/// A server with a file of tokens, and two of them.
struct Guarded {
    server: Server,
    folder: tempfile::TempDir,
    admin: String,
    guest: String,
}

fn token(file: &Path, args: &[&str]) -> String {
    let mut command = dormouse();
    command.arg("token").args(args);
    let made = run_program(command.env("DORMOUSE_AUTH__TOKENS_FILE", file));
    made.done().trim_end().to_owned()
}

fn post(server: &Server, token: &str, path: &str, body: &Value) -> Response {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", &*bearer)];
    let mut http: Http = server.http();
    http.request_with("POST", path, &headers, Some(&body.to_string()))
}

impl Guarded {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens");
        let create = |name, scope| token(&file, &["create", "--name", name, "--scope", scope]);
        let (admin, guest) = (create("root", "admin"), create("guest", "admin"));
        let server = Server::start_with(&[
            ("DORMOUSE_AUTH__TOKENS_FILE", file.to_str().unwrap()),
            ("DORMOUSE_HTTP__TRANSACTION_IDLE_MS_MAX", "600000"),
            ("DORMOUSE_WEBSOCKET__TRANSACTION_IDLE_MS_MAX", "600000"),
        ]);
        let this = Self {
            server,
            folder,
            admin,
            guest,
        };
        this.admin("create table t (n int)");
        this.admin("insert into t values (1)");
        this
    }

    #[track_caller]
    fn admin(&self, sql: &str) {
        let path = "/v1/databases/shop/query";
        let done = post(&self.server, &self.admin, path, &json!({ "sql": sql }));
        assert_eq!(done.status, 200, "{sql}: {}", done.text());
    }

    fn revoke_guest(&self) {
        token(&self.folder.path().join("tokens"), &["revoke", "guest"]);
    }
}

#[test]
fn a_websocket_ends_with_its_token() {
    let guarded = Guarded::start();
    let open = || Client::open_as(&guarded.server, "shop", Some(&guarded.guest));
    let (mut idle, mut busy, mut running) = (open(), open(), open());
    assert!(idle.ask(&json!({"id": 1, "sql": "select 1"}))["rows"].is_array());
    assert_eq!(busy.ask(&json!({"id": 1, "begin": {}}))["transaction"], 1);
    busy.ask(&json!({"id": 2, "transaction": 1, "sql": "update t set n = 2"}));
    running.send(&json!({"id": 1, "sql": "select pg_sleep(600)"}));

    guarded.revoke_guest();
    for client in [&mut busy, &mut running] {
        let (code, reason) = client.closed();
        assert_eq!(code, 4401, "{reason}");
    }
    // What it held is free.
    guarded.admin("update t set n = 3");
    idle.send(&json!({"id": 2, "sql": "select 2"}));
    assert_eq!(idle.closed().0, 4401);
    let again = connect_as(
        &guarded.server,
        "/v1/databases/shop/ws",
        Some("dormouse.v1"),
        Some(&guarded.guest),
    );
    assert_eq!(again.err(), Some(401));
}

#[test]
fn an_interactive_transaction_ends_with_its_token() {
    let guarded = Guarded::start();
    let ask = |path: &str, body: &Value| {
        let path = format!("/v1/databases/shop/transactions{path}");
        post(&guarded.server, &guarded.guest, &path, body)
    };
    let begun = ask("", &json!({}));
    assert_eq!(begun.status, 201, "{}", begun.text());
    let id = begun.json()["id"].as_str().unwrap().to_owned();
    let update = json!({"sql": "update t set n = 2"});
    assert_eq!(ask(&format!("/{id}/query"), &update).status, 200);
    guarded.revoke_guest();
    guarded.admin("update t set n = 3");
}

#[test]
fn a_tunnel_ends_with_its_token() {
    let guarded = Guarded::start();
    let token = Some(&*guarded.guest);
    let mut socket = connect_as(&guarded.server, "/v2?address=h:1", None, token).unwrap();
    let mut out = BytesMut::new();
    Startup::new("postgres", "shop").encode(&mut out).unwrap();
    wire::pg::frontend::query(&mut out, b"select 42 as answer").unwrap();
    wire::pg::frontend::sync(&mut out);
    socket.send(Message::binary(out.freeze())).unwrap();
    let mut seen = Vec::new();
    while !seen.windows(2).any(|pair| pair == b"42") {
        if let Message::Binary(bytes) = socket.read().unwrap() {
            seen.extend_from_slice(&bytes);
        }
    }
    guarded.revoke_guest();
    let code = loop {
        if let Message::Close(frame) = socket.read().unwrap() {
            break frame.map(|frame| u16::from(frame.code));
        }
    };
    assert_eq!(code, Some(4401));
}

#[test]
fn the_next_token_of_a_subject_goes_on() {
    let provider = Provider::start();
    let key = SigningKey::new("first");
    provider.publish(&[&key]);
    let server = Server::start_with(&[
        ("DORMOUSE_AUTH__JWT__ISSUER", &provider.url()),
        ("DORMOUSE_AUTH__JWT__AUDIENCE", "db"),
        ("DORMOUSE_AUTH__JWT__CLOCK_SKEW_MS", "0"),
        ("DORMOUSE_AUTH__CLAIMS__DATABASE", "all"),
        ("DORMOUSE_AUTH__CLAIMS__ADMIN", "write"),
    ]);
    let token = |subject: &str, seconds: u64| {
        let mut claims = provider.claims(subject);
        claims["exp"] = json!(now() + seconds);
        claims["jti"] = json!(seconds);
        key.sign(&claims)
    };
    let (first, next, other) = (token("anna", 4), token("anna", 600), token("berta", 600));

    let begun = post(
        &server,
        &first,
        "/v1/databases/shop/transactions",
        &json!({}),
    );
    assert_eq!(begun.status, 201, "{}", begun.text());
    let id = begun.json()["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/databases/shop/transactions/{id}/query");
    let select = json!({"sql": "select 1"});
    assert_eq!(post(&server, &other, &path, &select).status, 404);
    assert_eq!(post(&server, &next, &path, &select).status, 200);

    let mut client = Client::open_as(&server, "shop", Some(&first));
    assert_eq!(client.ask(&json!({"id": 1, "begin": {}}))["transaction"], 1);
    let said = resume(&client, 1);
    let mut thief = Client::open_as(&server, "shop", Some(&other));
    thief.send(&said);
    assert_eq!(thief.closed().0, 4404);
    let mut renewed = Client::open_as(&server, "shop", Some(&next));
    assert!(renewed.ask(&said)["resumed"].is_object());

    let mut left = Client::open_as(&server, "shop", Some(&first));
    let is_over = || post(&server, &first, "/v1/databases/shop/query", &select).status;
    until(is_over, |status| *status == 401);
    // One that was not renewed is over with the first token.
    left.send(&json!({"id": 1, "sql": "select 1"}));
    assert_eq!(left.closed().0, 4401);
    assert_eq!(post(&server, &next, &path, &select).status, 200);
    let answer = renewed.ask(&json!({"id": 2, "transaction": 1, "sql": "select 7 as n"}));
    assert_eq!(answer["rows"], json!([{"n": 7}]));
}
