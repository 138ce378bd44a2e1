//! Passwords: who comes in, and as what.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut as _, BytesMut};
use serde_json::Value;
use wire::pg::{Frame, backend, frontend};

use crate::harness::{ADMIN, Login, Pg, SCRAM, Server, dormouse, has_psql, run_program, startup};

fn server() -> Option<Server> {
    has_psql().then(|| Server::start_with(&SCRAM))
}

#[track_caller]
fn wrong(login: &Login<'_>) {
    let said = login.is_refused();
    let expected = format!(
        "FATAL:  password authentication failed for user \"{}\"",
        login.user
    );
    assert!(said.contains(&expected), "{said}");
}

#[test]
fn roles_log_in_with_their_passwords() {
    let Some(server) = server() else { return };
    let admin = Login::admin(&server);
    admin.gives("create role app login password 'first'; create role peer login password 'other'");
    let app = |password| Login::new(&server, "app", password);
    let who = "select session_user, current_user, (select rolsuper from pg_roles where rolname = current_user)";
    assert_eq!(app("first").gives(who), "app|app|f");
    assert_eq!(admin.gives(who), "postgres|postgres|t");
    wrong(&app("second"));
    wrong(&app("other"));
    admin.gives("alter role app password 'second'");
    wrong(&app("first"));
    assert_eq!(app("second").gives(who), "app|app|f");
    // A role may give itself another one.
    app("second").gives("alter role app password 'third \u{e9}\u{2168}'");
    assert_eq!(app("third \u{e9}IX").gives(who), "app|app|f");
    assert!(!server.log().contains(ADMIN), "{}", server.log());
    assert!(!server.log().contains("SCRAM-SHA-256$"), "{}", server.log());
}

#[test]
fn who_is_not_there_is_told_what_a_wrong_password_is_told() {
    let Some(server) = server() else { return };
    wrong(&Login::new(&server, "postgres", "guess"));
    Login::admin(&server).gives("create role app login password 'x'");
    wrong(&Login::new(&server, "nobody", "guess"));
    wrong(&Login::new(&server, "app", "x").to("nowhere"));
    wrong(&Login::new(&server, "app", "x").to("'no such name'"));
    wrong(&Login::new(&server, "postgres", "guess").to("nowhere"));
    // None was made.
    let admin = format!("Basic {}", STANDARD.encode(format!("postgres:{ADMIN}")));
    let headers = [("authorization", &*admin)];
    let list = server
        .http()
        .request_with("GET", "/v1/databases", &headers, None);
    let databases = list.json()["databases"].clone();
    let names: Vec<&Value> = databases.as_array().unwrap().iter().collect();
    assert_eq!(names.len(), 1, "{names:?}");
    assert_eq!(names[0]["name"], "shop");
}

#[test]
fn roles_that_cannot_log_in() {
    let Some(server) = server() else { return };
    Login::admin(&server).gives(
        "create role old login password 'x' valid until '2020-01-01'; \
         create role fresh login password 'x' valid until 'infinity'; \
         create role unset login; create role idle nologin password 'x'; \
         create role late login password 'md5d41d8cd98f00b204e9800998ecf8427e'; \
         create role stranger login password 'x'; \
         revoke connect on database shop from public",
    );
    let refused = |user| Login::new(&server, user, "x").is_refused();
    for user in ["old", "unset", "late"] {
        wrong(&Login::new(&server, user, "x"));
    }
    let said = refused("idle");
    assert!(
        said.contains("role \"idle\" is not permitted to log in"),
        "{said}"
    );
    let said = refused("stranger");
    assert!(
        said.contains("permission denied for database \"shop\""),
        "{said}"
    );
    Login::admin(&server).gives("grant connect on database shop to fresh");
    assert_eq!(Login::new(&server, "fresh", "x").gives("select 1"), "1");
    let log = server.log();
    for reason in ["has expired", "has no password", "MD5 is not supported"] {
        assert!(log.contains(reason), "{reason}: {log}");
    }
}

