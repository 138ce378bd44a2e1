//! What users have made under the names that stand in statements of the host must not run in its place: these
//! run with the superuser's rights, or decide what a session may.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use dormouse_database::{Authority, Databases, Limits, Session, SessionOptions, Source};

mod harness;

use harness::{name, open, run_all as run, until, value};

async fn session_as(databases: &Databases, user: &str) -> Session {
    let options = SessionOptions {
        user: user.to_owned(),
        authority: match user {
            "" => Authority::Node,
            _ => Authority::Role,
        },
        ..SessionOptions::default()
    };
    databases.session(&name("a"), options).await.unwrap()
}

/// Whether a function of the role `app` has run with the superuser's rights.
const CAUGHT: &str = "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = 'app'";

/// The role `app`, which may make what it likes in its schema and in `public`, and the function by which it
/// becomes a superuser if a superuser calls it.
async fn app(admin: &mut Session) {
    run(
        admin,
        &[
            "CREATE ROLE app LOGIN",
            "CREATE SCHEMA app AUTHORIZATION app",
            "GRANT CREATE ON SCHEMA public TO app",
            "CREATE FUNCTION app.rise() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$ BEGIN \
             IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = CURRENT_USER) THEN \
             ALTER ROLE app SUPERUSER; END IF; END $$",
        ],
    )
    .await;
}

/// Functions and operators of the role `app` under the names that the host's statements have, in a schema.
fn impostors(schema: &str) -> Vec<String> {
    let body = |result: &str| {
        format!("LANGUAGE plpgsql AS $$ BEGIN PERFORM app.rise(); RETURN {result}; END $$")
    };
    let mut made = Vec::new();
    for (function, result) in [
        ("quote_ident(name)", "text"),
        ("quote_ident(text)", "text"),
        ("current_setting(text)", "text"),
        ("current_setting(text, boolean)", "text"),
        ("set_config(text, text, boolean)", "text"),
        ("current_database()", "name"),
        ("date_part(text, timestamptz)", "float8"),
        ("has_database_privilege(oid, text)", "boolean"),
        ("pg_has_role(oid, text)", "boolean"),
        ("pg_has_role(oid, oid, text)", "boolean"),
        ("pg_options_to_table(text[])", "int"),
        ("pg_stat_force_next_flush()", "boolean"),
        ("unnest(text[])", "text"),
    ] {
        let body = body("NULL");
        made.push(format!(
            "CREATE FUNCTION {schema}.{function} RETURNS {result} {body}"
        ));
    }
    for (number, (operator, left, right, result)) in [
        ("=", "name", "name", "boolean"),
        ("=", "name", "text", "boolean"),
        ("=", "oid", "oid", "boolean"),
        ("=", "oid", "int", "boolean"),
        ("=", "text", "text", "boolean"),
        ("<>", "name", "name", "boolean"),
        ("<>", "name", "text", "boolean"),
        ("<>", "oid", "int", "boolean"),
        ("<>", "\"char\"", "text", "boolean"),
        (">=", "oid", "int", "boolean"),
        (">=", "float8", "int", "boolean"),
        (">", "bigint", "float8", "boolean"),
        ("+", "float8", "float8", "float8"),
        ("+", "int", "int", "int"),
        ("*", "float8", "float8", "float8"),
        ("*", "int", "int", "int"),
        ("||", "text", "text", "text"),
    ]
    .into_iter()
    .enumerate()
    {
        let result_value = match result {
            "boolean" => "true",
            _ => "NULL",
        };
        let body = body(result_value);
        let function = format!("{schema}.operator_{number}");
        made.push(format!(
            "CREATE FUNCTION {function}({left}, {right}) RETURNS {result} {body}"
        ));
        made.push(format!(
            "CREATE OPERATOR {schema}.{operator} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = {function})"
        ));
    }
    // Casts look for types by the same path.
    for (number, (of, base)) in [
        ("name", "text"),
        ("oid", "pg_catalog.int8"),
        ("int", "pg_catalog.int4"),
        ("float8", "pg_catalog.float8"),
        ("bool", "pg_catalog.bool"),
    ]
    .into_iter()
    .enumerate()
    {
        let base = match base.strip_prefix("pg_catalog.") {
            Some(_) => base.to_owned(),
            None => format!("pg_catalog.{base}"),
        };
        let body = body("true");
        made.push(format!(
            "CREATE FUNCTION {schema}.check_{number}({base}) RETURNS boolean {body}"
        ));
        made.push(format!(
            "CREATE DOMAIN {schema}.\"{of}\" AS {base} CHECK ({schema}.check_{number}(VALUE))"
        ));
    }
    made
}

