//! Traces, as a collector gets them.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;

use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::json;

use crate::harness::provider::{CLIENT, Provider};
use crate::harness::{Collector, Http, Server, attributes, hex, until};

pub(super) const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
pub(super) const CALLER: &str = "b7ad6b7169203331";

/// A query with headers of a caller.
pub(super) fn query(
    http: &mut Http,
    database: &str,
    sql: &str,
    headers: &str,
) -> crate::harness::Response {
    let body = json!({ "sql": sql }).to_string();
    http.send(&format!(
        "POST /v1/databases/{database}/query HTTP/1.1\r\nhost: localhost\r\n{headers}\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    http.response()
}

pub(super) fn traced(endpoint: &str, ratio: &str) -> Server {
    Server::start_with(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_RESOURCE_ATTRIBUTES", "region=eu"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("DORMOUSE_TELEMETRY__SAMPLE_RATIO", ratio),
        ("DORMOUSE_TELEMETRY__METRICS_INTERVAL_MS", "200"),
        ("DORMOUSE_TELEMETRY__QUERY_TEXT", "true"),
        ("DORMOUSE_DATABASES__IDLE_MS", "100"),
    ])
}

/// The spans as a tree, a line each, those that began first before others.
fn tree(spans: &[Span], parent: &str, depth: usize, lines: &mut Vec<String>) {
    let mut below: Vec<&Span> = spans
        .iter()
        .filter(|span| hex(&span.parent_span_id) == parent)
        .collect();
    below.sort_by_key(|span| span.start_time_unix_nano);
    for span in below {
        lines.push(format!("{}{}", "  ".repeat(depth), span.name));
        tree(spans, &hex(&span.span_id), depth + 1, lines);
    }
}

pub(super) fn shown(spans: &[Span]) -> Vec<String> {
    let mut lines = Vec::new();
    tree(spans, CALLER, 0, &mut lines);
    lines
}

/// Without the wait for the disk, which a statement that only reads may have as well: pages that it finds are tidied up.
fn shown_of_reading(spans: &[Span]) -> Vec<String> {
    let mut lines = shown(spans);
    lines.retain(|line| line.trim() != "gate");
    lines
}

/// All of a trace: when the one that ends last is there, so are the others.
pub(super) fn whole(collector: &Collector, trace: &str) -> Vec<Span> {
    let is_root = |span: &Span| hex(&span.parent_span_id) == CALLER;
    until(|| collector.trace(trace), |spans| spans.iter().any(is_root))
}

/// Takes out what was read from disk, which is what Postgres had not in its memory: it stands below statements.
pub(super) fn without_fetches(mut spans: Vec<Span>) -> Vec<Span> {
    spans.retain(|span| span.name != "fetch");
    spans
}

#[test]
fn a_request_that_wakes_a_database_is_one_trace() {
    let collector = Collector::start();
    let server = traced(&collector.endpoint(), "0.0");
    server.sql("shop", "create table t (n int)");
    server.until_awake(0);
    let headers = format!("traceparent: 00-{TRACE}-{CALLER}-01\r\ntracestate: vendor=x\r\n");
    let answer = query(
        &mut server.http(),
        "shop",
        "insert into t values (42)",
        &headers,
    );
    assert_eq!(answer.status, 200, "{}", answer.text());

    let names = [
        "POST /v1/databases/{name}/query",
        "  wait",
        "  wake",
        "    wake queue",
        "    claim",
        "    resume",
        "  INSERT shop",
        "  gate",
    ];
    let all = whole(&collector, TRACE);
    print(&all, CALLER, 0);
    let spans = without_fetches(all.clone());
    let lines = shown(&spans);
    // The exchange finds the session's process free: a wait that is none.
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    let mut expected = names.to_vec();
    expected.insert(6, "  wait");
    assert_eq!(lines, expected);

    let find = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
    let root = find(names[0]);
    let told = answer.header("traceresponse").unwrap();
    assert_eq!(told, format!("00-{TRACE}-{}-01", hex(&root.span_id)));
    assert_eq!(answer.header("traceparent"), Some(told));
    assert_eq!(root.trace_state, "vendor=x");
    assert_eq!(
        attributes(&root.attributes)["http.response.status_code"],
        "200"
    );
    let insert = attributes(&find("INSERT shop").attributes);
    assert_eq!(insert["db.system.name"], "postgresql");
    assert_eq!(insert["db.namespace"], "shop");
    assert_eq!(insert["db.operation.name"], "INSERT");
    assert_eq!(insert["db.query.text"], "insert into t values (?)");
    assert_eq!(insert["db.response.returned_rows"], "1");
    assert!(
        insert["dormouse.pages.read"].parse::<u64>().is_ok(),
        "{insert:?}"
    );
    assert_eq!(
        attributes(&find("wake").attributes)["dormouse.wake.from"],
        "image"
    );
    let resource = collector.resource();
    assert_eq!(resource["service.name"], "dormouse");
    assert_eq!(resource["region"], "eu");
    // Nothing else was to be recorded.
    assert_eq!(collector.spans().len(), all.len());

    let names = until(|| collector.metrics(), |names| !names.is_empty());
    for name in [
        "dormouse_statements_total",
        "dormouse_query_duration_seconds",
    ] {
        assert!(names.iter().any(|known| known == name), "{names:?}");
    }
}

#[test]
fn a_comment_tells_the_trace_over_both_protocols() {
    let collector = Collector::start();
    let server = traced(&collector.endpoint(), "0.0");
    let mut session = server.connect("shop");
    let commented = |trace: &str, flags: &str| {
        format!("select 1/0 /*action='x',traceparent='00-{trace}-{CALLER}-{flags}'*/")
    };
    session.query(&commented(TRACE, "01")).unwrap_err();
    let spans = without_fetches(whole(&collector, TRACE));
    assert_eq!(
        shown_of_reading(&spans),
        ["batch", "  wait", "  SELECT shop"]
    );
    let select = spans
        .iter()
        .find(|span| span.name == "SELECT shop")
        .unwrap();
    assert_eq!(
        attributes(&select.attributes)["db.response.status_code"],
        "22012"
    );
    assert_eq!(select.status.as_ref().unwrap().code, 2);

    // What is not in Postgres' memory is read from the volume.
    let read = TRACE.replace("0af7", "eef7");
    let parent = format!("/*traceparent='00-{read}-{CALLER}-01'*/");
    session
        .query(&format!("select sum(length(prosrc)) from pg_proc {parent}"))
        .unwrap();
    let spans = whole(&collector, &read);
    print(&spans, CALLER, 0);
    let select = spans
        .iter()
        .find(|span| span.name == "SELECT shop")
        .unwrap();
    let pages = attributes(&select.attributes)["dormouse.pages.read"].clone();
    let pages = pages.parse::<u64>().unwrap();
    assert!(pages > 10, "{pages}");
    let fetches: Vec<&Span> = spans.iter().filter(|span| span.name == "fetch").collect();
    assert!((1..=16).contains(&fetches.len()), "{}", fetches.len());
    let (mut fetched, mut bytes) = (0, 0);
    for fetch in fetches {
        assert_eq!(fetch.parent_span_id, select.span_id);
        let (begin, end) = (fetch.start_time_unix_nano, fetch.end_time_unix_nano);
        assert!(select.start_time_unix_nano <= begin && begin <= end);
        assert!(end <= select.end_time_unix_nano);
        let told = attributes(&fetch.attributes);
        fetched += told["dormouse.pages.read"].parse::<u64>().unwrap();
        bytes += told["dormouse.bytes.read"].parse::<u64>().unwrap();
        // What it took to read is within the time of the span.
        let ms: f64 = told["dormouse.read.ms"].parse().unwrap();
        assert!(
            ms > 0.0 && ms <= (end - begin) as f64 / 1e6 + 0.1,
            "{told:?}"
        );
    }
    // Nobody else reads in this database, but the host may.
    assert!(fetched > 10 && fetched <= pages, "{fetched} of {pages}");
    assert!(
        bytes > 10 * 8_192 && bytes <= fetched * 8_192,
        "{bytes} of {fetched}"
    );

    let second = TRACE.replace("0af7", "1bf7");
    server
        .http()
        .query("shop", &commented(&second, "01"))
        .error(400);
    let spans = without_fetches(whole(&collector, &second));
    assert_eq!(
        shown_of_reading(&spans),
        ["batch", "  wait", "  SELECT shop"]
    );

    // Who says no is not recorded, but passed on.
    let third = TRACE.replace("0af7", "2cf7");
    session.query(&commented(&third, "00")).unwrap_err();
    let headers = format!("traceparent: 00-{third}-{CALLER}-00\r\n");
    let answer = query(&mut server.http(), "shop", "select 1", &headers);
    let told = answer.header("traceresponse").unwrap();
    assert!(
        told.starts_with(&format!("00-{third}-")) && told.ends_with("-00"),
        "{told}"
    );
    let fourth = TRACE.replace("0af7", "3df7");
    session.query(&commented(&fourth, "01")).unwrap_err();
    whole(&collector, &fourth);
    assert!(collector.trace(&third).is_empty());
}

#[test]
fn every_way_to_run_statements_is_traced() {
    let collector = Collector::start();
    let server = traced(&collector.endpoint(), "0.0");
    let mut http = server.http();
    let begun = http.post("/v1/databases/shop/transactions", &json!({}));
    let id = begun.json()["id"].as_str().unwrap().to_owned();
    let one = json!({ "sql": "select 1" });
    let all = json!({ "statements": [one] });
    let neon = (
        "neon-connection-string",
        "postgresql://postgres@localhost/shop",
    );
    let plain = ("accept", "application/json");
    let held = format!("transactions/{id}/query");
    let ways = [
        ("query", &one, plain),
        ("query", &one, ("accept", "application/x-ndjson")),
        ("batch", &all, plain),
        ("transaction", &all, plain),
        (&*held, &one, plain),
        ("/sql", &json!({ "query": "select 1" }), neon),
    ];
    for (number, (path, body, header)) in (1..).zip(ways) {
        let path = match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("/v1/databases/shop/{path}"),
        };
        let trace = TRACE.replace("0af7", &format!("{number:04x}"));
        let parent = format!("00-{trace}-{CALLER}-01");
        let headers = [("traceparent", &*parent), header];
        let answer = http.request_with("POST", &path, &headers, Some(&body.to_string()));
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let is_whole = |spans: &Vec<Span>| {
            let has = |name: &str| spans.iter().any(|span| span.name.starts_with(name));
            has("POST ") && has("SELECT shop")
        };
        let spans = until(|| collector.trace(&trace), is_whole);
        let lines = shown(&spans);
        assert!(lines.contains(&"  SELECT shop".to_owned()), "{lines:?}");
    }

    // In a WebSocket each statement is a request by itself.
    let trace = TRACE.replace("0af7", "eeee");
    let address = format!("ws://{}/v1/databases/shop/ws", server.http);
    let (mut socket, _) = tungstenite::connect(address).unwrap();
    let sql = format!("select 1 /*traceparent='00-{trace}-{CALLER}-01'*/");
    let message = json!({ "id": 1, "sql": sql }).to_string();
    socket.send(tungstenite::Message::text(message)).unwrap();
    let spans = without_fetches(whole(&collector, &trace));
    assert_eq!(
        shown_of_reading(&spans),
        ["batch", "  wait", "  SELECT shop"]
    );
    let batch = spans.iter().find(|span| span.name == "batch").unwrap();
    let session = attributes(&batch.attributes)["dormouse.session"].clone();
    assert!(session.contains('-'), "{session}");
}

