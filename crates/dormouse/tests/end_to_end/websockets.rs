//! WebSockets: passwords of Neon's driver, limits, clients that go and servers that stop. What is asked in them is in
//! `clients/node`.

use rustix::process::Signal;
use serde_json::{Value, json};
use tungstenite::Message;

use crate::harness::{ADMIN, Client, Http, SCRAM, Server, connect, health, read_json, until};

pub(crate) fn resume(client: &Client, received: u64) -> Value {
    let hello = &client.hello["hello"];
    json!({"resume": {"session": hello["session"], "secret": hello["secret"], "received": received}})
}

/// `POST /sql` with a connection string: the status and the document.
fn sql(http: &mut Http, string: &str, query: &str) -> (u16, Value) {
    let body = json!({ "query": query, "params": [] }).to_string();
    http.send(&format!(
        "POST /sql HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\n\
         neon-connection-string: {string}\r\nneon-raw-text-output: true\r\nneon-array-mode: true\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    ));
    let response = http.response();
    (response.status, response.json())
}

#[test]
fn neons_driver_needs_the_password() {
    let server = Server::start_with(&SCRAM);
    let mut http = server.http();
    let admin = ADMIN.replace(' ', "%20").replace('\'', "%27");
    let admin = format!("postgresql://postgres:{admin}@host/shop?sslmode=require");
    let who = "select session_user, current_database()";
    let (status, document) = sql(&mut http, &admin, who);
    assert_eq!(status, 200, "{document}");
    assert_eq!(document["rows"], json!([["postgres", "shop"]]));
    for role in ["create role app login password 'first'", "create role mute"] {
        assert_eq!(sql(&mut http, &admin, role).0, 200);
    }
    let app = |password: &str, database: &str| format!("postgres://app:{password}@h/{database}");
    let (_, document) = sql(&mut http, &app("first", "shop"), who);
    assert_eq!(document["rows"], json!([["app", "shop"]]));
    for wrong in [
        app("second", "shop"),
        app("", "shop"),
        app("first", "other"),
        "postgres://postgres:x@h/shop".to_owned(),
        "postgres://postgres@h/shop".to_owned(),
        "postgres://nobody:first@h/shop".to_owned(),
        "postgres://mute:first@h/shop".to_owned(),
    ] {
        let (status, document) = sql(&mut http, &wrong, who);
        assert_eq!(
            (status, &document["code"]),
            (400, &json!("28P01")),
            "{wrong}"
        );
    }
    // Another password makes what was proved void, and who may not log in is told so once it is known.
    assert_eq!(
        sql(&mut http, &admin, "alter role app password 'second'").0,
        200
    );
    assert_eq!(
        sql(&mut http, &app("first", "shop"), who).1["code"],
        "28P01"
    );
    assert_eq!(sql(&mut http, &app("second", "shop"), who).0, 200);
    assert_eq!(sql(&mut http, &admin, "alter role app nologin").0, 200);
    assert_eq!(
        sql(&mut http, &app("second", "shop"), who).1["code"],
        "28000"
    );
    assert!(!server.log().contains(ADMIN) && !server.log().contains("second"));
    // There are no databases but the one: none is made for who is not let in.
    assert_eq!(health(&mut http)["databases"]["total"], 1);
}

#[test]
fn a_request_without_who_asks_is_refused() {
    let server = Server::start();
    let mut http = server.http();
    let response = http.request("POST", "/sql", Some("{\"query\":\"select 1\"}"));
    assert_eq!(
        (response.status, &response.json()["code"]),
        (400, &json!("28000"))
    );
    for path in ["/v2", "/v1/databases/shop/ws"] {
        let (code, message) = http.get(path).error(400);
        assert!(
            code == "08P01" && message.contains("WebSocket"),
            "{message}"
        );
    }
    let (status, document) = sql(&mut http, "postgres://h/d", "select 1");
    assert_eq!((status, &document["code"]), (400, &json!("22023")));
    let (status, document) = sql(&mut http, "postgres://postgres@h/d", "select 1");
    assert_eq!((status, &document["rows"]), (200, &json!([["1"]])));
    assert_eq!(
        (&document["command"], &document["rowAsArray"]),
        (&json!("SELECT"), &json!(true))
    );
}

/// PostgreSQL's bytes of one message after another, as binary messages.
pub(crate) fn tunnel(server: &Server, user: &str, password: &str) -> Result<Vec<u8>, String> {
    use bytes::BytesMut;
    use wire::pg::startup::Startup;
    let mut socket = connect(server, "/v2?address=elsewhere:5432", None).unwrap();
    let mut out = BytesMut::new();
    Startup::new(user, "shop").encode(&mut out).unwrap();
    // As Neon's driver does, without waiting for anything.
    let length = u32::try_from(password.len() + 5).unwrap();
    out.extend_from_slice(b"p");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(password.as_bytes());
    out.extend_from_slice(b"\0");
    wire::pg::frontend::query(&mut out, b"select 42 as answer").unwrap();
    wire::pg::frontend::sync(&mut out);
    socket.send(Message::binary(out.freeze())).unwrap();
    let mut seen = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Binary(bytes)) => seen.extend_from_slice(&bytes),
            Ok(Message::Close(_)) | Err(_) => return Err(String::from_utf8_lossy(&seen).into()),
            Ok(_) => {}
        }
        let has_row = seen.windows(2).any(|pair| pair == b"42");
        if has_row {
            return Ok(seen);
        }
    }
}

