//! Settings that count where it is asked who comes.

use serde_json::json;

use super::{ADMIN, Case, Live, as_admin, at_once, dormouse, in_time, run_program, startup, until};
use crate::harness::{Pg, connect_as};

const BASE: &str = "\
auth.method = \"scram\"
auth.timeout_ms = 600000
auth.tokens_file = \"tokens\"
websocket.resume_ms = 0
";

pub(super) const CASES: &[Case] = &[
    in_time("auth.timeout_ms", "100", |live| {
        let mut out = bytes::BytesMut::new();
        startup("shop").encode(&mut out).unwrap();
        let mut client = Pg::open(live.server.pg);
        client.send(&out);
        client.last_word().code() == "08P01"
    }),
    at_once("metrics.open", "true", |live| {
        live.http().get("/metrics").status == 200
    }),
    at_once("routing.token", "false", |live| {
        let bearer = format!("Bearer {}", token(live));
        let headers = [("authorization", &*bearer)];
        let body = json!({"sql": "select 1"}).to_string();
        let mut http = live.http();
        http.request_with("POST", "/query", &headers, Some(&body))
            .status
            == 400
    }),
    at_once("http.token_transactions_max", "1", |live| {
        let path = "/v1/databases/shop/transactions";
        let begun = [(); 2].map(|()| as_admin(&mut live.http(), "POST", path, Some(&json!({}))));
        for answer in begun.iter().filter(|answer| answer.status == 201) {
            let id = answer.json()["id"].as_str().unwrap().to_owned();
            let path = format!("{path}/{id}/rollback");
            let ended = as_admin(&mut live.http(), "POST", &path, Some(&json!({})));
            assert_eq!(ended.status, 204);
        }
        begun.map(|answer| answer.status) == [201, 503]
    }),
    at_once("websocket.token_connections_max", "1", |live| {
        let token = token(live);
        let open = || {
            let path = "/v1/databases/shop/ws";
            connect_as(&live.server, path, Some("dormouse.v1"), Some(&token))
        };
        // Those before may have gone a moment ago.
        let first = until(open, Result::is_ok);
        let second = open();
        drop(first);
        second.err() == Some(503)
    }),
];

/// That of the database `shop`, which was made before the server began.
fn token(live: &Live) -> String {
    std::fs::read_to_string(live.folder.path().join("shop")).unwrap()
}

#[test]
fn settings_where_it_is_asked_who_comes() {
    let folder = tempfile::tempdir().unwrap();
    let mut create = dormouse();
    create.args(["token", "create", "--name", "shop", "--scope", "write"]);
    create.args(["--database", "shop"]);
    create.env("DORMOUSE_AUTH__TOKENS_FILE", folder.path().join("tokens"));
    let token = run_program(&mut create).done();
    std::fs::write(folder.path().join("shop"), token.trim_end()).unwrap();
    let live = Live::start_in(folder, BASE, &[("DORMOUSE_ADMIN_PASSWORD", ADMIN)]);
    live.try_all(CASES);
}
