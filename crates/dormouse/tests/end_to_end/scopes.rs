//! What a token's scope allows: Postgres says so, whatever the text of the statement.

use serde_json::{Value, json};

use crate::harness::{Client, Tokens, until};

/// Tries a statement, and an INSERT behind it, as lines, in a WebSocket, and as Neon's driver asks.
fn by_other_doors(tokens: &Tokens, sql: &str, may_succeed: bool) {
    let bearer = format!("Bearer {}", tokens.read);
    let lines = [
        ("authorization", &*bearer),
        ("accept", "application/x-ndjson"),
    ];
    let body = json!({ "sql": sql }).to_string();
    let mut http = tokens.server.http();
    let streamed = http.request_with("POST", "/query", &lines, Some(&body));
    let neon = [
        ("authorization", &*bearer),
        ("neon-connection-string", "postgres://reader@h/shop"),
    ];
    let body = json!({"queries": [{ "query": sql }, {"query": "insert into t values (9)"}]});
    let mut http = tokens.server.http();
    let batch = http.request_with("POST", "/sql", &neon, Some(&body.to_string()));
    assert_eq!(batch.status, 400, "{sql}: {}", batch.text());
    let mut client = Client::open_as(&tokens.server, "shop", Some(&tokens.read));
    let told = client.ask(&json!({"id": 1, "sql": sql}));
    let after = client.ask(&json!({"id": 2, "sql": "insert into t values (9)"}));
    assert!(after["error"].is_object(), "{sql}: {after}");
    if !may_succeed {
        assert!(told["error"].is_object(), "{sql}: {told}");
        let text = streamed.text();
        assert!(
            streamed.status >= 400 || text.contains("\"error\""),
            "{sql}: {text}"
        );
    }
}

#[test]
fn who_may_read_cannot_write_by_any_means() {
    let tokens = Tokens::start();
    for sql in [
        "create table t (n int)",
        "insert into t values (1)",
        "create sequence s",
        "create function sneak() returns void language sql security definer as 'insert into t values (2)'",
        "create function sneak_volatile() returns int language plpgsql security definer as \
         'begin perform set_config(''transaction_read_only'', ''off'', false); insert into t values (3); return 1; end'",
        "create procedure proceed() language plpgsql security definer as 'begin commit; insert into t values (4); end'",
        "create view v as select * from t",
        "create role clerk; ",
    ] {
        tokens.admin(sql);
    }
    assert_eq!(
        tokens.query(&tokens.read, "select n from t").json()["rows"],
        json!([{"n": 1}])
    );
    for sql in [
        "insert into t values (9)",
        "insert into v values (9)",
        "with x as (insert into t values (9) returning n) select * from x",
        "update t set n = 9",
        "delete from t",
        "truncate t",
        "select sneak()",
        "select sneak_volatile()",
        "call proceed()",
        "do $$ begin insert into t values (9); end $$",
        "select nextval('s')",
        "select setval('s', 9)",
        "select lo_create(0)",
        "copy t from program 'true'",
        "copy (select 1) to program 'true'",
        "create table x (n int)",
        "create temp table x (n int)",
        "create function pg_temp.f() returns int language sql as 'select 1'",
        "drop table t",
        "alter table t add m int",
        "grant all on t to public",
        "set role postgres",
        "set session authorization postgres",
        "create role x",
        "alter role dormouse_read superuser",
        "create database x",
        "drop database shop",
        "lock table t",
        "refresh materialized view v",
        "comment on table t is 'x'",
        "vacuum t",
        "set transaction read write",
        "select set_config('transaction_read_only', 'off', false)",
        "begin read write",
        "listen x; insert into t values (9)",
        "reindex table t",
        "select pg_terminate_backend(1)",
        "prepare p as insert into t values (9)",
    ] {
        let answer = tokens.query(&tokens.read, sql);
        // What only prepares, or ends itself, changes nothing.
        let is_harmless = ["begin", "prepare", "select pg_term"];
        let may_succeed = is_harmless.iter().any(|start| sql.starts_with(start));
        by_other_doors(&tokens, sql, may_succeed);
        assert!(
            answer.status >= 400 || may_succeed,
            "{sql}: {}",
            answer.text()
        );
    }
    // Not by several statements either, in whatever session.
    let steps = [
        "commit",
        "commit and chain",
        "set transaction read write",
        "set default_transaction_read_only = off",
        "set session characteristics as transaction read write",
        "begin read write",
        "rollback and chain",
        "select sneak()",
        "insert into t values (9)",
        "select sneak_volatile()",
    ];
    for first in steps {
        for second in steps {
            let statements: Vec<Value> =
                [first, second, "select sneak()", "insert into t values (9)"]
                    .iter()
                    .map(|sql| json!({ "sql": sql }))
                    .collect();
            for path in ["/batch", "/transaction"] {
                let answer = tokens.post(&tokens.read, path, &json!({ "statements": statements }));
                let text = answer.text();
                // Of a batch each says for itself.
                let is_refused = match path {
                    "/batch" if answer.status == 200 => {
                        answer.json()["results"].as_array().unwrap()[2..]
                            .iter()
                            .all(|result| result["error"].is_object())
                    }
                    _ => answer.status >= 400,
                };
                assert!(is_refused, "{path} {first}, {second}: {text}");
            }
        }
    }
    let begun = tokens.post(&tokens.read, "/transactions", &json!({}));
    let place = begun.header("location").unwrap().to_owned();
    for sql in steps {
        let path = format!("{place}/query");
        let answer = tokens.post(&tokens.read, &path, &json!({ "sql": sql }));
        assert!(
            answer.status >= 400
                || sql.starts_with("set ")
                || sql.starts_with("commit and")
                || sql == "commit",
            "{sql}: {}",
            answer.text()
        );
    }
    let refused = json!({"sql": "select 1", "role": "postgres"});
    assert_eq!(
        tokens.post(&tokens.read, "/query", &refused).error(403).0,
        "42501"
    );
    assert_eq!(tokens.admin("select n from t"), json!([[1]]));
    assert_eq!(
        tokens.admin("select last_value, is_called from s"),
        json!([[1, false]])
    );
    let roles = tokens.admin("select count(*)::int from pg_roles where rolname = 'x' or rolname = 'dormouse_read' and rolsuper");
    assert_eq!(roles, json!([[0]]));
    let tables = tokens.admin(
        "select count(*)::int from pg_class where relname = 'x' or relname = 't' and relnatts <> 1",
    );
    assert_eq!(tables, json!([[0]]));
}

