//! `/metrics`, held against the text format's own rules.

use std::collections::{BTreeMap, BTreeSet};

use crate::harness::Server;

/// Reads a page as strictly as the format is written down: each family once, its comments before its samples,
/// no sample twice, buckets that only grow. The samples, by name and labels.
#[track_caller]
fn read(page: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut families = BTreeSet::new();
    let mut family = (String::new(), String::new());
    assert!(page.ends_with('\n'));
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap();
            // OpenMetrics names a counter without its end.
            let base = name.trim_end_matches("_total").to_owned();
            assert!(!text.is_empty() && families.insert(base), "{line}");
            family = (name.to_owned(), String::new());
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, family.0, "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(kind != "counter" || name.ends_with("_total"), "{line}");
            family.1 = kind.to_owned();
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let name = sample.split('{').next().unwrap();
            let valid =
                |byte: u8| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit();
            assert!(name.bytes().all(valid), "{line}");
            let suffixes = match &*family.1 {
                "histogram" => &["_bucket", "_sum", "_count"][..],
                _ => &[""],
            };
            let own = |suffix: &&str| name == format!("{}{suffix}", family.0);
            assert!(suffixes.iter().any(own), "{line} in {family:?}");
            let value: f64 = value.parse().unwrap();
            assert!(value >= 0.0, "{line}");
            assert!(samples.insert(sample.to_owned(), value).is_none(), "{line}");
        }
    }
    samples
}

#[test]
fn the_page_is_as_prometheus_wants_it_and_counts() {
    let server = Server::start();
    server.sql("counted", "create table t (n int)");
    server.sql("counted", "insert into t select generate_series(1, 50)");
    let failed = server.http().query("counted", "select * from nowhere");
    assert_eq!(failed.error(400).0, "42P01");
    let mut session = server.connect("counted");
    session.query("select n from t").unwrap();
    let page = server.http().get("/metrics").text();
    let samples = read(&page);
    let value = |name: &str| {
        samples
            .get(name)
            .copied()
            .unwrap_or_else(|| panic!("{name}: {page}"))
    };
    assert_eq!(value("dormouse_statements_total"), 4.0);
    assert_eq!(value("dormouse_rows_total"), 100.0);
    assert_eq!(value("dormouse_errors_total{class=\"42\"}"), 1.0);
    assert_eq!(value("dormouse_query_duration_seconds_count"), 4.0);
    assert_eq!(
        value("dormouse_query_duration_seconds_bucket{le=\"+Inf\"}"),
        4.0
    );
    // A commit that is on the disk before anybody asks is not waited for.
    assert!(value("dormouse_durability_wait_seconds_count") <= 4.0);
    assert!(value("dormouse_wal_bytes_total") > 1_000.0);
    assert_eq!(value("dormouse_connections{protocol=\"pgwire\"}"), 1.0);
    assert_eq!(value("dormouse_http_requests_total{status=\"200\"}"), 2.0);
    assert_eq!(value("dormouse_http_requests_total{status=\"400\"}"), 1.0);
    assert_eq!(
        value("dormouse_wake_duration_seconds_count{from=\"template\"}"),
        1.0
    );
    assert_eq!(value("dormouse_result_cache_hits_total"), 0.0);
    assert_eq!(value("dormouse_result_cache_entries"), 0.0);
    assert!(value("process_open_fds") > 3.0);
    // The number of tenants must not show in the number of samples.
    assert!(!page.contains("counted"), "{page}");
}

#[test]
fn as_many_databases_as_wanted_have_samples() {
    let server = Server::start_with(&[("DORMOUSE_TELEMETRY__METRICS_DATABASES_MAX", "1")]);
    for number in 0..3 {
        // The same again would come from the cache of answers.
        server.sql("much", &format!("select {number}"));
    }
    server.sql("little", "select 1");
    let first = read(&server.http().get("/metrics").text());
    assert_eq!(
        first["dormouse_database_statements_total{database=\"other\"}"],
        4.0
    );
    server.sql("much", "select 4");
    server.sql("little", "select 4");
    let samples = read(&server.http().get("/metrics").text());
    assert_eq!(
        samples["dormouse_database_statements_total{database=\"much\"}"],
        1.0
    );
    assert_eq!(
        samples["dormouse_database_statements_total{database=\"other\"}"],
        5.0
    );
    assert!(!samples.keys().any(|sample| sample.contains("little")));
}
