//! What a client may do wrong, one thing a test; afterwards the server still answers.

use serde_json::json;
use wire::Severity;
use wire::pg::{TransactionStatus, backend, frontend};

use crate::harness::{Http, Pg, Server, startup};

#[test]
fn unknown_database_with_auto_create_off() {
    let server = Server::start_with(&[("DORMOUSE_DATABASES__AUTO_CREATE", "false")]);
    let error = server.refused("nobody");
    assert_eq!((error.code(), error.severity()), ("3D000", Severity::Fatal));
    assert!(
        error.message().contains("\"nobody\" does not exist"),
        "{error}"
    );
    let (code, message) = server.http().query("nobody", "select 1").error(404);
    assert_eq!(code, "3D000");
    assert!(message.contains("nobody"), "{message}");
    let list = server.http().get("/v1/databases").json();
    assert!(!list.to_string().contains("nobody"), "{list}");

    server
        .http()
        .post("/v1/databases", &json!({"name": "still"}));
    server.still_answers();
}

#[test]
fn bad_name() {
    let server = Server::start();
    for name in ["", "a/b", "ä", "-a", &"x".repeat(64)] {
        let response = server
            .http()
            .post("/v1/databases", &json!({ "name": name }));
        assert_eq!(response.error(400).0, "42602", "{name}");
        let detail = response.problem()["error"]["detail"].to_string();
        assert!(detail.contains("1 to 63 characters"), "{detail}");
    }
    let (code, _) = server.http().query("a%20b", "select 1").error(400);
    assert_eq!(code, "42602");
    let (code, _) = server.http().query("%ff", "select 1").error(400);
    assert_eq!(code, "08P01");
    let error = server.refused("a b");
    assert_eq!(error.code(), "3D000");
    assert!(error.to_string().contains("1 to 63 characters"), "{error}");
    server.still_answers();
}

#[test]
fn sql_error() {
    let server = Server::start();
    let response = server.http().query("still", "select nope from pg_class");
    let (code, message) = response.error(400);
    assert_eq!(code, "42703");
    assert!(message.contains("nope"), "{message}");
    assert_eq!(response.problem()["error"]["position"], 8);

    let mut client = server.connect("errors");
    assert_eq!(client.query("selec").unwrap_err().code(), "42601");
    client.send_query("begin; select 1/0");
    let answer = client.answer();
    assert_eq!(answer.error.unwrap().code(), "22012");
    assert_eq!(answer.status, TransactionStatus::Failed);
    assert_eq!(client.query("select 1").unwrap_err().code(), "25P02");
    client.query("rollback").unwrap();
    client.query("select 1").unwrap();
    server.still_answers();
}

#[test]
fn wrong_parameter_count_and_type() {
    let server = Server::start();
    let mut http = server.http();
    let mut query = |params| {
        let body = json!({"sql": "select $1::int, $2::jsonb", "params": params});
        http.post("/v1/databases/still/query", &body)
    };
    for params in [json!([]), json!([1]), json!([1, 2, 3])] {
        assert_eq!(query(params).error(400).0, "08P01");
    }
    assert_eq!(query(json!(["one", 2])).error(400).0, "22P02");
    assert_eq!(query(json!([[1], 2])).error(400).0, "22023");
    assert_eq!(
        query(json!([1, {"a": 1}])).json()["rows"][0]["jsonb"],
        json!({"a": 1})
    );

    let mut client = server.connect("params");
    let mut bind = |params: &[&[u8]]| {
        let mut out = bytes::BytesMut::new();
        let parse = frontend::Parse {
            statement: b"",
            sql: b"select $1::int",
            param_oids: vec![],
        };
        parse.encode(&mut out).unwrap();
        let params = params
            .iter()
            .map(|param| frontend::Param::text(Some(param)))
            .collect();
        let bind = frontend::Bind {
            portal: b"",
            statement: b"",
            params,
            result_formats: vec![],
        };
        bind.encode(&mut out).unwrap();
        frontend::Execute {
            portal: b"",
            rows_max: 0,
        }
        .encode(&mut out)
        .unwrap();
        frontend::sync(&mut out);
        client.send(&out);
        client.answer()
    };
    assert_eq!(bind(&[]).error.unwrap().code(), "08P01");
    assert_eq!(bind(&[b"x"]).error.unwrap().code(), "22P02");
    assert_eq!(bind(&[b"7"]).rows, [[Some("7".to_owned())]]);
    server.still_answers();
}