#[test]
fn a_tunnel_needs_the_password() {
    let server = Server::start_with(&SCRAM);
    assert!(tunnel(&server, "postgres", ADMIN).is_ok());
    let refused = tunnel(&server, "postgres", "other").unwrap_err();
    assert!(refused.contains("28P01"), "{refused}");
    let refused = tunnel(&server, "nobody", "other").unwrap_err();
    assert!(refused.contains("28P01"), "{refused}");
    let open = Server::start();
    assert!(tunnel(&open, "postgres", "whatever").is_ok());
}

#[test]
fn an_idle_websocket_keeps_no_database_awake() {
    let server = Server::start_with(&[("DORMOUSE_DATABASES__IDLE_MS", "100")]);
    let mut client = Client::open(&server, "shop");
    client.ask(&json!({"id": 1, "set": {"settings": {"work_mem": "2MB"}}}));
    let show = "select current_setting('work_mem') as mem";
    for id in [2, 3] {
        let answer = client.ask(&json!({"id": id, "sql": show}));
        assert_eq!(answer["rows"], json!([{"mem": "2MB"}]));
        server.until_awake(0);
    }
}

#[test]
fn limits_close_a_websocket_and_are_named() {
    let server = Server::start_with(&[
        ("DORMOUSE_WEBSOCKET__CONNECTIONS_MAX", "6"),
        ("DORMOUSE_WEBSOCKET__MESSAGE_BYTES_MAX", "1000"),
        ("DORMOUSE_WEBSOCKET__REQUESTS_MAX", "3"),
        ("DORMOUSE_WEBSOCKET__TRANSACTION_IDLE_MS_MAX", "50"),
        ("DORMOUSE_WEBSOCKET__RESUME_MS", "0"),
    ]);
    let mut large = Client::open(&server, "shop");
    large.send(&json!({"id": 1, "sql": "x".repeat(1_000)}));
    let (code, reason) = large.closed();
    assert!(
        code == 1009 && reason.contains("websocket.message_bytes_max"),
        "{code} {reason}"
    );

    let mut many = Client::open(&server, "shop");
    for id in 0..4 {
        many.send(&json!({"id": id, "sql": "select pg_sleep(60)"}));
    }
    let (code, reason) = many.closed();
    assert!(
        code == 1008 && reason.contains("websocket.requests_max"),
        "{code} {reason}"
    );

    let mut idle = Client::open(&server, "shop");
    assert_eq!(idle.ask(&json!({"id": 1, "begin": {}}))["transaction"], 1);
    let told = idle.read();
    assert_eq!(
        (&told["transaction"], &told["error"]["code"]),
        (&json!(1), &json!("25P03"))
    );
    let message = told["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("websocket.transaction_idle_ms_max"),
        "{message}"
    );

    // Those that were closed count until their statements have ended.
    let mut open = vec![idle];
    until(
        || {
            let path = "/v1/databases/shop/ws";
            match connect(&server, path, Some("dormouse.v1")) {
                Ok(mut socket) => {
                    let hello = read_json(&mut socket).unwrap();
                    open.push(Client { socket, hello });
                    (200, open.len())
                }
                Err(status) => (status, open.len()),
            }
        },
        |outcome| *outcome == (503, 6),
    );
    server.still_answers();
}

#[test]
fn a_conversation_waits_for_its_client_and_no_longer() {
    let server = Server::start_with(&[("DORMOUSE_WEBSOCKET__RESUME_MS", "300")]);
    let mut client = Client::open(&server, "shop");
    client.ask(&json!({"id": 1, "sql": "create table t (id int)"}));
    client.ask(&json!({"id": 2, "begin": {}}));
    client.ask(&json!({"id": 3, "transaction": 2, "sql": "insert into t values (1)"}));
    let asked = resume(&client, 3);
    drop(client);
    let mut back = Client::open(&server, "shop");
    let answer = back.ask(&asked);
    assert_eq!(answer["resumed"]["answers"], 0, "{answer}");
    let answer = back.ask(&json!({"id": 4, "transaction": 2, "sql": "select * from t"}));
    assert_eq!(answer["rows"], json!([{"id": 1}]));
    drop(back);
    // What it held is given up.
    let mut other = Client::open(&server, "shop");
    let answer = other.ask(&json!({"id": 1, "sql": "lock table t"}));
    assert_eq!(answer["error"]["code"], "25P01", "{answer}");
    let answer = other.ask(&json!({"id": 2, "sql": "alter table t add column more int"}));
    assert_eq!(answer["command"], "ALTER TABLE", "{answer}");
    let answer = other.ask(&json!({"id": 3, "sql": "select * from t"}));
    assert_eq!(answer["rows"], json!([]));
    other = Client::open(&server, "shop");
    other.send(&asked);
    assert_eq!(other.closed().0, 4404);
}

