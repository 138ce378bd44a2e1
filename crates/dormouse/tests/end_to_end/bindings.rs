//! Managed bindings: made over HTTP and by the command line, used by psql.

mod cloudflare;

use std::io::Write as _;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::harness::{
    Login, Origin, SECRET, Server, Tokens, User, binding, dormouse, has_psql, run_program, until,
};

/// A server, and an external Postgres.
fn both() -> Option<(Server, Origin)> {
    let origin = has_psql().then(Origin::start).flatten()?;
    Some((Server::start(), origin))
}

#[test]
fn one_leads_to_an_external_postgres() {
    let Some((server, origin)) = both() else {
        return;
    };
    let made = origin.bind(&server, "shop", &json!({ "connectionsMax": 2 }));
    let id = made["id"].as_str().unwrap();
    assert_eq!(id.len(), 32);
    assert_eq!(made["limits"]["connectionsMax"], 2);
    assert_eq!(made["origin"]["user"], "postgres");
    let user = User::of(&server, id);
    let login = user.login(&server);
    login.gives("create table fruit (name text); insert into fruit values ('apple')");
    assert_eq!(login.gives("select name from fruit"), "apple");
    let port = origin.native.address.port().to_string();
    assert_eq!(login.gives("select inet_server_port()"), port);
    // The name of the database in the connection string is not looked at.
    assert_eq!(
        user.login(&server)
            .to("else")
            .gives("select current_database()"),
        "postgres"
    );

    let shown = server.http().get("/v1/bindings/shop").json();
    assert_eq!(shown["id"], id);
    assert_eq!(shown["credentials"][0]["user"], user.user);
    assert!(shown["pool"]["given"].as_u64() > Some(2), "{shown}");
    assert!(shown["pool"]["connections"].as_u64() <= Some(2), "{shown}");
    for text in [shown.to_string(), server.log()] {
        assert!(!text.contains(SECRET), "{text}");
        assert!(!text.contains(&user.password), "{text}");
    }
}

#[test]
fn who_has_another_password_or_a_revoked_one_does_not_come_in() {
    let Some((server, origin)) = both() else {
        return;
    };
    let id = origin.bind(&server, "shop", &json!({}))["id"].clone();
    let id = id.as_str().unwrap();
    let (user, other) = (User::of(&server, id), User::of(&server, "shop"));
    let wrong = Login::new(&server, &user.user, &other.password);
    let said = wrong.is_refused();
    assert!(said.contains("password authentication failed"), "{said}");
    let nobody = format!("{id}-00000000");
    let said = Login::new(&server, &nobody, &user.password).is_refused();
    assert!(said.contains("password authentication failed"), "{said}");
    let path = format!("/v1/bindings/shop/credentials/{}", user.user);
    assert_eq!(server.http().delete(&path).status, 204);
    assert_eq!(server.http().delete(&path).status, 404);
    let said = user.login(&server).is_refused();
    assert!(said.contains("password authentication failed"), "{said}");
    assert_eq!(other.login(&server).gives("select 1"), "1");
}

