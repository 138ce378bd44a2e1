//! SQL over HTTP, and the directory of databases.

use serde_json::{Value, json};

use crate::harness::{Server, until};

#[test]
fn databases_are_created_shown_listed_and_deleted() {
    let server = Server::start();
    let mut http = server.http();
    let response = http.post("/v1/databases", &json!({"name": "shop"}));
    assert_eq!(response.status, 201, "{}", response.text());
    assert_eq!(response.header("location"), Some("/v1/databases/shop"));
    let created = response.json();
    assert_eq!(
        (&created["name"], &created["parent"]),
        (&json!("shop"), &Value::Null)
    );
    assert_eq!(created["id"].as_str().unwrap().len(), 16);
    assert_eq!(created["state"], "asleep");
    assert!(created["createdAt"].as_str().unwrap().ends_with('Z'));

    assert_eq!(http.get("/v1/databases/shop").json(), created);
    let list = http.get("/v1/databases").json();
    assert!(
        list["databases"].as_array().unwrap().contains(&created),
        "{list}"
    );

    let taken = http.post("/v1/databases", &json!({"name": "shop"}));
    assert_eq!(taken.error(409).0, "42P04");

    assert_eq!(http.delete("/v1/databases/shop").status, 204);
    assert_eq!(http.get("/v1/databases/shop").error(404).0, "3D000");
    assert_eq!(http.delete("/v1/databases/shop").error(404).0, "3D000");
}

#[test]
fn forks_begin_as_their_parent_and_are_independent() {
    let server = Server::start();
    server.sql("shop", "create table fruit as select 'apple' as name");
    let mut http = server.http();
    let forms = [json!("shop"), json!({"database": "shop"})];
    for (name, from) in ["one", "two"].into_iter().zip(forms) {
        let fork = http.post("/v1/databases", &json!({"name": name, "from": from}));
        assert_eq!(fork.status, 201, "{}", fork.text());
        assert_eq!(fork.json()["parent"], "shop");
    }
    server.sql("one", "insert into fruit values ('fig')");
    for (name, count) in [("shop", 1), ("one", 2), ("two", 1)] {
        assert_eq!(server.sql(name, "table fruit")["rowCount"], count, "{name}");
    }
    let empty = http.post(
        "/v1/databases",
        &json!({"name": "empty", "from": "template"}),
    );
    assert_eq!(empty.json()["parent"], Value::Null);

    let from = |from: Value| json!({"name": "three", "from": from});
    let unknown = http.post("/v1/databases", &from(json!("nobody")));
    assert_eq!(unknown.error(404).0, "3D000");
    for wrong in [json!(1), json!({"base": "shop"}), json!({})] {
        let (_, message) = http.post("/v1/databases", &from(wrong)).error(400);
        assert!(message.contains("\"template\""), "{message}");
    }
}

#[test]
fn a_database_in_use_is_deleted_only_by_force() {
    let server = Server::start();
    let mut client = server.connect("busy");
    let mut http = server.http();
    assert_eq!(http.delete("/v1/databases/busy").error(409).0, "55006");
    client.query("select 1").unwrap();
    let (_, message) = http.delete("/v1/databases/busy?force=maybe").error(400);
    assert!(message.contains("force"), "{message}");
    assert_eq!(http.delete("/v1/databases/busy?force=true").status, 204);
    client.send_query("select 1");
    assert_eq!(client.last_word().code(), "57P01");
}

