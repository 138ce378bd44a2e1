//! What is answered at the hosts of apps.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::stage::{Archive, Stage, saying};
use crate::harness::PATIENCE;

const BACKEND: &str = "export default { async fetch(request) { const url = new URL(request.url);\n\
     if (url.pathname === '/api') return Response.json(Object.fromEntries(request.headers));\n\
     if (url.pathname === '/echo') return new Response(request.body, { headers: { 'x-method': request.method } });\n\
     if (url.pathname === '/both.txt') return new Response('backend');\n\
     if (url.pathname === '/stream') { const { readable, writable } = new TransformStream();\n\
       const writer = writable.getWriter(); writer.write(new TextEncoder().encode('first'));\n\
       return new Response(readable); }\n\
     if (url.pathname === '/ws') { const [client, server] = Object.values(new WebSocketPair()); server.accept();\n\
       server.addEventListener('message', (event) => server.send(`heard ${event.data}`));\n\
       return new Response(null, { status: 101, webSocket: client }); }\n\
     return new Response('none', { status: url.pathname.startsWith('/405') ? 405 : 404 }); } };";

fn both(stage: &Stage, more: &[(&str, &str)]) {
    let files = [
        ("worker/index.js", BACKEND),
        ("frontend/dist/index.html", "<h1>first</h1>"),
        ("frontend/dist/both.txt", "site"),
        ("frontend/dist/docs/index.html", "docs"),
        ("frontend/dist/logo.svg", "<svg/>"),
    ];
    stage.deploy("acme/shop", &Archive::of(&[&files[..], more].concat()));
}

#[test]
fn files_then_the_backend_then_the_first_page() {
    let Some(stage) = Stage::start() else { return };
    both(&stage, &[]);
    let page = stage.get("/shop/");
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(page.text(), "<h1>first</h1>");
    let asked = stage.get("/shop?a=b");
    assert_eq!(
        (asked.status, asked.header("location")),
        (308, Some("/shop/?a=b"))
    );
    assert_eq!(stage.get("//shop").header("location"), Some("/shop/"));
    assert_eq!(stage.get("/shop/docs/").text(), "docs");
    assert_eq!(stage.get("/shop/both.txt").text(), "site");
    assert_eq!(
        stage.get("/shop/logo.svg").header("content-type"),
        Some("image/svg+xml")
    );
    for path in ["/shop/some/where", "/shop/405"] {
        let fallback = stage.get(path);
        assert_eq!(
            (fallback.status, fallback.text()),
            (200, "<h1>first</h1>".to_owned())
        );
    }
    let host = ("host", "acme.apps.localhost");
    let posted = stage
        .http()
        .request_with("POST", "/shop/some/where", &[host], Some("{}"));
    assert_eq!((posted.status, posted.text()), (404, "none".to_owned()));
    for nothing in ["/nothing/", "/"] {
        assert_eq!(stage.get(nothing).status, 404, "{nothing}");
    }
}

#[test]
fn files_are_asked_for_again_and_in_parts() {
    let Some(stage) = Stage::start() else { return };
    both(&stage, &[]);
    let page = stage.get("/shop/both.txt");
    let tag = page.header("etag").unwrap().to_owned();
    let with = |name: &str, value: &str| {
        stage.get_with("acme.apps.localhost", "/shop/both.txt", &[(name, value)])
    };
    let same = with("if-none-match", &tag);
    assert_eq!((same.status, same.text()), (304, String::new()));
    let part = with("range", "bytes=1-2");
    assert_eq!((part.status, part.text()), (206, "it".to_owned()));
    let mut http = stage.http();
    http.send("HEAD /shop/both.txt HTTP/1.1\r\nhost: acme.apps.localhost\r\n\r\n");
    let head = http.head();
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("4"))
    );
    // No body has come: the connection goes on with the next answer.
    http.send("GET /shop/both.txt HTTP/1.1\r\nhost: acme.apps.localhost\r\n\r\n");
    assert_eq!(http.response().text(), "site");
}

#[test]
fn a_site_without_a_backend() {
    let Some(stage) = Stage::start() else { return };
    stage.deploy(
        "acme/site",
        &Archive::of(&[("out/index.html", "first"), ("out/a.txt", "a")]),
    );
    assert_eq!(stage.get("/site/a.txt").text(), "a");
    assert_eq!(stage.get("/site/app/route").text(), "first");
    let host = ("host", "acme.apps.localhost");
    let posted = stage
        .http()
        .request_with("POST", "/site/", &[host], Some("{}"));
    assert_eq!(
        (posted.status, posted.header("allow")),
        (405, Some("GET, HEAD"))
    );
    assert!(stage.backends().is_empty());
}

