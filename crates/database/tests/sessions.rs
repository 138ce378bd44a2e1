//! Several sessions of one database.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod harness;

use std::time::Duration;

use dormouse_database::{Databases, Limits, Session, SessionOptions, State};
use harness::{all_asleep, name, open, run, session, value};

/// A session beside one in a transaction, which shares its memory as a server's connections do when they
/// are idle.
async fn beside(databases: &Databases, other: &mut Session) -> Session {
    let opening = tokio::spawn({
        let databases = databases.clone();
        async move { session(&databases, "a").await }
    });
    while !opening.is_finished() {
        other.share();
        tokio::task::yield_now().await;
    }
    opening.await.unwrap()
}

async fn first(databases: &Databases) -> Session {
    let mut session = session(databases, "a").await;
    run(&mut session, "CREATE TABLE IF NOT EXISTS t (n int)").await;
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_of_several_sessions_are_open_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    let mut a = first(&databases).await;
    run(&mut a, "BEGIN").await;
    run(&mut a, "INSERT INTO t VALUES (1)").await;
    let mut b = beside(&databases, &mut a).await;
    let mut c = beside(&databases, &mut a).await;
    run(&mut b, "BEGIN").await;
    run(&mut b, "INSERT INTO t VALUES (2)").await;
    assert_eq!(value(&mut c, "SELECT count(*) FROM t").await, "0");
    run(&mut a, "COMMIT").await;
    assert_eq!(value(&mut c, "SELECT count(*) FROM t").await, "1");
    // One that goes away is rolled back; its process is another's then.
    b.close().await;
    let mut d = beside(&databases, &mut a).await;
    assert_eq!(value(&mut d, "SELECT count(*) FROM t").await, "1");
    for session in [a, c, d] {
        session.close().await;
    }
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn several_sessions_survive_sleep_and_crash() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        idle: Duration::ZERO,
        ..Limits::default()
    };
    let databases = open(folder.path(), limits).await;
    for round in 0..6 {
        let mut a = first(&databases).await;
        run(&mut a, "BEGIN").await;
        let mut b = beside(&databases, &mut a).await;
        run(&mut b, "BEGIN").await;
        run(&mut a, "INSERT INTO t VALUES (1)").await;
        run(&mut b, "INSERT INTO t VALUES (2)").await;
        run(&mut b, "COMMIT").await;
        if round % 2 == 0 {
            // Not while anybody is in a transaction.
            tokio::time::sleep(Duration::from_millis(250)).await;
            assert_eq!(databases.info(&name("a")).unwrap().state, State::Awake);
            run(&mut a, "COMMIT").await;
            all_asleep(&databases).await;
            assert_eq!(value(&mut b, "SELECT count(*) % 3 FROM t").await, "2");
        } else {
            // A call that is dropped ends its process, and with it the others.
            let endless = a.query("SELECT pg_sleep(600)", &[]);
            let waited = tokio::time::timeout(Duration::from_millis(5), endless).await;
            assert!(waited.is_err());
            drop(a);
            let mut c = session(&databases, "a").await;
            assert_eq!(value(&mut c, "SELECT count(*) % 3 FROM t").await, "0");
        }
    }
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_so_many_processes_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        processes_max: 2,
        session_wait_max: Duration::from_millis(300),
        ..Limits::default()
    };
    let databases = open(folder.path(), limits).await;
    let mut a = first(&databases).await;
    run(&mut a, "BEGIN").await;
    let mut b = beside(&databases, &mut a).await;
    let mut c = beside(&databases, &mut a).await;
    run(&mut b, "BEGIN").await;
    let error = c.query("SELECT 1", &[]).await.unwrap_err();
    assert_eq!(error.code(), "53300");
    assert!(error.to_string().contains("processes_max"), "{error}");
    run(&mut b, "COMMIT").await;
    assert_eq!(value(&mut c, "SELECT 1").await, "1");
    // Not dropped while anybody is in it, unless by force: then all are sent away.
    run(&mut a, "ROLLBACK").await;
    assert!(databases.delete(&name("a"), false).await.is_err());
    databases.delete(&name("a"), true).await.unwrap();
    for mut session in [a, b, c] {
        assert!(session.query("SELECT 1", &[]).await.is_err());
    }
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn text_with_a_zero_byte_is_refused_not_cut() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    let setting = |name: &str, value: &str| SessionOptions {
        settings: vec![(name.into(), value.into())],
        ..SessionOptions::default()
    };
    for options in [
        SessionOptions {
            user: "postgres\0x".into(),
            ..SessionOptions::default()
        },
        setting("work_mem\0x", "1MB"),
        setting("application_name", "one\0two"),
    ] {
        let error = databases.session(&name("a"), options).await.unwrap_err();
        assert_eq!(error.code(), "22021", "{error}");
    }
    session(&databases, "a").await.close().await;
    databases.close().await.unwrap();
}