/// Makes them, as the role `app`.
async fn make(app: &mut Session, schema: &str) {
    run(app, &["SET search_path = pg_catalog"]).await;
    for sql in impostors(schema) {
        run(app, &[&sql]).await;
    }
    run(app, &["RESET search_path"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upkeep_and_sessions_call_nobodys_functions() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        idle: Duration::from_secs(60),
        checkpoint_wal_bytes: 1 << 20,
        processes_max: 2,
        ..Limits::default()
    };
    let databases = open(folder.path(), limits).await;
    databases
        .create(&name("b"), Source::Template)
        .await
        .unwrap();
    let mut admin = session_as(&databases, "").await;
    self::app(&mut admin).await;
    let mut app = session_as(&databases, "app").await;
    for schema in ["app", "public"] {
        make(&mut app, schema).await;
    }
    run(
        &mut admin,
        &[
            "ALTER DATABASE a SET search_path = app, public, pg_catalog",
            "ALTER ROLE postgres SET search_path = app, public, pg_catalog",
            "ALTER ROLE ALL SET search_path = public, app, pg_catalog",
            "ALTER ROLE app IN DATABASE a SET search_path = app, public, pg_catalog",
        ],
    )
    .await;
    app.close().await;
    // Sessions whose defaults are read, that look at the list of databases, and move.
    let mut app = session_as(&databases, "app").await;
    let mut third = session_as(&databases, "app").await;
    for session in [&mut app, &mut third] {
        let path = session.query("SHOW search_path", &[]).await.unwrap();
        let path = path.rows[0][0].clone().unwrap();
        assert_eq!(path, "app, public, pg_catalog");
        run(session, &["SELECT datname FROM pg_catalog.pg_database"]).await;
    }
    // Something for upkeep to do, and checkpoints between the statements of the role.
    run(
        &mut app,
        &["CREATE TABLE app.t (n pg_catalog.int4, s pg_catalog.text)"],
    )
    .await;
    let fill = "INSERT INTO app.t SELECT n, pg_catalog.repeat('x', 500) FROM pg_catalog.generate_series(1, 5000) n";
    run(&mut app, &[fill, fill, "DELETE FROM app.t"]).await;
    app.close().await;
    third.close().await;
    drop(admin);
    until("vacuumed", || databases.metrics().vacuums.count > 0).await;
    until("checkpoints", || databases.metrics().checkpoints.count > 0).await;
    let mut admin = session_as(&databases, "").await;
    run(&mut admin, &["SET search_path = pg_catalog"]).await;
    assert_eq!(value(&mut admin, CAUGHT).await, "f");
    // The test is one: whoever looks at names along that path does call them.
    run(
        &mut admin,
        &[
            "SET search_path = app, pg_catalog",
            "SELECT current_database()",
        ],
    )
    .await;
    assert_eq!(value(&mut admin, CAUGHT).await, "t");
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_databases_is_written_by_nobodys_types() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    let mut admin = session_as(&databases, "").await;
    self::app(&mut admin).await;
    let mut app = session_as(&databases, "app").await;
    // The schema for temporary things is looked at before all others, whatever the path says.
    make(&mut app, "pg_temp").await;
    for number in 0..3 {
        let other = name(&format!("other_{number}"));
        databases.create(&other, Source::Template).await.unwrap();
        let count =
            "SELECT pg_catalog.count(*) FROM pg_catalog.pg_database WHERE datname LIKE 'other%'";
        assert_eq!(value(&mut app, count).await, (1 + number).to_string());
        assert_eq!(value(&mut admin, CAUGHT).await, "f");
    }
    databases.close().await.unwrap();
}

/// A role makes the host believe, if it can, that it has nothing temporary: what it has would be there for
/// the next session of the process, and in front of all other schemas.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_leaves_temporary_tables_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        processes_max: 1,
        session_wait_max: Duration::from_millis(300),
        ..Limits::default()
    };
    let databases = open(folder.path(), limits).await;
    let mut admin = session_as(&databases, "").await;
    self::app(&mut admin).await;
    run(
        &mut admin,
        &["CREATE TABLE public.accounts AS SELECT 1 AS n"],
    )
    .await;
    let mut app = session_as(&databases, "app").await;
    run(
        &mut app,
        &[
            "BEGIN",
            "CREATE TYPE pg_temp.oid AS (n int)",
            "CREATE FUNCTION pg_temp.lie(n int) RETURNS pg_temp.oid IMMUTABLE LANGUAGE sql AS 'SELECT ROW(n)::pg_temp.oid'",
            "CREATE FUNCTION pg_temp.lie(n pg_temp.oid) RETURNS pg_catalog.oid IMMUTABLE LANGUAGE sql AS 'SELECT 1::pg_catalog.oid'",
            "CREATE CAST (int AS pg_temp.oid) WITH FUNCTION pg_temp.lie(int)",
            "CREATE CAST (pg_temp.oid AS pg_catalog.oid) WITH FUNCTION pg_temp.lie(pg_temp.oid) AS IMPLICIT",
            "CREATE VIEW pg_temp.accounts AS SELECT 2 AS n, app.rise()::text AS s",
            "COMMIT",
        ],
    )
    .await;
    // The process stays the role's own.
    if let Ok(result) = admin.query("SELECT n FROM accounts", &[]).await {
        panic!(
            "the process is the administrator's, who sees {:?}",
            result.rows
        );
    }
    app.close().await;
    assert_eq!(value(&mut admin, "SELECT n FROM accounts").await, "1");
    assert_eq!(value(&mut admin, CAUGHT).await, "f");
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_role_may_is_not_its_own_to_say() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    let mut admin = session_as(&databases, "").await;
    self::app(&mut admin).await;
    let mut app = session_as(&databases, "app").await;
    for schema in ["app", "pg_temp"] {
        make(&mut app, schema).await;
    }
    let lie = "CREATE TEMP VIEW pg_roles AS SELECT oid, rolname, true AS rolsuper, true AS rolcreatedb \
               FROM pg_catalog.pg_roles";
    run(
        &mut app,
        &[lie, "SET search_path = pg_temp, app, pg_catalog"],
    )
    .await;
    let create = simple(&mut app, "CREATE DATABASE mine").await;
    assert!(create.contains("42501"), "{create}");
    assert!(databases.info(&name("mine")).is_err());
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_read_whatever_a_database_sets() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    let mut admin = session_as(&databases, "").await;
    self::app(&mut admin).await;
    let mut app = session_as(&databases, "app").await;
    for schema in ["app", "public"] {
        make(&mut app, schema).await;
    }
    app.close().await;
    run(&mut admin, &["ALTER ROLE app PASSWORD 'secret'"]).await;
    for (setting, value) in [
        ("search_path", "app, public, pg_catalog"),
        ("statement_timeout", "'1ms'"),
        ("lock_timeout", "'1ms'"),
        ("transaction_timeout", "'1ms'"),
        ("client_encoding", "'LATIN1'"),
        ("default_transaction_read_only", "on"),
        ("role", "'app'"),
    ] {
        for of in [
            "DATABASE a",
            "ROLE ALL",
            "ROLE postgres",
            "ROLE postgres IN DATABASE a",
        ] {
            run(
                &mut admin,
                &[&format!("ALTER {of} SET {setting} = {value}")],
            )
            .await;
        }
        let found = databases.credentials(&name("a"), "app").await;
        let found = found.unwrap_or_else(|error| panic!("{setting}: {error}"));
        let found = found.expect("there is such a role");
        found.verifier(std::time::SystemTime::now()).unwrap();
        found.admit().unwrap();
        assert_eq!(caught(&mut admin).await, "f", "{setting}");
        for of in [
            "DATABASE a",
            "ROLE ALL",
            "ROLE postgres",
            "ROLE postgres IN DATABASE a",
        ] {
            run(&mut admin, &[&format!("ALTER {of} RESET {setting}")]).await;
        }
    }
    databases.close().await.unwrap();
}

async fn caught(admin: &mut Session) -> String {
    value(admin, CAUGHT).await
}

/// The answer to a simple query, as text.
async fn simple(session: &mut Session, sql: &str) -> String {
    let mut message = vec![b'Q'];
    message.extend((sql.len() as u32 + 5).to_be_bytes());
    message.extend(sql.as_bytes());
    message.push(0);
    let (answer, _) = session.exchange(message.into(), None).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}