#[test]
fn results_have_fields_and_rows() {
    let server = Server::start();
    let mut http = server.http();
    let mut ask = |body: Value| http.post("/v1/databases/values/query", &body).json();
    let sql = "select 9007199254740993 as big, $1::int as n, null as nothing, array[1,2] as a, \
               '{\"k\":1.0}'::jsonb as j, 'NaN'::float8 as nan";
    let result = ask(json!({"sql": sql, "params": [7]}));
    assert_eq!(result["command"], "SELECT");
    assert_eq!(result["rowCount"], 1);
    assert_eq!(result["fields"][0]["name"], "big");
    assert_eq!(result["fields"][0]["dataTypeID"], 20);
    let row = json!({"big": "9007199254740993", "n": 7, "nothing": null, "a": [1, 2],
        "j": {"k": 1.0}, "nan": "NaN"});
    assert_eq!(result["rows"], json!([row]));

    let same = json!({"sql": "select 1 as x, 2 as x", "rowMode": "array"});
    assert_eq!(ask(same)["rows"], json!([[1, 2]]));
    let created = ask(json!({"sql": "create table t (n int)"}));
    assert_eq!(
        (&created["command"], &created["rowCount"]),
        (&json!("CREATE TABLE"), &Value::Null)
    );
    let inserted = ask(json!({"sql": "insert into t select generate_series(1, 5)"}));
    assert_eq!(
        (&inserted["command"], &inserted["rowCount"]),
        (&json!("INSERT"), &json!(5))
    );
    assert_eq!(ask(json!({"sql": ""}))["rows"], json!([]));
}

#[test]
fn requests_leave_nothing_behind() {
    let server = Server::start();
    server.sql("clean", "create table t (n int)");
    let mut http = server.http();
    for sql in [
        "begin",
        "set work_mem = '1MB'",
        "create temporary table mine (n int)",
    ] {
        http.query("clean", sql);
    }
    server.sql("clean", "insert into t values (1)");
    let mine = http
        .query("clean", "select to_regclass('mine') as mine")
        .json();
    assert_eq!(mine["rows"][0]["mine"], Value::Null);
    assert_eq!(
        server.sql("clean", "show work_mem")["rows"][0]["work_mem"],
        "4MB"
    );
    assert_eq!(server.sql("clean", "table t")["rowCount"], 1);
}

#[test]
fn a_result_beyond_the_limit_is_an_error_that_names_it() {
    let server = Server::start_with(&[("DORMOUSE_HTTP__RESULT_BYTES_MAX", "10000")]);
    let (code, message) = server
        .http()
        .query("large", "select generate_series(1, 100000)")
        .error(413);
    assert_eq!(code, "54000");
    assert!(message.contains("result_bytes_max, 10000"), "{message}");
    server.still_answers();
}

#[test]
fn a_request_beyond_its_time_is_cancelled() {
    let server = Server::start_with(&[("DORMOUSE_HTTP__REQUEST_TIMEOUT_MS", "300")]);
    let (code, message) = server
        .http()
        .query("slow", "select pg_sleep(3600)")
        .error(504);
    assert_eq!(code, "57014");
    assert!(message.contains("its time, 300 ms"), "{message}");
    // It is not only answered but ended.
    server.until_running("slow", "select pg_sleep%", 0);
    server.still_answers();
}

#[test]
fn a_database_that_is_in_use_lets_the_next_request_wait_its_turn() {
    let server = Server::start_with(&[
        ("DORMOUSE_SESSIONS__WAIT_MS_MAX", "200"),
        ("DORMOUSE_DATABASES__PROCESSES_MAX", "1"),
    ]);
    let mut client = server.connect("taken");
    client.query("begin").unwrap();
    let response = server.http().query("taken", "select 1");
    assert_eq!(response.error(503).0, "53300");
    drop(client);
    server.sql("taken", "select 1");
}

#[test]
fn ping_and_health_wake_nobody() {
    let server = Server::start();
    let mut http = server.http();
    http.post("/v1/databases", &json!({"name": "asleep"}));
    let ping = http.get("/ping");
    assert_eq!((ping.status, ping.json()), (200, json!({"ok": true})));
    assert!(ping.header("x-request-id").is_some());
    let health = http.get("/health").json();
    assert_eq!(health["status"], "ok");
    assert!(
        health["postgresVersion"]
            .as_str()
            .unwrap()
            .starts_with("18."),
        "{health}"
    );
    assert!(health["databases"]["total"].as_u64() >= Some(1), "{health}");
    assert!(health["latencyMs"].is_number(), "{health}");
    assert_eq!(http.get("/v1/databases/asleep").json()["state"], "asleep");
}