#[test]
fn a_backend_knows_where_a_request_came_from() {
    let Some(stage) = Stage::start() else { return };
    both(&stage, &[]);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let lies = [
        ("x-w7s-org-slug", "evil"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("traceparent", trace),
        ("x-forwarded-for", "203.0.113.9"),
    ];
    let seen = stage
        .get_with("acme.apps.localhost", "/shop/api?x=1", &lies)
        .json();
    let port = stage.server.http.port();
    assert_eq!(seen["x-w7s-org-slug"], "acme");
    assert_eq!(seen["x-w7s-repo-slug"], "shop");
    assert_eq!(seen["x-w7s-original-path"], "/shop/api");
    assert_eq!(seen["host"], format!("acme.apps.localhost:{port}"));
    assert_eq!(
        seen["x-forwarded-host"],
        format!("acme.apps.localhost:{port}")
    );
    assert_eq!(seen["x-forwarded-proto"], "http");
    assert_eq!(seen["x-forwarded-for"], "203.0.113.9, 127.0.0.1");
    assert_eq!(seen["traceparent"], trace);
    assert!(seen["x-hop"].is_null() && seen["connection"].is_null());
}

#[test]
fn bodies_go_both_ways_as_they_come() {
    let Some(stage) = Stage::start() else { return };
    both(&stage, &[]);
    let mut http = stage.http();
    http.send("POST /shop/echo HTTP/1.1\r\nhost: acme.apps.localhost\r\ntransfer-encoding: chunked\r\n\r\n");
    http.send("5\r\nfirst\r\n");
    let head = http.head();
    assert_eq!((head.status, head.header("x-method")), (200, Some("POST")));
    http.read_until("first");
    http.send("6\r\nsecond\r\n0\r\n\r\n");
    http.read_until("second");
    // An answer that does not end: its beginning is here.
    let mut http = stage.http();
    http.send("GET /shop/stream HTTP/1.1\r\nhost: acme.apps.localhost\r\n\r\n");
    assert_eq!(http.head().status, 200);
    http.read_until("first");
    drop(http);
    stage.server.still_answers();
}

#[test]
fn websockets_reach_a_backend() {
    let Some(stage) = Stage::start() else { return };
    both(&stage, &[]);
    let port = stage.server.http.port();
    let stream = TcpStream::connect(stage.server.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = format!("ws://acme.apps.localhost:{port}/shop/ws");
    let (mut socket, answer) = tungstenite::client(address, stream).unwrap();
    assert_eq!(answer.status(), 101);
    for text in ["one", "two"] {
        socket.send(tungstenite::Message::text(text)).unwrap();
        assert_eq!(
            socket.read().unwrap().to_text().unwrap(),
            format!("heard {text}")
        );
    }
    let metrics = stage.api("/metrics").text();
    let line = "dormouse_connections{protocol=\"websocket\"} 1";
    assert!(metrics.lines().any(|one| one == line), "{metrics}");
}

#[test]
fn hosts_of_their_own() {
    let settings = [
        ("DORMOUSE_WORKERS__DOMAINS", "shop.example,*.apps.example"),
        ("DORMOUSE_WORKERS__HOSTS_RESERVED", "db.apps.example"),
    ];
    let Some(stage) = Stage::start_with(&settings) else {
        return;
    };
    let archive = |names: &str| {
        Archive::of(&[
            ("worker/index.js", BACKEND),
            ("frontend/dist/index.html", "first"),
            ("frontend/dist/both.txt", "site"),
            ("CNAME", names),
        ])
    };
    let names = "shop.example\nelsewhere.example\ndb.localhost";
    let deployed = stage.deploy_with("acme/shop", "", &[], &archive(names));
    let data = deployed.json()["data"].clone();
    assert_eq!(data["customDomains"], serde_json::json!(["shop.example"]));
    let blocked = &data["blockedCustomDomains"];
    assert_eq!(blocked[0]["hostname"], "elsewhere.example");
    assert!(
        blocked[0]["reason"]
            .as_str()
            .unwrap()
            .contains("workers.domains")
    );
    assert_eq!(blocked[1]["hostname"], "db.localhost");
    // There the backend comes first, and nothing is before its paths.
    assert_eq!(stage.get_at("shop.example", "/both.txt").text(), "backend");
    assert_eq!(stage.get_at("Shop.Example.", "/anything").text(), "first");
    assert_eq!(stage.get_at("elsewhere.example", "/both.txt").status, 421);
    let other = stage.deploy_with("someone/else", "", &[], &archive("shop.example"));
    let blocked = other.json()["data"]["blockedCustomDomains"][0].clone();
    assert_eq!(blocked["currentRepository"], "acme/shop");
    assert_eq!(stage.get_at("shop.example", "/both.txt").text(), "backend");
}

#[test]
fn names_of_the_server_are_no_apps() {
    let settings = [
        ("DORMOUSE_WORKERS__DOMAINS", "*.example"),
        ("DORMOUSE_WORKERS__HOSTS_RESERVED", "db.example"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let mut command = crate::harness::serve(folder.path(), &settings[..1]);
    let said = crate::harness::run_program(&mut command).failed(2);
    assert!(
        said.contains("\"*.example\"") && said.contains("workers.hosts_reserved"),
        "{said}"
    );

    let Some(stage) = Stage::start_with(&settings) else {
        return;
    };
    let app = |names: &str| Archive::of(&[("out/index.html", "app"), ("CNAME", names)]);
    let refused = stage.deploy_with(
        "acme/shop",
        "",
        &[("x-forwarded-host", "Api.Example:443")],
        &app("db.example\napi.example\nshop.example"),
    );
    let data = refused.json()["data"].clone();
    assert_eq!(data["customDomains"], serde_json::json!(["shop.example"]));
    let reason = |at: usize| data["blockedCustomDomains"][at]["reason"].as_str().unwrap();
    assert!(reason(0).contains("workers.hosts_reserved"), "{data}");
    assert!(reason(1).contains("has come by it"), "{data}");
    assert_ne!(stage.get_at("db.example", "/").text(), "app");
    assert_ne!(stage.get_at("api.example", "/").text(), "app");
    assert_eq!(stage.get_at("shop.example", "/").text(), "app");
}

#[test]
fn the_servers_own_hosts_stay_its_own() {
    let Some(stage) = Stage::start() else { return };
    stage.deploy(
        "acme/v1",
        &Archive::of(&[("worker/index.js", &saying("app"))]),
    );
    assert_eq!(stage.get_at("localhost", "/v1/databases").status, 200);
    assert_eq!(stage.get_at("evil.example", "/v1/databases").status, 421);
    // At a host of apps nothing of the server's own is answered.
    assert_eq!(stage.get("/v1/databases").text(), "app");
    assert_eq!(stage.get("/query").status, 404);
    assert_eq!(stage.get_at("apps.localhost", "/v1/databases").status, 404);
    assert_eq!(stage.get_at("other.apps.localhost", "/health").status, 404);
}

#[test]
fn domains_of_apps_and_databases_are_apart() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = crate::harness::serve(
        folder.path(),
        &[
            ("DORMOUSE_ROUTING__BASE_DOMAIN", "example.com"),
            ("DORMOUSE_WORKERS__BASE_DOMAIN", "apps.example.com"),
        ],
    );
    let said = crate::harness::run_program(&mut command).failed(2);
    assert!(
        said.contains("workers.base_domain") && said.contains("overlap"),
        "{said}"
    );
}

#[test]
fn what_is_counted_is_told() {
    let Some(stage) = Stage::start() else { return };
    both(&stage, &[]);
    stage.get("/shop/api");
    let metrics = stage.api("/metrics").text();
    for line in [
        "dormouse_apps 1",
        "dormouse_app_backends 1",
        "dormouse_app_requests_total 1",
    ] {
        assert!(
            metrics.lines().any(|one| one == line),
            "{line} in {metrics}"
        );
    }
}

#[test]
fn a_client_that_leaves_is_not_waited_for() {
    let Some(stage) = Stage::start() else { return };
    let waits = "export default { async fetch() { console.log('begun'); await scheduler.wait(600_000); \
                 return new Response('late'); } };";
    stage.deploy("acme/shop", &Archive::of(&[("worker/index.js", waits)]));
    let mut stream = TcpStream::connect(stage.server.http).unwrap();
    stream
        .write_all(b"GET /shop/ HTTP/1.1\r\nhost: acme.apps.localhost\r\n\r\n")
        .unwrap();
    stage.until(
        || stage.api("/api/v1/logs/acme/shop").text(),
        |logs| logs.contains("begun"),
    );
    drop(stream);
    let mut http = stage.http();
    // Ours, and nobody else's.
    stage.until(
        || http.get("/health").json()["connections"]["http"]["open"].clone(),
        |open| *open == 1,
    );
    let mut rest = String::new();
    drop(http);
    let mut stream = TcpStream::connect(stage.server.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /ping HTTP/1.0\r\n\r\n").unwrap();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("200 OK"), "{rest}");
}

/// Who asks for a large file and does not take it costs a part of it.
#[test]
#[cfg(target_os = "linux")]
fn files_are_not_whole_in_memory() {
    let Some(stage) = Stage::start() else { return };
    let large = super::refused::noise(9_000_000);
    let archive = Archive::of(&[("out/index.html", "first"), ("out/large.txt", &large)]);
    stage.deploy("acme/site", &archive);
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", stage.server.pid()));
        let status = status.unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.unwrap().split_whitespace().nth(1).unwrap();
        kib.parse::<u64>().unwrap() / 1024
    };
    let before = resident();
    let clients: Vec<_> = (0..40)
        .map(|_| {
            let mut http = stage.http();
            http.send("GET /site/large.txt HTTP/1.1\r\nhost: acme.apps.localhost\r\n\r\n");
            let head = http.head();
            assert_eq!(head.header("content-length"), Some("9000000"));
            http
        })
        .collect();
    let after = resident();
    assert!(after < before + 120, "{before} MiB, then {after} MiB");
    drop(clients);
    // Parts of it, and its tag.
    let range = [("range", "bytes=100000-299999")];
    let part = stage.get_with("acme.apps.localhost", "/site/large.txt", &range);
    assert_eq!(
        (part.status, part.text().as_str()),
        (206, &large[100_000..300_000])
    );
    let tag = part.header("etag").unwrap().to_owned();
    let known = [("if-none-match", tag.as_str())];
    let known = stage.get_with("acme.apps.localhost", "/site/large.txt", &known);
    assert_eq!((known.status, known.text().as_str()), (304, ""));
    assert_eq!(stage.get("/site/large.txt").text(), large);
}