#[test]
fn malformed_json() {
    let server = Server::start();
    let mut http = server.http();
    let mut post = |body: &str| http.request("POST", "/v1/databases/still/query", Some(body));
    for (body, position) in [
        ("", 1),
        ("{\"sql\": }", 9),
        ("{\"sql\":\"ä\",}", 12),
        ("[1", 3),
        ("{\"sql\":\"x", 10),
    ] {
        let response = post(body);
        let (code, message) = response.error(400);
        assert_eq!(
            (&*code, &response.problem()["error"]["position"]),
            ("22P02", &json!(position))
        );
        assert!(message.contains("not JSON"), "{message}");
    }
    for (body, name) in [
        ("{}", "sql"),
        ("{\"sql\":\"select 1\",\"parms\":[]}", "parms"),
        ("{\"sql\":\"select 1\",\"rowMode\":\"lines\"}", "lines"),
        ("{\"sql\":1}", "string"),
        ("[\"select 1\"]", "object"),
        ("\"select 1\"", "struct"),
    ] {
        let (_, message) = post(body).error(400);
        assert!(message.contains(name), "{message}");
    }
    server.still_answers();
}

#[test]
fn requests_that_go_nowhere() {
    let server = Server::start();
    let mut http = server.http();
    assert_eq!(http.get("/v3").error(404).0, "08P01");
    let response = http.request("PUT", "/v1/databases/x/query", Some("{}"));
    assert_eq!(response.error(405).0, "08P01");
    assert_eq!(response.header("allow"), Some("POST"));

    let mut post = |content_type: &str| {
        http.send(&format!(
            "POST /v1/databases/still/query HTTP/1.1\r\nhost: localhost\r\n{content_type}content-length: \
             18\r\n\r\n{{\"sql\":\"select 1\"}}"
        ));
        http.response()
    };
    assert_eq!(
        post("content-type: application/json; charset=utf-8\r\n").status,
        200
    );
    for wrong in ["content-type: text/plain\r\n", ""] {
        let response = post(wrong);
        assert_eq!(response.error(415).0, "08P01");
        assert!(response.text().contains("Content-Type: application/json"));
    }
    http.send("nonsense\r\n\r\n");
    assert_eq!(http.response().status, 400);
    server.still_answers();
}

const HEAD: &str = "POST /v1/databases/still/query HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";

#[test]
fn body_of_100_mb() {
    let server = Server::start();
    let check = |http: &mut Http| {
        let response = http.response();
        let (code, message) = response.error(413);
        assert_eq!(code, "54000");
        assert!(
            message.contains("http.body_bytes_max, 16777216"),
            "{message}"
        );
        assert_eq!(response.header("connection"), Some("close"));
    };
    // Announced: answered before any of it is sent.
    let mut http = server.http();
    http.send(&format!("{HEAD}content-length: 104857600\r\n\r\n"));
    check(&mut http);
    // Not announced, and all of it sent before the answer is looked at.
    let mut http = server.http();
    http.send(&format!(
        "{HEAD}transfer-encoding: chunked\r\n\r\n6400000\r\n"
    ));
    http.send_until_refused(b' ', 100 << 20);
    check(&mut http);
    // Announced, but sent all the same.
    let mut http = server.http();
    http.send(&format!("{HEAD}content-length: 104857600\r\n\r\n"));
    http.send_until_refused(b' ', 100 << 20);
    check(&mut http);
    server.still_answers();
}

#[test]
fn half_a_request() {
    let server = Server::start_with(&[("DORMOUSE_HTTP__HEADER_TIMEOUT_MS", "200")]);
    let mut http = server.http();
    http.send("GET /ping HTTP/1.1\r\nhos");
    let mut rest = String::new();
    http.read_to_end(&mut rest);
    assert!(rest.is_empty(), "{rest}");
    server.still_answers();
}

#[test]
fn half_a_startup_packet() {
    let server = Server::start_with(&[("DORMOUSE_PGWIRE__STARTUP_TIMEOUT_MS", "200")]);
    let half = b"\0\0\0\x20\0\x03\0\0user\0post";
    let mut client = Pg::open(server.pg);
    client.send(half);
    let error = client.last_word();
    assert_eq!((error.code(), error.severity()), ("08P01", Severity::Fatal));
    assert!(
        error.message().contains("pgwire.startup_timeout_ms, 200"),
        "{error}"
    );
    // Nothing at all counts as well.
    let mut silent = Pg::open(server.pg);
    assert_eq!(silent.last_word().code(), "08P01");
    // And who goes in the midst is not waited for.
    let mut client = Pg::open(server.pg);
    client.send(half);
    drop(client);
    server.still_answers();
}

