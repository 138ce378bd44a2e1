//! `Idempotency-Key`: a request that comes again is not done again, and nobody but the server has a hand in that.

use std::sync::Barrier;

use serde_json::{Value, json};

use crate::harness::{Response, Server, Tokens, until};

const PATH: &str = "/v1/databases/shop/query";

#[track_caller]
fn is_replayed(answer: &Response) -> bool {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("idempotency-replayed") == Some("true")
}

fn insert(n: u32) -> Value {
    json!({"sql": "insert into t values ($1) returning n", "params": [n]})
}

/// A request with a key, where nobody is asked who they are.
fn post(server: &Server, path: &str, key: &str, body: &Value) -> Response {
    let path = format!("/v1/databases/shop/{path}");
    let headers = [("idempotency-key", key)];
    let body = body.to_string();
    server
        .http()
        .request_with("POST", &path, &headers, Some(&body))
}

fn statements(texts: &[&str]) -> Value {
    let statements: Vec<Value> = texts.iter().map(|sql| json!({ "sql": sql })).collect();
    json!({ "statements": statements })
}

#[track_caller]
fn rows(server: &Server) -> Value {
    let found = server.sql("shop", "select array_agg(n order by n) as all from t");
    found["rows"][0]["all"].clone()
}

#[test]
fn a_request_with_a_key_is_done_once() {
    let server = Server::start();
    server.sql("shop", "create table t (n int)");
    let first = post(&server, "query", "order-1", &insert(1));
    assert!(!is_replayed(&first));
    let again = post(&server, "query", "order-1", &insert(1));
    assert!(is_replayed(&again));
    assert_eq!(again.text(), first.text());
    let refused = post(&server, "query", "order-1", &insert(2));
    assert!(refused.error(422).1.contains("Idempotency-Key"));
    // A failure leaves nothing, so it may be tried again.
    let both = statements(&["insert into t values (3)", "insert into later values (3)"]);
    let failed = post(&server, "transaction", "order-2", &both);
    assert_eq!(failed.error(400).0, "42P01");
    server.sql("shop", "create table later (n int)");
    assert!(!is_replayed(&post(
        &server,
        "transaction",
        "order-2",
        &both
    )));
    assert!(is_replayed(&post(&server, "transaction", "order-2", &both)));
    let each = statements(&["insert into t values (4)", "insert into nowhere values (4)"]);
    for _ in 0..2 {
        let answer = post(&server, "batch", "order-3", &each).json();
        assert_eq!(answer["results"][1]["error"]["code"], "42P01");
    }
    assert_eq!(rows(&server), json!([1, 3, 4]));
}

#[test]
fn those_who_come_at_once_are_each_done_once() {
    const AT_ONCE: usize = 6;
    let server = Server::start();
    server.sql("shop", "create table t (n int)");
    let ready = Barrier::new(AT_ONCE);
    // The first ones of a database, two of each key.
    std::thread::scope(|scope| {
        for number in 0..AT_ONCE as u32 {
            let (server, ready) = (&server, &ready);
            scope.spawn(move || {
                ready.wait();
                let n = number / 2;
                let answer = post(server, "query", &format!("order-{n}"), &insert(n));
                assert_eq!(answer.status, 200, "{}", answer.text());
                assert_eq!(answer.json()["rows"][0]["n"], n);
            });
        }
    });
    assert_eq!(rows(&server), json!([0, 1, 2]));
}

#[test]
fn nothing_is_kept_of_what_ends_its_transaction() {
    let server = Server::start();
    server.sql("shop", "create table t (n int)");
    for (path, texts) in [
        (
            "transaction",
            &["insert into t values (1)", "commit and chain", "select 1/0"][..],
        ),
        (
            "transaction",
            &["insert into t values (1)", "/**/ ;Commit", "begin"],
        ),
        (
            "transaction",
            &["insert into t values (1)", "end and chain"],
        ),
        (
            "transaction",
            &["rollback and chain", "insert into t values (1)"],
        ),
        (
            "transaction",
            &["insert into t values (1)", "prepare transaction 'x'"],
        ),
        (
            "batch",
            &["insert into t values (1)", "commit and chain", "select 1"],
        ),
    ] {
        for _ in 0..2 {
            let refused = post(&server, path, "order", &statements(texts));
            let (code, message) = refused.error(400);
            assert_eq!(code, "2D000", "{texts:?}: {message}");
            assert!(message.contains("nothing was run"), "{message}");
        }
        if path == "transaction" {
            let mut http = server.http();
            let path = "/v1/databases/shop/transaction";
            assert_eq!(http.post(path, &statements(texts)).error(400).0, "2D000");
        }
    }
    let commit = json!({"sql": "commit and chain"});
    assert_eq!(
        post(&server, "query", "order", &commit).error(400).0,
        "2D000"
    );
    assert_eq!(rows(&server), Value::Null);
    // Going back within it is allowed.
    let part = [
        "insert into t values (1)",
        "savepoint s",
        "insert into t values (2)",
        "rollback to savepoint s",
    ];
    assert!(!is_replayed(&post(
        &server,
        "transaction",
        "part",
        &statements(&part)
    )));
    assert!(is_replayed(&post(
        &server,
        "transaction",
        "part",
        &statements(&part)
    )));
    assert_eq!(rows(&server), json!([1]));
}

