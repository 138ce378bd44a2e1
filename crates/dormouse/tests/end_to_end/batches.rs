//! What `POST batch` says of its statements when it does not come to its end.

use serde_json::{Value, json};

use crate::harness::{Response, Server};

fn ask(server: &Server, statements: &[&str], timeout_ms: u64) -> Response {
    let statements: Vec<_> = statements.iter().map(|sql| json!({ "sql": sql })).collect();
    let body = json!({"statements": statements, "timeoutMs": timeout_ms});
    server.http().post("/v1/databases/shop/batch", &body)
}

#[track_caller]
fn says(answer: &Response, words: &str) {
    let problem = answer.problem();
    let place = problem["error"]["where"].as_str().unwrap_or_default();
    assert!(place.contains(words), "{problem}");
}

fn count(server: &Server) -> Value {
    server.sql("shop", "select count(*)::int as n from t")["rows"][0]["n"].clone()
}

fn server(settings: &[(&str, &str)]) -> Server {
    let server = Server::start_with(settings);
    server.sql("shop", "create table t (n int)");
    server
}

const INSERT: &str = "insert into t values (1)";

#[test]
fn what_is_rolled_back_is_not_called_done() {
    let server = server(&[]);
    let sleep = "select pg_sleep(3600)";
    let answer = ask(&server, &[INSERT, "begin", INSERT, sleep, "commit"], 5_000);
    assert_eq!(answer.error(504).0, "57014");
    says(
        &answer,
        "statement 4 of the batch; what was done in the transaction that is open is rolled back",
    );
    assert_eq!(count(&server), 1);
    let answer = ask(&server, &["begin", INSERT, "commit", sleep], 5_000);
    assert_eq!(answer.error(504).0, "57014");
    says(
        &answer,
        "statement 4 of the batch; those before it are done",
    );
    assert_eq!(count(&server), 2);
}

#[test]
fn a_transaction_that_a_batch_leaves_open_is_an_error() {
    let server = server(&[]);
    let answer = ask(&server, &[INSERT, "begin", INSERT], 60_000);
    let results = &answer.json()["results"];
    assert_eq!(results[0]["rowCount"], 1, "{results}");
    let error = &results[2]["error"];
    assert_eq!(error["code"], "25001", "{results}");
    assert!(error["message"].as_str().unwrap().contains("rolled back"));
    assert_eq!(count(&server), 1);
    // One that has failed says so by itself.
    let answer = ask(&server, &["begin", "select 1 / 0", INSERT], 60_000);
    let results = &answer.json()["results"];
    assert_eq!(results[1]["error"]["code"], "22012", "{results}");
    assert_eq!(results[2]["error"]["code"], "25P02", "{results}");
    let answer = ask(&server, &["begin", INSERT, "commit"], 60_000);
    assert_eq!(answer.json()["results"][2]["command"], "COMMIT");
    assert_eq!(count(&server), 2);
}

#[test]
fn what_is_done_is_told_though_the_results_are_too_large() {
    let server = server(&[("DORMOUSE_HTTP__RESULT_BYTES_MAX", "2000")]);
    let large = "insert into t values (1) returning repeat('x', 600)";
    let answer = ask(&server, &[large, large, large, large], 60_000);
    assert_eq!(answer.error(413).0, "54000");
    says(
        &answer,
        "statement 3 of the batch; it and those before it are done",
    );
    assert_eq!(count(&server), 3);
    let answer = ask(&server, &["begin", large, large, large, "commit"], 60_000);
    assert_eq!(answer.error(413).0, "54000");
    says(
        &answer,
        "what was done in the transaction that is open is rolled back",
    );
    assert_eq!(count(&server), 3);
    let body = json!({"statements": [{"sql": large}, {"sql": large}, {"sql": large}]});
    let answer = server.http().post("/v1/databases/shop/transaction", &body);
    assert_eq!(answer.error(413).0, "54000");
    says(
        &answer,
        "statement 3 of the transaction, which is rolled back",
    );
    assert_eq!(count(&server), 3);
}

