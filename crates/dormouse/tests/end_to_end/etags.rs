//! Answers that are confirmed, and those that come from the cache.

use serde_json::{Value, json};

use crate::harness::{Http, Response, Server};

/// Asks a query, with the tag of what the client has.
fn ask(http: &mut Http, tag: Option<&str>, query: &Value) -> Response {
    let body = query.to_string();
    let shown = tag.map_or_else(String::new, |tag| format!("if-none-match: {tag}\r\n"));
    http.send(&format!(
        "POST /v1/databases/shop/query HTTP/1.1\r\nhost: localhost\r\n{shown}\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    http.response()
}

fn tag(response: &Response) -> String {
    response.header("etag").unwrap().to_owned()
}

#[test]
fn an_answer_is_confirmed_until_what_it_depends_on_changes() {
    let server = Server::start();
    server.sql("shop", "create table fruit (name text)");
    server.sql("shop", "create table other (n int)");
    let mut http = server.http();
    let count = json!({"sql": "select count(*)::int as n from fruit"});
    // Of the first question it may not be known yet.
    ask(&mut http, None, &count);
    let first = ask(&mut http, None, &count);
    assert_eq!(first.header("cache-control"), Some("private, no-cache"));
    let known = tag(&first);
    let same = ask(&mut http, Some(&known), &count);
    assert_eq!((same.status, same.text().len()), (304, 0));
    assert_eq!(tag(&same), known);
    let hit = ask(&mut http, None, &count);
    assert_eq!(hit.header("x-dormouse-cache"), Some("hit"));
    assert_eq!(hit.text(), first.text());

    server.sql("shop", "insert into other values (1)");
    assert_eq!(ask(&mut http, Some(&known), &count).status, 304);
    server.sql("shop", "insert into fruit values ('apple')");
    let changed = ask(&mut http, Some(&known), &count);
    assert_eq!(changed.json()["rows"], json!([{"n": 1}]));
    let known = tag(&changed);

    server.until_awake(0);
    assert_eq!(ask(&mut http, Some(&known), &count).status, 304);
    server.until_awake(0);
}

#[test]
fn what_may_be_another_answer_each_time_has_no_tag() {
    let server = Server::start();
    server.sql("shop", "create table fruit (name text)");
    let mut http = server.http();
    for sql in [
        "select now()",
        "select random()",
        "select 'today'::date",
        "insert into fruit values ('apple') returning name",
        "select * from pg_stat_activity",
    ] {
        for _ in 0..2 {
            let answer = ask(&mut http, None, &json!({ "sql": sql }));
            assert_eq!(answer.status, 200, "{sql}");
            assert_eq!(answer.header("etag"), None, "{sql}");
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{sql}");
        }
    }
}

#[test]
fn another_role_has_another_answer() {
    let server = Server::start();
    for sql in [
        "create table note (owner text, body text)",
        "insert into note values ('ann', 'a'), ('bob', 'b')",
        "create role ann",
        "create role bob",
        "grant select on note to ann, bob",
        "alter table note enable row level security",
        "create policy own on note using (owner = current_user)",
    ] {
        server.sql("shop", sql);
    }
    let mut http = server.http();
    let query = |role: &str| json!({"sql": "select body from note", "role": role});
    let mut tags = Vec::new();
    for (role, body) in [("ann", "a"), ("bob", "b")].repeat(3) {
        let answer = ask(&mut http, None, &query(role));
        assert_eq!(answer.json()["rows"], json!([{"body": body}]));
        tags.extend(answer.header("etag").map(|tag| (role, tag.to_owned())));
    }
    let of = |role: &str| {
        tags.iter()
            .rev()
            .find(|(who, _)| *who == role)
            .unwrap()
            .1
            .clone()
    };
    let (ann, bob) = (of("ann"), of("bob"));
    assert_ne!(ann, bob);
    assert_eq!(ask(&mut http, Some(&ann), &query("ann")).status, 304);
    assert_eq!(ask(&mut http, Some(&ann), &query("bob")).status, 200);
}