#[test]
fn who_only_reads_needs_no_key() {
    let server = Server::start();
    server.sql("shop", "create table t (n int)");
    let mut reads = statements(&["select count(*)::int as n from t"]);
    reads["readOnly"] = json!(true);
    // Also where nothing has ever been kept.
    for n in 0..2 {
        let answer = post(&server, "transaction", "order", &reads);
        assert!(!is_replayed(&answer));
        assert_eq!(answer.json()["results"][0]["rows"][0]["n"], n);
        post(&server, "query", &format!("order-{n}"), &insert(n)).json();
    }
    let setting = json!({
        "sql": "select count(*)::int as n from t",
        "settings": {"default_transaction_read_only": "on"},
    });
    assert!(!is_replayed(&post(&server, "query", "setting", &setting)));
    // What is not written down must not become a write.
    for way in [
        "set transaction read write",
        "set transaction_read_only = off",
    ] {
        let mut writes = statements(&[way, "insert into t values (9)"]);
        writes["readOnly"] = json!(true);
        assert_eq!(post(&server, "transaction", "order", &writes).status, 400);
    }
    assert_eq!(rows(&server), json!([0, 1]));
}

/// Makes `sneak()`, which makes the role of the scope `write` a superuser if it runs with a superuser's rights.
const SNEAK: &str = "create function public.sneak() returns trigger language plpgsql as $$ begin \
    if (select rolsuper from pg_catalog.pg_roles where rolname = current_user) then \
    alter role dormouse_write superuser; end if; return new; end $$";

/// Tables by the names that the server's may have, with columns as its own.
const IMITATIONS: [&str; 4] = [
    "create schema dormouse",
    "create table dormouse.requests (key bytea primary key, request bytea, answered_at timestamptz, answer bytea)",
    "create table dormouse.answers (key bytea primary key, request bytea, answered_at timestamptz default now(), answer text)",
    "grant all on schema dormouse to public",
];

fn trigger(table: &str) -> String {
    format!(
        "create trigger sneak before insert or update or delete on dormouse.{table} \
         for each row execute function public.sneak()"
    )
}

#[track_caller]
fn is_no_superuser(tokens: &Tokens) {
    let found = tokens.admin("select rolsuper from pg_roles where rolname = 'dormouse_write'");
    assert_eq!(found, json!([[false]]));
}

#[test]
fn nobody_gets_rights_by_what_stands_in_the_place_of_records() {
    let tokens = Tokens::start();
    tokens.admin("create table t (n int)");
    let write = &tokens.write;
    assert_eq!(tokens.query(write, SNEAK).status, 200);
    // The schema is there before anybody else can make it.
    assert_eq!(tokens.query(write, IMITATIONS[0]).error(400).0, "42P06");
    tokens.admin("drop schema dormouse cascade");
    for sql in IMITATIONS {
        assert_eq!(tokens.query(write, sql).status, 200, "{sql}");
    }
    for table in ["requests", "answers"] {
        assert_eq!(tokens.query(write, &trigger(table)).status, 200);
    }
    for _ in 0..2 {
        let refused = tokens.post_once(write, "order", "/query", &insert(1));
        let (code, message) = refused.error(409);
        assert_eq!(code, "55000", "{message}");
        assert!(message.contains("dormouse"), "{message}");
        is_no_superuser(&tokens);
    }
    tokens.admin("drop table dormouse.requests, dormouse.answers");
    let refused = tokens.post_once(write, "order", "/query", &insert(1));
    assert!(refused.error(409).1.contains("schema dormouse"));
    tokens.admin("drop schema dormouse");
    assert!(!is_replayed(&tokens.post_once(
        write,
        "order",
        "/query",
        &insert(1)
    )));
    assert!(is_replayed(&tokens.post_once(
        write,
        "order",
        "/query",
        &insert(1)
    )));
    is_no_superuser(&tokens);
}

