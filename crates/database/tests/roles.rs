//! Roles that change while their sessions are at rest.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use dormouse_database::{Databases, Limits, Session, Source};

mod harness;

use harness::{all_asleep, name, open, run_all as run, value};

/// One process, so that each session is made to leave it by the next.
fn one_process() -> Limits {
    Limits {
        processes_max: 1,
        ..Limits::default()
    }
}

async fn session_as(databases: &Databases, user: &str) -> Session {
    harness::session_as(databases, "a", user).await
}

const WHO: &str = "SELECT session_user || ',' || current_user";

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_role_keeps_its_sessions() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), one_process()).await;
    let mut admin = session_as(&databases, "").await;
    run(
        &mut admin,
        &[
            "CREATE ROLE app LOGIN",
            "CREATE TABLE t (n int)",
            "GRANT ALL ON t TO app",
        ],
    )
    .await;
    let mut app = session_as(&databases, "app").await;
    run(
        &mut app,
        &[
            "SET my.own = 'mine'",
            "PREPARE own AS INSERT INTO t VALUES (1)",
        ],
    )
    .await;
    run(&mut admin, &["ALTER ROLE app RENAME TO renamed"]).await;
    assert_eq!(value(&mut app, WHO).await, "renamed,renamed");
    assert_eq!(value(&mut app, "SHOW my.own").await, "mine");
    run(&mut app, &["EXECUTE own"]).await;
    // Another one of that name is another one.
    run(&mut admin, &["CREATE ROLE app LOGIN"]).await;
    assert_eq!(value(&mut app, WHO).await, "renamed,renamed");
    let mut second = session_as(&databases, "app").await;
    let error = second.query("TABLE t", &[]).await.unwrap_err();
    assert_eq!(error.code(), "42501");
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_role_is_still_that_which_a_session_acts_as() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), one_process()).await;
    let mut admin = session_as(&databases, "").await;
    run(
        &mut admin,
        &[
            "CREATE ROLE app LOGIN",
            "CREATE ROLE clerk",
            "GRANT clerk TO app",
        ],
    )
    .await;
    let mut app = session_as(&databases, "app").await;
    let mut other = session_as(&databases, "").await;
    run(&mut app, &["SET ROLE clerk"]).await;
    run(&mut other, &["SET SESSION AUTHORIZATION app"]).await;
    run(
        &mut admin,
        &[
            "ALTER ROLE clerk RENAME TO officer",
            "ALTER ROLE app RENAME TO program",
        ],
    )
    .await;
    assert_eq!(value(&mut app, WHO).await, "program,officer");
    assert_eq!(value(&mut other, WHO).await, "program,program");
    // Another one of that name is another one, also when the first has gone.
    let anew = ["CREATE ROLE clerk SUPERUSER", "CREATE ROLE app SUPERUSER"];
    run(&mut admin, &anew).await;
    assert_eq!(value(&mut app, WHO).await, "program,officer");
    assert_eq!(value(&mut other, WHO).await, "program,program");
    let anew = ["DROP ROLE officer", "CREATE ROLE officer SUPERUSER"];
    run(&mut admin, &anew).await;
    let error = app.query(WHO, &[]).await.unwrap_err();
    assert_eq!(error.code(), "28000", "{error}");
    assert_eq!(value(&mut other, WHO).await, "program,program");
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_of_a_dropped_role_ends_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), one_process()).await;
    let mut admin = session_as(&databases, "").await;
    run(
        &mut admin,
        &["CREATE ROLE app LOGIN", "SET my.own = 'mine'"],
    )
    .await;
    let mut app = session_as(&databases, "app").await;
    run(&mut app, &["SET work_mem = '1MB'"]).await;
    run(&mut admin, &["DROP ROLE app"]).await;
    let error = app.query(WHO, &[]).await.unwrap_err();
    assert_eq!(error.code(), "28000", "{error}");
    assert_eq!(error.severity().as_str(), "FATAL");
    assert!(error.message().contains("does not exist"), "{error}");
    app.close().await;
    assert_eq!(value(&mut admin, "SHOW my.own").await, "mine");
    assert_eq!(value(&mut admin, WHO).await, "postgres,postgres");
    // One of the same name is not the same.
    run(&mut admin, &["CREATE ROLE app LOGIN"]).await;
    let mut app = session_as(&databases, "app").await;
    run(
        &mut admin,
        &["DROP ROLE app", "CREATE ROLE app LOGIN SUPERUSER"],
    )
    .await;
    let error = app.query(WHO, &[]).await.unwrap_err();
    assert_eq!(error.code(), "28000", "{error}");
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_administrator_is_who_it_is_under_any_name() {
    for images_bytes_max in [4 << 30, 0] {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits {
            idle: Duration::from_millis(50),
            images_bytes_max,
            ..one_process()
        };
        let databases = open(folder.path(), limits).await;
        databases
            .create(&name("b"), Source::Template)
            .await
            .unwrap();
        let mut admin = session_as(&databases, "").await;
        run(
            &mut admin,
            &[
                "SET my.own = 'mine'",
                "CREATE ROLE boss LOGIN SUPERUSER",
                "CREATE TABLE t (n int)",
            ],
        )
        .await;
        let mut boss = session_as(&databases, "boss").await;
        run(&mut boss, &["ALTER ROLE postgres RENAME TO king"]).await;
        assert_eq!(value(&mut admin, WHO).await, "king,king");
        assert_eq!(value(&mut admin, "SHOW my.own").await, "mine");
        // Somebody else of the name that the administrator had is somebody else.
        run(&mut boss, &["CREATE ROLE postgres LOGIN"]).await;
        for _ in 0..2 {
            all_asleep(&databases).await;
            assert_eq!(value(&mut admin, WHO).await, "king,king");
            assert_eq!(value(&mut boss, WHO).await, "boss,boss");
            let others = "SELECT count(*) FROM pg_database WHERE datname = 'b'";
            assert_eq!(value(&mut boss, others).await, "1");
            for user in ["", "postgres", "king"] {
                let mut new = session_as(&databases, user).await;
                assert_eq!(value(&mut new, WHO).await, "king,king", "{user}");
                new.close().await;
            }
        }
        // As a crash: the next wake boots.
        let endless = boss.query("SELECT pg_sleep(600)", &[]);
        let waited = tokio::time::timeout(Duration::from_millis(5), endless).await;
        assert!(waited.is_err());
        drop(boss);
        admin.close().await;
        let mut admin = session_as(&databases, "").await;
        assert_eq!(value(&mut admin, WHO).await, "king,king");
        let mut boss = session_as(&databases, "boss").await;
        run(
            &mut boss,
            &["DROP ROLE postgres", "ALTER ROLE king RENAME TO postgres"],
        )
        .await;
        run(&mut admin, &["DROP ROLE boss"]).await;
        assert!(boss.query("SELECT 1", &[]).await.is_err());
        assert_eq!(value(&mut admin, WHO).await, "postgres,postgres");
        databases.close().await.unwrap();
    }
}
