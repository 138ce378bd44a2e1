//! The log, and what must never be in it.

use serde_json::Value;

use crate::harness::{Collector, Server, until};

/// The lines of a log in JSON with this message.
fn lines(server: &Server, message: &str) -> Vec<Value> {
    let log = server.log();
    let lines = log.lines().map(|line| {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    });
    lines.filter(|line| line["message"] == message).collect()
}

#[test]
fn slow_queries_are_logged_without_their_values() {
    let server = Server::start_with(&[
        ("DORMOUSE_LOG__FORMAT", "json"),
        ("DORMOUSE_LOG__SLOW_QUERY_MS", "100"),
        ("DORMOUSE_LOG__SLOW_QUERY_PLAN", "true"),
    ]);
    let mut session = server.connect("slow");
    session.query("create table t (name text)").unwrap();
    session.query("insert into t values ('quick')").unwrap();
    session
        .query("select pg_sleep(0.15), name from t where name <> 'secret42'")
        .unwrap();
    let slow = || lines(&server, "slow query");
    let all = until(slow, |lines| !lines.is_empty());
    let line = all.last().unwrap();
    assert_eq!(line["database"], "slow");
    assert_eq!(line["role"], "postgres");
    assert!(
        line["from"].as_str().unwrap().starts_with("connection "),
        "{line}"
    );
    assert!(line["duration_ms"].as_f64() >= Some(150.0), "{line}");
    assert!(line["run_ms"].as_f64() >= Some(150.0), "{line}");
    assert_eq!(line["rows"], 1);
    assert_eq!(
        line["query"],
        "select pg_sleep(?), name from t where name <> ?"
    );
    let plan = line["plan"].as_str().unwrap();
    assert!(plan.contains("Seq Scan on t"), "{plan}");
    assert!(!server.log().contains("secret42"));

    // Prepared, with a parameter, over HTTP; in a transaction there is no plan.
    let body = serde_json::json!({ "sql": "select pg_sleep($1)", "params": ["0.15"] });
    let answer = server.http().post("/v1/databases/slow/query", &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    session.query("begin; select pg_sleep(0.12)").unwrap();
    let all = until(slow, |lines| lines.len() >= 3);
    let http = all
        .iter()
        .find(|line| line["query"] == "select pg_sleep($1)")
        .unwrap();
    let id = answer.header("x-request-id").unwrap();
    assert_eq!(http["from"], id);
    assert!(http["plan"].as_str().unwrap().contains("Result"), "{http}");
    let open = all
        .iter()
        .find(|line| line["query"] == "begin; select pg_sleep(?)")
        .unwrap();
    assert!(
        open["plan"].as_str().unwrap().starts_with("none: "),
        "{open}"
    );
    // The session is as it was.
    assert_eq!(
        session.query("rollback; select 1").unwrap()[0][0].as_deref(),
        Some("1")
    );
}

#[test]
fn secrets_are_in_no_log_and_in_no_trace() {
    let collector = Collector::start();
    let headers = "authorization=Bearer%20hushhush";
    let server = Server::start_with(&[
        ("DORMOUSE_LOG", "trace"),
        ("DORMOUSE_LOG__FORMAT", "json"),
        // Everything is slow.
        ("DORMOUSE_LOG__SLOW_QUERY_MS", "1"),
        ("DORMOUSE_LOG__SLOW_QUERY_PLAN", "true"),
        ("DORMOUSE_TELEMETRY__OTLP_ENDPOINT", &collector.endpoint()),
        ("DORMOUSE_TELEMETRY__OTLP_HEADERS", headers),
        ("DORMOUSE_TELEMETRY__SAMPLE_RATIO", "1.0"),
        ("DORMOUSE_TELEMETRY__QUERY_TEXT", "true"),
    ]);
    let mut session = server.connect("kept");
    for sql in [
        "create role joe login password 'hushhush'",
        "alter role joe password E'hush\\x68ush' /* hushhush */",
        "select pg_sleep(0.02) -- postgres://joe:hushhush@host/db",
        "do $$ begin perform pg_sleep(0.02), 'hushhush'; end $$",
    ] {
        session.query(sql).unwrap();
    }
    session
        .query("select pg_sleep(0.02), 'host=h password=hushhush', 1/0")
        .unwrap_err();
    session
        .query("alter role joe password 'hushhush")
        .unwrap_err();
    session
        .query("create table t (n int, s text); insert into t values (1, 'one')")
        .unwrap();
    for condition in [
        "n <> 424242424",
        "s <> E'two\\nhushhush'",
        "n + 424242424 > n",
    ] {
        let sql =
            format!("select pg_sleep(0.02), n from t where {condition} order by n + 424242424");
        session.query(&sql).unwrap();
    }
    // An error of a statement that looks like one of the host.
    let raise = "do $$ begin raise exception 'hushhush' using errcode = '58030', detail = 'hushhush'; end $$";
    assert_eq!(server.http().query("kept", raise).status, 500);
    let body = serde_json::json!({
        "sql": "select pg_sleep(0.02), $1::text",
        "params": ["hushhush"],
    });
    server.http().post("/v1/databases/kept/query", &body);
    until(|| lines(&server, "slow query").len(), |count| *count >= 7);
    until(|| collector.spans().len(), |count| *count >= 8);
    drop(session);
    let log = server.log();
    assert!(!log.contains("hush") && !log.contains("424242424"), "{log}");
    // What is left tells something.
    assert!(log.contains("Filter: (n <> ?)"), "{log}");
    assert!(log.contains("ERROR 58030"), "{log}");
    for span in collector.spans() {
        let span = format!("{span:?}");
        assert!(
            !span.contains("hush") && !span.contains("424242424"),
            "{span}"
        );
    }
    // The collector did get it.
    let heads = collector.heads();
    assert!(
        heads.iter().all(|head| head.contains("Bearer hushhush")),
        "{heads:?}"
    );
}