#[test]
fn what_is_done_is_told_though_the_session_ends() {
    let server = server(&[]);
    let end = "select pg_terminate_backend(pg_backend_pid())";
    let answer = ask(&server, &[INSERT, end, INSERT], 60_000);
    assert_eq!(answer.error(503).0, "57P01");
    says(
        &answer,
        "statement 2 of the batch; those before it are done",
    );
    assert_eq!(count(&server), 1);
    let answer = ask(&server, &["begin", INSERT, end], 60_000);
    assert_eq!(answer.error(503).0, "57P01");
    says(
        &answer,
        "what was done in the transaction that is open is rolled back",
    );
    assert_eq!(count(&server), 1);
}

/// A table on which a COMMIT comes to this, as often as there are rows of it.
fn deferred(server: &Server, table: &str, statement: &str) {
    let statements = [
        format!("create table {table} (n int)"),
        format!(
            "create function {table}() returns trigger language plpgsql as $$ begin {statement}; return null; end $$"
        ),
        format!(
            "create constraint trigger {table} after insert on {table} deferrable initially deferred
             for each row execute function {table}()"
        ),
    ];
    for sql in statements {
        server.sql("shop", &sql);
    }
}

#[test]
fn whether_a_commit_is_done_with_which_the_session_ends_is_not_known() {
    let server = server(&[]);
    let end = "perform pg_terminate_backend(pg_backend_pid())";
    deferred(&server, "ending", end);
    let insert = "insert into ending values (1)";
    let answer = ask(
        &server,
        &[INSERT, "begin", insert, "commit", INSERT],
        60_000,
    );
    assert_eq!(answer.error(503).0, "57P01");
    says(
        &answer,
        "statement 4 of the batch; whether the transaction that it was to end is done is not known",
    );
    assert_eq!(count(&server), 1);
}

#[test]
fn what_failed_is_not_called_done_though_the_results_are_too_large() {
    let server = server(&[("DORMOUSE_HTTP__RESULT_BYTES_MAX", "2000")]);
    let large = "insert into t values (1) returning repeat('x', 600)";
    let fail = "raise exception '%', repeat('x', 2000)";
    let block = format!("do $$ begin {fail}; end $$");
    let answer = ask(&server, &[large, &block, large], 60_000);
    assert_eq!(answer.error(413).0, "54000");
    says(
        &answer,
        "statement 2 of the batch; those before it are done",
    );
    assert_eq!(count(&server), 1);
    // Of a COMMIT that fails nothing stays.
    deferred(&server, "failing", fail);
    let insert = "insert into failing values (1)";
    let answer = ask(&server, &["begin", INSERT, insert, "commit"], 60_000);
    assert_eq!(answer.error(413).0, "54000");
    says(
        &answer,
        "statement 4 of the batch; what was done in the transaction that is open is rolled back",
    );
    // Nor of one that had failed before.
    let long = "select repeat('x', 1600)";
    let answer = ask(&server, &["begin", long, "select 1 / 0", "commit"], 60_000);
    assert_eq!(answer.error(413).0, "54000");
    says(
        &answer,
        "statement 4 of the batch; what was done in the transaction that is open is rolled back",
    );
    assert_eq!(count(&server), 1);
}

/// Comes to an end of its own when it is cancelled.
fn stubborn(end: &str) -> String {
    format!("do $$ begin perform pg_sleep(3600); exception when query_canceled then {end}; end $$")
}

#[test]
fn a_batch_with_a_key_tells_its_place_between_two_statements() {
    let server = server(&[]);
    for (number, end) in [(2, "null"), (1, "raise division_by_zero")] {
        let statements = [stubborn(end), INSERT.to_owned()].map(|sql| json!({ "sql": sql }));
        let body = json!({"statements": statements, "timeoutMs": 5_000}).to_string();
        let headers = [("idempotency-key", end)];
        let path = "/v1/databases/shop/batch";
        let mut http = server.http();
        let answer = http.request_with("POST", path, &headers, Some(&body));
        assert_eq!(answer.error(504).0, "57014");
        let place = format!("statement {number} of the transaction, which is rolled back");
        says(&answer, &place);
    }
    server.until_alone();
    assert_eq!(count(&server), 0);
}