#[test]
fn a_client_that_answers_no_pings_is_left() {
    let server = Server::start_with(&[
        ("DORMOUSE_WEBSOCKET__PING_MS", "100"),
        ("DORMOUSE_WEBSOCKET__RESUME_MS", "0"),
        ("DORMOUSE_WEBSOCKET__CONNECTIONS_MAX", "1"),
    ]);
    // It does not read, and so answers nothing.
    let _deaf = Client::open(&server, "shop");
    let path = "/v1/databases/shop/ws";
    until(
        || connect(&server, path, Some("dormouse.v1")).is_ok(),
        |is_open| *is_open,
    );
}

#[test]
fn a_tunnel_whose_client_is_gone_is_left() {
    let server = Server::start_with(&[
        ("DORMOUSE_WEBSOCKET__PING_MS", "100"),
        ("DORMOUSE_WEBSOCKET__CONNECTIONS_MAX", "1"),
    ]);
    // It does not read, and so answers nothing.
    let _deaf = connect(&server, "/v2?address=h:1", None).unwrap();
    let again = || connect(&server, "/v2?address=h:1", None).is_ok();
    until(again, |is_open| *is_open);
}

#[test]
fn nobody_takes_more_than_a_share() {
    let server = Server::start_with(&[
        ("DORMOUSE_WEBSOCKET__DATABASE_CONNECTIONS_MAX", "1"),
        ("DORMOUSE_HTTP__DATABASE_TRANSACTIONS_MAX", "1"),
    ]);
    let _one = Client::open(&server, "shop");
    let path = "/v1/databases/shop/ws";
    assert_eq!(connect(&server, path, Some("dormouse.v1")).err(), Some(503));
    let _other = Client::open(&server, "other");

    let mut http = server.http();
    let mut begin =
        |name: &str| http.post(&format!("/v1/databases/{name}/transactions"), &json!({}));
    assert_eq!(begin("shop").status, 201);
    let (code, message) = begin("shop").error(503);
    assert_eq!(code, "53300");
    assert!(
        message.contains("http.database_transactions_max is 1"),
        "{message}"
    );
    assert_eq!(begin("other").status, 201);
}

#[test]
fn a_stop_lets_requests_end_and_says_goodbye() {
    let mut server = Server::start();
    let mut idle = Client::open(&server, "shop");
    let mut busy = Client::open(&server, "shop");
    let mut open = Client::open(&server, "shop");
    assert_eq!(open.ask(&json!({"id": 1, "begin": {}}))["transaction"], 1);
    busy.send(&json!({"id": 1, "sql": "select 1 as one, pg_sleep(1)"}));
    let mut tunnelled = connect(&server, "/v2", None).unwrap();
    let running = "select count(*)::int as n from pg_stat_activity where query like '%pg_sleep(1)' and state = 'active'";
    let mut asking = Client::open(&server, "shop");
    let is_running = || asking.ask(&json!({"id": 1, "sql": running}))["rows"][0]["n"] == 1;
    until(is_running, |is_running| *is_running);
    server.signal(Signal::TERM);
    assert_eq!(idle.closed().0, 1001);
    assert_eq!(open.read()["error"]["code"], "57P01");
    assert_eq!(open.closed().0, 1001);
    assert_eq!(busy.read()["rows"][0]["one"], 1);
    assert_eq!(busy.closed().0, 1001);
    while !matches!(tunnelled.read(), Ok(Message::Close(_)) | Err(_)) {}
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_statement_that_does_not_end_is_cancelled_by_a_stop() {
    let mut server = Server::start_with(&[("DORMOUSE_SERVER__DRAIN_MS_MAX", "200")]);
    let mut watch = server.watch("shop");
    let mut client = Client::open(&server, "shop");
    client.send(&json!({"id": 1, "sql": "select pg_sleep(600)"}));
    watch.until_running("select pg_sleep%", 1);
    server.signal(Signal::TERM);
    assert_eq!(client.read()["error"]["code"], "57P01");
    assert_eq!(client.closed().0, 1001);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn after_a_kill_what_was_acknowledged_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start_in(folder.path(), &[]);
    let mut client = Client::open(&server, "shop");
    client.ask(&json!({"id": 1, "sql": "create table t (id int)"}));
    let mut acknowledged = 0;
    for id in 2..50 {
        client.send(&json!({"id": id, "sql": "insert into t values ($1)", "params": [id]}));
    }
    for _ in 2..20 {
        acknowledged += client.read()["rowCount"].as_u64().unwrap();
    }
    server.signal(Signal::KILL);
    server.wait();
    while let Ok(answer) = read_json(&mut client.socket) {
        acknowledged += answer["rowCount"].as_u64().unwrap();
    }
    drop(server);
    let server = Server::start_in(folder.path(), &[]);
    let mut client = Client::open(&server, "shop");
    let answer = client.ask(&json!({"id": 1, "sql": "select count(*)::int as n from t"}));
    assert!(
        answer["rows"][0]["n"].as_u64().unwrap() >= acknowledged,
        "{answer}"
    );
}
