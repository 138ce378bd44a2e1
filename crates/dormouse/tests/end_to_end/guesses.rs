//! Passwords that are hashed by the server: how many guesses it takes at once.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::{ADMIN, Http, Response, SCRAM, Server, health, until};
use crate::websockets::tunnel;

const QUERY: &str = "/v1/databases/shop/query";

/// Of a user of a binding, by its form.
const GUEST: &str = "00112233445566778899aabbccddeeff-00112233";

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn ask(server: &Server, user: &str, password: &str, sql: &str) -> Response {
    let body = json!({ "sql": sql }).to_string();
    let headers = [("authorization", &*basic(user, password))];
    server
        .http()
        .request_with("POST", QUERY, &headers, Some(&body))
}

fn ask_neon(http: &mut Http, user: &str) -> Value {
    let string = format!("postgres://{user}:wrong@localhost/shop");
    let headers = [("neon-connection-string", &*string)];
    let answer = http.request_with("POST", "/sql", &headers, Some("{\"query\":\"select 1\"}"));
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert_eq!(answer.header("retry-after"), None);
    answer.json()
}

#[test]
fn guesses_take_turns_whoever_makes_them_and_whether_they_stay() {
    let settings = [
        ("DORMOUSE_AUTH__SCRAM_ITERATIONS_MAX", "1000000000"),
        ("DORMOUSE_AUTH__PASSWORD_QUEUE_MAX", "0"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    server.sql("shop", "create role slow login");
    // Made by ALTER ROLE it would be looked at, which takes as long.
    let key = STANDARD.encode([7; 32]);
    let slow = format!(
        "update pg_authid set rolpassword = 'SCRAM-SHA-256$1000000000:c2FsdA==${key}:{key}' \
         where rolname = 'slow'"
    );
    assert_eq!(server.sql("shop", &slow)["rowCount"], 1);
    assert_eq!(server.stop().code(), Some(0));
    let server = Server::start_in(folder.path(), &[&SCRAM[..], &settings].concat());
    // Nobody has to wait as long as a turn is free.
    let guess = || ask(&server, "postgres", "wrong", "select 1");
    assert_eq!(guess().status, 401);
    let mut http = server.http();
    assert_eq!(ask_neon(&mut http, "postgres")["code"], "28P01");
    let refused = tunnel(&server, GUEST, "wrong").unwrap_err();
    assert!(refused.contains("28P01"), "{refused}");

    // For a minute from here on who knows the password is known.
    assert_eq!(ask(&server, "postgres", ADMIN, "select 1").status, 200);

    // These take longer than this test.
    let mut clients = Vec::new();
    let guess_beside_them = || {
        let mut http = server.http();
        let headers = [("authorization", &*basic("slow", "wrong"))];
        http.send_post(QUERY, &headers, &json!({"sql": "select 1"}));
        clients.push(http);
        guess()
    };
    until(guess_beside_them, |answer| answer.status == 503);
    drop(clients);
    // Who looks, and who has asked as Neon's driver does.
    let mut looking = server.http();
    let open = || health(&mut looking)["connections"]["http"]["open"].as_u64();
    until(open, |open| *open == Some(2));
    // Their clients have gone, and they go on.
    let (code, message) = guess().error(503);
    assert_eq!(code, "57P03");
    assert!(
        message.contains("auth.password_queue_max is 0"),
        "{message}"
    );
    assert_eq!(ask_neon(&mut http, "postgres")["code"], "57P03");
    let refused = tunnel(&server, GUEST, "wrong").unwrap_err();
    assert!(refused.contains("57P03"), "{refused}");
    // Who is known waits for nobody.
    assert_eq!(ask(&server, "postgres", ADMIN, "select 1").status, 200);
}
