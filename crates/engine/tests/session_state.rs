//! Sessions that leave their process and go on in another.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;

use dormouse_engine::{
    Backend, Bond, SessionIdentity, SessionRefused, SessionState, SettingSource,
};
use tokio::sync::OnceCell;

mod harness;

use harness::{Ground, query, run, value};

async fn ground() -> &'static Ground {
    static GROUND: OnceCell<Ground> = OnceCell::const_new();
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
    GROUND
        .get_or_init(|| async move { Ground::new(&cache).await })
        .await
}

async fn fork() -> Backend {
    let ground = ground().await;
    let volume = ground.volume();
    ground.fork(&volume).await
}

/// Object id of the superuser.
const SUPERUSER: u32 = 10;

fn identity(user: u32, defaults: &[(&str, &str, SettingSource)]) -> SessionIdentity {
    let owned = |(name, value, source): &(&str, &str, SettingSource)| {
        ((*name).to_owned(), (*value).to_owned(), *source)
    };
    SessionIdentity {
        user,
        defaults: defaults.iter().map(owned).collect(),
    }
}

/// Begins a session, which Postgres must accept.
async fn begin(backend: &mut Backend, identity: &SessionIdentity, state: &SessionState) {
    let refused = backend.begin_session(identity, state).await.unwrap();
    assert_eq!(refused, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_leave_and_come_back() {
    let mut backend = fork().await;
    run(&mut backend, "CREATE ROLE app").await;
    let me = identity(
        SUPERUSER,
        &[("application_name", "me", SettingSource::Client)],
    );
    begin(&mut backend, &me, &SessionState::default()).await;
    for sql in [
        "SET search_path = 'a b', public",
        "SET work_mem = '77MB'",
        "SET random_page_cost = 1.23456789",
        "SET my.own = 'it''s'",
        "SET timezone = 'Europe/Paris'",
        "SET DateStyle = 'German'",
        "SET role = app",
        "SET enable_seqscan = off",
        "SET default_transaction_isolation = serializable",
    ] {
        run(&mut backend, sql).await;
    }
    let all = "SELECT string_agg(name || '=' || setting || '/' || source || '/' || reset_val, ',' ORDER BY name) \
               FROM pg_settings WHERE source NOT IN ('default', 'override', 'command line')";
    let before = value(&mut backend, all).await;
    assert!(before.contains("work_mem=78848/session/4096"), "{before}");
    assert!(before.contains("application_name=me/client/me"), "{before}");
    let state = backend.session_state();
    assert_eq!(backend.bond(), None);
    backend.clear_session().await.unwrap();
    let app = backend.role("app").await.unwrap().unwrap();
    assert_eq!(backend.role("nobody").await.unwrap(), None);
    let other = identity(app, &[("work_mem", "5MB", SettingSource::User)]);
    begin(&mut backend, &other, &SessionState::default()).await;
    assert_eq!(backend.session_state(), SessionState::default());
    let sql = "SELECT current_user, session_user, current_setting('work_mem'), \
               current_setting('search_path'), current_setting('application_name'), \
               current_setting('my.own', true), current_setting('TimeZone')";
    let seen = query(&mut backend, sql).await.unwrap();
    assert_eq!(
        seen[0],
        ["app", "app", "5MB", "\"$user\", public", "", "", "UTC"].map(str::to_owned)
    );
    run(&mut backend, "SET work_mem = '6MB'; RESET work_mem").await;
    assert_eq!(value(&mut backend, "SHOW work_mem").await, "5MB");
    let refused = query(&mut backend, "SET SESSION AUTHORIZATION postgres").await;
    assert!(refused.unwrap_err().contains("permission denied"));
    run(
        &mut backend,
        "SET SESSION AUTHORIZATION app; RESET SESSION AUTHORIZATION",
    )
    .await;
    backend.clear_session().await.unwrap();
    begin(&mut backend, &me, &state).await;
    assert_eq!(value(&mut backend, all).await, before);
    assert_eq!(value(&mut backend, "SELECT current_user").await, "app");
    assert_eq!(value(&mut backend, "SELECT session_user").await, "postgres");
    run(&mut backend, "RESET ALL; RESET ROLE").await;
    assert_eq!(value(&mut backend, "SHOW application_name").await, "me");
    assert_eq!(value(&mut backend, "SHOW work_mem").await, "4MB");
    assert_eq!(value(&mut backend, "SELECT current_user").await, "postgres");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_and_leaves_nothing() {
    let mut backend = fork().await;
    let nobody = identity(99, &[]);
    let none = SessionState::default();
    let refused = backend.begin_session(&nobody, &none);
    assert_eq!(refused.await.unwrap(), Some(SessionRefused::UnknownRole));
    let wrong = identity(
        SUPERUSER,
        &[
            ("work_mem", "5MB", SettingSource::Client),
            ("work_mem", "many", SettingSource::Client),
        ],
    );
    let refused = backend.begin_session(&wrong, &none);
    let Some(SessionRefused::Error(refused)) = refused.await.unwrap() else {
        panic!("there is no such value");
    };
    assert!(String::from_utf8_lossy(&refused).contains("invalid value for parameter"));
    begin(
        &mut backend,
        &identity(SUPERUSER, &[]),
        &SessionState::default(),
    )
    .await;
    assert_eq!(value(&mut backend, "SHOW work_mem").await, "4MB");
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_are_told() {
    let mut backend = fork().await;
    run(
        &mut backend,
        "SELECT 1; PREPARE one (int, text) AS SELECT $1, $2; PREPARE two AS SELECT 2",
    )
    .await;
    let mut statements = backend.session_state().statements;
    statements.sort_by(|a, b| a.name.cmp(&b.name));
    let told: Vec<_> = statements
        .iter()
        .map(|statement| (statement.sql.trim(), &statement.parameter_types[..]))
        .collect();
    let one = "PREPARE one (int, text) AS SELECT $1, $2";
    assert_eq!(
        told,
        [(one, &[23, 25][..]), ("PREPARE two AS SELECT 2", &[])]
    );
    assert!(statements.iter().all(|statement| statement.by_sql));
    run(&mut backend, "DEALLOCATE ALL").await;
    assert_eq!(backend.session_state(), SessionState::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn sequences_leave_and_come_back() {
    let mut backend = fork().await;
    run(
        &mut backend,
        "CREATE SEQUENCE a CACHE 10; CREATE SEQUENCE b",
    )
    .await;
    let me = identity(SUPERUSER, &[]);
    begin(&mut backend, &me, &SessionState::default()).await;
    run(&mut backend, "SELECT nextval('b'), nextval('a')").await;
    let state = backend.session_state();
    backend.clear_session().await.unwrap();
    let lastval = query(&mut backend, "SELECT lastval()").await;
    assert!(lastval.unwrap_err().contains("not yet defined"));
    assert_eq!(value(&mut backend, "SELECT nextval('a')").await, "11");
    backend.clear_session().await.unwrap();
    begin(&mut backend, &me, &state).await;
    assert_eq!(value(&mut backend, "SELECT lastval()").await, "1");
    assert_eq!(value(&mut backend, "SELECT currval('b')").await, "1");
    assert_eq!(value(&mut backend, "SELECT nextval('a')").await, "2");
    assert_eq!(value(&mut backend, "SELECT nextval('b')").await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_leave_binds() {
    let mut backend = fork().await;
    for (bond, tie, untie) in [
        (Bond::Channels, "LISTEN a", "UNLISTEN *"),
        (
            Bond::Locks,
            "SELECT pg_advisory_lock(1)",
            "SELECT pg_advisory_unlock(1)",
        ),
        (
            Bond::Cursors,
            "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
            "CLOSE c",
        ),
    ] {
        assert_eq!(backend.bond(), None);
        run(&mut backend, tie).await;
        assert_eq!(backend.bond(), Some(bond));
        run(&mut backend, untie).await;
    }
    assert_eq!(backend.bond(), None);
    run(&mut backend, "CREATE TEMP TABLE t ()").await;
    assert_eq!(backend.bond(), Some(Bond::TemporaryTables));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_has_the_number_of_its_session() {
    let mut backend = fork().await;
    let shared = backend.share_memory().unwrap();
    let ground = ground().await;
    let volume = backend.volume();
    let limits = dormouse_engine::BackendLimits::default();
    let joining = ground.engine.join(&ground.image, &shared, volume, limits);
    let mut other = joining.await.unwrap();
    let me = identity(SUPERUSER, &[]);
    begin(&mut backend, &me, &SessionState::default()).await;
    begin(&mut other, &me, &SessionState::default()).await;
    backend.set_process_id(70_001).await.unwrap();
    other.set_process_id(70_002).await.unwrap();
    let sql = "SELECT pg_backend_pid(), count(*), min(pid), max(pid), min(usename), max(datname) FROM pg_stat_activity";
    for (backend, id) in [(&mut backend, "70001"), (&mut other, "70002")] {
        let seen = query(backend, sql).await.unwrap();
        assert_eq!(seen[0][..4], [id, "2", "70001", "70002"].map(str::to_owned));
        assert_eq!(seen[0][4], "postgres");
    }
    run(&mut backend, "LISTEN news; SELECT pg_advisory_lock(7)").await;
    let sql = "SELECT string_agg(pid::text, ',') FROM pg_locks WHERE locktype = 'advisory'";
    assert_eq!(value(&mut other, sql).await, "70001");
    run(&mut other, "NOTIFY news, 'here'").await;
    assert!(backend.is_signalled());
    backend.output().clear();
    backend.take_signals().await.unwrap();
    let told = backend.output().split();
    assert_eq!(told.first(), Some(&b'A'));
    assert!(String::from_utf8_lossy(&told).contains("news\0here\0"));
}