#[test]
fn an_answer_that_is_kept_is_for_who_may_do_the_same() {
    let tokens = Tokens::start();
    let role = ["--database", "shop", "--role", "postgres", "--scope"];
    let write = tokens.create("other writer", &[&role[..], &["write"]].concat());
    let read = tokens.create("other reader", &[&role[..], &["read"]].concat());
    let (server, admin) = (&tokens.server, &tokens.admin);
    let ask = |token: &str, sql: &str, tag: Option<&str>| {
        let bearer = format!("Bearer {token}");
        let tag = tag.map(|tag| ("if-none-match", tag));
        let headers = [Some(("authorization", &*bearer)), tag];
        let headers: Vec<_> = headers.into_iter().flatten().collect();
        let body = json!({ "sql": sql }).to_string();
        let mut http = server.http();
        http.request_with("POST", "/v1/databases/shop/query", &headers, Some(&body))
    };
    assert_eq!(ask(admin, "create table t (n int)", None).status, 200);
    let sql = "select count(*) from t";
    for _ in 0..3 {
        ask(admin, sql, None);
    }
    let known = ask(admin, sql, None);
    assert_eq!(known.header("x-dormouse-cache"), Some("hit"));
    let tag = known.header("etag").unwrap();
    // The server finds new tokens by itself.
    for token in [&write, &read] {
        let status = || ask(token, "select 1", None).status;
        until(status, |status| *status != 401);
    }
    // It cannot be kept read-only: its role is a superuser.
    assert_eq!(ask(&read, sql, None).error(403).0, "42501");
    assert_eq!(ask(&read, sql, Some(tag)).error(403).0, "42501");
    let own = ask(&write, sql, Some(tag));
    assert_eq!(own.status, 200, "{}", own.text());
    assert_ne!(own.header("x-dormouse-cache"), Some("hit"));
}

#[test]
fn who_may_write_is_no_administrator() {
    let tokens = Tokens::start();
    tokens.admin("create table t (n int)");
    let write = &tokens.write;
    for sql in [
        "insert into t values (1)",
        "create table own (n int)",
        "insert into own values (1)",
        "alter table own add m int",
        "create temp table x (n int)",
    ] {
        let answer = tokens.query(write, sql);
        assert_eq!(answer.status, 200, "{sql}: {}", answer.text());
    }
    for sql in [
        "drop table t",
        "create role x",
        "set role postgres",
        "alter system set work_mem = '1MB'",
        "create database x",
        "drop database other",
        "select pg_read_file('PG_VERSION')",
        "update pg_authid set rolsuper = true",
    ] {
        assert_eq!(tokens.query(write, sql).error(403).0, "42501", "{sql}");
    }
    for (method, path) in [("DELETE", "/v1/databases/shop"), ("GET", "/v1/databases")] {
        let bearer = format!("Bearer {write}");
        let headers = [("authorization", &*bearer)];
        let answer = tokens
            .server
            .http()
            .request_with(method, path, &headers, None);
        assert_eq!(answer.error(403).0, "42501");
    }
}
