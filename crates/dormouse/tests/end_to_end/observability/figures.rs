//! What was counted of each database, over HTTP and in `dormouse top`.

use serde_json::{Value, json};

use crate::harness::{Server, dormouse};

fn of(server: &Server, database: &str) -> Value {
    let answer = server
        .http()
        .get(&format!("/v1/databases/{database}/figures"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[test]
fn figures_stay_while_a_database_sleeps_and_fall_with_it() {
    let server = Server::start_with(&[("DORMOUSE_DATABASES__IDLE_MS", "100")]);
    server.sql(
        "shop",
        "create table t as select generate_series(1, 10) as n",
    );
    let mut session = server.connect("shop");
    session.query("select * from t; select 1").unwrap();
    session.query("select 1/0").unwrap_err();
    drop(session);
    server.until_awake(0);
    let figures = of(&server, "shop");
    assert_eq!(figures["state"], "asleep");
    assert_eq!(figures["queries"], 3);
    assert_eq!(figures["statements"], 4);
    assert_eq!(figures["errors"], 1);
    assert_eq!(figures["rows"], 21);
    assert_eq!(
        (&figures["wakes"], &figures["sleeps"]),
        (&json!(1), &json!(1))
    );
    assert!(figures["bytesIn"].as_u64() > Some(50), "{figures}");
    assert!(figures["bytesOut"].as_u64() > Some(100), "{figures}");
    assert!(figures["walBytes"].as_u64() > Some(1_000), "{figures}");
    assert!(figures["ownBytes"].as_u64() > Some(0), "{figures}");
    let buckets = figures["latencyMs"]["buckets"].as_array().unwrap();
    let counts = buckets
        .iter()
        .map(|bucket| bucket["count"].as_u64().unwrap());
    assert_eq!(counts.sum::<u64>(), 3);

    server.sql("shop", "select 1");
    assert_eq!(of(&server, "shop")["wakes"], 2);
    let delete = server.http().delete("/v1/databases/shop?force=true");
    assert_eq!(delete.status, 204);
    let page = server.http().get("/v1/figures").json();
    assert_eq!(page["total"]["queries"], 4, "{page}");
    assert_eq!(page["databases"], json!([]));
    let gone = server.http().get("/v1/databases/shop/figures");
    assert_eq!(gone.error(404).0, "3D000");
}

#[test]
fn a_large_result_counts_though_it_left_in_pieces() {
    let server = Server::start();
    let mut session = server.connect("large");
    session
        .query("select repeat('x', 1000) from generate_series(1, 2000); select 1")
        .unwrap();
    let figures = of(&server, "large");
    assert_eq!(figures["rows"], 2001, "{figures}");
    assert!(figures["bytesOut"].as_u64() > Some(2_000_000), "{figures}");
    assert!(figures["bytesOut"].as_u64() < Some(2_100_000), "{figures}");
}

#[test]
fn the_first_are_told_first() {
    let server = Server::start();
    for (database, times) in [("a", 1), ("b", 3), ("c", 2)] {
        for number in 0..times {
            // The same again would come from the cache of answers.
            server.sql(database, &format!("select {number}"));
        }
    }
    server.sql("a", "select generate_series(1, 100)");
    let names = |query: &str| {
        let page = server.http().get(&format!("/v1/figures{query}")).json();
        let databases = page["databases"].as_array().unwrap().clone();
        let name = |one: &Value| one["name"].as_str().unwrap().to_owned();
        databases.iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(names("?by=queries&top=1"), ["b"]);
    assert_eq!(names("?by=rows"), ["a", "b", "c"]);
    for wrong in ["?by=colour", "?top=1001", "?top=x", "?more=1"] {
        let answer = server.http().get(&format!("/v1/figures{wrong}"));
        assert_eq!(answer.error(400).0, "08P01");
    }
}

#[test]
fn answers_from_the_cache_are_counted_by_database() {
    let server = Server::start_with(&[
        ("DORMOUSE_DATABASES__IDLE_MS", "100"),
        ("DORMOUSE_TELEMETRY__METRICS_DATABASES_MAX", "2"),
    ]);
    for database in ["shop", "other"] {
        server.sql(database, "create table fruit (name text)");
    }
    let metric = |name: &str| {
        let page = server.http().get("/metrics").text();
        let line = page.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|line| line.trim().parse::<f64>().ok());
        value.unwrap_or_else(|| panic!("{name}: {page}"))
    };
    // From here on they have samples of their own.
    assert_eq!(
        metric("dormouse_database_cache_hits_total{database=\"shop\"}"),
        0.0
    );
    let ask = |database: &str, tag: &str| {
        let path = format!("/v1/databases/{database}/query");
        let body = json!({"sql": "select name from fruit"}).to_string();
        let headers = [("if-none-match", tag)];
        server
            .http()
            .request_with("POST", &path, &headers, Some(&body))
    };
    let told = |database: &str| {
        let figures = of(&server, database);
        ["cacheHits", "cacheMisses", "notModified"].map(|name| figures[name].as_u64().unwrap())
    };
    // Of the first question it may not be known yet what it depends on: nothing is sought then.
    ask("shop", "\"\"");
    let first = ask("shop", "\"\"");
    let [hits, misses, confirmed] = told("shop");
    assert_eq!(confirmed, 0);
    let tag = first.header("etag").unwrap();
    for _ in 0..3 {
        assert_eq!(ask("shop", "\"\"").header("x-dormouse-cache"), Some("hit"));
    }
    assert_eq!(ask("shop", tag).status, 304);
    assert_eq!(told("shop"), [hits + 3, misses, 1]);
    server.sql("shop", "insert into fruit values ('apple')");
    assert_eq!(ask("shop", tag).status, 200);
    assert_eq!(told("shop"), [hits + 3, misses + 1, 1]);
    // They stay while it sleeps, and count on without waking it.
    server.until_awake(0);
    assert_eq!(ask("shop", "\"\"").header("x-dormouse-cache"), Some("hit"));
    server.until_awake(0);
    assert_eq!(told("shop"), [hits + 4, misses + 1, 1]);

    for _ in 0..3 {
        ask("other", "\"\"");
    }
    let [other_hits, ..] = told("other");
    assert!((1..hits + 4).contains(&other_hits), "{other_hits}");
    // The node counts the same ones, and what `server.sql` has asked of it.
    let page = server.http().get("/v1/figures?by=hits&top=1").json();
    assert_eq!(page["databases"][0]["name"], "shop");
    let of_node =
        ["hits", "misses"].map(|name| metric(&format!("dormouse_result_cache_{name}_total")));
    let of_all = ["cacheHits", "cacheMisses"].map(|name| page["total"][name].as_f64().unwrap());
    assert_eq!(of_node, of_all);
    let sample = |name: &str| {
        metric(&format!(
            "dormouse_database_{name}_total{{database=\"shop\"}}"
        ))
    };
    assert_eq!(sample("cache_hits"), (hits + 4) as f64);
    assert_eq!(sample("not_modified"), 1.0);
    assert!(sample("cache_misses") >= 1.0);

    let url = format!("http://{}", server.http);
    let top = dormouse()
        .args(["top", "--once", "--by", "hits", "--server", &url])
        .output()
        .unwrap();
    let table = String::from_utf8(top.stdout).unwrap();
    assert!(
        table.contains(" hits ") && table.contains(" misses "),
        "{table}"
    );
}

#[test]
fn top_shows_them() {
    let server = Server::start();
    server.sql("shop", "select 1");
    let url = format!("http://{}", server.http);
    let top = |more: &[&str]| {
        let output = dormouse()
            .args(["top", "--once", "--server", &url])
            .args(more)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let table = top(&[]);
    assert!(
        table.contains(" database ") && table.contains(" shop "),
        "{table}"
    );
    assert!(!table.contains('\x1b'), "{table}");
    let document: Value = serde_json::from_str(&top(&["--json", "--by", "time"])).unwrap();
    assert_eq!(document["databases"][0]["name"], "shop");
    let nobody = dormouse()
        .args(["top", "--server", "http://127.0.0.1:1"])
        .output()
        .unwrap();
    assert_eq!(nobody.status.code(), Some(3));
}