#[test]
fn a_collector_that_is_away_stops_nothing() {
    // A port that nobody listens on.
    let server = Server::start_with(&[
        ("DORMOUSE_TELEMETRY__OTLP_ENDPOINT", "http://127.0.0.1:1"),
        ("DORMOUSE_TELEMETRY__SAMPLE_RATIO", "1.0"),
        ("DORMOUSE_TELEMETRY__METRICS_INTERVAL_MS", "10"),
        ("OTEL_BSP_SCHEDULE_DELAY", "10"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "64"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "32"),
    ]);
    let mut session = server.connect("shop");
    for _ in 0..2_000 {
        session.query("select 1").unwrap();
    }
    until(
        || server.log(),
        |log| log.contains("the collector of telemetry does not take it"),
    );
    let told = server.log().matches("the collector of telemetry").count();
    assert_eq!(told, 1, "{}", server.log());
    drop(session);
    assert!(server.stop().success());
}

/// For docs/observability.md.
pub(super) fn print(spans: &[Span], parent: &str, depth: usize) {
    let first = spans
        .iter()
        .map(|span| span.start_time_unix_nano)
        .min()
        .unwrap();
    let mut below: Vec<&Span> = spans
        .iter()
        .filter(|span| hex(&span.parent_span_id) == parent)
        .collect();
    below.sort_by_key(|span| span.start_time_unix_nano);
    for span in below {
        let at = (span.start_time_unix_nano - first) as f64 / 1e6;
        let took = (span.end_time_unix_nano - span.start_time_unix_nano) as f64 / 1e6;
        let all: BTreeMap<String, String> = attributes(&span.attributes);
        println!(
            "{at:8.3} {took:8.3} {}{} {all:?}",
            "  ".repeat(depth),
            span.name
        );
        print(spans, &hex(&span.span_id), depth + 1);
    }
}