#[test]
fn a_role_stays_what_it_is() {
    let Some(server) = server() else { return };
    let admin = Login::admin(&server);
    admin.gives(
        "create role app login password 'x'; create role team; grant team to app; \
         create table kept (n int)",
    );
    let app = Login::new(&server, "app", "x");
    for sql in [
        "set session authorization postgres",
        "set role postgres",
        "select set_config('session_authorization', 'postgres', false)",
        "do $$ begin execute 'set session authorization postgres'; end $$",
        "insert into kept values (1)",
        "select count(*) from pg_authid",
        "create role more superuser",
    ] {
        let said = app.fails(sql);
        assert!(said.contains("42501"), "{sql}: {said}");
    }
    let mut psql = app.psql();
    for sql in [
        "reset session authorization",
        "reset role",
        "discard all",
        // The host has a hand in this one.
        "select count(*) > 0 from pg_database",
        "select current_user, session_user",
    ] {
        psql.args(["-c", sql]);
    }
    assert_eq!(run_program(&mut psql).done(), "t\napp|app\n");
    assert_eq!(app.gives("set role team; select current_user"), "team");
    // What only a superuser may set, a startup packet does not set either.
    let said = app
        .with("options='-c session_replication_role=replica'")
        .is_refused();
    assert!(
        said.contains("permission denied to set parameter"),
        "{said}"
    );
    let app = Login::new(&server, "app", "x").with("options='-c session_authorization=postgres'");
    assert!(!app.is_refused().is_empty());
    // The next session of the same process is the superuser's.
    assert_eq!(admin.gives("insert into kept values (1); table kept"), "1");
    // Unless a role is a superuser, in this database.
    admin.gives("alter role app superuser");
    let app = Login::new(&server, "app", "x");
    let becomes = "set session authorization postgres; select session_user";
    assert_eq!(app.gives(becomes), "postgres");
}

#[test]
fn databases_are_made_by_who_may() {
    let Some(server) = server() else { return };
    let admin = Login::admin(&server);
    admin
        .gives("create role app login password 'x'; create role boss superuser login password 'x'");
    admin.gives("create database other");
    let app = Login::new(&server, "app", "x");
    let boss = Login::new(&server, "boss", "x");
    let denied = |login: &Login<'_>, sql: &str| {
        let said = login.fails(sql);
        assert!(said.contains("42501"), "{sql}: {said}");
    };
    denied(&app, "create database mine");
    admin.gives("alter role app createdb");
    app.gives("create database mine");
    for sql in [
        "create database copied template shop",
        "create database copied template other",
        "create database copied template nowhere",
        "drop database other",
        "drop database if exists nowhere",
        "alter database other rename to another",
    ] {
        denied(&app, sql);
    }
    // A superuser is one in its own database.
    boss.gives("create database copied template shop");
    denied(&boss, "create database stolen template other");
    denied(&boss, "drop database other");
    let becomes = run_program(boss.psql().args([
        "-c",
        "set session authorization postgres",
        "-c",
        "drop database other",
    ]));
    assert!(becomes.failed(1).contains("42501"));
    assert_eq!(
        Login::new(&server, "boss", "x")
            .to("copied")
            .gives("select 1"),
        "1"
    );
    admin.gives("drop database other");
}

#[test]
fn guessing_wakes_a_database_once() {
    let Some(server) = has_psql().then(|| {
        let mut settings = SCRAM.to_vec();
        settings.push(("DORMOUSE_METRICS__OPEN", "true"));
        settings.push(("DORMOUSE_DATABASES__IDLE_MS", "100"));
        Server::start_with(&settings)
    }) else {
        return;
    };
    Login::admin(&server).gives("create role app login password 'x'");
    server.until_awake(0);
    wrong(&Login::new(&server, "postgres", "guess"));
    let wakes = || {
        let metrics = server.http().get("/metrics").text();
        let wakes = metrics
            .lines()
            .filter(|line| line.starts_with("dormouse_wakes_total"));
        wakes.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = wakes();
    assert!(!before.is_empty());
    wrong(&Login::new(&server, "postgres", "guess"));
    wrong(&Login::new(&server, "app", "guess").to("nowhere"));
    assert_eq!(wakes(), before);
    wrong(&Login::new(&server, "app", "guess"));
    let after = wakes();
    assert_ne!(after, before);
    server.until_awake(0);
    wrong(&Login::new(&server, "app", "another"));
    assert_eq!(wakes(), after);
    assert_eq!(Login::new(&server, "app", "x").gives("select 1"), "1");
}

/// The server's first words to who asks for a role, up to the iterations.
fn challenge(server: &Server, user: &str) -> String {
    let mut client = Pg::open(server.pg);
    let mut out = BytesMut::new();
    let mut startup = startup("shop");
    startup.user = user.to_owned();
    startup.encode(&mut out).unwrap();
    let first = b"n,,n=,r=abc";
    out.put_u8(frontend::kind::PASSWORD);
    out.put_u32(4 + 14 + 4 + first.len() as u32);
    out.put_slice(b"SCRAM-SHA-256\0");
    out.put_u32(first.len() as u32);
    out.put_slice(first);
    client.send(&out);
    let asked = client.until_kind(backend::kind::AUTHENTICATION);
    assert_eq!(asked.body(), b"\0\0\0\x0aSCRAM-SHA-256\0\0");
    let said = client.until_kind(backend::kind::AUTHENTICATION);
    let said = String::from_utf8(said.body()[4..].to_vec()).unwrap();
    said.split_once(',').unwrap().1.to_owned()
}

#[test]
fn who_is_not_there_has_the_same_salt_always() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &SCRAM);
    let first = challenge(&server, "nobody");
    assert!(
        first.starts_with("s=") && first.ends_with(",i=4096"),
        "{first}"
    );
    assert_eq!(challenge(&server, "nobody"), first);
    assert_ne!(challenge(&server, "somebody"), first);
    assert!(server.stop().success());
    let server = Server::start_in(folder.path(), &SCRAM);
    assert_eq!(challenge(&server, "nobody"), first);
}

