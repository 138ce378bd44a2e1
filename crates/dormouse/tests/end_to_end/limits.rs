//! Limits of requests by token and database.

use serde_json::json;

use crate::harness::{Server, until};

#[test]
fn a_streamed_result_counts_as_long_as_it_streams() {
    let server = Server::start_with(&[("DORMOUSE_LIMITS__DATABASE_CONCURRENCY_MAX", "1")]);
    assert_eq!(server.http().query("shop", "select 1").status, 200);
    let body = json!({"sql": "select repeat('x', 1000) from generate_series(1, 10000000)"});
    let body = body.to_string();
    let mut streaming = server.http();
    streaming.send(&format!(
        "POST /v1/databases/shop/query HTTP/1.1\r\nhost: localhost\r\naccept: application/x-ndjson\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(streaming.head().status, 200);

    // The head is there, and the rows are on their way to a client that does not read them.
    let refused = server.http().query("shop", "select 1");
    assert_eq!(refused.header("retry-after"), Some("1"));
    let (code, message) = refused.error(429);
    assert_eq!(code, "53400");
    assert!(
        message.contains("limits.database_concurrency_max is 1"),
        "{message}"
    );
    assert_eq!(server.http().query("other", "select 1").status, 200);

    drop(streaming);
    let again = || server.http().query("shop", "select 1").status;
    until(again, |status| *status == 200);
}

#[test]
fn what_has_no_body_does_not_count_for_long() {
    let server = Server::start_with(&[("DORMOUSE_LIMITS__TOKEN_CONCURRENCY_MAX", "1")]);
    let mut http = server.http();
    for _ in 0..5 {
        http.send("HEAD /v1/databases HTTP/1.1\r\nhost: localhost\r\n\r\n");
        assert_eq!(http.head().status, 200);
        assert_eq!(http.get("/v1/databases").status, 200);
    }
}