#[test]
fn each_way_to_fail_has_its_name_and_nothing_is_saved() {
    let Some((server, origin)) = both() else {
        return;
    };
    let address = origin.native.address;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = free.local_addr().unwrap();
    drop(free);
    for (url, kind, code) in [
        (
            format!("postgres://postgres:x@{address}/postgres"),
            "credentials",
            2013,
        ),
        (
            format!("postgres://postgres:{SECRET}@{address}/none"),
            "no_such_database",
            2014,
        ),
        (
            format!("postgres://postgres:{SECRET}@{refused}/postgres"),
            "connection_refused",
            2011,
        ),
        (
            format!("postgres://postgres:{SECRET}@{address}/postgres?sslmode=require"),
            "tls_not_offered",
            2012,
        ),
        (
            "postgres://a:b@no-such-host.invalid/c".to_owned(),
            "dns",
            2008,
        ),
    ] {
        let new = json!({ "name": "shop", "connectionString": url });
        let answer = server.http().post("/v1/bindings", &new);
        assert_eq!(answer.status, 400, "{}", answer.text());
        let problem = answer.problem();
        assert_eq!(
            problem["failure"],
            json!({ "kind": kind, "code": code }),
            "{problem}"
        );
        assert!(!answer.text().contains(SECRET), "{}", answer.text());
    }
    assert_eq!(
        server.http().get("/v1/bindings").json()["bindings"],
        json!([])
    );
    for (new, field) in [
        (json!({ "name": "a" }), "connectionString"),
        (json!({ "database": "shop" }), "name"),
        (
            json!({ "name": "a", "connectionString": "postgres://host/db" }),
            "user",
        ),
        (
            json!({ "name": "a", "database": "x", "limits": { "connectionsMax": 0 } }),
            "connectionsMax",
        ),
        (
            json!({ "name": "a", "database": "x", "caching": { "maxAge": 3601 } }),
            "caching.maxAge",
        ),
        (json!({ "name": "a", "database": "none" }), "database"),
    ] {
        let answer = server.http().post("/v1/bindings", &new);
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert_eq!(answer.problem()["field"], field, "{}", answer.text());
    }
    let unchecked = json!({
        "name": "shop", "skipCheck": true, "connectionString": format!("postgres://a:b@{refused}/c"),
    });
    assert_eq!(server.http().post("/v1/bindings", &unchecked).status, 201);
    assert_eq!(server.http().post("/v1/bindings", &unchecked).status, 409);
    let user = User::of(&server, "shop");
    let said = user.login(&server).is_refused();
    assert!(
        said.contains("Server connection attempt failed: connection_refused"),
        "{said}"
    );
    let check = server
        .http()
        .request("POST", "/v1/bindings/shop/check", None);
    assert_eq!(check.problem()["failure"]["code"], 2011);
    // There was nothing to save.
    let said = check.text();
    assert!(said.contains("the binding does not work: "), "{said}");
    assert!(
        !said.contains("saved") && !said.contains("skipCheck"),
        "{said}"
    );
}

#[test]
fn one_leads_to_a_database_of_ours() {
    if !has_psql() {
        return;
    }
    let server = Server::start();
    server.sql("shop", "create table fruit as select 'pear' as name");
    let made = server.http().post(
        "/v1/bindings",
        &json!({ "name": "own", "database": "shop" }),
    );
    assert_eq!(made.status, 201, "{}", made.text());
    let user = User::of(&server, "own");
    let login = user.login(&server).to("whatever");
    assert_eq!(
        login.gives("select current_database() || ' ' || name from fruit"),
        "shop pear"
    );
    login.gives("create table more (n int)");
    assert_eq!(
        server.sql("shop", "select count(*) as n from more")["rows"][0]["n"],
        0
    );
    // The database is its own, and no other one is.
    for sql in [
        "create database other",
        "drop database shop",
        "alter database shop rename to x",
    ] {
        let said = login.fails(sql);
        assert!(said.contains("42501"), "{said}");
    }
    let check = server
        .http()
        .request("POST", "/v1/bindings/own/check", None);
    assert_eq!(
        (check.status, check.json()),
        (200, json!({ "serverVersion": null }))
    );
}

#[test]
fn a_statement_is_cancelled_at_the_origin() {
    let Some((server, origin)) = both() else {
        return;
    };
    origin.bind(&server, "shop", &json!({}));
    let user = User::of(&server, "shop");
    let login = user.login(&server);
    let mut psql = login.psql();
    psql.args(["-c", "select pg_sleep(600)"]);
    let psql = psql
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let running = "select count(*) from pg_stat_activity where query like 'select pg_sleep%' and state = 'active'";
    until(|| login.gives(running), |count| count == "1");
    kill_process(Pid::from_child(&psql), Signal::INT).unwrap();
    let said = psql.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("57014"), "{said}");
    until(|| login.gives(running), |count| count == "0");
}

#[test]
fn a_stop_lets_statements_end_and_tells_who_waits() {
    let Some((mut server, origin)) = both() else {
        return;
    };
    origin.bind(&server, "shop", &json!({}));
    let user = User::of(&server, "shop");
    let login = user.login(&server);
    let mut busy = login.psql();
    busy.args(["-c", "select pg_sleep(1), 'done'"]);
    let busy = busy.stdout(Stdio::piped()).spawn().unwrap();
    let mut idle = login.psql();
    let mut idle = idle
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    idle.stdin
        .as_mut()
        .unwrap()
        .write_all(b"select 'idle';\n")
        .unwrap();
    let active = "select count(*) from pg_stat_activity where query like '%done%' and state = 'active' and pid <> pg_backend_pid()";
    until(|| login.gives(active), |count| count == "1");
    let clients = || server.http().get("/health").json()["connections"].clone();
    until(clients, |connections| connections["bindings"]["open"] == 2);
    server.signal(Signal::TERM);
    let said = busy.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "|done");
    // It hears of it when it asks again.
    idle.stdin
        .take()
        .unwrap()
        .write_all(b"select 2;\n")
        .unwrap();
    let said = idle.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(
        said.contains("terminating connection due to administrator command"),
        "{said}"
    );
    assert!(server.wait().success());
}