#[test]
fn a_request_begins_with_its_head() {
    let collector = Collector::start();
    let server = traced(&collector.endpoint(), "0.0");
    server.sql("shop", "select 1");
    let mut http = server.http();
    let body = json!({ "sql": "select 1" }).to_string();
    http.send(&format!(
        "POST /v1/databases/shop/query HTTP/1.1\r\nhost: localhost\r\n\
         traceparent: 00-{TRACE}-{CALLER}-01\r\nexpect: 100-continue\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    ));
    // The head is read.
    assert_eq!(http.head().status, 100);
    let other = TRACE.replace("0af7", "5cf7");
    let headers = format!("traceparent: 00-{other}-{CALLER}-01\r\n");
    query(&mut server.http(), "shop", "select 2", &headers).json();
    http.send(&body);
    http.response().json();
    let root = |trace: &str| {
        let spans = whole(&collector, trace);
        let is_root = |span: &&Span| hex(&span.parent_span_id) == CALLER;
        spans.iter().find(is_root).unwrap().clone()
    };
    let (slow, amid) = (root(TRACE), root(&other));
    assert!(slow.start_time_unix_nano < amid.start_time_unix_nano);
    assert!(slow.end_time_unix_nano > amid.end_time_unix_nano);
    let told = attributes(&slow.attributes);
    let milliseconds = |name: &str| told[name].parse::<f64>().unwrap();
    let took = (amid.end_time_unix_nano - amid.start_time_unix_nano) as f64 / 1e6;
    assert!(milliseconds("dormouse.body.ms") >= took, "{told:?}");
    assert!(milliseconds("dormouse.login.ms") >= 0.0, "{told:?}");
}

#[test]
fn strangers_decide_nothing_and_name_nothing() {
    let collector = Collector::start();
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    let server = Server::start_with(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.endpoint()),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("DORMOUSE_TELEMETRY__SAMPLE_RATIO", "0.0"),
        ("DORMOUSE_AUTH__TOKENS_FILE", tokens.to_str().unwrap()),
    ]);
    let mut create = crate::harness::dormouse();
    create.args(["token", "create", "--name", "root", "--scope", "admin"]);
    create.env("DORMOUSE_AUTH__TOKENS_FILE", &tokens);
    let token = crate::harness::run_program(&mut create).done();
    let bearer = format!("authorization: Bearer {}\r\n", token.trim_end());
    let ask = |path: &str, trace: &str, more: &str| {
        let mut http = server.http();
        http.send(&format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\n{more}traceparent: 00-{trace}-{CALLER}-01\r\n\r\n"
        ));
        http.response().status
    };
    let stranger = TRACE.replace("0af7", "3df7");
    let known = TRACE.replace("0af7", "4ef7");
    for (path, status) in [("/ping", 200), ("/v1/databases", 401), ("/some/where", 401)] {
        assert_eq!(ask(path, &stranger, ""), status);
    }
    until(
        || ask("/some/where", &known, &bearer),
        |status| *status == 404,
    );
    let spans = until(|| collector.trace(&known), |spans| !spans.is_empty());
    assert_eq!(spans[0].name, "GET elsewhere");
    assert!(collector.trace(&stranger).is_empty());
}

