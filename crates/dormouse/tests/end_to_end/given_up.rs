//! Requests over HTTP that are given up in their midst: their time is over, their client goes, or the server stops. What of
//! them has not begun by then never begins.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Response, Server, until};

const BATCH: &str = "/v1/databases/shop/batch";

/// A table that must outlive the batch.
const KEPT: &str = "create table kept (n int)";

/// A batch whose first statement does not end by itself.
fn endless() -> Value {
    json!({"statements": [{"sql": "select pg_sleep(3600)"}, {"sql": "drop table kept"}]})
}

#[track_caller]
fn is_kept(server: &Server) {
    assert_eq!(server.sql("shop", "table kept")["rowCount"], 0);
}

#[test]
fn a_batch_past_its_time_goes_no_further() {
    let server = Server::start();
    server.sql("shop", KEPT);
    server.sql("shop", "create table done (n int)");
    let mut body = endless();
    body["timeoutMs"] = json!(1_000);
    let first = json!({"sql": "insert into done values (1)"});
    body["statements"].as_array_mut().unwrap().insert(0, first);
    let answer = server.http().post(BATCH, &body);
    assert_eq!(answer.error(504).0, "57014");
    server.until_alone();
    is_kept(&server);
    // Each is by itself: what was done stays.
    assert_eq!(server.sql("shop", "table done")["rowCount"], 1);
}

#[test]
fn a_batch_whose_client_goes_goes_no_further() {
    let server = Server::start();
    server.sql("shop", KEPT);
    let mut http = server.http();
    let mut watch = server.watch("shop");
    http.send_post(BATCH, &[], &endless());
    watch.until_running("select pg_sleep%", 1);
    drop((http, watch));
    server.until_alone();
    is_kept(&server);
}

#[test]
fn a_batch_goes_no_further_when_the_server_stops() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("DORMOUSE_SERVER__DRAIN_MS_MAX", "200")];
    let mut server = Server::start_in(folder.path(), &settings);
    server.sql("shop", KEPT);
    let mut http = server.http();
    let mut watch = server.watch("shop");
    http.send_post(BATCH, &[], &endless());
    watch.until_running("select pg_sleep%", 1);
    server.signal(Signal::TERM);
    let answer = http.response();
    assert_eq!(answer.error(503).0, "57P01");
    let place = &answer.problem()["error"]["where"];
    assert!(
        place.as_str().unwrap().starts_with("statement 1 of the"),
        "{place}"
    );
    assert_eq!(server.wait().code(), Some(0));
    let server = Server::start_in(folder.path(), &[]);
    is_kept(&server);
}

#[test]
fn a_batch_that_was_given_up_is_tried_again_by_its_key() {
    let server = Server::start();
    server.sql("shop", "create table t (n int)");
    server.sql("shop", "create table pause as select 3600 as seconds");
    let body = json!({"timeoutMs": 2_000, "statements": [
        {"sql": "insert into t values (1)"},
        {"sql": "select pg_sleep(seconds) from pause"},
    ]});
    let ask = || -> Response {
        let headers = [("idempotency-key", "order-1")];
        let mut http = server.http();
        http.request_with("POST", BATCH, &headers, Some(&body.to_string()))
    };
    assert_eq!(ask().error(504).0, "57014");
    server.until_alone();
    assert_eq!(server.sql("shop", "table t")["rowCount"], 0);
    server.sql("shop", "update pause set seconds = 0");
    for is_replayed in [None, Some("true")] {
        let answer = ask();
        assert_eq!(answer.header("idempotency-replayed"), is_replayed);
        assert_eq!(answer.json()["results"][1]["rowCount"], 1);
    }
    assert_eq!(server.sql("shop", "table t")["rowCount"], 1);
}

/// Does its work when it is cancelled.
const STUBBORN: &str = "do $$ begin perform pg_sleep(3600);
    exception when query_canceled then insert into t values (1); end $$";

#[test]
fn what_is_done_past_its_time_is_not_called_cancelled() {
    let server = Server::start();
    server.sql("shop", "create table t (n int)");
    let one = json!({"sql": STUBBORN, "timeoutMs": 1_000});
    let several = json!({"statements": [{ "sql": STUBBORN }], "timeoutMs": 1_000});
    for (count, (path, body)) in (1..).zip([("query", &one), ("batch", &several)]) {
        let path = format!("/v1/databases/shop/{path}");
        let answer = server.http().post(&path, body);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let text = answer.text();
        assert!(text.contains("\"command\":\"DO\""), "{text}");
        assert_eq!(server.sql("shop", "table t")["rowCount"], count, "{path}");
    }
    // Nothing of this is committed, for its commit was not begun.
    let path = "/v1/databases/shop/transaction";
    let answer = server.http().post(path, &several);
    assert_eq!(answer.error(504).0, "57014");
    assert_eq!(server.sql("shop", "table t")["rowCount"], 2);
    let lines = [("accept", "application/x-ndjson")];
    let path = "/v1/databases/shop/query";
    let answer = server
        .http()
        .request_with("POST", path, &lines, Some(&one.to_string()));
    let text = answer.text();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["command"], "DO", "{text}");
    assert_eq!(server.sql("shop", "table t")["rowCount"], 3);
}