#[test]
fn nobody_gets_rights_by_what_is_put_on_records() {
    let tokens = Tokens::start();
    tokens.admin("create table t (n int)");
    let write = &tokens.write;
    assert_eq!(tokens.query(write, SNEAK).status, 200);
    tokens.admin("alter default privileges grant all on tables to dormouse_write, public");
    tokens.admin("alter default privileges grant all on schemas to dormouse_write");
    assert!(!is_replayed(&tokens.post_once(
        write,
        "order",
        "/query",
        &insert(1)
    )));
    let on = trigger("requests");
    assert_eq!(tokens.query(write, &on).error(403).0, "42501");
    // An administrator who is careless: the request's own transaction puts something on the table, or one before it.
    tokens.admin("grant all on dormouse.requests to dormouse_write");
    let amid = statements(&["insert into t values (2)", &on]);
    let refused = tokens.post_once(write, "amid", "/transaction", &amid);
    assert_eq!(refused.error(409).0, "55000");
    is_no_superuser(&tokens);
    assert_eq!(tokens.query(write, &on).status, 200);
    let refused = tokens.post_once(write, "other", "/query", &insert(3));
    assert_eq!(refused.error(409).0, "55000");
    is_no_superuser(&tokens);
    assert_eq!(tokens.admin("select n from t"), json!([[1]]));
}

#[test]
fn names_that_others_have_made_mean_nothing_in_what_the_server_asks() {
    let tokens = Tokens::start();
    tokens.admin("create table t (n int)");
    let write = &tokens.write;
    for sql in [
        "create function rise() returns boolean language plpgsql set search_path = pg_catalog, pg_temp as $$ begin \
         if (select rolsuper from pg_catalog.pg_roles where rolname = current_user) then \
         alter role dormouse_write superuser; end if; return true; end $$",
        "create function same(bytea, bytea) returns boolean language plpgsql as 'begin return public.rise(); end'",
        "create function same(oid, oid) returns boolean language plpgsql as 'begin return public.rise(); end'",
        "create function same(text, text) returns boolean language plpgsql as 'begin return public.rise(); end'",
        "create function same(name, name) returns boolean language plpgsql as 'begin return public.rise(); end'",
        "create function same(timestamptz, timestamptz) returns boolean language plpgsql as 'begin return public.rise(); end'",
        "create operator public.= (leftarg = bytea, rightarg = bytea, function = same)",
        "create operator public.= (leftarg = oid, rightarg = oid, function = same)",
        "create operator public.= (leftarg = text, rightarg = text, function = same)",
        "create operator public.= (leftarg = name, rightarg = name, function = same)",
        "create operator public.< (leftarg = timestamptz, rightarg = timestamptz, function = same)",
        "create function now() returns timestamptz language plpgsql as 'begin perform public.rise(); return pg_catalog.now(); end'",
        "create domain bytea as pg_catalog.bytea check (public.rise())",
        "create domain text as pg_catalog.text check (public.rise())",
    ] {
        assert_eq!(tokens.query(write, sql).status, 200, "{sql}");
    }
    let mut body = insert(1);
    body["settings"] = json!({"search_path": "public, pg_catalog", "bytea_output": "escape"});
    assert!(!is_replayed(
        &tokens.post_once(write, "order", "/query", &body)
    ));
    assert!(is_replayed(
        &tokens.post_once(write, "order", "/query", &body)
    ));
    is_no_superuser(&tokens);
}

#[test]
fn records_are_nobodys_but_the_servers() {
    let tokens = Tokens::start();
    tokens.admin("create table t (n int)");
    let secret = json!({"sql": "insert into t values (1) returning 'for the writer' as secret"});
    let first = tokens.post_once(&tokens.write, "order", "/query", &secret);
    assert!(!is_replayed(&first));
    for token in [&tokens.read, &tokens.write] {
        for table in ["requests", "answers"] {
            let sql = format!("select count(*)::int as n from dormouse.{table}");
            let answer = tokens.query(token, &sql);
            let seen = answer.status == 200 && answer.json()["rows"][0]["n"] != 0;
            assert!(!seen, "{}", answer.text());
        }
    }
    for sql in [
        "update dormouse.requests set answer = null",
        "update dormouse.answers set answer = 'forged'",
        "delete from dormouse.requests",
        "truncate dormouse.requests",
        "insert into dormouse.requests values ('', '', now(), '')",
        "select dormouse.claim_request('', '', '-1 day')",
        "alter table dormouse.requests disable row level security",
        "create table x (key bytea references dormouse.requests)",
        "create table x () inherits (dormouse.requests)",
        "create policy p on dormouse.requests using (true)",
        "copy dormouse.requests to program 'true'",
    ] {
        let answer = tokens.query(&tokens.write, sql);
        let done = answer.status == 200 && answer.json()["rowCount"] != 0;
        assert!(!done, "{sql}: {}", answer.text());
    }
    let again = tokens.post_once(&tokens.write, "order", "/query", &secret);
    assert!(is_replayed(&again));
    assert_eq!(again.text(), first.text());
    assert_eq!(tokens.admin("select n from t"), json!([[1]]));
    // Not even who may read the table learns anything, or puts another answer in place of one.
    let kept = tokens
        .admin("select encode(answer, 'escape'), encode(request, 'hex') from dormouse.requests");
    assert!(!kept.to_string().contains("writer"), "{kept}");
    assert!(!is_replayed(&tokens.post_once(
        &tokens.write,
        "other",
        "/query",
        &insert(2)
    )));
    tokens.admin("update dormouse.requests r set answer = o.answer from dormouse.requests o where o.key <> r.key");
    for (key, body) in [("order", &secret), ("other", &insert(2))] {
        let forged = tokens.post_once(&tokens.write, key, "/query", body);
        assert_eq!(forged.error(500).0, "XX001");
    }
    assert_eq!(
        tokens.admin("select n from t order by n"),
        json!([[1], [2]])
    );
}

