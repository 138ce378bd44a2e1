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

/// What a user calls stable or volatile may read what nobody sees from outside.
#[test]
fn what_calls_a_function_of_a_user_has_no_tag() {
    let server = Server::start();
    for sql in [
        "create table fruit (name text)",
        "create table hidden (n int)",
        "insert into fruit values ('apple')",
        "insert into hidden values (1)",
        "create function plain() returns int stable language sql as 'select max(n) from hidden'",
        "create function body() returns int stable language sql return (select max(n) from hidden)",
        "create function pl() returns int stable language plpgsql as 'begin return (select max(n) from hidden); end'",
        "create function rows() returns setof int stable language sql as 'select n from hidden'",
        "create function untold() returns int language sql as 'select max(n) from hidden'",
        "create function of(text) returns int stable language sql as 'select max(n) from hidden'",
        "create function pairwise(int, text) returns int stable language sql as 'select max(n) from hidden'",
        "create function step(int, text) returns int stable language sql as 'select max(n) from hidden'",
        "create operator ### (leftarg = int, rightarg = text, function = pairwise)",
        "create aggregate most(text) (sfunc = step, stype = int)",
        "create view seen as select name, pl() as n from fruit",
        "create materialized view kept as select 1 as one",
        "create type pair as (n int)",
        "create function of_pair(pair) returns int stable language sql as 'select max(n) from hidden'",
        "create cast (pair as int) with function of_pair(pair)",
        "create table guarded (n int)",
        "insert into guarded values (1), (2), (3)",
        "create role guest",
        "grant select on guarded to guest",
        "alter table guarded enable row level security",
        "create policy known on guarded using (n = pl())",
        "grant select on hidden to guest",
    ] {
        server.sql("shop", sql);
    }
    let mut http = server.http();
    let queries = [
        "select plain() as n",
        "select body() as n",
        "select pl() as n",
        "select max(n) as n from rows() as r (n)",
        "select untold() as n",
        "select of(name) as n from fruit",
        "select 1 ### name as n from fruit",
        "select most(name) as n from fruit",
        "select n from seen",
        "select row(1)::pair::int as n",
        "select n from (select name, pl() as n from fruit order by 1 limit 1) as inner_one",
        "with one as (select pl() as n) select n from one",
        "select case when pl() > 0 then pl() end as n from fruit",
        "select distinct on (pl()) pl() as n from fruit",
        "select (array[pl()])[one] as n from kept",
        "select n from guarded",
    ];
    for n in 1..4 {
        server.sql("shop", &format!("update hidden set n = {n}"));
        for sql in queries {
            let of_guest = json!({"sql": sql, "role": "guest"});
            let query = match sql.contains("guarded") {
                true => of_guest,
                false => json!({ "sql": sql }),
            };
            for _ in 0..2 {
                let answer = ask(&mut http, None, &query);
                assert_eq!(answer.status, 200, "{sql}: {}", answer.text());
                assert_eq!(answer.header("etag"), None, "{sql}");
                assert_eq!(answer.json()["rows"], json!([{ "n": n }]), "{sql}");
            }
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