/// Makes a function that does not react to being cancelled.
const DEAF: &str = "create function deaf() returns int language plpgsql as $$ begin loop begin
    perform pg_advisory_xact_lock_shared(1), pg_sleep(3600);
    exception when query_canceled then null; end; end loop; end $$";

#[track_caller]
fn goes_on(error: &Value) {
    let detail = error["detail"].as_str().unwrap();
    assert!(detail.contains("has not ended yet"), "{error}");
}

/// Where requests of a transaction go.
fn transaction(server: &Server) -> String {
    let begun = server
        .http()
        .post("/v1/databases/shop/transactions", &json!({}));
    format!("{}/query", begun.header("location").unwrap())
}

const QUERY: &str = "/v1/databases/shop/query";

#[test]
fn what_does_not_end_when_it_is_cancelled_is_said_to_go_on() {
    let server = Server::start();
    // What does not end takes all of its database along, after a while.
    for database in ["shop", "other"] {
        server.sql(database, DEAF);
    }
    // Time enough for it to begin, in processes that are there.
    let body = json!({"sql": "select deaf()", "timeoutMs": 1_000});
    let interactive = transaction(&server);
    for path in [QUERY, &interactive] {
        server.http().post(path, &json!({"sql": "select 1"})).json();
        let answer = server.http().post(path, &body);
        assert_eq!(answer.error(504).0, "57014", "{path}");
        goes_on(&answer.problem()["error"]);
    }
    // The second row does not come.
    let rows =
        "select n, repeat('x', 10000), case n when 2 then deaf() end from generate_series(1, 2) n";
    let body = json!({"sql": rows, "timeoutMs": 1_000}).to_string();
    let lines = [("accept", "application/x-ndjson")];
    let mut http = server.http();
    let answer = http
        .request_with("POST", "/v1/databases/other/query", &lines, Some(&body))
        .text();
    let last: Value = serde_json::from_str(answer.lines().last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "57014", "{last}");
    goes_on(&last["error"]);
    // Then their backend is stopped.
    server.until_alone();
    let ask = || {
        server
            .http()
            .post(&interactive, &json!({"sql": "select 1"}))
    };
    until(ask, |gone| gone.status == 404);
    server.still_answers();
}

#[test]
fn what_does_not_end_is_answered_at_a_stop() {
    let mut server = Server::start_with(&[("DORMOUSE_SERVER__DRAIN_MS_MAX", "200")]);
    server.sql("shop", DEAF);
    let mut watch = server.watch("shop");
    let interactive = transaction(&server);
    let requests = [
        (QUERY, &[][..]),
        (QUERY, &[("accept", "application/x-ndjson")]),
        (&interactive, &[]),
    ];
    let mut requests = requests.map(|(path, headers)| {
        let mut http = server.http();
        http.send_post(path, headers, &json!({"sql": "select deaf()"}));
        http
    });
    // From here on nothing ends them.
    watch.until_locked(3);
    server.signal(Signal::TERM);
    for http in &mut requests {
        let answer = http.response();
        assert_eq!(answer.error(503).0, "57P01");
        goes_on(&answer.problem()["error"]);
    }
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn what_is_done_is_told_though_its_session_takes_long_to_end() {
    let server = Server::start();
    let mut holder = server.connect("shop");
    holder.query("create table t (n int)").unwrap();
    holder.query("begin; select pg_advisory_lock(1)").unwrap();
    let mut http = server.http();
    let statements = [
        "create temporary table own (n int)",
        "insert into t values (1)",
        "select pg_advisory_xact_lock(1)",
    ];
    let statements = statements.map(|sql| json!({ "sql": sql }));
    let body = json!({"statements": statements, "timeoutMs": 20_000});
    let mut watch = server.watch("shop");
    http.send_post(BATCH, &[], &body);
    watch.until_running("select pg_advisory_xact_lock%", 1);
    // Now its session cannot drop what it leaves behind.
    let own = "select relnamespace::regnamespace from pg_class where relname = 'own'";
    let schema = holder.query(own).unwrap()[0][0].clone().unwrap();
    holder
        .query(&format!(
            "lock table {schema}.own in access share mode; select pg_advisory_unlock(1)"
        ))
        .unwrap();
    let answer = http.response();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["results"][1]["rowCount"], 1);
    holder.query("commit").unwrap();
    drop((holder, watch));
    server.until_alone();
    assert_eq!(server.sql("shop", "table t")["rowCount"], 1);
}