#[test]
fn they_survive_a_kill() {
    let Some(origin) = has_psql().then(Origin::start).flatten() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    let made = origin.bind(&server, "shop", &json!({}));
    let user = User::of(&server, "shop");
    assert_eq!(user.login(&server).gives("select 1"), "1");
    let held = "select count(*) from pg_stat_activity where backend_type = 'client backend'";
    drop(server);
    let server = Server::start_in(folder.path(), &[]);
    let shown = server.http().get("/v1/bindings/shop").json();
    assert_eq!(
        (&shown["id"], &shown["origin"]),
        (&made["id"], &made["origin"])
    );
    let login = user.login(&server);
    assert_eq!(login.gives("select 2"), "2");
    // The connections of the one that was killed are gone.
    until(|| login.gives(held), |count| count == "1");
    // Nothing of it can be read on the disk.
    let kept = std::fs::read(folder.path().join("data/bindings")).unwrap();
    for secret in [SECRET, "shop", &user.user, &user.password] {
        let found = kept
            .windows(secret.len())
            .any(|window| window == secret.as_bytes());
        assert!(!found, "{secret}");
    }
}

#[test]
fn a_change_holds_at_once_and_a_name_is_free_after_deletion() {
    let Some((server, origin)) = both() else {
        return;
    };
    origin.bind(&server, "shop", &json!({}));
    let user = User::of(&server, "shop");
    let login = user.login(&server);
    login.gives("create role app login password 'first'");
    let patch = |body: &Value| {
        let body = body.to_string();
        server
            .http()
            .request("PATCH", "/v1/bindings/shop", Some(&body))
    };
    let to_app = json!({ "origin": { "user": "app", "password": "wrong" } });
    assert_eq!(patch(&to_app).problem()["failure"]["kind"], "credentials");
    assert_eq!(login.gives("select current_user"), "postgres");
    let to_app = json!({ "origin": { "user": "app", "password": "first" } });
    assert_eq!(patch(&to_app).status, 200);
    assert_eq!(login.gives("select current_user"), "app");
    assert_eq!(
        patch(&json!({ "limits": { "connectionsMax": 3 } })).json()["limits"]["connectionsMax"],
        3
    );
    assert_eq!(login.gives("select current_user"), "app");
    assert_eq!(
        server
            .http()
            .request("POST", "/v1/bindings/shop/restart", None)
            .status,
        204
    );
    assert_eq!(login.gives("select current_user"), "app");
    assert_eq!(server.http().delete("/v1/bindings/shop").status, 204);
    assert_eq!(server.http().get("/v1/bindings/shop").status, 404);
    login.is_refused();
    origin.bind(&server, "shop", &json!({}));
}

#[test]
fn only_administrators_see_them() {
    let server = Tokens::start();
    let of_one = server.create("one", &["--scope", "admin", "--database", "shop"]);
    let ask = |token: &str| {
        let new = json!({ "name": "a", "database": "shop" });
        server.post(token, "/v1/bindings", &new).status
    };
    // A new token is known within a second.
    until(|| ask(&of_one), |status| *status != 401);
    for token in [&server.read, &server.write, &of_one] {
        assert_eq!(ask(token), 403);
    }
    assert_eq!(ask("nobody's"), 401);
}

