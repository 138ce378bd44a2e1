//! Statements of the host in a transaction of a client: its rights are theirs, and nobody else's.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use dormouse_database::{Authority, HostStatement, Limits, Session, SessionOptions};

mod harness;

use harness::{name, open, run_all as run, value};

/// The host's own table, which the role `app` may not touch.
const INSERT: HostStatement<'_> = HostStatement {
    sql: "INSERT INTO public.hosts VALUES (1)",
    params: &[],
};

const FAILS: HostStatement<'_> = HostStatement {
    sql: "SELECT 1 OPERATOR(pg_catalog./) 0",
    params: &[],
};

async fn is_app(session: &mut Session) {
    let who = "SELECT current_user || has_table_privilege('public.hosts', 'SELECT')::text";
    assert_eq!(value(session, who).await, "appfalse");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_rights_end_with_its_statements() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    let mut admin = databases
        .session(&name("a"), SessionOptions::default())
        .await
        .unwrap();
    let made = ["CREATE TABLE public.hosts (n int)", "CREATE ROLE app LOGIN"];
    run(&mut admin, &made).await;
    let options = SessionOptions {
        user: "app".to_owned(),
        authority: Authority::Role,
        ..SessionOptions::default()
    };
    let mut session = databases.session(&name("a"), options).await.unwrap();
    let outside = session.run_as_host(&[INSERT]).await;
    assert_eq!(outside.unwrap_err().code(), "25P01");

    // They succeed.
    run(&mut session, &["BEGIN"]).await;
    let done = session.run_as_host(&[INSERT, INSERT]).await.unwrap();
    assert_eq!(done.len(), 2);
    assert_eq!(done[1].row_count, Some(1));
    is_app(&mut session).await;
    run(&mut session, &["ROLLBACK"]).await;
    assert_eq!(value(&mut admin, "SELECT count(*) FROM hosts").await, "0");

    // They fail, at once or within a part of the transaction.
    for begin in [&["BEGIN"][..], &["BEGIN", "SAVEPOINT s"]] {
        run(&mut session, begin).await;
        let failed = session.run_as_host(&[INSERT, FAILS]).await;
        assert_eq!(failed.unwrap_err().code(), "22012");
        if begin.len() > 1 {
            run(&mut session, &["ROLLBACK TO SAVEPOINT s"]).await;
            is_app(&mut session).await;
        }
        run(&mut session, &["ROLLBACK"]).await;
        is_app(&mut session).await;
    }

    // They are committed with the client's.
    run(&mut session, &["BEGIN"]).await;
    session.run_as_host(&[INSERT]).await.unwrap();
    run(&mut session, &["COMMIT"]).await;
    is_app(&mut session).await;
    assert_eq!(value(&mut admin, "SELECT count(*) FROM hosts").await, "1");
    session.close().await;
    admin.close().await;
    databases.close().await.unwrap();
}
