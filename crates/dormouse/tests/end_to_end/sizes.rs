//! How large a request and its result may be, by token and by database, over every door.

use serde_json::{Value, json};

use tungstenite::Message;

use crate::harness::{Client, Response, Server, Tokens, dormouse, run_program, until};
use crate::websockets::resume;

/// A request is smaller than this, but for what it is made larger by.
const BODY_MAX: usize = 1_000;

/// Of results.
const RESULT_MAX: usize = 100_000;

/// A result of some 200 bytes, and one of 2 MB.
const SMALL: &str = "select repeat('x', 10) as x";
const LARGE: &str = "select repeat('x', 2000) as x from generate_series(1, 1000)";

/// Whoever asks the database `shop`, and how.
struct Doors<'a> {
    server: &'a Server,
    token: Option<&'a str>,
}

/// What a door said.
#[derive(Debug)]
enum Said {
    Result,
    /// The code and the message.
    Error(String, String),
    /// The WebSocket was closed, with this code.
    Closed(u16, String),
}

fn error(error: &Value) -> Said {
    let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    Said::Error(text("code"), text("message"))
}

impl Doors<'_> {
    fn ask(
        &self,
        method: &str,
        path: &str,
        header: (&str, &str),
        body: Option<&Value>,
    ) -> Response {
        let bearer = format!("Bearer {}", self.token.unwrap_or_default());
        let mut headers = vec![header];
        headers.extend(self.token.map(|_| ("authorization", &*bearer)));
        let body = body.map(Value::to_string);
        let mut http = self.server.http();
        http.request_with(method, path, &headers, body.as_deref())
    }

    fn get(&self, path: &str) -> Response {
        self.ask("GET", path, ("accept", "*/*"), None)
    }

    fn post(&self, path: &str, header: (&str, &str), body: &Value) -> Said {
        let path = match path {
            "/sql" => path.to_owned(),
            _ => format!("/v1/databases/shop/{path}"),
        };
        let answer = self.ask("POST", &path, header, Some(body));
        match answer.header("content-type") {
            Some("application/problem+json") => {
                let (code, message) = answer.error(413);
                Said::Error(code, message)
            }
            Some("application/x-ndjson") => {
                let text = answer.text();
                let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
                match &last["error"] {
                    Value::Null => Said::Result,
                    of => error(of),
                }
            }
            // Neon's errors are at the top.
            _ if answer.status == 400 => error(&answer.json()),
            _ => match &answer.json()["results"][0]["error"] {
                Value::Null => Said::Result,
                of => error(of),
            },
        }
    }

    /// What each door says to a statement.
    fn all(&self, sql: &str) -> Vec<(&'static str, Said)> {
        let plain = ("accept", "application/json");
        let neon = (
            "neon-connection-string",
            "postgresql://postgres@localhost/shop",
        );
        let one = json!({ "sql": sql });
        let several = json!({ "statements": [one] });
        let lines = ("accept", "application/x-ndjson");
        let begin = "/v1/databases/shop/transactions";
        let begun = self.ask("POST", begin, plain, Some(&json!({}))).json();
        let held = format!("transactions/{}/query", begun["id"].as_str().unwrap());
        let query = json!({ "query": sql });
        // The second one is within the limit by itself.
        let queries = json!({"queries": [{ "query": sql }, { "query": SMALL }]});
        vec![
            ("query", self.post("query", plain, &one)),
            ("lines", self.post("query", lines, &one)),
            ("batch", self.post("batch", plain, &several)),
            ("transaction", self.post("transaction", plain, &several)),
            ("held transaction", self.post(&held, plain, &one)),
            ("/sql", self.post("/sql", neon, &query)),
            ("/sql of several", self.post("/sql", neon, &queries)),
            ("WebSocket", self.in_websocket(&one)),
        ]
    }

    fn in_websocket(&self, one: &Value) -> Said {
        let mut socket = Client::open_as(self.server, "shop", self.token);
        let message = json!({"id": 1, "sql": one["sql"]});
        socket.send(&message);
        loop {
            let answer: Value = match socket.socket.read().unwrap() {
                Message::Text(text) => serde_json::from_str(&text).unwrap(),
                Message::Close(Some(frame)) => {
                    return Said::Closed(frame.code.into(), frame.reason.to_string());
                }
                _ => continue,
            };
            match &answer["error"] {
                Value::Null if answer["more"] == true => {}
                Value::Null => return Said::Result,
                of => return error(of),
            }
        }
    }

    #[track_caller]
    fn allow(&self, sql: &str) {
        for (door, said) in self.all(sql) {
            assert!(matches!(said, Said::Result), "{door}: {said:?}");
        }
    }

    /// Every door refuses a body that is too large, and a result, and says by which limit.
    #[track_caller]
    fn refuse(&self, body: &str, result: &str) {
        self.allow(SMALL);
        let sql = format!("{SMALL} /* {} */", "x".repeat(BODY_MAX));
        for (door, said) in self.all(&sql) {
            let named = format!("exceeds {body}, {BODY_MAX}");
            match said {
                Said::Error(code, message) => {
                    assert_eq!(code, "54000", "{door}");
                    assert!(message.contains(&named), "{door}: {message}");
                }
                Said::Closed(code, reason) => {
                    assert_eq!((door, code), ("WebSocket", 1009));
                    assert!(reason.contains(&named), "{reason}");
                }
                Said::Result => panic!("{door} took it"),
            }
        }
        for (door, said) in self.all(LARGE) {
            let Said::Error(code, message) = said else {
                panic!("{door}: {said:?}");
            };
            assert_eq!(code, "54000", "{door}");
            let named = format!("exceeds {result}, {RESULT_MAX} bytes");
            assert!(message.contains(&named), "{door}: {message}");
        }
    }
}