#[test]
fn who_is_asked_must_answer_in_time_and_to_the_point() {
    let mut settings = SCRAM.to_vec();
    settings.push(("DORMOUSE_AUTH__TIMEOUT_MS", "200"));
    let server = Server::start_with(&settings);
    let mut out = BytesMut::new();
    startup("shop").encode(&mut out).unwrap();
    let mut silent = Pg::open(server.pg);
    silent.send(&out);
    let error = silent.last_word();
    assert!(error.message().contains("auth.timeout_ms"), "{error}");
    let mut hasty = Pg::open(server.pg);
    hasty.send(&out);
    hasty.send_query("drop table kept");
    assert_eq!(hasty.last_word().code(), "08P01");
    let mut long = Pg::open(server.pg);
    long.send(&out);
    long.send(b"p\0\x01\0\0");
    assert_eq!(long.last_word().message(), "invalid SASL response length");
    let mut gone = Pg::open(server.pg);
    gone.send(&out);
    gone.send(b"X\0\0\0\x04");
    gone.until_kind(backend::kind::AUTHENTICATION);
    let nothing: Option<Frame> = gone.frame();
    assert_eq!(nothing, None);
}

#[test]
fn what_is_missing_is_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let fails = |settings: &[(&str, &str)]| {
        let mut command = dormouse();
        command.args(["serve", "--http", "127.0.0.1:0"]);
        command
            .current_dir(folder.path())
            .envs(settings.iter().copied());
        run_program(&mut command)
    };
    let said = fails(&SCRAM[..1]).failed(2);
    assert!(said.contains("auth.admin_password_file"), "{said}");
    let file = ("DORMOUSE_AUTH__ADMIN_PASSWORD_FILE", "nowhere");
    let said = fails(&[SCRAM[0], file]).failed(2);
    assert!(said.contains("\"nowhere\""), "{said}");
    let anywhere = ("DORMOUSE_PG", "0.0.0.0:0");
    let said = fails(&[anywhere]).failed(3);
    assert!(said.contains("auth.method"), "{said}");
    let said = fails(&[SCRAM[0], SCRAM[1], anywhere]).failed(3);
    assert!(
        said.contains("pgwire.tls") && !said.contains(ADMIN),
        "{said}"
    );
}

#[test]
fn a_verifier_is_as_good_as_the_password() {
    use std::io::Write as _;
    use std::process::Stdio;
    let mut command = dormouse();
    command
        .arg("password")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"a secret\n").unwrap();
    drop(input);
    let made = child.wait_with_output().unwrap();
    assert!(made.status.success());
    let verifier = String::from_utf8(made.stdout).unwrap();
    assert!(verifier.starts_with("SCRAM-SHA-256$4096:"), "{verifier}");
    if !has_psql() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("admin");
    std::fs::write(&file, &verifier).unwrap();
    let server = Server::start_in(
        folder.path(),
        &[
            SCRAM[0],
            ("DORMOUSE_AUTH__ADMIN_PASSWORD_FILE", file.to_str().unwrap()),
        ],
    );
    let admin = Login::new(&server, "postgres", "a secret");
    admin.gives(&format!(
        "create role app login password '{}'",
        verifier.trim_end()
    ));
    let app = Login::new(&server, "app", "a secret");
    assert_eq!(app.gives("select current_user"), "app");
    // Another password, without a restart.
    std::fs::write(&file, "another\n").unwrap();
    server.signal(rustix::process::Signal::HUP);
    let another = Login::new(&server, "postgres", "another");
    crate::harness::until(|| another.run("select 1").code, |code| *code == Some(0));
    wrong(&admin);
}