#[test]
fn who_goes_amid_a_login_is_not_recorded() {
    let collector = Collector::start();
    let provider = Provider::start();
    let server = Server::start_with(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.endpoint()),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("DORMOUSE_TELEMETRY__SAMPLE_RATIO", "0.0"),
        (
            "DORMOUSE_AUTH__INTROSPECTION__URL",
            &format!("{}/introspect", provider.url()),
        ),
        ("DORMOUSE_AUTH__INTROSPECTION__CLIENT_ID", CLIENT.0),
        ("DORMOUSE_INTROSPECTION_SECRET", CLIENT.1),
    ]);
    provider.hold(true);
    let mut gone = std::net::TcpStream::connect(server.http).unwrap();
    let request = format!(
        "GET /v1/databases HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer opaque\r\n\
         traceparent: 00-{TRACE}-{CALLER}-01\r\n\r\n"
    );
    gone.write_all(request.as_bytes()).unwrap();
    provider.until_asked();
    gone.shutdown(Shutdown::Write).unwrap();
    // The server closes it when it has dropped the request.
    let mut told = String::new();
    gone.read_to_string(&mut told).unwrap();
    assert_eq!(told, "");
    // Spans come in the order in which they end.
    let after = TRACE.replace("0af7", "6ef7");
    let select = format!("select 1 /*traceparent='00-{after}-{CALLER}-01'*/");
    server.connect("shop").query(&select).unwrap();
    whole(&collector, &after);
    let others: Vec<_> = collector.spans();
    let others = others.iter().filter(|span| hex(&span.trace_id) != after);
    assert_eq!(others.count(), 0);
}

#[test]
fn what_a_login_took_is_told_once() {
    let collector = Collector::start();
    let server = traced(&collector.endpoint(), "0.0");
    let mut http = server.http();
    let headers = [
        ("traceparent", &*format!("00-{TRACE}-{CALLER}-01")),
        ("neon-connection-string", "postgres://postgres@h/shop"),
    ];
    let body = json!({"query": "select 1", "params": []}).to_string();
    let answer = http.request_with("POST", "/sql", &headers, Some(&body));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let spans = whole(&collector, TRACE);
    let root = spans.iter().find(|span| span.name == "POST /sql").unwrap();
    for key in ["dormouse.login.ms", "dormouse.body.ms"] {
        let told = root.attributes.iter().filter(|told| told.key == key);
        assert_eq!(told.count(), 1, "{key}: {:?}", root.attributes);
    }
}