fn put(tokens: &Tokens, token: &str, settings: &Value) -> Response {
    let doors = Doors {
        server: &tokens.server,
        token: Some(token),
    };
    let path = "/v1/databases/shop/settings";
    doors.ask("PUT", path, ("accept", "*/*"), Some(settings))
}

#[test]
fn a_token_has_limits_of_its_own() {
    let tokens = Tokens::start();
    tokens.admin(SMALL);
    let of = |token| Doors {
        server: &tokens.server,
        token: Some(token),
    };
    let args = [
        "--scope",
        "write",
        "--body-bytes-max",
        "1000",
        "--result-bytes-max",
        "100000",
    ];
    let made = [tokens.create("small", &args), {
        let new = json!({"name": "small too", "scope": "write",
                "bodyBytesMax": BODY_MAX, "resultBytesMax": RESULT_MAX});
        let made = tokens.post(&tokens.admin, "/v1/tokens", &new);
        assert_eq!(made.status, 201, "{}", made.text());
        assert_eq!(made.json()["bodyBytesMax"], BODY_MAX);
        made.json()["token"].as_str().unwrap().to_owned()
    }];
    for token in &made {
        // The file is looked at once a second.
        until(
            || of(token).get("/v1/databases/shop/config").status,
            |status| *status == 200,
        );
        of(token).refuse("bodyBytesMax of this token", "resultBytesMax of this token");
    }
    of(&tokens.write).allow(LARGE);

    let config = of(&made[0]).get("/v1/databases/shop/config");
    let limits = config.json()["limits"].clone();
    assert_eq!(
        (&limits["bodyBytesMax"], &limits["resultBytesMax"]),
        (&json!(BODY_MAX), &json!(RESULT_MAX))
    );
    // Without a database it is told what holds for it, not what the node allows.
    let limits = of(&made[0]).get("/config").json()["limits"].clone();
    assert_eq!(
        (&limits["bodyBytesMax"], &limits["resultBytesMax"]),
        (&json!(BODY_MAX), &json!(RESULT_MAX))
    );
    let deploys = json!({"name": "deploys", "scope": "deploy", "bodyBytesMax": BODY_MAX});
    let refused = tokens
        .post(&tokens.admin, "/v1/tokens", &deploys)
        .error(400);
    assert!(
        refused.1.contains("workers.archive_bytes_max"),
        "{refused:?}"
    );
    for nothing in [json!(0), json!(-1), json!("1")] {
        let new = json!({"name": "none", "scope": "read", "bodyBytesMax": nothing});
        assert_eq!(tokens.post(&tokens.admin, "/v1/tokens", &new).status, 400);
    }
}

