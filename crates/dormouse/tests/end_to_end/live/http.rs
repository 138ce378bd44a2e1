//! Settings of HTTP and of what names a database.

use serde_json::{Value, json};

use super::{Case, Live, at_once, in_time, until};
use crate::apps::stage::Archive;

/// Nothing of this is in the patience of a test.
const BASE: &str = "\
http.header_timeout_ms = 600000
http.body_timeout_ms = 600000
http.request_timeout_ms = 600000
http.transaction_idle_ms_max = 600000
http.body_bytes_max = 10000
pgwire.startup_timeout_ms = 600000
http.cors.origins = [\"https://app.example\"]
";

pub(super) const CASES: &[Case] = &[
    at_once("http.connections_max", "0", |live| {
        live.http().get("/ping").status == 503
    }),
    at_once("http.proxies", "[]", |live| {
        // This machine is believed by default.
        deployed_at(live, ("x-forwarded-proto", "https")).starts_with("http://")
    }),
    in_time("http.header_timeout_ms", "100", |live| {
        let mut http = live.http();
        http.send("GET / HT");
        http.read_to_end(&mut String::new());
        true
    }),
    at_once("http.body_bytes_max", "1000", |live| {
        live.status(&format!("select '{}'", "x".repeat(1_000))) == 413
    }),
    at_once("http.bodies_bytes_max", "10000", |live| {
        let mut slow = live.http();
        slow.send(&format!(
            "POST /v1/databases/shop/query HTTP/1.1\r\nhost: localhost\r\n\
             content-type: application/json\r\ncontent-length: 9000\r\n\r\n{}",
            "x".repeat(8_000)
        ));
        until(
            || live.metric("dormouse_http_bodies_bytes "),
            |bytes| *bytes >= 8_000.0,
        );
        live.status(&format!("select '{}'", "x".repeat(5_000))) == 503
    }),
    in_time("http.body_timeout_ms", "100", |live| {
        let mut http = live.http();
        http.send(
            "POST /v1/databases/shop/query HTTP/1.1\r\nhost: localhost\r\n\
             content-type: application/json\r\ncontent-length: 100\r\n\r\n{",
        );
        http.response()
            .error(408)
            .1
            .contains("http.body_timeout_ms, 100")
    }),
    in_time("http.request_timeout_ms", "100", |live| {
        let (code, message) = live.http().query("shop", "select pg_sleep(600)").error(504);
        code == "57014" && message.contains("100 ms")
    }),
    at_once("http.result_bytes_max", "1000", |live| {
        live.status("select repeat('x', 1000)") == 413
    }),
    at_once("http.statements_max", "1", |live| {
        let statements = json!({"statements": [{"sql": "select 1"}, {"sql": "select 2"}]});
        let mut http = live.http();
        http.post("/v1/databases/shop/batch", &statements).status == 413
    }),
    at_once("http.transactions_max", "0", |live| {
        two_begun(live)[0] == 503
    }),
    at_once("http.database_transactions_max", "1", |live| {
        two_begun(live) == [201, 503]
    }),
    in_time("http.transaction_idle_ms_max", "100", |live| {
        let mut http = live.http();
        http.post("/v1/databases/shop/transactions", &json!({}))
            .json();
        until(|| live.metric("dormouse_sessions"), |count| *count == 0.0);
        true
    }),
    at_once("http.idempotency_hours", "0", |live| {
        let shop = live.fresh();
        live.server.sql(&shop, "create table t (n int)");
        for _ in 0..2 {
            let path = format!("/v1/databases/{shop}/query");
            let headers = [("idempotency-key", "the same")];
            let body = json!({"sql": "insert into t values (1)"}).to_string();
            let mut http = live.http();
            http.request_with("POST", &path, &headers, Some(&body))
                .json();
        }
        live.server.sql(&shop, "select count(*)::int as n from t")["rows"][0]["n"] == 2
    }),
    at_once("http.cors.origins", "[\"https://other.example\"]", |live| {
        preflight(live, "https://other.example", "access-control-allow-origin").is_some()
    }),
    at_once("http.cors.headers", "[\"x-own\"]", |live| {
        let allowed = of_app(live, "access-control-allow-headers");
        allowed.is_some_and(|allowed| allowed.contains("x-own"))
    }),
    at_once("http.cors.credentials", "true", |live| {
        of_app(live, "access-control-allow-credentials").is_some()
    }),
    at_once("http.cors.max_age_s", "77", |live| {
        of_app(live, "access-control-max-age").as_deref() == Some("77")
    }),
    at_once("routing.header", "\"x-other\"", |live| {
        named_by(live, ("x-other", "shop")) == 200
    }),
    at_once("routing.base_domain", "\"example.com\"", |live| {
        named_by(live, ("host", "shop.example.com")) == 200
    }),
    at_once("routing.blocked_names", "[\"shop\"]", |live| {
        live.status("select 1") == 403
    }),
    at_once("pgwire.connections_max", "0", |live| {
        live.code("select 1").as_deref() == Some("53300")
    }),
    at_once("pgwire.message_bytes_max", "1000", |live| {
        use wire::pg::backend::kind;
        let mut session = live.server.connect("shop");
        session.send_query(&format!("select '{}'", "x".repeat(1_000)));
        let kinds = std::iter::from_fn(|| session.frame().map(|frame| frame.kind()));
        let mut ends =
            kinds.filter(|kind| [kind::ERROR_RESPONSE, kind::READY_FOR_QUERY].contains(kind));
        ends.next() == Some(kind::ERROR_RESPONSE)
    }),
    in_time("pgwire.startup_timeout_ms", "100", |live| {
        crate::harness::Pg::open(live.server.pg).last_word().code() == "08P01"
    }),
];

/// What two transactions at once are begun with. They are ended again.
fn two_begun(live: &Live) -> [u16; 2] {
    let begin = || {
        let mut http = live.http();
        http.post("/v1/databases/shop/transactions", &json!({}))
    };
    let begun = [begin(), begin()];
    for answer in begun.iter().filter(|answer| answer.status == 201) {
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        let path = format!("/v1/databases/shop/transactions/{id}/rollback");
        assert_eq!(live.http().post(&path, &json!({})).status, 204);
    }
    begun.map(|answer| answer.status)
}

/// Where a site is that is deployed by way of a proxy with this header.
fn deployed_at(live: &Live, (name, value): (&str, &str)) -> String {
    let Archive(archive) = Archive::of(&[("frontend/dist/index.html", "<p>here")]);
    let mut http = live.http();
    http.send(&format!(
        "POST /api/v1/deploy HTTP/1.1\r\nhost: localhost\r\n{name}: {value}\r\nx-github-repository: acme/site\r\n\
         x-github-branch: main\r\nx-github-sha: abc\r\ncontent-type: application/zip\r\ncontent-length: {}\r\n\r\n",
        archive.len()
    ));
    http.send_bytes(&archive);
    let answer = http.response();
    let url = answer.json()["data"]["url"].as_str().map(str::to_owned);
    url.unwrap_or_else(|| panic!("{}", answer.text()))
}

fn of_app(live: &Live, header: &str) -> Option<String> {
    preflight(live, "https://app.example", header)
}

/// A header of the answer to who asks whether a page may.
fn preflight(live: &Live, origin: &str, header: &str) -> Option<String> {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "x-own"),
    ];
    let mut http = live.http();
    let answer = http.request_with("OPTIONS", "/v1/databases/shop/query", &headers, None);
    answer.header(header).map(str::to_owned)
}

fn named_by(live: &Live, header: (&str, &str)) -> u16 {
    let body: Value = json!({"sql": "select 1"});
    let mut http = live.http();
    let answer = http.request_with("POST", "/query", &[header], Some(&body.to_string()));
    answer.status
}

#[test]
fn settings_of_http_and_of_postgres_protocol() {
    let live = Live::start(BASE);
    live.server.sql("shop", "select 1");
    live.try_all(CASES);
}