#[test]
fn who_holds_locks_stops_nobodys_first_request() {
    let tokens = Tokens::start();
    tokens.admin("create table t (n int)");
    // Anybody who comes in may hold such locks, for as long as it likes: the numbers that were once taken while roles and
    // records are made.
    let mut holder = tokens.server.connect("shop");
    let lock =
        "select pg_advisory_lock(1684238195, 1634624871), pg_advisory_lock(1684238195, 1919904869)";
    holder.query(lock).unwrap();
    let mut body = insert(1);
    body["timeoutMs"] = json!(20_000);
    assert!(!is_replayed(&tokens.post_once(
        &tokens.write,
        "order",
        "/query",
        &body
    )));
}

#[test]
fn nothing_waits_on_for_a_request_that_is_over() {
    let tokens = Tokens::start();
    let server = &tokens.server;
    let mut holder = server.connect("shop");
    let waiting = "select count(*) from pg_locks where not granted";
    let none = [[Some("0".to_owned())]];
    let mut is_left_alone = |held: &str| {
        holder.query(&format!("begin; {held}")).unwrap();
        let body = json!({"sql": "select 1", "timeoutMs": 500});
        let over = tokens.post_once(&tokens.write, "order", "/query", &body);
        assert_eq!(over.error(504).0, "57014", "{held}");
        until(|| holder.query(waiting).unwrap(), |found| *found == none);
        holder.query("rollback").unwrap();
    };
    // Whatever the server makes first waits for one who makes the same: roles, and where answers are kept.
    is_left_alone("create role dormouse_read");
    is_left_alone("create schema dormouse");
    assert_eq!(tokens.query(&tokens.read, "select 1").status, 200);
    is_left_alone("create table dormouse.requests (n int)");
    tokens.admin("drop schema dormouse");
    is_left_alone("create schema dormouse");
    let body = json!({"sql": "select 1"});
    assert!(!is_replayed(&tokens.post_once(
        &tokens.write,
        "order",
        "/query",
        &body
    )));
}

#[test]
fn a_token_of_the_same_name_is_another_caller() {
    let tokens = Tokens::start();
    tokens.admin("create table t (n int)");
    let args = ["--scope", "write", "--database", "shop"];
    // Called as who comes with the administrator's password is.
    let first = tokens.create("the administrator", &args);
    until(
        || tokens.query(&first, "select 1").status,
        |status| *status == 200,
    );
    assert!(!is_replayed(&tokens.post_once(
        &first,
        "order",
        "/query",
        &insert(1)
    )));
    assert!(is_replayed(&tokens.post_once(
        &first,
        "order",
        "/query",
        &insert(1)
    )));
    let bearer = format!("Bearer {}", tokens.admin);
    let headers = [("authorization", &*bearer)];
    let path = "/v1/tokens/the%20administrator";
    let revoked = tokens
        .server
        .http()
        .request_with("DELETE", path, &headers, None);
    assert_eq!(revoked.status, 204, "{}", revoked.text());
    let second = tokens.create("the administrator", &args);
    until(
        || tokens.query(&second, "select 1").status,
        |status| *status == 200,
    );
    assert!(!is_replayed(&tokens.post_once(
        &second,
        "order",
        "/query",
        &insert(1)
    )));
    assert_eq!(tokens.admin("select count(*)::int from t"), json!([[2]]));
    assert_eq!(tokens.post(&tokens.admin, PATH, &insert(2)).status, 200);
}