/// Sessions with something of their own each, more of them than processes.
async fn different(databases: &Databases, count: usize) -> Vec<Session> {
    let mut sessions = Vec::new();
    for number in 0..count {
        let options = SessionOptions {
            settings: vec![("application_name".into(), format!("client {number}"))],
            ..SessionOptions::default()
        };
        let mut session = databases.session(&name("a"), options).await.unwrap();
        run(&mut session, &format!("SET my.number = '{number}'")).await;
        let prepare = format!("PREPARE own (int) AS SELECT {number} * $1 AS n");
        run(&mut session, &prepare).await;
        run(&mut session, &format!("SELECT nextval('s') + {number}")).await;
        sessions.push(session);
    }
    sessions
}

async fn are_themselves(sessions: &mut [Session]) {
    for (number, session) in sessions.iter_mut().enumerate() {
        let own = "SELECT current_setting('my.number') || ',' || current_setting('application_name') \
                   || ',' || lastval() || ',' || pg_backend_pid()";
        let expected = format!(
            "{number},client {number},{},{}",
            number + 1,
            session.process_id()
        );
        assert_eq!(value(session, own).await, expected);
        assert_eq!(
            value(session, "EXECUTE own (3)").await,
            (3 * number).to_string()
        );
        run(session, "RESET ALL").await;
        let reset = value(session, "SHOW application_name").await;
        assert_eq!(reset, format!("client {number}"));
        run(session, &format!("SET my.number = '{number}'")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_sessions_share_few_processes_and_stay_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        processes_max: 3,
        idle: Duration::from_millis(50),
        ..Limits::default()
    };
    let databases = open(folder.path(), limits).await;
    let mut session = first(&databases).await;
    run(&mut session, "CREATE SEQUENCE s").await;
    let mut sessions = different(&databases, 10).await;
    for _ in 0..3 {
        are_themselves(&mut sessions).await;
        // They are what they were after a sleep, too, and do not keep the database awake.
        all_asleep(&databases).await;
    }
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_alone_has_keeps_the_session_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        processes_max: 2,
        session_wait_max: Duration::from_millis(200),
        ..Limits::default()
    };
    let databases = open(folder.path(), limits).await;
    let mut bound = first(&databases).await;
    let mut free = session(&databases, "a").await;
    let mut other = session(&databases, "a").await;
    for (tie, look, untie) in [
        (
            "SELECT pg_advisory_lock(5)",
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'",
            "SELECT pg_advisory_unlock(5)",
        ),
        (
            "LISTEN news",
            "SELECT count(*) FROM pg_listening_channels()",
            "UNLISTEN news",
        ),
        (
            "CREATE TEMP TABLE mine AS SELECT 1",
            "SELECT count(*) FROM mine",
            "DROP TABLE mine",
        ),
    ] {
        run(&mut bound, tie).await;
        for _ in 0..3 {
            run(&mut free, "SELECT 1").await;
            run(&mut other, "SELECT 1").await;
        }
        run(&mut free, "BEGIN").await;
        let error = other.query("SELECT 1", &[]).await.unwrap_err();
        assert_eq!(error.code(), "53300");
        run(&mut free, "COMMIT").await;
        assert_eq!(value(&mut bound, look).await, "1");
        run(&mut bound, untie).await;
    }
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_and_a_database_bring_their_settings() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    let mut session = first(&databases).await;
    for sql in [
        "CREATE ROLE app LOGIN",
        "ALTER ROLE app SET search_path = app, public",
        "ALTER DATABASE a SET work_mem = '7MB'",
        "ALTER ROLE app IN DATABASE a SET statement_timeout = '5s'",
        "ALTER DATABASE a SET statement_timeout = '9s'",
        "ALTER ROLE app SET no.such = 'thing'",
    ] {
        run(&mut session, sql).await;
    }
    let options = SessionOptions {
        user: "app".into(),
        settings: vec![("work_mem".into(), "8MB".into())],
        ..SessionOptions::default()
    };
    let mut app = databases.session(&name("a"), options).await.unwrap();
    let all = "SELECT current_setting('search_path') || ';' || current_setting('work_mem') || ';' \
               || current_setting('statement_timeout') || ';' || current_user || ';' || session_user";
    assert_eq!(value(&mut app, all).await, "app, public;8MB;5s;app;app");
    run(&mut app, "SET work_mem = '1MB'").await;
    run(&mut app, "SET SESSION AUTHORIZATION DEFAULT").await;
    run(&mut app, "RESET ALL").await;
    assert_eq!(value(&mut app, all).await, "app, public;8MB;5s;app;app");
    let error = app
        .query("SET SESSION AUTHORIZATION postgres", &[])
        .await
        .unwrap_err();
    assert_eq!(error.code(), "42501");
    let error = app.query("SET ROLE postgres", &[]).await.unwrap_err();
    assert_eq!(error.code(), "42501");
    let mut other = harness::session(&databases, "a").await;
    assert_eq!(
        value(&mut other, all).await,
        "\"$user\", public;7MB;9s;postgres;postgres"
    );
    let options = SessionOptions {
        user: "nobody".into(),
        ..SessionOptions::default()
    };
    let error = databases.session(&name("a"), options).await.unwrap_err();
    assert_eq!(error.code(), "28000");
    databases.close().await.unwrap();
}
