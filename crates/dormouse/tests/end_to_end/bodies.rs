//! What bodies of requests may cost the server.

use serde_json::json;

use crate::harness::http2::{END_HEADERS, HEADERS, Http2};
use crate::harness::{Server, until};

/// The largest body, by default.
const BODY_MAX: usize = 16 << 20;

#[test]
fn a_request_of_many_small_things_takes_a_few_times_its_bytes() {
    let path = "/v1/databases/shop";
    let neon = [(
        "neon-connection-string",
        "postgres://postgres@localhost/shop",
    )];
    let ones = |bytes: usize| format!("[{}1]", "1,".repeat(bytes / 2));
    let most = BODY_MAX - 200;
    let params = format!("{{\"sql\":\"select 1\",\"params\":{}}}", ones(most));
    let of_neon = format!("{{\"query\":\"select 1\",\"params\":{}}}", ones(most));
    let each = format!("{{\"sql\":\"select 1\",\"params\":{}}}", ones(16_000));
    let statements = |one: &str| {
        let list = vec![one; most / (one.len() + 1)].join(",");
        format!("{{\"statements\":[{list}]}}")
    };
    let (full, empty) = (statements(&each), statements("{\"sql\":\"\"}"));
    for (path, headers, body, status, said) in [
        (
            format!("{path}/query"),
            &[][..],
            &params,
            413,
            "number of parameters",
        ),
        (
            "/sql".to_owned(),
            &neon[..],
            &of_neon,
            400,
            "number of parameters",
        ),
        (
            format!("{path}/batch"),
            &[],
            &full,
            413,
            "http.statements_max",
        ),
        (
            format!("{path}/transaction"),
            &[],
            &empty,
            413,
            "http.statements_max",
        ),
    ] {
        // One that has kept no memory from before.
        let server = Server::start();
        server.sql("shop", "select 1");
        let before = server.kib("VmRSS");
        // From now on the highest is measured anew.
        std::fs::write(format!("/proc/{}/clear_refs", server.pid()), "5").unwrap();
        let answer = server
            .http()
            .request_with("POST", &path, headers, Some(body));
        let times = server.kib("VmHWM").saturating_sub(before) as f64 / (BODY_MAX >> 10) as f64;
        println!("{path}: {times} times its bytes");
        // Some 6; 28 where each is a value by itself.
        assert!(times < 12.0, "{path}: {times} times its bytes");
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert!(answer.text().contains(said), "{path}: {}", answer.text());
    }
    // Those of a batch are more than a statement could have, and none has too many.
    let some = vec![
        json!({"sql": "select cardinality($1::int[])::int as n", "params": [vec![1; 1_000]]});
        100
    ];
    let server = Server::start();
    let answer = server
        .http()
        .post(&format!("{path}/batch"), &json!({ "statements": some }));
    assert_eq!(answer.json()["results"][99]["rows"][0]["n"], 1_000);
}

#[test]
fn all_bodies_together_have_a_limit() {
    const ALL_MAX: usize = 1_000_000;
    let max = ALL_MAX.to_string();
    let server = Server::start_with(&[
        ("DORMOUSE_HTTP__BODIES_BYTES_MAX", &max),
        ("DORMOUSE_HTTP__BODY_BYTES_MAX", &max),
    ]);
    let path = "/v1/databases/shop/query";
    server.sql("shop", "select 1");
    let half = |sql: &str| json!({"sql": format!("{sql} /* {} */", "x".repeat(600_000))});
    let ask = || server.http().post(path, &half("select 1"));
    assert_eq!(ask().status, 200);

    // One that still comes.
    let text = half("select 2 as two").to_string();
    let (most, rest) = text.split_at(text.len() - 10);
    let mut slow = server.http();
    slow.send(&format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{most}",
        text.len()
    ));
    server.until_metric("dormouse_http_bodies_bytes ", most.len() as f64);
    let refused = ask();
    let (code, message) = refused.error(503);
    assert_eq!(code, "53400");
    assert!(
        message.contains("http.bodies_bytes_max, 1000000"),
        "{message}"
    );
    assert_eq!(refused.header("connection"), Some("close"));
    let connection = format!("postgres://postgres@localhost:{}/shop", server.pg.port());
    let neon = [("neon-connection-string", &*connection)];
    let body = json!({"query": half("select 1")["sql"]}).to_string();
    let answer = server
        .http()
        .request_with("POST", "/sql", &neon, Some(&body));
    assert!(answer.error(503).1.contains("http.bodies_bytes_max"));
    // Small ones find room.
    server.sql("shop", "select 1");
    slow.send(rest);
    assert_eq!(slow.response().json()["rows"][0]["two"], 2);
    assert_eq!(ask().status, 200);

    // One that is being answered, until its client goes.
    let mut watch = server.watch("shop");
    let mut running = server.http();
    running.send_post(path, &[], &half("select pg_sleep(3600)"));
    watch.until_running("select pg_sleep%", 1);
    assert_eq!(ask().status, 503);
    drop(running);
    until(ask, |answer| answer.status == 200);
}

const QUERY: &str = "/v1/databases/shop/query";

#[test]
fn a_body_counts_no_longer_than_its_statement_runs() {
    let max = "1000000";
    let server = Server::start_with(&[
        ("DORMOUSE_HTTP__BODIES_BYTES_MAX", max),
        ("DORMOUSE_HTTP__BODY_BYTES_MAX", max),
    ]);
    server.sql("shop", "select 1");
    let large = json!({"sql": format!("select 1 as n /* {} */", "x".repeat(300_000))});
    // Their client reads none of the lines, though all of them are there.
    let mut connection = Http2::without_window(&server);
    for stream in [1, 3, 5] {
        connection.post_for(stream, QUERY, "application/x-ndjson");
        connection.body(stream, large.to_string().as_bytes());
        connection.until(&[HEADERS], END_HEADERS);
    }
    server.until_metric("dormouse_http_bodies_bytes ", 0.0);
    let answer = server.http().post(QUERY, &large);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Does not react to being cancelled.
const DEAF: &str = "do $$ begin loop begin perform pg_sleep(3600); \
    exception when query_canceled then null; end; end loop; end $$";

#[test]
fn a_body_counts_until_its_statement_has_ended() {
    let server = Server::start();
    server.sql("shop", "select 1");
    let sql = format!("{DEAF} /* {} */", "x".repeat(300_000));
    let mut http = server.http();
    http.send_post(QUERY, &[], &json!({ "sql": sql, "timeoutMs": 5_000 }));
    // Nobody waits for it any more, and it goes on.
    assert_eq!(http.response().error(504).0, "57014");
    let counted = server.metric("dormouse_http_bodies_bytes ");
    assert!(counted > 300_000.0, "{counted}");
    server.until_metric("dormouse_http_bodies_bytes ", 0.0);
}