#[test]
fn by_the_command_line() {
    let Some((server, origin)) = both() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("url");
    std::fs::write(&file, format!("{}\n", origin.url())).unwrap();
    let file = file.to_str().unwrap();
    let made = binding(
        &server,
        &[
            "create",
            "shop",
            "--url-file",
            file,
            "--allow",
            "acme/shop@production",
        ],
    )
    .done();
    assert!(made.contains("connectionsMax      20"), "{made}");
    assert!(
        made.contains("allowed             acme/shop@production"),
        "{made}"
    );
    let taken = binding(&server, &["create", "shop", "--url-file", file]).failed(1);
    assert!(
        taken.contains("another binding is called \"shop\""),
        "{taken}"
    );
    let created = binding(&server, &["credential", "shop", "--name", "ci"]);
    let url = created.done();
    let mut psql = crate::harness::program("psql", 18).unwrap();
    psql.args(["-XAtc", "select 5", url.trim()]);
    assert_eq!(run_program(&mut psql).done().trim(), "5");
    let changed = binding(
        &server,
        &["change", "shop", "--name", "store", "--idle-ms", "9000"],
    )
    .done();
    assert!(changed.contains("idleMs              9000"), "{changed}");
    let change = |allow: &[&str]| binding(&server, &[&["change", "store"], allow].concat());
    for any in ["any", ""] {
        assert!(change(&["--allow", "acme/x"]).done().contains("acme/x"));
        let changed = change(&["--allow", any]).done();
        assert!(!changed.contains("allowed"), "{changed}");
    }
    let wrong = change(&["--allow", "acme/x@"]).failed(2);
    assert!(wrong.contains("no environment behind the @"), "{wrong}");
    let wrong = change(&["--allow", "any", "--allow", "acme/x"]).failed(2);
    assert!(wrong.contains("lets everybody"), "{wrong}");
    let help = |command: &str| run_program(dormouse().args(["binding", command, "--help"])).done();
    assert!(!help("change").contains("[default: 20]"));
    assert!(help("create").contains("Connections to the origin [default: 20]"));
    let checked = binding(&server, &["check", "store"]).done();
    assert!(
        checked.starts_with("store works: PostgreSQL 18"),
        "{checked}"
    );
    let listed = binding(&server, &["list"]).done();
    assert!(
        listed.contains("store") && listed.contains("postgres@127.0.0.1"),
        "{listed}"
    );
    assert!(!listed.contains(SECRET), "{listed}");
    assert_eq!(
        binding(&server, &["restart", "store"]).done(),
        "restarted store\n"
    );
    assert_eq!(
        binding(&server, &["revoke", "store", "ci"]).done(),
        "revoked ci\n"
    );
    let gone = binding(&server, &["revoke", "store", "ci"]).failed(1);
    assert!(gone.contains("no such credential"), "{gone}");
    assert_eq!(
        binding(&server, &["delete", "store"]).done(),
        "deleted store\n"
    );
    let unknown = binding(&server, &["show", "store"]).failed(1);
    assert!(unknown.contains("there is no binding store"), "{unknown}");
    let none = run_program(dormouse().args([
        "binding",
        "create",
        "x",
        "--server",
        &format!("http://{}", server.http),
    ]));
    assert!(none.failed(1).contains("needs one of connectionString"));
}

/// Nobody takes all the places that there are for clients of bindings.
#[test]
fn each_user_has_its_share_of_clients() {
    let Some(origin) = has_psql().then(Origin::start).flatten() else {
        return;
    };
    let server = Server::start_with(&[("DORMOUSE_BINDINGS__APP_CLIENTS_MAX", "2")]);
    origin.bind(&server, "shop", &json!({}));
    let (one, other) = (User::of(&server, "shop"), User::of(&server, "shop"));
    let stays = |user: &User| {
        let mut psql = user.login(&server).psql();
        psql.stdin(Stdio::piped()).stdout(Stdio::piped());
        psql.spawn().unwrap()
    };
    let clients = || {
        let metrics = server.http().get("/metrics").text();
        let line = metrics
            .lines()
            .find(|line| line.starts_with("dormouse_binding_clients "));
        line.map(str::to_owned)
    };
    let mut held = [stays(&one), stays(&one)];
    until(clients, |line| {
        line.as_deref() == Some("dormouse_binding_clients 2")
    });
    let said = one.login(&server).is_refused();
    assert!(
        said.contains("too many clients") && said.contains("bindings.app_clients_max is 2"),
        "{said}"
    );
    assert_eq!(other.login(&server).gives("select 1"), "1");
    for psql in &mut held {
        psql.kill().unwrap();
        psql.wait().unwrap();
    }
    until(
        || one.login(&server).run("select 1").code,
        |code| *code == Some(0),
    );
}