#[test]
fn it_is_not_ready_while_a_database_waits_for_room() {
    let server = Server::start_with(&[("DORMOUSE_DATABASES__AWAKE_MAX", "1")]);
    let ready = |server: &Server| server.http().get("/readiness");
    let mut holder = server.connect("one");
    holder.query("begin").unwrap();
    assert_eq!(ready(&server).json(), json!({"ready": true}));
    let mut waiting = server.http();
    waiting.send_post("/v1/databases/two/query", &[], &json!({"sql": "select 1"}));
    let answer = until(|| ready(&server), |answer| answer.status == 503);
    assert_eq!(
        answer.json(),
        json!({"ready": false, "reason": "databases.awake_max"})
    );
    assert_eq!(answer.header("retry-after"), Some("1"));
    drop(holder);
    assert_eq!(waiting.response().status, 200);
    assert_eq!(ready(&server).status, 200);
}

#[test]
fn lists_come_in_pages() {
    let server = Server::start();
    let mut http = server.http();
    for name in ["p1", "p2", "p3", "p4", "p5"] {
        http.post("/v1/databases", &json!({"name": name}));
    }
    let mut names = Vec::new();
    let mut query = "?limit=2&after=p0".to_owned();
    loop {
        let page = http.get(&format!("/v1/databases{query}")).json();
        let databases = page["databases"].as_array().unwrap();
        assert!(databases.len() <= 2);
        let name = |database: &Value| database["name"].as_str().unwrap().to_owned();
        names.extend(databases.iter().map(name));
        match page["next"].as_str() {
            Some(next) => query = format!("?limit=2&after={next}"),
            None => break,
        }
    }
    let of_ours: Vec<&String> = names.iter().filter(|name| name.starts_with('p')).collect();
    assert_eq!(of_ours[..5], ["p1", "p2", "p3", "p4", "p5"]);
    for bad in [
        "?limit=0",
        "?limit=1001",
        "?limit=x",
        "?colour=1",
        "?after=no/name",
    ] {
        let response = http.get(&format!("/v1/databases{bad}"));
        assert_eq!(response.status, 400, "{bad}: {}", response.text());
    }
}

#[test]
fn one_database_is_configured_and_flushed() {
    let server = Server::start();
    let mut http = server.http();
    http.post("/v1/databases", &json!({"name": "own"}));
    let default = http.get("/v1/databases/own").json();
    assert_eq!(default["durability"], "local");
    assert_eq!(default["maintenance"], true);
    assert_eq!(default["settings"], json!({}));
    let settings = json!({"durability": "relaxed", "maintenance": false}).to_string();
    let put = http.request("PUT", "/v1/databases/own/settings", Some(&settings));
    assert_eq!(put.status, 200, "{}", put.text());
    let own = http.get("/v1/databases/own").json();
    assert_eq!(
        (&own["durability"], &own["maintenance"]),
        (&json!("relaxed"), &json!(false))
    );
    http.query("own", "create table t (n int)");
    assert_eq!(http.post("/v1/databases/own/flush", &json!({})).status, 204);
    let put = http.request("PUT", "/v1/databases/own/settings", Some("{}"));
    assert_eq!(put.json()["durability"], "local");
    let put = http.request("PUT", "/v1/databases/own/settings", Some("{\"colour\":1}"));
    assert_eq!(put.status, 400, "{}", put.text());
    assert_eq!(
        http.post("/v1/databases/nobody/flush", &json!({}))
            .error(404)
            .0,
        "3D000"
    );
}

#[test]
fn metrics_count_what_happened() {
    let server = Server::start();
    server.sql("counted", "select 1");
    let metrics = server.http().get("/metrics");
    let text = metrics.text();
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse::<f64>().unwrap()
    };
    assert!(
        value("dormouse_wakes_total{from=\"template\"}") >= 1.0,
        "{text}"
    );
    assert!(value("dormouse_databases ") >= 1.0, "{text}");
    assert!(value("dormouse_private_bytes ") > 0.0, "{text}");
}

#[test]
fn connections_beyond_the_limit_are_told_so() {
    let server = Server::start_with(&[("DORMOUSE_HTTP__CONNECTIONS_MAX", "1")]);
    let mut first = server.http();
    assert_eq!(first.get("/ping").status, 200);
    let (code, message) = server.http().get("/ping").error(503);
    assert_eq!(code, "53300");
    assert!(message.contains("http.connections_max is 1"), "{message}");
}
