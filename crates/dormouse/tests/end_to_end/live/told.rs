//! Settings of what is told: logs, metrics, traces; and how long a stop waits.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::{Case, Live, at_once, in_time, until};
use crate::harness::{Collector, attributes};

/// What only a server that ends shows.
pub(super) const DRAIN_KEY: &str = "server.drain_ms_max";

pub(super) const CASES: &[Case] = &[
    at_once("log.filter", "\"debug\"", |live| {
        let count = || live.server.log().matches("HTTP request").count();
        let before = count();
        live.http().get("/ping");
        count() > before
    }),
    at_once("log.slow_query_plan", "true", |live| {
        slow_query(live).contains("plan=")
    }),
    at_once("log.query_bytes_max", "10", |live| {
        !slow_query(live).contains("its_end")
    }),
    at_once("telemetry.metrics_databases_max", "1", |live| {
        let page = live.http().get("/metrics").text();
        page.contains("dormouse_database_statements_total{")
    }),
];

/// Where nothing is told of slow statements.
pub(super) const OF_SLOW_QUERIES: &[Case] = &[in_time("log.slow_query_ms", "1", |live| {
    slow_query(live).contains("its_end")
})];

pub(super) const OF_TRACES: &[Case] = &[
    at_once("telemetry.query_text", "true", |live| {
        live.fresh();
        let trace = format!("{:032x}", live.names.get());
        let parent = format!("00-{trace}-b7ad6b7169203331-01");
        let headers = [("traceparent", &*parent)];
        // Not one whose answer is kept.
        let body = format!("{{\"sql\": \"select 1 + {}\"}}", live.names.get());
        let mut http = live.http();
        let path = "/v1/databases/shop/query";
        http.request_with("POST", path, &headers, Some(&body))
            .json();
        let select = || {
            let spans = COLLECTOR.trace(&trace);
            spans.into_iter().find(|span| span.name == "SELECT shop")
        };
        let select = until(select, Option::is_some).unwrap();
        attributes(&select.attributes).contains_key("db.query.text")
    }),
    in_time("telemetry.sample_ratio", "1.0", |live| {
        live.http().get("/v1/figures");
        let is_there = || {
            let spans = COLLECTOR.spans();
            spans.iter().any(|span| span.name == "GET /v1/figures")
        };
        until(is_there, |is_there| *is_there)
    }),
];

/// What is said of one.
fn slow_query(live: &Live) -> String {
    let lines = || -> Vec<String> {
        let log = live.server.log();
        let slow = log.lines().filter(|line| line.contains("slow query"));
        slow.map(str::to_owned).collect()
    };
    let before = lines().len();
    live.status("select pg_sleep(0.01) as its_end");
    until(lines, |lines| lines.len() > before).pop().unwrap()
}

/// That of the test.
static COLLECTOR: LazyLock<Collector> = LazyLock::new(Collector::start);

#[test]
fn settings_of_what_is_told() {
    let live = Live::start("log.slow_query_ms = 1\n");
    live.server.sql("shop", "select 1");
    live.try_all(CASES);
    let live = Live::start("");
    live.server.sql("shop", "select 1");
    live.try_all(OF_SLOW_QUERIES);
}

#[test]
fn settings_of_traces() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*COLLECTOR.endpoint()),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let live = Live::start_in(folder, "telemetry.sample_ratio = 0.0\n", &variables);
    live.server.sql("shop", "select 1");
    live.try_all(OF_TRACES);
}

#[test]
fn a_stop_waits_as_long_as_it_is_told_now() {
    let live = Live::start("server.drain_ms_max = 600000\n");
    let mut session = live.server.connect("shop");
    session.send_query("select pg_sleep(600)");
    live.set("server.drain_ms_max = 100");
    let begun = Instant::now();
    let Live { server, .. } = live;
    assert!(server.stop().success());
    assert!(begun.elapsed() < Duration::from_secs(300));
}
