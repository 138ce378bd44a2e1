//! Settings of WebSockets. Those that are open keep to them too, from the next message on.

use serde_json::{Value, json};
use tungstenite::Message;

use super::{Case, Live, at_once, in_time};
use crate::harness::{Client, connect, connect_as};

const BASE: &str = "\
websocket.transaction_idle_ms_max = 600000
http.request_timeout_ms = 600000
";

pub(super) const CASES: &[Case] = &[
    at_once("websocket.connections_max", "0", |live| {
        let path = "/v1/databases/shop/ws";
        connect(&live.server, path, None).err() == Some(503)
    }),
    at_once("websocket.database_connections_max", "1", |live| {
        let path = format!("/v1/databases/{}/ws", live.fresh());
        let open = || connect(&live.server, &path, None);
        let (first, second) = (open(), open());
        assert!(first.is_ok());
        second.err() == Some(503)
    }),
    at_once("websocket.origins", "\"https://app.example\"", |live| {
        let headers = [
            ("origin", "https://app.example"),
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let mut http = live.http();
        let path = "/v1/databases/shop/ws";
        http.send(&format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\n",
            live.server.http
        ));
        for (name, value) in headers {
            http.send(&format!("{name}: {value}\r\n"));
        }
        http.send("\r\n");
        http.head().status == 101
    }),
    at_once("websocket.message_bytes_max", "200", |live| {
        says_close(live, 1009, |client| {
            client.send(&json!({"id": 1, "sql": format!("select '{}'", "x".repeat(200))}));
        })
    }),
    at_once("websocket.requests_max", "2", |live| {
        says_close(live, 1008, |client| {
            client.send(&json!({"id": 1, "sql": "select pg_sleep(600)"}));
            for id in 2..4 {
                client.send(&json!({"id": id, "sql": "select 1"}));
            }
            client.send(&json!({"cancel": 1}));
        })
    }),
    at_once("websocket.requests_bytes_max", "200", |live| {
        says_close(live, 1008, |client| {
            client.send(&json!({"id": 1, "sql": format!("select '{}'", "x".repeat(200))}));
        })
    }),
    at_once("websocket.answers_bytes_max", "1000", |live| {
        says_close(live, 1008, |client| {
            for id in 0..100 {
                // There is no such transaction.
                client.send(&json!({"id": id, "transaction": 1_000, "sql": "select 1"}));
            }
        })
    }),
    at_once("websocket.state_bytes_max", "10", |live| {
        let set = json!({"id": 1, "set": {"settings": {"my.own": "0123456789"}}});
        live.ask_socket(&set)["error"]["code"] == "53400"
    }),
    at_once("websocket.transactions_max", "1", |live| {
        let ask = |message: Value| live.ask_socket(&message);
        assert_eq!(ask(json!({"id": 1, "begin": {}}))["transaction"], 1);
        let second = ask(json!({"id": 2, "begin": {}}));
        for id in [1, 2] {
            ask(json!({"id": id, "transaction": id, "rollback": true}));
        }
        second["error"]["code"] == "53400"
    }),
    in_time("websocket.transaction_idle_ms_max", "100", |live| {
        let mut client = live.socket();
        client.ask(&json!({"id": 1, "begin": {}}));
        client.read()["error"]["code"] == "25P03"
    }),
    at_once("websocket.ping_ms", "20000", |live| {
        // Those that are open were told otherwise.
        told(live, "pingMs") == 20_000
    }),
    at_once("websocket.resume_ms", "20000", |live| {
        told(live, "resumeMs") == 20_000
    }),
];

fn told(live: &Live, name: &str) -> Value {
    Client::open(&live.server, "shop").hello["hello"][name].clone()
}

/// Whether the open WebSocket is closed with this code for what is sent, and not answered otherwise.
fn says_close(live: &Live, code: u16, send: impl FnOnce(&mut Client)) -> bool {
    let mut client = live.socket();
    send(&mut client);
    client.send(&json!({"ping": "last"}));
    loop {
        match client.socket.read() {
            Ok(Message::Close(Some(frame))) => return u16::from(frame.code) == code,
            Ok(Message::Text(text)) if text.contains("pong") => return false,
            Ok(_) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn settings_of_websockets() {
    let mut live = Live::start(BASE);
    live.server.sql("socket", "select 1");
    live.has_socket = true;
    live.try_all(CASES);
}

#[test]
fn who_is_revoked_is_told_with_the_next_message() {
    use crate::harness::Tokens;
    let tokens = Tokens::start();
    let path = "/v1/databases/shop/ws";
    let mut socket = connect_as(
        &tokens.server,
        path,
        Some("dormouse.v1"),
        Some(&tokens.write),
    )
    .unwrap();
    let hello = crate::harness::read_json(&mut socket).unwrap();
    let mut client = Client { socket, hello };
    let ask = json!({"id": 1, "sql": "select 1"});
    let revoke = tokens.revoking_in_file("writer");
    // Until a second after this its client would be believed to be let in.
    assert_eq!(client.ask(&ask)["rowCount"], 1);
    revoke();
    let reloaded = tokens.post(&tokens.admin, "/v1/reload", &json!({}));
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    client.send(&ask);
    let told = loop {
        match client.socket.read().unwrap() {
            Message::Close(Some(frame)) => break u16::from(frame.code),
            Message::Text(text) => panic!("it was answered: {text}"),
            _ => {}
        }
    };
    assert_eq!(told, 4401);
}
