//! The audit log.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Client, Http, Server};

/// What was done, of the lines of the file; what was done had begun.
pub(crate) fn deeds(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let (begun, done): (Vec<Value>, Vec<_>) =
        lines.partition(|line: &Value| line["outcome"] == "begins");
    let what = |line: &Value| json!([line["who"], line["action"], line["object"], line["detail"]]);
    assert_eq!(
        begun.iter().map(what).collect::<Vec<_>>(),
        done.iter().map(what).collect::<Vec<_>>()
    );
    done
}

fn audited(file: &Path) -> Server {
    Server::start_with(&[("DORMOUSE_AUDIT__FILE", file.to_str().unwrap())])
}

#[test]
fn who_changes_databases_is_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit");
    let server = audited(&file);
    let mut http = server.http();
    let create = |from: Value| json!({"name": "shop", "from": from});
    assert_eq!(
        http.post("/v1/databases", &create(json!("template")))
            .status,
        201
    );
    assert_eq!(
        http.post("/v1/databases", &create(json!("shop"))).status,
        409
    );
    let settings = json!({ "maintenance": false });
    let path = "/v1/databases/shop/settings";
    assert_eq!(
        http.request("PUT", path, Some(&settings.to_string()))
            .status,
        200
    );
    assert_eq!(http.delete("/v1/databases/shop").status, 204);
    let lines = deeds(&file);
    let deeds: Vec<_> = lines
        .iter()
        .map(|line| (&line["action"], &line["object"], &line["outcome"]))
        .collect();
    assert_eq!(
        json!(deeds),
        json!([
            ["database.create", "shop", "ok"],
            ["database.fork", "shop", "42P04"],
            ["database.configure", "shop", "ok"],
            ["database.delete", "shop", "ok"],
        ])
    );
    assert_eq!(lines[1]["detail"], "from shop");
    assert_eq!(lines[0]["who"], "anonymous");
    assert!(lines[0]["from"].as_str().unwrap().starts_with("127.0.0.1:"));
}

#[test]
fn changes_by_sql_and_by_first_use_are_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit");
    let server = audited(&file);
    server.sql("first", "select 1");
    server.sql("first", "create database by_http");
    server
        .connect("second")
        .query("create database by_pg")
        .unwrap();
    let mut client = Client::open(&server, "third");
    client.ask(&json!({ "id": 1, "sql": "alter database by_pg rename to by_ws" }));
    client.ask(&json!({ "id": 2, "sql": "drop database by_ws" }));
    let once = "POST /v1/databases/fourth/query HTTP/1.1\r\nhost: localhost\r\nidempotency-key: k\r\n\
                content-type: application/json\r\ncontent-length: 18\r\n\r\n{\"sql\":\"select 1\"}";
    let mut http = server.http();
    http.send(once);
    assert_eq!(http.response().status, 200);
    let lines = deeds(&file);
    let deeds: Vec<_> = lines
        .iter()
        .map(|line| {
            (
                &line["who"],
                &line["action"],
                &line["object"],
                &line["outcome"],
            )
        })
        .collect();
    assert_eq!(
        json!(deeds),
        json!([
            ["anonymous", "database.create", "first", "ok"],
            ["anonymous", "database.create", "by_http", "ok"],
            ["postgres", "database.create", "second", "ok"],
            ["postgres", "database.create", "by_pg", "ok"],
            ["anonymous", "database.create", "third", "ok"],
            ["anonymous", "database.rename", "by_pg", "ok"],
            ["anonymous", "database.delete", "by_ws", "ok"],
            ["anonymous", "database.create", "fourth", "ok"],
        ])
    );
    for line in &lines {
        assert!(
            line["from"].as_str().unwrap().starts_with("127.0.0.1:"),
            "{line}"
        );
    }
}

#[test]
fn what_cannot_be_written_down_is_not_done() {
    let server = audited(Path::new("/dev/full"));
    let mut http = server.http();
    let refused = |http: &mut Http, path: &str, body: Value| {
        let (code, message) = http.post(path, &body).error(507);
        assert_eq!(code, "53100");
        assert!(message.contains("audit.file"), "{message}");
    };
    refused(&mut http, "/v1/databases", json!({ "name": "shop" }));
    refused(
        &mut http,
        "/v1/databases/shop/query",
        json!({ "sql": "select 1" }),
    );
    assert_eq!(server.refused("shop").code(), "53100");
    assert_eq!(http.get("/v1/databases/shop").error(404).0, "3D000");
}
