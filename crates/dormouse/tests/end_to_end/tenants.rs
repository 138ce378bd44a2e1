//! Requests that name their database by path, header, host; and what can be asked of one.

use serde_json::{Value, json};

use crate::harness::{Http, Response, Server, until};

fn routed() -> Server {
    Server::start_with(&[("DORMOUSE_ROUTING__BASE_DOMAIN", "example.com")])
}

/// Posts as JSON with more headers.
fn post(http: &mut Http, path: &str, headers: &str, body: &Value) -> Response {
    let body = body.to_string();
    let length = body.len();
    http.send(&format!(
        "POST {path} HTTP/1.1\r\n{headers}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    ));
    http.response()
}

#[test]
fn a_request_names_its_database_by_path_header_or_host() {
    let server = routed();
    let mut http = server.http();
    let ask = json!({"sql": "select current_database()", "rowMode": "array"});
    let local = "host: localhost\r\n";
    let by_header = "host: shop.example.com\r\nx-dormouse-database: header\r\n";
    for (path, headers, expected) in [
        ("/v1/databases/path/query", by_header, "path"),
        ("/query", by_header, "header"),
        ("/query", "host: Shop.Example.com:80\r\n", "shop"),
    ] {
        let answer = post(&mut http, path, headers, &ask).json();
        assert_eq!(answer["rows"], json!([[expected]]));
    }
    let (code, message) = post(&mut http, "/query", local, &ask).error(400);
    assert_eq!(code, "08P01");
    assert!(message.contains("names none"), "{message}");
    let blocked = "host: www.example.com\r\n";
    let (code, message) = post(&mut http, "/query", blocked, &ask).error(403);
    assert_eq!(code, "42501");
    assert!(message.contains("routing.blocked_names"), "{message}");
    let bad = "host: localhost\r\nx-dormouse-database: a/b\r\n";
    assert_eq!(post(&mut http, "/query", bad, &ask).error(400).0, "42602");
}

#[test]
fn what_does_not_need_a_database_wakes_none() {
    let server = Server::start();
    server.sql("shop", "create table t (n int)");
    server.until_awake(0);
    let mut http = server.http();
    for path in ["/ping", "/health", "/config", "/readiness"] {
        let of_shop = http.get(&format!("/v1/databases/shop{path}"));
        assert_eq!(of_shop.status, 200, "{path}");
        assert_eq!(http.get(path).status, 200, "{path}");
    }
    assert_eq!(
        http.get("/v1/databases/shop/health").json()["state"],
        "asleep"
    );
    server.until_awake(0);
    let alive = http.get("/v1/databases/shop/liveness").json();
    assert_eq!(alive["ok"], true);
    assert_eq!(http.get("/v1/databases/none/health").error(404).0, "3D000");
}

#[test]
fn a_database_that_runs_a_long_statement_is_alive() {
    let server = Server::start();
    for statement in ["select pg_sleep(3600)", "do $$ begin loop end loop; end $$"] {
        let mut client = server.connect("long");
        client.send_query(statement);
        let mut http = server.http();
        // By the second at the latest the statement runs.
        for _ in 0..3 {
            let answer = http.get("/v1/databases/long/liveness");
            assert_eq!(answer.status, 200, "{statement}: {}", answer.text());
        }
    }
}

#[test]
fn errors_are_problem_documents() {
    let server = Server::start();
    let mut http = server.http();
    let answer = http.query("shop", "select * from missing");
    assert_eq!(answer.status, 400);
    let problem = answer.problem();
    assert_eq!(problem["title"], "Bad Request");
    assert_eq!(problem["status"], 400);
    assert_eq!(problem["detail"], "relation \"missing\" does not exist");
    assert_eq!(problem["error"]["code"], "42P01");
}

#[test]
fn a_schema_has_a_version_that_changes_with_it() {
    let server = Server::start();
    server.sql(
        "shop",
        "create table fruit (id int primary key, name text not null default 'x')",
    );
    let mut http = server.http();
    let schema = http.get("/v1/databases/shop/schema").json();
    assert_eq!(
        schema["tables"],
        json!([{
            "schema": "public", "name": "fruit", "kind": "table", "primaryKey": ["id"],
            "columns": [
                {"name": "id", "type": "integer", "nullable": false, "default": null},
                {"name": "name", "type": "text", "nullable": false, "default": "'x'::text"},
            ],
        }])
    );
    server.sql("shop", "insert into fruit values (1)");
    let same = http.get("/v1/databases/shop/schema").json();
    assert_eq!(same["version"], schema["version"]);
    server.sql("shop", "alter table fruit add price int");
    let other = http.get("/v1/databases/shop/schema").json();
    assert_ne!(other["version"], schema["version"]);
}

#[test]
fn of_a_batch_each_statement_has_its_own_result() {
    let server = Server::start();
    let mut http = server.http();
    let batch = json!({"rowMode": "array", "statements": [
        {"sql": "create table t (n int primary key)"},
        {"sql": "insert into t values ($1), ($2)", "params": [1, 2]},
        {"sql": "insert into t values (1)"},
        {"sql": "select n from t order by n"},
    ]});
    let answer = http.post("/v1/databases/shop/batch", &batch).json();
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results[1]["rowCount"], 2);
    assert_eq!(results[2]["error"]["code"], "23505");
    assert_eq!(results[3]["rows"], json!([[1], [2]]));
    let none = json!({"statements": []});
    http.post("/v1/databases/shop/batch", &none).error(400);
    let many: Vec<Value> = (0..1_001).map(|_| json!({"sql": "select 1"})).collect();
    let many = http.post("/v1/databases/shop/batch", &json!({"statements": many}));
    assert!(many.error(413).1.contains("http.statements_max is 1000"));
}

#[test]
fn a_transaction_is_all_or_none() {
    let server = Server::start();
    server.sql("shop", "create table t (n int primary key)");
    let mut http = server.http();
    let path = "/v1/databases/shop/transaction";
    let good = json!({"isolationLevel": "serializable", "statements": [
        {"sql": "insert into t values (1)"},
        {"sql": "select current_setting('transaction_isolation') as level"},
    ]});
    let answer = http.post(path, &good).json();
    assert_eq!(
        answer["results"][1]["rows"],
        json!([{"level": "serializable"}])
    );
    let bad = json!({"statements": [
        {"sql": "insert into t values (2)"}, {"sql": "insert into t values (1)"},
    ]});
    let answer = http.post(path, &bad);
    let place = answer.problem();
    assert!(
        place["error"]["where"]
            .as_str()
            .unwrap()
            .contains("statement 2"),
        "{place}"
    );
    assert_eq!(answer.error(409).0, "23505");
    let read_only = json!({"readOnly": true, "statements": [{"sql": "insert into t values (3)"}]});
    assert_eq!(http.post(path, &read_only).error(400).0, "25006");
    let ended = json!({"statements": [{"sql": "commit"}, {"sql": "insert into t values (4)"}]});
    assert_eq!(http.post(path, &ended).error(400).0, "2D000");
    let count = server.sql("shop", "select count(*)::int as n from t");
    assert_eq!(count["rows"], json!([{"n": 1}]));
}

#[test]
fn a_batch_of_neons_driver_is_all_or_none() {
    let server = Server::start();
    server.sql("shop", "create table t (n int)");
    let mut http = server.http();
    let headers =
        "host: localhost\r\nneon-connection-string: postgresql://postgres:x@host/shop\r\n";
    let mut batch = |texts: &[&str]| {
        let queries: Vec<Value> = texts
            .iter()
            .map(|sql| json!({"query": sql, "params": []}))
            .collect();
        let answer = post(&mut http, "/sql", headers, &json!({ "queries": queries }));
        (answer.status, answer.json()["code"].clone())
    };
    let insert = "insert into t values (1)";
    for texts in [
        [insert, "commit", "select 1/0"],
        [insert, "commit and chain", "select 1/0"],
        [insert, "commit and chain", insert],
        [insert, "rollback and chain", insert],
    ] {
        assert_eq!(batch(&texts), (400, json!("2D000")), "{texts:?}");
    }
    assert_eq!(batch(&[insert, "select 1/0"]), (400, json!("22012")));
    let count = server.sql("shop", "select count(*)::int as n from t");
    assert_eq!(count["rows"], json!([{"n": 0}]));
    assert_eq!(batch(&[insert, insert]), (200, Value::Null));
}

#[test]
fn an_interactive_transaction_spans_requests() {
    let server = Server::start_with(&[
        ("DORMOUSE_HTTP__TRANSACTION_IDLE_MS_MAX", "3000"),
        ("DORMOUSE_HTTP__TRANSACTIONS_MAX", "2"),
    ]);
    server.sql("shop", "create table t (n int primary key)");
    let mut http = server.http();
    let root = "/v1/databases/shop/transactions";
    let insert = |n: i32| json!({"sql": "insert into t values ($1)", "params": [n]});
    let begin = |http: &mut Http| {
        let begun = http.post(root, &json!({}));
        assert_eq!(begun.status, 201);
        begun.header("location").unwrap().to_owned()
    };

    let first = begin(&mut http);
    assert_eq!(
        http.post(&format!("{first}/query"), &insert(1)).json()["rowCount"],
        1
    );
    let outside = server.sql("shop", "select count(*)::int as n from t");
    assert_eq!(outside["rows"], json!([{"n": 0}]));
    assert_eq!(
        http.post(&format!("{first}/commit"), &json!({})).status,
        204
    );
    http.post(&format!("{first}/query"), &insert(1)).error(404);

    let second = begin(&mut http);
    http.post(&format!("{second}/query"), &insert(2)).json();
    assert_eq!(
        http.post(&format!("{second}/rollback"), &json!({})).status,
        204
    );

    let failed = begin(&mut http);
    assert_eq!(
        http.post(&format!("{failed}/query"), &insert(1))
            .error(409)
            .0,
        "23505"
    );
    assert_eq!(
        http.post(&format!("{failed}/commit"), &json!({}))
            .error(400)
            .0,
        "25P02"
    );

    let forgotten = begin(&mut http);
    http.post(&format!("{forgotten}/query"), &insert(3)).json();
    begin(&mut http);
    let third = http.post(root, &json!({}));
    assert!(third.error(503).1.contains("http.transactions_max = 2"));
    // Other databases do not find it.
    let id = forgotten.rsplit('/').next().unwrap();
    server.sql("other", "select 1");
    http.post(
        &format!("/v1/databases/other/transactions/{id}/commit"),
        &json!({}),
    )
    .error(404);
    // Nobody asks for it, so it makes room.
    let mut again = || http.post(root, &json!({})).status;
    until(&mut again, |status| *status == 201);
    http.post(&format!("{forgotten}/query"), &insert(3))
        .error(404);
    let count = server.sql("shop", "select array_agg(n) as all from t");
    assert_eq!(count["rows"], json!([{"all": [1]}]));
}

#[test]
fn a_request_has_a_role_settings_and_a_time_of_its_own() {
    let server = Server::start();
    server.sql("shop", "create role clerk");
    let mut http = server.http();
    let path = "/v1/databases/shop/query";
    let ask = json!({
        "sql": "select current_user::text as role, current_setting('app.tenant') as tenant",
        "role": "clerk", "settings": {"app.tenant": "t1"},
    });
    let answer = http.post(path, &ask).json();
    assert_eq!(answer["rows"], json!([{"role": "clerk", "tenant": "t1"}]));
    let slow = json!({"sql": "select pg_sleep(10)", "timeoutMs": 50});
    assert_eq!(http.post(path, &slow).error(504).0, "57014");
    let long = json!({"sql": "select 1", "timeoutMs": 3_600_000});
    let (code, message) = http.post(path, &long).error(400);
    assert_eq!(code, "22023");
    assert!(message.contains("http.request_timeout_ms"), "{message}");
    let claims = json!({"sql": "select 1", "settings": {"Request.jwt.claims": "{}"}});
    assert_eq!(http.post(path, &claims).error(403).0, "42501");
    let role = json!({"sql": "select 1", "role": "nobody\" superuser"});
    assert_eq!(http.post(path, &role).status, 400);
}

#[test]
fn rows_come_as_lines_when_asked_for() {
    let server = Server::start_with(&[("DORMOUSE_HTTP__RESULT_BYTES_MAX", "100000")]);
    let mut http = server.http();
    let lines = "host: localhost\r\naccept: application/x-ndjson\r\n";
    let path = "/v1/databases/shop/query";
    let large = json!({"sql": "select n, repeat('x', 100) as x from generate_series(1, 20000) n"});
    let answer = post(&mut http, path, lines, &large);
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let text = answer.text();
    let found: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(found.len(), 20_002);
    assert_eq!(found[0]["fields"][0]["name"], "n");
    assert_eq!(found[20_000]["n"], 20_000);
    assert_eq!(
        found[20_001],
        json!({"command": "SELECT", "rowCount": 20_000})
    );
    let wrong = json!({"sql": "select nothing"});
    assert_eq!(post(&mut http, path, lines, &wrong).error(400).0, "42703");
    let late = json!({"sql": "select 1 / (20000 - n) as x from generate_series(1, 20000) n"});
    let answer = post(&mut http, path, lines, &late).text();
    let last: Value = serde_json::from_str(answer.lines().last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "22012");
    let written = json!({"sql": "create table t (n int)"});
    let answer = post(&mut http, path, lines, &written).text();
    assert!(answer.contains("CREATE TABLE"), "{answer}");
}

#[test]
fn answers_are_compressed_as_the_client_accepts() {
    let server = Server::start();
    let mut http = server.http();
    let ask = json!({"sql": "select repeat('x', 100000) as x"});
    let path = "/v1/databases/shop/query";
    for encoding in ["gzip", "br"] {
        let accepts = format!("host: localhost\r\naccept-encoding: {encoding}\r\n");
        let answer = post(&mut http, path, &accepts, &ask);
        assert_eq!(answer.header("content-encoding"), Some(encoding));
        assert!(answer.text().len() < 10_000);
    }
    let answer = post(&mut http, path, "host: localhost\r\n", &ask);
    assert_eq!(answer.header("content-encoding"), None);
    assert!(answer.text().len() > 100_000);
}

#[test]
fn a_database_has_a_quota_of_its_own() {
    let server = Server::start();
    server.sql("small", "create table t (x text)");
    server.sql("large", "create table t (x text)");
    let mut http = server.http();
    let quota = json!({"bytesMax": 4 << 20, "bytesWarn": 1 << 20}).to_string();
    let path = "/v1/databases/small/settings";
    let set = http.request("PUT", path, Some(&quota)).json();
    assert_eq!(set["settings"]["bytesMax"], 4 << 20);
    let fill = "insert into t select repeat(md5(n::text), 30) from generate_series(1, 10000) n";
    assert_eq!(http.query("small", fill).error(507).0, "53100");
    assert_eq!(http.query("large", fill).status, 200);
    let none = http.request("PUT", path, Some("{}")).json();
    assert_eq!(none["settings"], json!({}));
    assert_eq!(http.query("small", fill).status, 200);
}
