//! Bindings on Cloudflare's paths.

use base64::Engine as _;
use serde_json::json;

use super::both;
use crate::harness::{Response, SECRET, Server, Tokens, User};

#[test]
fn cloudflares_paths_and_documents() {
    let Some((server, origin)) = both() else {
        return;
    };
    let address = origin.native.address;
    let configs = "/client/v4/accounts/0123/hyperdrive/configs";
    let mut new = json!({
        "name": "shop",
        "origin": {
            "scheme": "postgres", "host": address.ip().to_string(), "port": address.port(),
            "database": "postgres", "user": "postgres", "password": "wrong",
        },
        "caching": { "disabled": true },
        "origin_connection_limit": 7,
    });
    let refused = server.http().post(configs, &new);
    assert_eq!(refused.status, 400, "{}", refused.text());
    let refused = refused.json();
    assert_eq!(
        (&refused["success"], &refused["errors"][0]["code"]),
        (&json!(false), &json!(2013))
    );
    new["origin"]["password"] = SECRET.into();
    let made = server.http().post(configs, &new);
    assert_eq!(made.status, 200, "{}", made.text());
    let made = made.json();
    assert_eq!(made["success"], true);
    let result = &made["result"];
    assert_eq!(result["origin_connection_limit"], 7);
    assert_eq!(result["caching"], json!({ "disabled": true }));
    assert_eq!(result["origin"].get("password"), None);
    let one = format!("{configs}/{}", result["id"].as_str().unwrap());
    let user = User::of(&server, "shop");
    assert_eq!(user.login(&server).gives("select 1"), "1");
    let patched = server
        .http()
        .request("PATCH", &one, Some(r#"{"caching":{"max_age":5}}"#));
    assert_eq!(patched.status, 200, "{}", patched.text());
    let mut put = new.clone();
    put["name"] = "store".into();
    assert_eq!(
        server
            .http()
            .request("PUT", &one, Some(&put.to_string()))
            .status,
        200
    );
    let list = server.http().get(configs).json();
    assert_eq!(list["result"].as_array().map(Vec::len), Some(1));
    assert_eq!(list["result"][0]["name"], "store");
    // Users stay when a configuration is replaced.
    assert_eq!(user.login(&server).gives("select 1"), "1");
    let with_id = json!({ "mtls": { "ca_certificate_id": "x" } }).to_string();
    assert_eq!(
        server.http().request("PATCH", &one, Some(&with_id)).status,
        400
    );
    assert_eq!(server.http().delete(&one).json()["success"], true);
    assert_eq!(server.http().get(&one).status, 404);
}

/// Cloudflare's tool sends its JSON as text, and reads errors in the envelope alone.
#[test]
fn cloudflares_tool_sends_text_and_reads_envelopes() {
    let server = Tokens::start();
    server.admin("select 1");
    let configs = "/client/v4/accounts/0123/hyperdrive/configs";
    let new = json!({
        "name": "shop",
        "origin": {
            "scheme": "postgresql", "host": "127.0.0.1", "port": 1, "database": "d", "user": "u", "password": "p",
        },
    });
    let send = |method: &str, path: &str, authorization: Option<&str>, body: &str| {
        let authorization = authorization.map(|value| format!("authorization: {value}\r\n"));
        let mut http = server.server.http();
        http.send(&format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\n{}content-type: text/plain;charset=UTF-8\r\n\
             content-length: {}\r\n\r\n{body}",
            authorization.unwrap_or_default(),
            body.len(),
        ));
        http.response()
    };
    let admin = format!("Bearer {}", server.admin);
    let error = |answer: Response| {
        let body = answer.json();
        assert_eq!(body["success"], false, "{body}");
        let error = &body["errors"][0];
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty())
        );
        (answer.status, error["code"].as_u64().unwrap())
    };
    // It was read: nobody listens there.
    let made = send("POST", configs, Some(&admin), &new.to_string());
    assert_eq!(error(made), (400, 2011));
    let one = format!("{configs}/none");
    let changed = send("PATCH", &one, Some(&admin), r#"{"name":"store"}"#);
    assert_eq!(error(changed), (404, 2015));
    let replaced = send("PUT", &one, Some(&admin), &new.to_string());
    assert_eq!(error(replaced), (404, 2015));
    // What a browser may send by itself is read as what it says it is.
    let known = base64::prelude::BASE64_STANDARD.encode(format!("token:{}", server.admin));
    let basic = format!("Basic {known}");
    let made = send("POST", configs, Some(&basic), &new.to_string());
    assert_eq!(error(made), (415, 2015));
    let own = send("POST", "/v1/bindings", Some(&admin), &new.to_string());
    assert_eq!(own.problem()["status"], 415);

    let reader = format!("Bearer {}", server.read);
    for (who, status) in [
        (None, 401),
        (Some("Bearer nobodys"), 401),
        (Some(&*reader), 403),
    ] {
        for (method, path) in [("GET", configs), ("POST", configs), ("DELETE", &one)] {
            let answer = send(method, path, who, "{}");
            assert!(answer.header("www-authenticate").is_some());
            assert_eq!(error(answer), (status, 10_000), "{who:?} {method}");
        }
    }
}

/// Where nobody is asked, too, text is JSON only of who shows a token.
#[test]
fn text_of_a_page_is_no_json() {
    let server = Server::start();
    let configs = "/client/v4/accounts/0123/hyperdrive/configs";
    let status = |more: &str| {
        let mut http = server.http();
        http.send(&format!(
            "POST {configs} HTTP/1.1\r\nhost: localhost\r\n{more}content-type: text/plain\r\n\
             content-length: 2\r\n\r\n{{}}"
        ));
        http.response().status
    };
    assert_eq!(status(""), 415);
    assert_eq!(status("authorization: Bearer any\r\n"), 400);
}
