//! Settings of WebSockets. Those that are open keep to them too, from the next message on.

use std::net::TcpStream;

use bytes::BytesMut;
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};
use wire::pg::startup::Startup;

use super::{Case, Live, at_once, in_time};
use crate::harness::{Client, Tokens, connect, connect_as, until};
use crate::websockets::resume;

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
fn who_asks_too_often_sends_no_larger_messages() {
    let live = Live::start("limits.database_requests_per_second = 0\n");
    let mut client = Client::open(&live.server, "shop");
    assert_eq!(
        client.ask(&json!({"id": 1, "sql": "select 1"}))["rowCount"],
        1
    );
    let small = json!({"bodyBytesMax": 1_000}).to_string();
    let path = "/v1/databases/shop/settings";
    let set = live.http().request("PUT", path, Some(&small));
    assert_eq!(set.status, 200, "{}", set.text());
    live.set("limits.database_requests_per_second = 1");
    let select = json!({"id": 2, "sql": "select 1"});
    until(|| client.ask(&select), |answer| answer["rowCount"] == 1);
    // Nothing is looked up for this one, which is counted nowhere.
    let sql = format!("select '{}'", "x".repeat(1_000));
    client.send(&json!({"id": 3, "prepare": "large", "sql": sql}));
    let (code, reason) = only_close(&mut client.socket);
    assert_eq!(code, 1009, "{reason}");
    assert!(reason.contains("bodyBytesMax of this database"), "{reason}");
}

#[test]
fn who_comes_back_is_told_the_times_that_are_kept() {
    let live = Live::start("websocket.resume_ms = 60000\n");
    let client = Client::open(&live.server, "shop");
    let said = resume(&client, 0);
    live.set("websocket.resume_ms = 20000\nwebsocket.ping_ms = 10000");
    let mut back = Client::open(&live.server, "shop");
    let hello = &back.hello["hello"];
    assert_eq!(
        (&hello["resumeMs"], &hello["pingMs"]),
        (&json!(20_000), &json!(10_000))
    );
    let resumed = &back.ask(&said)["resumed"];
    assert_eq!(
        (&resumed["resumeMs"], &resumed["pingMs"]),
        (&json!(60_000), &json!(30_000))
    );
}

#[test]
fn who_is_revoked_is_told_with_the_next_message() {
    let tokens = Tokens::start();
    let open = || Client::open_as(&tokens.server, "shop", Some(&tokens.write));
    let (mut idle, mut inside, mut busy) = (open(), open(), open());
    inside.ask(&json!({"id": 1, "begin": {}}));
    busy.send(&json!({"id": 1, "sql": "select pg_sleep(600)"}));
    let revoke = tokens.revoking_in_file("writer");
    // Until a second after this its client would be believed to be let in.
    let ask = json!({"id": 2, "sql": "select 1"});
    assert_eq!(idle.ask(&ask)["rowCount"], 1);
    let in_transaction = json!({"id": 2, "transaction": 1, "sql": "select 1"});
    assert_eq!(inside.ask(&in_transaction)["rowCount"], 1);
    revoke();
    let reloaded = tokens.post(&tokens.admin, "/v1/reload", &json!({}));
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    for (client, message) in [
        (&mut idle, &ask),
        (&mut inside, &in_transaction),
        (&mut busy, &ask),
    ] {
        client.send(message);
        assert_eq!(only_close(&mut client.socket).0, 4401);
    }
}

#[test]
fn whose_tunnel_is_revoked_is_told_with_the_next_message() {
    let tokens = Tokens::start();
    let new = json!({"name": "visitor", "scope": "admin"});
    let made = tokens.post(&tokens.admin, "/v1/tokens", &new).json();
    let guest = made["token"].as_str();
    let mut socket = connect_as(&tokens.server, "/v2?address=h:1", None, guest).unwrap();
    let message = |write: &dyn Fn(&mut BytesMut)| {
        let mut out = BytesMut::new();
        write(&mut out);
        Message::binary(out.freeze())
    };
    let startup = Startup::new("postgres", "shop");
    let hello = message(&|out| startup.encode(out).unwrap());
    let select = message(&|out| wire::pg::frontend::query(out, b"select 42").unwrap());
    for said in [hello, select.clone()] {
        socket.send(said).unwrap();
        let mut seen = Vec::new();
        // Ready for a query, with which each answer ends.
        while !seen.ends_with(b"Z\0\0\0\x05I") {
            if let Message::Binary(bytes) = socket.read().unwrap() {
                seen.extend_from_slice(&bytes);
            }
        }
    }
    let revoke = tokens.revoking_in_file("visitor");
    revoke();
    let reloaded = tokens.post(&tokens.admin, "/v1/reload", &json!({}));
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    socket.send(select).unwrap();
    assert_eq!(only_close(&mut socket).0, 4401);
}

/// Why it is closed, before any answer.
#[track_caller]
fn only_close(socket: &mut WebSocket<TcpStream>) -> (u16, String) {
    loop {
        match socket.read().unwrap() {
            Message::Close(Some(frame)) => return (frame.code.into(), frame.reason.to_string()),
            told @ (Message::Text(_) | Message::Binary(_)) => panic!("it was answered: {told}"),
            _ => {}
        }
    }
}
