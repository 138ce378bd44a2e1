//! What a session has of its own when another one has had its process meanwhile.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::time::Duration;

use dormouse_database::{Databases, Limits, Session};

mod harness;

use harness::{all_asleep, run_all as run, value};

/// One process, so that each session is made to leave it by the next.
async fn open(folder: &Path) -> Databases {
    let limits = Limits {
        processes_max: 1,
        session_wait_max: Duration::from_secs(30),
        ..Limits::default()
    };
    harness::open(folder, limits).await
}

async fn session_as(databases: &Databases, user: &str) -> Session {
    harness::session_as(databases, "a", user).await
}

async fn session(databases: &Databases) -> Session {
    session_as(databases, "").await
}

/// The process becomes that of the other session, and so everybody else leaves it.
async fn all_leave_for(other: &mut Session) {
    run(other, &["SELECT 1"]).await;
}

/// A setting that a client may change, and another value that it can have.
struct Setting {
    name: String,
    other: String,
}

/// Those that may be set without an end to the session.
async fn settings(session: &mut Session) -> Vec<Setting> {
    let sql = "SELECT name, CASE vartype \
               WHEN 'bool' THEN CASE setting WHEN 'on' THEN 'off' ELSE 'on' END \
               WHEN 'integer' THEN (CASE WHEN setting::int8 < max_val::int8 \
               THEN least(greatest(setting::int8, 100000) + 1, max_val::int8) ELSE setting::int8 - 1 END)::text \
               WHEN 'real' THEN (setting::float8 / 2 + 0.1234567890123)::text \
               WHEN 'enum' THEN (SELECT v FROM unnest(enumvals) v WHERE v <> setting LIMIT 1) \
               ELSE 'it''s \"' || name || '\"' END \
               FROM pg_settings WHERE context IN ('user', 'superuser') \
               AND name NOT LIKE 'transaction_%' \
               AND name NOT IN ('seed', 'exit_on_error', 'client_encoding', 'role', 'session_authorization')";
    let result = session.query(sql, &[]).await.unwrap();
    let mut rows = result.rows.into_iter();
    let setting = |row: Vec<Option<String>>| Setting {
        name: row[0].clone().unwrap(),
        other: row[1].clone().unwrap_or_default(),
    };
    let mut all: Vec<_> = rows.by_ref().map(setting).collect();
    for setting in &mut all {
        // Values that not any text is one of.
        let other = match setting.name.as_str() {
            "DateStyle" => "German, YMD",
            "TimeZone" | "log_timezone" => "<+02:30>-02:30",
            "search_path" => "\"a b\", pg_catalog, \"$user\"",
            "temp_tablespaces" | "default_tablespace" => "pg_default",
            "default_text_search_config" => "pg_catalog.german",
            "default_toast_compression" => "pglz",
            "lc_messages" | "lc_monetary" | "lc_numeric" | "lc_time" => "C",
            "timezone_abbreviations" => "India",
            "default_table_access_method" => "heap",
            "backtrace_functions" => "a,b",
            "max_stack_depth" => "1234",
            "geqo_selection_bias" => "1.6123456789",
            "plpgsql.extra_errors" | "plpgsql.extra_warnings" => "shadowed_variables,too_many_rows",
            "restrict_nonsystem_relation_kind" => "view, foreign-table",
            "createrole_self_grant" => "set, inherit",
            "wal_consistency_checking" => "heap,btree",
            _ => continue,
        };
        setting.other = other.to_owned();
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn every_setting_goes_with_its_session() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path()).await;
    let mut own = session(&databases).await;
    let mut other = session(&databases).await;
    let mut moved = 0;
    for Setting { name, other: set } in settings(&mut own).await {
        let show =
            format!("SELECT setting || '; ' || source FROM pg_settings WHERE name = '{name}'");
        let usual = value(&mut other, &show).await;
        let set = set.replace('\'', "''");
        let set = format!("SELECT set_config('{name}', '{set}', false)");
        if let Err(error) = own.query(&set, &[]).await {
            // In this build they have one value only.
            let only_one = ["debug_discard_caches", "file_copy_method"];
            assert!(only_one.contains(&name.as_str()), "{set}: {error}");
            continue;
        }
        let before = value(&mut own, &show).await;
        assert_eq!(value(&mut other, &show).await, usual, "another session's");
        assert_eq!(
            value(&mut own, &show).await,
            before,
            "after the process was another's"
        );
        run(
            &mut own,
            &[&format!("SELECT set_config('{name}', NULL, false)")],
        )
        .await;
        all_leave_for(&mut other).await;
        assert_eq!(value(&mut own, &show).await, usual, "reset");
        moved += 1;
    }
    assert!(moved > 200, "{moved} only");
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_transactions_and_of_ones_own_go_with_the_session() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path()).await;
    let mut own = session(&databases).await;
    let mut other = session(&databases).await;
    run(
        &mut own,
        &[
            "SET my.own = 'it''s \"mine\"'",
            "SET my.empty = ''",
            "BEGIN",
            "SET LOCAL my.own = 'for now'",
            "SET LOCAL work_mem = '1MB'",
            "SET my.kept = 'committed'",
            "COMMIT",
            "BEGIN",
            "SET my.own = 'rolled back'",
            "SET work_mem = '2MB'",
            "ROLLBACK",
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY",
        ],
    )
    .await;
    let all = "SELECT concat_ws(';', current_setting('my.own'), current_setting('my.empty'), \
               current_setting('my.kept'), current_setting('work_mem'), \
               current_setting('transaction_isolation'), current_setting('transaction_read_only'))";
    let expected = "it's \"mine\";;committed;4MB;serializable;on";
    assert_eq!(value(&mut own, all).await, expected);
    for _ in 0..3 {
        let others = "SELECT current_setting('transaction_isolation') || current_setting('transaction_read_only') \
                      || coalesce(nullif(current_setting('my.own', true), ''), 'nothing')";
        assert_eq!(value(&mut other, others).await, "read committedoffnothing");
        assert_eq!(value(&mut own, all).await, expected);
    }
    run(&mut own, &["RESET ALL"]).await;
    all_leave_for(&mut other).await;
    let reset = "SELECT current_setting('transaction_isolation') || current_setting('my.own')";
    assert_eq!(value(&mut own, reset).await, "read committed");
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_be_reset_hold_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path()).await;
    let mut own = session(&databases).await;
    let mut other = session(&databases).await;
    let usual = "SELECT current_setting('transaction_isolation') || ',' \
                 || current_setting('transaction_read_only') || ',' \
                 || current_setting('transaction_deferrable')";
    for set in [
        "SET seed = 0.25",
        "SELECT setseed(0.75)",
        "SET transaction_isolation = 'serializable'",
        "SET transaction_read_only = on",
        "SET transaction_deferrable = on",
    ] {
        run(&mut own, &["SET my.own = 'mine'", set]).await;
        assert_eq!(
            value(&mut other, usual).await,
            "read committed,off,off",
            "{set}"
        );
        assert_eq!(
            value(&mut own, usual).await,
            "read committed,off,off",
            "{set}"
        );
        assert_eq!(value(&mut own, "SHOW my.own").await, "mine", "{set}");
    }
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_a_session_acts_as_goes_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path()).await;
    let mut own = session(&databases).await;
    run(
        &mut own,
        &[
            "CREATE ROLE app LOGIN",
            "CREATE ROLE clerk",
            "CREATE ROLE stranger",
            "GRANT clerk TO app",
            "GRANT SET ON PARAMETER log_min_duration_statement TO app",
        ],
    )
    .await;
    let mut other = session(&databases).await;
    let who = "SELECT concat_ws(',', session_user, current_user, current_setting('role'), \
               current_setting('log_statement'), current_setting('is_superuser'))";
    run(&mut own, &["SET log_statement = 'ddl'"]).await;
    for (set, expected) in [
        ("SET ROLE clerk", "postgres,clerk,clerk,ddl,off"),
        ("SET ROLE NONE", "postgres,postgres,none,ddl,on"),
        ("SET SESSION AUTHORIZATION app", "app,app,none,ddl,off"),
        ("SET ROLE clerk", "app,clerk,clerk,ddl,off"),
        ("RESET ROLE", "app,app,none,ddl,off"),
        (
            "SET SESSION AUTHORIZATION stranger",
            "stranger,stranger,none,ddl,off",
        ),
        (
            "RESET SESSION AUTHORIZATION",
            "postgres,postgres,none,ddl,on",
        ),
        (
            "BEGIN; SET LOCAL ROLE clerk; COMMIT",
            "postgres,postgres,none,ddl,on",
        ),
        ("SET ROLE clerk", "postgres,clerk,clerk,ddl,off"),
        ("RESET ALL", "postgres,clerk,clerk,none,off"),
        ("DISCARD ALL", "postgres,postgres,none,none,on"),
    ] {
        for one in set.split("; ") {
            run(&mut own, &[one]).await;
        }
        assert_eq!(value(&mut own, who).await, expected, "{set}");
        let others = value(&mut other, who).await;
        assert_eq!(others, "postgres,postgres,none,none,on", "{set}");
        assert_eq!(value(&mut own, who).await, expected, "{set}, moved");
    }
    // An ordinary role may set what it was granted, and becomes nobody else when it has moved.
    let mut app = session_as(&databases, "app").await;
    run(
        &mut app,
        &["SET log_min_duration_statement = 7", "SET ROLE clerk"],
    )
    .await;
    for _ in 0..2 {
        all_leave_for(&mut other).await;
        let shown = value(&mut app, "SHOW log_min_duration_statement").await;
        assert_eq!(shown, "7ms");
        assert_eq!(value(&mut app, who).await, "app,clerk,clerk,none,off");
        for set in ["SET ROLE stranger", "SET SESSION AUTHORIZATION postgres"] {
            let error = app.query(set, &[]).await.unwrap_err();
            assert_eq!(error.code(), "42501", "{set}");
        }
    }
    run(&mut app, &["RESET ROLE"]).await;
    all_leave_for(&mut other).await;
    assert_eq!(value(&mut app, who).await, "app,app,none,none,off");
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_a_default_goes_with_its_session() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path()).await;
    let mut admin = session(&databases).await;
    run(
        &mut admin,
        &[
            "CREATE ROLE app LOGIN",
            "CREATE ROLE clerk",
            "GRANT clerk TO app",
            "ALTER ROLE app SET role = 'clerk'",
        ],
    )
    .await;
    let who = "SELECT session_user || ',' || current_user";
    let mut app = session_as(&databases, "app").await;
    for (set, expected) in [
        ("SELECT 1", "app,clerk"),
        ("SET ROLE NONE", "app,app"),
        ("RESET ROLE", "app,clerk"),
        ("SET ROLE app", "app,app"),
        ("DISCARD ALL", "app,clerk"),
    ] {
        run(&mut app, &[set]).await;
        assert_eq!(value(&mut app, who).await, expected, "{set}");
        assert_eq!(value(&mut admin, who).await, "postgres,postgres", "{set}");
        assert_eq!(value(&mut app, who).await, expected, "{set}, moved");
    }
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_temporary_tables_a_session_can_leave() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        processes_max: 1,
        session_wait_max: Duration::from_millis(200),
        idle: Duration::from_millis(50),
        ..Limits::default()
    };
    let databases = harness::open(folder.path(), limits).await;
    let mut own = session(&databases).await;
    let mut other = session(&databases).await;
    for (make, drop) in [
        (
            "CREATE TEMP TABLE mine (n serial PRIMARY KEY, s text)",
            "DROP TABLE mine",
        ),
        ("CREATE TEMP VIEW mine AS SELECT 1 AS n", "DROP VIEW mine"),
        ("CREATE TEMP SEQUENCE mine", "DROP SEQUENCE mine"),
        (
            "CREATE TYPE pg_temp.mine AS ENUM ('a')",
            "DROP TYPE pg_temp.mine",
        ),
        (
            "CREATE FUNCTION pg_temp.mine() RETURNS int RETURN 1",
            "DROP FUNCTION pg_temp.mine",
        ),
        ("CREATE TEMP TABLE mine AS SELECT 1 AS n", "DISCARD TEMP"),
    ] {
        run(&mut own, &[make]).await;
        let error = other.query("SELECT 1", &[]).await.unwrap_err();
        assert_eq!(error.code(), "53300", "{make}");
        assert_eq!(databases.count().unwrap().1, 1, "{make}");
        run(&mut own, &[drop]).await;
        run(&mut other, &["SELECT 1"]).await;
        all_asleep(&databases).await;
    }
    // One that ends with its transaction keeps nothing.
    run(
        &mut own,
        &[
            "BEGIN",
            "CREATE TEMP TABLE mine (n int) ON COMMIT DROP",
            "COMMIT",
        ],
    )
    .await;
    run(&mut other, &["SELECT 1"]).await;
    databases.close().await.unwrap();
}
