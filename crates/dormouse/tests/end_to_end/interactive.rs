//! Transactions that span requests, over HTTP and over WebSockets: how they end.

use serde_json::{Value, json};

use crate::harness::{Client, Http, Pg, Server, until};

/// A table in which a commit takes long: its trigger is deferred.
const SLOW_COMMIT: &str = "create table slow (n int);
    create function wait() returns trigger language plpgsql as
        'begin perform pg_sleep(3600); return null; end';
    create constraint trigger wait after insert on slow deferrable initially deferred
        for each row execute function wait()";

/// The path of a transaction that has begun over HTTP.
fn begin(http: &mut Http) -> String {
    let begun = http.post("/v1/databases/shop/transactions", &json!({}));
    assert_eq!(begun.status, 201, "{}", begun.text());
    begun.header("location").unwrap().to_owned()
}

/// Nothing was committed, and nothing of it is left.
#[track_caller]
fn is_empty(server: &Server) {
    let sql = "select count(*)::int as n from slow";
    assert_eq!(server.sql("shop", sql)["rows"][0]["n"], 0);
    server.sql("shop", "truncate slow");
}

#[test]
fn a_commit_has_a_time() {
    let server = Server::start_with(&[("DORMOUSE_HTTP__REQUEST_TIMEOUT_MS", "1000")]);
    server.connect("shop").query(SLOW_COMMIT).unwrap();
    let mut http = server.http();
    let path = begin(&mut http);
    let insert = json!({ "sql": "insert into slow values (1)" });
    assert_eq!(http.post(&format!("{path}/query"), &insert).status, 200);
    let (code, message) = http.post(&format!("{path}/commit"), &json!({})).error(504);
    assert_eq!(code, "57014");
    assert!(message.contains("its time, 1000 ms"), "{message}");
    is_empty(&server);

    let mut client = Client::open(&server, "shop");
    client.send(&json!({ "id": 1, "begin": {} }));
    client.send(&json!({ "id": 2, "transaction": 1, "sql": "insert into slow values (1)" }));
    client.send(&json!({ "id": 3, "transaction": 1, "commit": true }));
    let error = answer(&mut client, 3);
    assert_eq!(error["error"]["code"], "57014");
    assert!(error.to_string().contains("its time, 1000 ms"), "{error}");
    is_empty(&server);
}

#[test]
fn a_commit_is_cancelled_as_statements_are() {
    let server = Server::start();
    let mut other = server.connect("shop");
    other.query(SLOW_COMMIT).unwrap();
    // With a process of its own it can look on.
    other.query("create temporary table own (n int)").unwrap();
    let mut client = Client::open(&server, "shop");
    client.send(&json!({ "id": 1, "begin": {} }));
    client.send(&json!({ "id": 2, "transaction": 1, "sql": "insert into slow values (1)" }));
    client.send(&json!({ "id": 3, "transaction": 1, "commit": true }));
    answer(&mut client, 2);
    until_commits(&mut other);
    client.send(&json!({ "cancel": 3 }));
    let error = answer(&mut client, 3);
    assert_eq!(error["error"]["code"], "57014", "{error}");
    is_empty(&server);

    // Over HTTP a client cancels by leaving.
    let mut http = server.http();
    let path = begin(&mut http);
    let insert = json!({ "sql": "insert into slow values (1)" });
    assert_eq!(http.post(&format!("{path}/query"), &insert).status, 200);
    http.send(&format!(
        "POST {path}/commit HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n"
    ));
    until_commits(&mut other);
    drop(http);
    is_empty(&server);
}

#[test]
fn the_time_of_a_request_passes_while_it_waits_for_its_turn() {
    let server = Server::start();
    let mut holder = server.connect("shop");
    holder.query("create table slow (n int)").unwrap();
    holder.query("select pg_advisory_lock(1)").unwrap();
    let mut first = server.http();
    let path = begin(&mut first);
    let query = format!("{path}/query");
    first.send_post(&query, &[], &json!({"sql": "select pg_advisory_lock(1)"}));
    server.until_running("shop", "select pg_advisory_lock%", 1);
    let late = json!({"sql": "insert into slow values (1)", "timeoutMs": 300});
    // One has its turn next, the other waits for that.
    let both = [(); 2].map(|()| {
        let mut http = server.http();
        http.send_post(&query, &[], &late);
        http
    });
    for mut http in both {
        let answer = http.response();
        let (code, message) = answer.error(504);
        assert_eq!(code, "57014");
        assert!(message.contains("its time, 300 ms"), "{message}");
        let detail = answer.problem()["error"]["detail"].to_string();
        assert!(detail.contains("not begun"), "{detail}");
    }
    holder.query("select pg_advisory_unlock(1)").unwrap();
    assert_eq!(first.response().status, 200);
    assert_eq!(
        first.post(&format!("{path}/commit"), &json!({})).status,
        204
    );
    is_empty(&server);
}

#[test]
fn an_idle_transaction_is_terminated() {
    let server = Server::start();
    server.sql("shop", "create table slow (n int)");
    let mut client = Client::open(&server, "shop");
    client.ask(&json!({ "id": 1, "begin": {} }));
    client.ask(&json!({ "id": 2, "transaction": 1, "sql": "lock table slow" }));
    let sql = "select pg_backend_pid() as pid";
    let pid = client.ask(&json!({ "id": 3, "transaction": 1, "sql": sql }));
    let pid = &pid["rows"][0]["pid"];
    let sql = format!("select pg_terminate_backend({pid}) as done");
    assert_eq!(server.sql("shop", &sql)["rows"][0]["done"], true);
    let ended = client.read();
    assert_eq!(ended["transaction"], 1, "{ended}");
    assert_eq!(ended["error"]["code"], "57P01", "{ended}");
    is_empty(&server);
}

/// Waits until a commit runs its trigger.
fn until_commits(client: &mut Pg) {
    let sql = "select count(*) from pg_stat_activity where query = 'COMMIT' and state = 'active'";
    let committing = || client.query(sql).unwrap()[0][0].clone();
    until(committing, |count| count.as_deref() == Some("1"));
}

/// The answer to a request; those to others are passed over.
#[track_caller]
fn answer(client: &mut Client, id: u64) -> Value {
    loop {
        let answer = client.read();
        if answer["id"] == id {
            return answer;
        }
    }
}
