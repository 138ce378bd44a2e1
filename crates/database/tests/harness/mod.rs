//! Databases over the real engine, and SQL in text on sessions of them.

#![allow(dead_code, reason = "each user needs a part")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dormouse_database::{DatabaseName, Databases, Limits, Options, Session, SessionOptions};

/// Compiled code and the template, kept between runs of the tests.
pub(crate) fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache")
}

pub(crate) fn name(text: &str) -> DatabaseName {
    DatabaseName::parse(text).unwrap()
}

pub(crate) async fn open(folder: &Path, limits: Limits) -> Databases {
    let options = Options {
        limits,
        ..Options::new(folder, cache())
    };
    Databases::open(options).await.unwrap()
}

pub(crate) async fn session(databases: &Databases, database: &str) -> Session {
    session_as(databases, database, "").await
}

/// A session of a role; empty for `postgres`.
pub(crate) async fn session_as(databases: &Databases, database: &str, user: &str) -> Session {
    let options = SessionOptions {
        user: user.to_owned(),
        origin: "a test".into(),
        ..SessionOptions::default()
    };
    databases.session(&name(database), options).await.unwrap()
}

/// Runs one statement, which must succeed.
pub(crate) async fn run(session: &mut Session, sql: &str) {
    if let Err(error) = session.query(sql, &[]).await {
        panic!("{sql}: {error}");
    }
}

/// Runs statements, which must succeed.
pub(crate) async fn run_all(session: &mut Session, statements: &[&str]) {
    for sql in statements {
        run(session, sql).await;
    }
}

/// The first value of the first row, empty for NULL.
pub(crate) async fn value(session: &mut Session, sql: &str) -> String {
    let result = session
        .query(sql, &[])
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    result.rows[0][0].clone().unwrap_or_default()
}

/// Looks until something is so.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn all_asleep(databases: &Databases) {
    until("all asleep", || databases.count().unwrap().1 == 0).await;
}

/// Runs statements in a session of their own.
pub(crate) async fn run_alone(databases: &Databases, database: &str, statements: &[&str]) {
    let mut session = session(databases, database).await;
    for sql in statements {
        session.query(sql, &[]).await.unwrap();
    }
    session.close().await;
}