#[test]
fn a_database_has_limits_of_its_own() {
    let tokens = Tokens::start();
    tokens.admin(SMALL);
    let limits = json!({"bodyBytesMax": BODY_MAX, "resultBytesMax": RESULT_MAX});
    let set = put(&tokens, &tokens.admin, &limits);
    assert_eq!(set.json()["settings"], limits);
    let doors = Doors {
        server: &tokens.server,
        token: Some(&tokens.write),
    };
    doors.refuse(
        "bodyBytesMax of this database",
        "resultBytesMax of this database",
    );

    // They hold from the next statement on, in what is open too.
    let mut socket = Client::open_as(&tokens.server, "shop", Some(&tokens.write));
    let held = tokens
        .post(&tokens.write, "/transactions", &json!({}))
        .json();
    let held = format!("/transactions/{}/query", held["id"].as_str().unwrap());
    let ask = json!({"sql": "select repeat('x', 1000) as x", "id": 1});
    assert!(socket.ask(&ask)["rows"].is_array());
    let less = json!({"bodyBytesMax": 100, "resultBytesMax": 500});
    assert_eq!(put(&tokens, &tokens.admin, &less).status, 200);
    let said = socket.ask(&ask);
    assert_eq!(said["error"]["code"], "54000", "{said}");
    let query = json!({"sql": "select repeat('x', 1000) as x"});
    let (_, message) = tokens.post(&tokens.write, &held, &query).error(413);
    assert!(
        message.contains("resultBytesMax of this database, 500"),
        "{message}"
    );
    // That statement had ended. One that is cancelled leaves a transaction that can only be rolled back.
    let next = || tokens.post(&tokens.write, &held, &json!({"sql": "select 1"}));
    assert_eq!(next().status, 200);
    let endless = json!({"sql": "select repeat('x', 1000), generate_series(1, 1000000000)"});
    let (_, message) = tokens.post(&tokens.write, &held, &endless).error(413);
    assert!(message.contains("resultBytesMax"), "{message}");
    assert_eq!(next().problem()["error"]["code"], "25P02");
    socket.send(&json!({"sql": "select 1", "id": 2, "params": ["x".repeat(100)]}));
    assert_eq!(socket.closed().0, 1009);

    // However little it allows, that can be changed.
    let least = json!({"bodyBytesMax": 1, "resultBytesMax": 1});
    assert_eq!(put(&tokens, &tokens.admin, &least).status, 200);
    let (_, message) = tokens.query(&tokens.write, SMALL).error(413);
    assert!(
        message.contains("bodyBytesMax of this database, 1 bytes"),
        "{message}"
    );
    assert_eq!(
        put(&tokens, &tokens.admin, &json!({})).json()["settings"],
        json!({})
    );
    doors.allow(LARGE);

    let url = format!("http://{}", tokens.server.http);
    let mut command = dormouse();
    command.args([
        "db",
        "set",
        "shop",
        "--server",
        &url,
        "--body-bytes-max",
        "1KiB",
        "--json",
    ]);
    command.env("DORMOUSE_TOKEN", &tokens.admin);
    let told: Value = serde_json::from_str(&run_program(&mut command).done()).unwrap();
    assert_eq!(told["settings"], json!({"bodyBytesMax": 1_024}));
}