#[test]
fn garbage_on_the_pgwire_port() {
    let server = Server::start();
    let noise: Vec<u8> = (0..200_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let firsts: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01",
        b"\0\0\0\x04",
        b"\xff\xff\xff\xff",
        &noise,
    ];
    for garbage in firsts {
        let mut client = Pg::open(server.pg);
        client.send(garbage);
        let error = client.last_word();
        assert_eq!(
            (error.code(), error.severity()),
            ("08P01", Severity::Fatal),
            "{error}"
        );
    }
    for garbage in [&b"\0"[..], b"Q\0\0\0\x02", b"p\0\0\0\x05x", &noise[1..]] {
        let mut client = server.connect("garbage");
        client.send(garbage);
        let error = client.last_word();
        assert_eq!(
            (error.code(), error.severity()),
            ("08P01", Severity::Fatal),
            "{error}"
        );
    }
    server.still_answers();
}

#[test]
fn garbage_behind_a_statement_does_not_undo_it() {
    let server = Server::start();
    let mut client = server.connect("garbage");
    let mut out = bytes::BytesMut::new();
    frontend::query(&mut out, b"create table t (n int)").unwrap();
    out.extend_from_slice(b"\0\0\0\0");
    client.send(&out);
    assert_eq!(client.answer().tags, ["CREATE TABLE"]);
    assert_eq!(client.last_word().code(), "08P01");
    server.sql("garbage", "select * from t");
}

#[test]
fn messages_with_garbage_inside() {
    let server = Server::start();
    let mut client = server.connect("inside");
    // Parse without its ends, Bind with a count beyond the message, Describe of nothing known.
    for message in [
        &b"P\0\0\0\x08abcd"[..],
        b"B\0\0\0\x0a\0\0\0\0\xff\xff",
        b"D\0\0\0\x06Z\0",
    ] {
        client.send(&[message, b"S\0\0\0\x04"].concat());
        let answer = client.answer();
        assert_eq!(answer.status, TransactionStatus::Idle);
        assert!(answer.error.is_some(), "{message:?}");
    }
    assert_eq!(client.query("select 1").unwrap().len(), 1);
    server.still_answers();
}

#[test]
fn message_beyond_the_limit() {
    let server = Server::start_with(&[("DORMOUSE_PGWIRE__MESSAGE_BYTES_MAX", "100000")]);
    let mut client = server.connect("large");
    client
        .query(&format!("select length('{}')", "x".repeat(90_000)))
        .unwrap();
    client.send(b"Q\0\x01\xff\xff");
    let error = client.last_word();
    assert_eq!(error.code(), "54000");
    assert!(
        error.message().contains("pgwire.message_bytes_max, 100000"),
        "{error}"
    );
    server.still_answers();
}

#[test]
fn client_gone_in_the_middle_of_a_query() {
    let server = Server::start();
    let forever = "select count(*) from generate_series(1, 1000000000000)";
    for sql in ["select pg_sleep(3600)", forever] {
        let mut client = server.connect("gone");
        client.send_query(sql);
        drop(client);
        // The next session of this database has to wait for the last one's end.
        server.connect("gone").query("select 1").unwrap();

        let mut http = server.http();
        let body = json!({ "sql": sql }).to_string();
        http.send(&format!(
            "{HEAD}content-length: {}\r\n\r\n{body}",
            body.len()
        ));
        drop(http);
        server.sql("still", "select 1");
    }
    server.still_answers();
}

#[test]
fn client_gone_in_the_middle_of_a_transaction_or_a_copy() {
    let server = Server::start();
    let mut client = server.connect("copy");
    client.query("create table t (n int)").unwrap();
    client.query("begin; insert into t values (1)").unwrap();
    drop(client);
    let mut client = server.connect("copy");
    client.send_query("copy t from stdin");
    client.until_kind(backend::kind::COPY_IN_RESPONSE);
    client.send(b"d\0\0\0\x06\x31\n");
    drop(client);
    let rows = server
        .connect("copy")
        .query("select count(*) from t")
        .unwrap();
    assert_eq!(rows, [[Some("0".to_owned())]]);
    server.still_answers();
}

#[test]
fn unknown_role_and_setting() {
    let server = Server::start();
    let mut wish = startup("roles");
    wish.user = "nobody".to_owned();
    assert_eq!(Pg::connect(server.pg, &wish).err().unwrap().code(), "28000");
    let mut wish = startup("roles");
    wish.settings = vec![("work_mem".to_owned(), "much".to_owned())];
    let error = Pg::connect(server.pg, &wish).err().unwrap();
    assert_eq!(
        (error.code(), error.severity()),
        ("22023", Severity::Fatal),
        "{error}"
    );
    server.still_answers();
}
