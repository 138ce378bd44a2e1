//! What was committed is there after a clean stop and a start.

use serde_json::json;

use crate::harness::{Server, until};

#[test]
fn rows_survive_a_stop_and_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect("kept");
    client
        .query("create table t (n int primary key, s text)")
        .unwrap();
    client
        .query("insert into t select n, repeat('x', 500) from generate_series(1, 5000) n")
        .unwrap();
    client
        .query("create sequence s; select setval('s', 41)")
        .unwrap();
    // Not committed.
    client.query("begin; insert into t values (0)").unwrap();
    server.sql("other", "create table u as select 1 as one");
    server
        .http()
        .post("/v1/databases", &json!({"name": "fork", "from": "other"}));
    server.sql("gone", "select 1");
    server.http().delete("/v1/databases/gone");
    let before = server.http().get("/v1/databases/kept").json();
    assert!(server.stop().success());

    let server = Server::start_in(folder.path(), &[]);
    let after = server.http().get("/v1/databases/kept").json();
    assert_eq!(after["id"], before["id"]);
    assert_eq!(after["createdAt"], before["createdAt"]);
    let sql = "select count(*), min(n), sum(length(s)), nextval('s') from t";
    let row = &server.sql("kept", sql)["rows"][0];
    assert_eq!(
        *row,
        json!({"count": 5000, "min": 1, "sum": 2_500_000, "nextval": 42})
    );
    for name in ["other", "fork"] {
        assert_eq!(server.sql(name, "table u")["rowCount"], 1);
    }
    assert_eq!(server.http().get("/v1/databases/gone").status, 404);
    server.sql("kept", "insert into t values (0)");
    assert!(server.stop().success());

    let server = Server::start_in(folder.path(), &[]);
    let row = &server.sql("kept", "select count(*) from t")["rows"][0];
    assert_eq!(row["count"], 5001);
}

#[test]
fn commits_that_do_not_wait_reach_the_disk_in_a_silent_session() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect("silent");
    client.query("create table t (n int)").unwrap();
    client.query("set synchronous_commit = off").unwrap();
    client.query("insert into t values (7)").unwrap();
    let mut http = server.http();
    let flushes = || {
        let text = http.get("/metrics").text();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("dormouse_wal_flushes_total "));
        line.unwrap().parse::<u64>().unwrap()
    };
    until(flushes, |flushes| *flushes > 0);
    // What was handed over then is durable when something after it is.
    server.sql("other", "create table u (n int)");
    drop(server);

    let server = Server::start_in(folder.path(), &[]);
    assert_eq!(server.sql("silent", "select n from t")["rows"][0]["n"], 7);
}
