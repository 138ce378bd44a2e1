//! `limits`, over HTTP and in WebSockets that are open.

use serde_json::json;

use super::{Case, Live, at_once};

pub(super) const CASES: &[Case] = &[
    at_once("limits.token_requests_per_second", "1", is_too_often),
    at_once("limits.database_requests_per_second", "1", is_too_often),
    at_once("limits.token_concurrency_max", "1", are_too_many),
    at_once("limits.database_concurrency_max", "1", are_too_many),
    at_once("limits.token_body_bytes_max", "300", is_body_too_large),
    at_once("limits.database_body_bytes_max", "300", is_body_too_large),
    at_once("limits.token_result_bytes_max", "1000", is_result_too_large),
    at_once(
        "limits.database_result_bytes_max",
        "1000",
        is_result_too_large,
    ),
];

/// Those that say more of a rate.
pub(super) const OF_A_RATE: &[Case] = &[
    at_once("limits.requests_burst", "1", is_too_often),
    at_once("limits.entries_max", "0", |live| {
        let shop = live.fresh();
        live.http().query(&shop, "select 1").status == 429
    }),
];

/// Whether one of some requests for a database that nobody has asked for is one too many, and of some statements in a
/// WebSocket.
fn is_too_often(live: &Live) -> bool {
    let shop = live.fresh();
    let mut http = live.http();
    let is = (0..20).any(|_| http.query(&shop, "select 1").status == 429);
    let ask = |id| live.ask_socket(&json!({"id": id, "sql": "select 1"}));
    assert_eq!((0..20).any(|id| ask(id)["error"]["code"] == "53400"), is);
    is
}

/// Whether a request, and a statement, is one too many beside one that runs.
fn are_too_many(live: &Live) -> bool {
    // It has a process already: none can be had where there is one alone, which runs a statement.
    let mut session = live.server.connect("socket");
    session.query("select 1").unwrap();
    let mut client = live.socket();
    let begin = json!({"id": 1, "begin": {}});
    assert_eq!(client.ask(&begin)["transaction"], 1);
    let long = "select pg_advisory_lock(1), pg_sleep(600)";
    client.send(&json!({"id": 2, "transaction": 1, "sql": long}));
    // It runs once it has the lock.
    let locked = "select from pg_locks where locktype = 'advisory' and granted";
    super::until(|| session.query(locked).unwrap().len(), |count| *count == 1);
    let is = live.http().get("/v1/databases/socket/ping").status == 429;
    if is {
        let answer = client.ask(&json!({"id": 3, "sql": "select 1"}));
        assert_eq!(answer["error"]["code"], "53400", "{answer}");
    }
    client.send(&json!({"cancel": 2}));
    assert_eq!(client.read()["error"]["code"], "57014");
    client.ask(&json!({"id": 4, "transaction": 1, "rollback": true}));
    *live.socket.borrow_mut() = Some(client);
    is
}

fn is_body_too_large(live: &Live) -> bool {
    let sql = format!("select '{}'", "x".repeat(300));
    let status = live.http().query("shop", &sql).status;
    let mut client = live.socket();
    client.send(&json!({"id": 1, "sql": sql}));
    let is = loop {
        use tungstenite::Message;
        match client.socket.read().unwrap() {
            Message::Close(Some(frame)) => break u16::from(frame.code) == 1009,
            Message::Text(_) => break false,
            _ => {}
        }
    };
    assert_eq!(status, if is { 413 } else { 200 });
    is
}

fn is_result_too_large(live: &Live) -> bool {
    let sql = "select repeat('x', 1000)";
    let status = live.http().query("shop", sql).status;
    let is = live.ask_socket(&json!({"id": 1, "sql": sql}))["error"]["code"] == "54000";
    assert_eq!(status, if is { 413 } else { 200 });
    is
}

#[test]
fn limits_of_tokens_and_databases() {
    let mut live = Live::start("");
    live.server.sql("socket", "select 1");
    live.has_socket = true;
    live.try_all(CASES);
}

#[test]
fn limits_of_a_rate() {
    let base = "limits.database_requests_per_second = 1\nlimits.requests_burst = 1000\n";
    let mut live = Live::start(base);
    live.has_socket = true;
    live.try_all(&OF_A_RATE[..1]);
    // None can be opened past that one.
    live.has_socket = false;
    live.try_all(&OF_A_RATE[1..]);
}