#[test]
fn all_tokens_and_all_databases_have_limits() {
    for kind in ["token", "database"] {
        let name =
            |what: &str| format!("DORMOUSE_LIMITS__{}_{what}_BYTES_MAX", kind.to_uppercase());
        let server = Server::start_with(&[
            (&*name("BODY"), &*BODY_MAX.to_string()),
            (&*name("RESULT"), &*RESULT_MAX.to_string()),
        ]);
        server.sql("shop", SMALL);
        let doors = Doors {
            server: &server,
            token: None,
        };
        let setting = |what: &str| format!("limits.{kind}_{what}_bytes_max");
        doors.refuse(&setting("body"), &setting("result"));
    }
}

#[test]
fn an_answer_that_is_kept_is_measured_too() {
    let tokens = Tokens::start();
    tokens.admin("create table t as select repeat('x', 1000) as x");
    let args = [
        "--scope",
        "write",
        "--database",
        "shop",
        "--result-bytes-max",
        "500",
    ];
    let small = tokens.create("small", &args);
    let ask = |token: &str, tag: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", &*bearer), ("if-none-match", tag)];
        let body = json!({"sql": "select x from t"}).to_string();
        let mut http = tokens.server.http();
        http.request_with("POST", "/v1/databases/shop/query", &headers, Some(&body))
    };
    ask(&tokens.write, "\"\"");
    ask(&tokens.write, "\"\"");
    let hit = ask(&tokens.write, "\"\"");
    assert_eq!(hit.header("x-dormouse-cache"), Some("hit"));
    until(|| ask(&small, "\"\"").status, |status| *status != 401);
    let hits = || {
        let bearer = format!("Bearer {}", tokens.admin);
        let path = "/v1/databases/shop/figures";
        let headers = [("authorization", &*bearer)];
        let figures = tokens
            .server
            .http()
            .request_with("GET", path, &headers, None);
        figures.json()["cacheHits"].as_u64().unwrap()
    };
    let before = hits();
    assert!(before > 0);
    let (code, message) = ask(&small, "\"\"").error(413);
    // What is refused is no hit.
    assert_eq!(hits(), before);
    assert_eq!(code, "54000");
    assert!(
        message.contains("resultBytesMax of this token, 500"),
        "{message}"
    );
    // It is told nothing that it has not.
    assert_eq!(ask(&small, hit.header("etag").unwrap()).status, 304);
}

#[test]
fn statements_are_limited_together() {
    let server = Server::start_with(&[(
        "DORMOUSE_LIMITS__TOKEN_RESULT_BYTES_MAX",
        &RESULT_MAX.to_string(),
    )]);
    let half = format!("select repeat('x', {}) as x", RESULT_MAX * 6 / 10);
    server.sql("shop", &half);
    let doors = Doors {
        server: &server,
        token: None,
    };
    let plain = ("accept", "application/json");
    let neon = (
        "neon-connection-string",
        "postgresql://postgres@localhost/shop",
    );
    let two = json!({ "statements": [{"sql": half}, {"sql": half}] });
    let queries = json!({ "queries": [{"query": half}, {"query": half}] });
    for (path, header, body) in [
        ("batch", plain, &two),
        ("transaction", plain, &two),
        ("/sql", neon, &queries),
    ] {
        let Said::Error(code, message) = doors.post(path, header, body) else {
            panic!("{path} gave it");
        };
        assert_eq!(code, "54000", "{path}");
        let named = format!(
            "what the statements give together exceeds limits.token_result_bytes_max, {RESULT_MAX} bytes"
        );
        assert_eq!(message, named, "{path}");
    }
}

