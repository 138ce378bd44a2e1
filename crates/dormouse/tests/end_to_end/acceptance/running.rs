//! Bindings while backends and others use them: credentials, copies through them, and what is told of each query.

use std::collections::BTreeMap;

use bytes::BytesMut;
use serde_json::{Value, json};
use wire::pg::{backend, frontend};

use super::{bind, bound};
use crate::apps::stage::Stage;
use crate::harness::{Login, Origin, Pg, Server, User, has_psql, until};

/// Tells what it has, which no app of yours should.
const TELLS: &str = "export default { async fetch(_, { DB }) {\n\
    const { connectionString, host, ip, port, user, password, database } = DB;\n\
    return Response.json({ connectionString, host, ip, port, user, password, database, connect: typeof DB.connect }); } };";

#[test]
fn behaviour_14_credentials_are_of_one_application_as_long_as_it_is_deployed() {
    if !has_psql() {
        return;
    }
    let sockets = tempfile::tempdir().unwrap();
    let directory = sockets.path().join("s");
    let setting = (
        "DORMOUSE_BINDINGS__SOCKET_DIRECTORY",
        directory.to_str().unwrap(),
    );
    let Some(stage) = Stage::start_with(&[setting]) else {
        return;
    };
    stage.server.sql("own", "select 1");
    let id = bind(&stage, &json!({ "name": "own", "database": "own" }));
    let told = |name: &str| -> Value {
        stage.deploy(&format!("acme/{name}"), &bound(&id, TELLS));
        let answer = stage.get(&format!("/{name}/"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let (one, two) = (told("one"), told("two"));
    let text = |told: &Value, name: &str| told[name].as_str().unwrap().to_owned();
    for told in [&one, &two] {
        assert_eq!(told["connect"], "function");
        assert_eq!(told["port"], 5432);
        let (user, password) = (text(told, "user"), text(told, "password"));
        let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        assert!(format!("{user}{password}").bytes().all(is_safe), "{told}");
        assert!(password.len() >= 24, "{told}");
        let (host, database) = (text(told, "host"), text(told, "database"));
        let url = format!("postgresql://{user}:{password}@{host}:5432/{database}?sslmode=disable");
        assert_eq!(text(told, "connectionString"), url);
    }
    assert_ne!(one["user"], two["user"]);
    assert_ne!(one["password"], two["password"]);

    let at_the_socket = format!("host={} hostaddr='' port=5432", directory.display());
    let login = |user: &Value, password: &Value, more: &str| {
        let (user, password) = (user.as_str().unwrap(), password.as_str().unwrap());
        Login::new(&stage.server, user, password)
            .with(more)
            .run("select 'in'")
    };
    let let_in = login(&one["user"], &one["password"], &at_the_socket);
    assert_eq!(let_in.done().trim(), "in");
    let refused = |user: &Value, password: &Value, more: &str| {
        let said = login(user, password, more).failed(2);
        assert!(said.contains("password authentication failed"), "{said}");
    };
    refused(&one["user"], &two["password"], &at_the_socket);
    refused(&two["user"], &one["password"], &at_the_socket);
    refused(&one["user"], &json!("x"), &at_the_socket);
    // Right as it is, but from elsewhere.
    refused(&one["user"], &one["password"], "");
    let gone = stage.ask("DELETE", "/api/v1/deployments/acme/one", None);
    assert_eq!(gone.status, 200, "{}", gone.text());
    refused(&one["user"], &one["password"], &at_the_socket);
    login(&two["user"], &two["password"], &at_the_socket).done();
}

/// Lines in and out, by both kinds of binding.
#[test]
fn behaviour_20_copies_through_bindings() {
    let Some(origin) = Origin::start() else {
        return;
    };
    let server = Server::start();
    server.sql("own", "select 1");
    origin.bind(&server, "external", &json!({}));
    let own = json!({ "name": "own", "database": "own" });
    assert_eq!(server.http().post("/v1/bindings", &own).status, 201);
    for name in ["external", "own"] {
        let user = User::of(&server, name);
        let mut client = user.session(&server);
        client
            .query("create table lines (n int, text text)")
            .unwrap();
        client.send_query("copy lines from stdin");
        client.until_kind(backend::kind::COPY_IN_RESPONSE);
        let mut out = BytesMut::new();
        for n in 0..2_000 {
            let line = format!("{n}\t{}\n", "y".repeat(200));
            frontend::copy_data(&mut out, line.as_bytes()).unwrap();
        }
        frontend::copy_done(&mut out);
        client.send(&out);
        assert_eq!(client.answer().tags, ["COPY 2000"], "{name}");
        client.send_query("copy (select * from lines order by n) to stdout");
        let mut bytes = 0;
        let tag = loop {
            let frame = client.frame().unwrap();
            match frame.kind() {
                backend::kind::COPY_DATA => bytes += frame.body().len(),
                backend::kind::COMMAND_COMPLETE => break frame.body().to_vec(),
                backend::kind::ERROR_RESPONSE => panic!("{name}"),
                _ => {}
            }
        };
        assert_eq!(tag, b"COPY 2000\0", "{name}");
        client.answer();
        let digits: usize = (0..2_000).map(|n: usize| n.to_string().len()).sum();
        assert_eq!(bytes, digits + 2_000 * 202, "{name}");
        assert_eq!(client.gives("select count(*) from lines"), "2000");
    }
}

/// The names of `docs/pooler.md`.
const STATUSES: [&str; 11] = [
    "disabled",
    "hit",
    "miss",
    "uncacheable",
    "multiplestatements",
    "notaquery",
    "oversizedquery",
    "oversizedresult",
    "parseerror",
    "transaction",
    "volatile",
];

/// The samples of a family at `/metrics`, by the value of a label.
fn samples(server: &Server, family: &str, label: &str) -> BTreeMap<String, f64> {
    let page = server.http().get("/metrics").text();
    let mut samples = BTreeMap::new();
    for line in page.lines() {
        let Some(rest) = line.strip_prefix(family) else {
            continue;
        };
        let Some((labels, value)) = rest.split_once("} ") else {
            continue;
        };
        let wanted = format!("{label}=\"");
        let Some((_, rest)) = labels.split_once(&wanted) else {
            continue;
        };
        let word = rest.split('"').next().unwrap();
        samples.insert(word.to_owned(), value.trim().parse().unwrap());
    }
    samples
}

/// How many durations of a histogram at `/metrics` were at most so many seconds, by that.
fn took(server: &Server, family: &str) -> BTreeMap<String, f64> {
    samples(server, &format!("{family}_bucket{{"), "le")
}

#[test]
fn behaviour_25_each_query_is_counted_by_one_status() {
    let Some(origin) = Origin::start() else {
        return;
    };
    let server = Server::start_with(&[("DORMOUSE_BINDINGS__CACHE_RESULT_BYTES_MAX", "50000")]);
    let id = origin.bind(&server, "shop", &json!({ "connectionsMax": 3 }))["id"].clone();
    let id = id.as_str().unwrap();
    let user = User::of(&server, id);
    let mut client: Pg = user.session(&server);
    let name = "select application_name from pg_stat_activity where pid = pg_backend_pid()";
    assert_eq!(client.gives(name), "Dormouse");
    client.query("create table t as select 1 as n").unwrap();
    client.gives("select 'warm'");
    client.gives("select 'warm'");
    let queries = || samples(&server, "dormouse_binding_queries_total", "cache_status");
    let known: Vec<_> = queries().into_keys().collect();
    let mut sorted = STATUSES.to_vec();
    sorted.sort_unstable();
    assert_eq!(known, sorted);
    let long = format!("select '{}'", "x".repeat(70_000));
    for (sql, expected) in [
        ("/* dormouse: nocache */ select 1", "disabled"),
        ("select n from t", "miss"),
        ("select n from t", "hit"),
        ("select n from t for update", "uncacheable"),
        ("select 1; select 2", "multiplestatements"),
        ("insert into t values (2)", "notaquery"),
        (&long, "oversizedquery"),
        ("select repeat('x', 60000)", "oversizedresult"),
        ("selec 1", "parseerror"),
        ("select now()", "volatile"),
    ] {
        let before = queries();
        let failed = client.query(sql).is_err();
        assert_eq!(failed, expected == "parseerror", "{sql}");
        let changed: Vec<_> = queries()
            .into_iter()
            .filter(|(status, count)| before[status] != *count)
            .map(|(status, count)| (status.clone(), count - before[&status]))
            .collect();
        assert_eq!(changed, [(expected.to_owned(), 1.0)], "{sql}");
    }
    client.query("begin").unwrap();
    let before = queries();
    client.gives("select n from t");
    assert!(queries()["transaction"] > before["transaction"]);
    client.query("rollback").unwrap();
    let shown = server.http().get("/v1/bindings/shop").json();
    for (status, count) in queries() {
        assert_eq!(shown["queries"][&status].as_f64(), Some(count), "{status}");
    }

    let words = |family: &str, label: &str| -> Vec<String> {
        samples(&server, family, label).into_keys().collect()
    };
    assert_eq!(
        words("dormouse_binding_connections{", "state"),
        ["idle", "pinned", "used"]
    );
    assert_eq!(
        words("dormouse_binding_connects_total{", "outcome"),
        ["failed", "made"]
    );
    assert_eq!(
        words("dormouse_binding_leases_total{", "outcome"),
        ["at_once", "refused", "waited"]
    );
    let of_it = |family: &str| samples(&server, &format!("{family}{{"), "binding")[id];
    assert_eq!(of_it("dormouse_binding_waiting"), 0.0);
    assert_eq!(of_it("dormouse_binding_abandoned_total"), 0.0);
    // The first waited for the first connection; each transaction took its time.
    for name in ["wait", "held", "connect_duration"] {
        let family = format!("dormouse_binding_{name}_seconds");
        let took = took(&server, &family);
        let (buckets, all) = (took.len(), took["+Inf"]);
        assert_eq!(all, of_it(&format!("{family}_count")), "{name}");
        assert!(
            buckets == 16 && all >= 1.0,
            "{name}: {all} in {buckets} buckets"
        );
        let seconds = of_it(&format!("{family}_sum"));
        assert!(seconds > 0.0 && seconds < 3600.0, "{name}: {seconds}");
    }
    let made = samples(&server, "dormouse_binding_connects_total{", "outcome")["made"];
    assert_eq!(
        took(&server, "dormouse_binding_connect_duration_seconds")["+Inf"],
        made
    );
    let held_long = || {
        let took = took(&server, "dormouse_binding_held_seconds");
        took["+Inf"] - took["0.1"]
    };
    let before = held_long();
    client.query("select pg_sleep(0.2)").unwrap();
    // The client has its answer before the pool has the connection.
    until(&held_long, |now| *now == before + 1.0);
    assert!(of_it("dormouse_binding_query_bytes_total") > 70_000.0);
    assert!(of_it("dormouse_binding_cache_hit_bytes_total") > 0.0);
    let page = server.http().get("/metrics").text();
    assert!(
        page.lines()
            .any(|line| line == "dormouse_binding_clients 1"),
        "{page}"
    );
}
