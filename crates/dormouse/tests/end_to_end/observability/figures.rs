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