#[test]
fn a_statement_ends_when_its_result_is_too_large() {
    const ALL: i64 = 1_000_000;
    let server = Server::start_with(&[(
        "DORMOUSE_LIMITS__TOKEN_RESULT_BYTES_MAX",
        &RESULT_MAX.to_string(),
    )]);
    let doors = Doors {
        server: &server,
        token: None,
    };
    let plain = ("accept", "application/json");
    for (path, wrap) in [("query", false), ("batch", true), ("transaction", true)] {
        // What a sequence has given is not rolled back.
        server.sql("shop", "create sequence counted");
        let one = json!({
            "sql": format!("select nextval('counted') from generate_series(1, {ALL})")
        });
        let body = match wrap {
            true => json!({ "statements": [one] }),
            false => one,
        };
        let said = doors.post(path, plain, &body);
        assert!(
            matches!(&said, Said::Error(code, _) if code == "54000"),
            "{path}: {said:?}"
        );
        let given = server.sql("shop", "select last_value::text as given from counted");
        let given = given["rows"][0]["given"].as_str().unwrap().to_owned();
        assert!(
            given.parse::<i64>().unwrap() < ALL / 2,
            "{path}: {given} rows"
        );
        server.sql("shop", "drop sequence counted");
    }
}

#[test]
fn errors_give_no_more_than_results() {
    let server = Server::start_with(&[("DORMOUSE_LIMITS__TOKEN_RESULT_BYTES_MAX", "50000")]);
    server.sql("shop", SMALL);
    let doors = Doors {
        server: &server,
        token: None,
    };
    let plain = ("accept", "application/json");
    let lines = ("accept", "application/x-ndjson");
    let neon = (
        "neon-connection-string",
        "postgresql://postgres@localhost/shop",
    );
    // All of it is in the message, and in the context.
    let sql = "select string_agg(repeat('x', 2000), '')::int from generate_series(1, 100)";
    let one = json!({ "sql": sql });
    let several = json!({ "statements": [one] });
    let query = json!({ "query": sql });
    for (path, header, body) in [
        ("/v1/databases/shop/query", plain, &one),
        ("/v1/databases/shop/query", lines, &one),
        ("/v1/databases/shop/batch", plain, &several),
        ("/v1/databases/shop/transaction", plain, &several),
        ("/sql", neon, &query),
    ] {
        let text = doors.ask("POST", path, header, Some(body)).text();
        assert!(text.contains("22P02"), "{path}: {text}");
        assert!(text.contains("cut at http.error_field_bytes_max"), "{path}");
        assert!(text.len() < 50_000, "{path}: {} bytes", text.len());
    }
    let mut socket = Client::open(&server, "shop");
    let told = socket.ask(&json!({"id": 1, "sql": sql}));
    let message = told["error"]["message"].as_str().unwrap();
    assert!(message.len() <= 16 << 10, "{} bytes", message.len());
    // PostgreSQL's protocol has no such limit.
    let error = server.connect("shop").query(sql).unwrap_err();
    assert!(error.message().len() > 200_000);
}

#[test]
fn a_conversation_goes_on_with_what_its_new_socket_may_send() {
    let tokens = Tokens::start();
    tokens.admin(SMALL);
    let allow = |bytes: usize| {
        let set = put(&tokens, &tokens.admin, &json!({ "bodyBytesMax": bytes }));
        assert_eq!(set.status, 200);
    };
    let open = || Client::open_as(&tokens.server, "shop", Some(&tokens.write));
    allow(BODY_MAX);
    let mut old = open();
    assert!(old.ask(&json!({"id": 1, "sql": SMALL}))["rows"].is_array());
    allow(10 * BODY_MAX);
    let large = "x".repeat(5 * BODY_MAX);
    let mut new = open();
    let resumed = new.ask(&resume(&old, 1));
    assert_eq!(resumed["resumed"]["answers"], 0, "{resumed}");
    let told = new.ask(&json!({"id": 2, "sql": "select length($1) as n", "params": [large]}));
    assert_eq!(told["rows"], json!([{"n": 5 * BODY_MAX}]), "{told}");
    // Less holds at once, as in any other.
    allow(BODY_MAX);
    new.send(&json!({"id": 3, "sql": "select $1", "params": [large]}));
    assert_eq!(new.closed().0, 1009);
}
