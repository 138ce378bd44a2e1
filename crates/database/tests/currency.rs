//! Whether an answer is known to be the same as before: what is noticed, and what is not held against it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod harness;

use std::time::Duration;

use dormouse_database::{
    Currency, Databases, Limits, QueryKey, ResultVersion, Session, SessionOptions, Uncacheable,
};
use harness::{all_asleep, name, open, run, run_all, session, session_as};

fn drowsy() -> Limits {
    Limits {
        idle: Duration::from_millis(200),
        ..Limits::default()
    }
}

fn key(sql: &str) -> QueryKey {
    QueryKey::new("", [], sql, [])
}

/// As of which commit the answer of the session will be, which must be known.
async fn version(session: &mut Session, sql: &str) -> ResultVersion {
    match session.currency(&key(sql), sql).await.unwrap() {
        Currency::Version(version) => version,
        other => panic!("{sql}: {other:?}"),
    }
}

async fn never(session: &mut Session, sql: &str) -> Uncacheable {
    match session.currency(&key(sql), sql).await.unwrap() {
        Currency::Never(reason) => reason,
        other => panic!("{sql}: {other:?}"),
    }
}

/// Whether the answer is known to be what it was.
fn still(databases: &Databases, sql: &str, version: ResultVersion) -> bool {
    databases.currency(&name("a"), &key(sql)).unwrap() == Currency::Version(version)
}

const TABLES: [&str; 6] = [
    "CREATE TABLE t (id int PRIMARY KEY, s text, n int)",
    "INSERT INTO t SELECT i, 'row ' || i, i FROM generate_series(1, 100) i",
    "CREATE TABLE u (id int PRIMARY KEY, s text)",
    "CREATE VIEW v AS SELECT id, n FROM t WHERE n > 5",
    "CREATE TABLE p (id int, d int) PARTITION BY RANGE (d)",
    "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_is_noticed_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    let mut a = session(&databases, "a").await;
    let mut b = session(&databases, "a").await;
    run_all(&mut b, &TABLES).await;
    let all = [
        "SELECT * FROM t ORDER BY id",
        "SELECT * FROM u",
        "SELECT count(*) FROM v",
        "SELECT * FROM p WHERE d = 3",
        "SELECT 1",
    ];
    for (change, noticed) in [
        (
            "UPDATE t SET n = n WHERE id = 5",
            [true, false, true, false, false],
        ),
        (
            "INSERT INTO u VALUES (1, 'x')",
            [false, true, false, false, false],
        ),
        (
            "INSERT INTO p VALUES (1, 1)",
            [false, false, false, true, false],
        ),
        (
            "UPDATE u SET s = (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 1000) i)",
            [false, true, false, false, false],
        ),
        ("UPDATE t SET n = 1 WHERE id = 0", [false; 5]),
        ("BEGIN; DELETE FROM t; ROLLBACK", [false; 5]),
        (
            "BEGIN; DELETE FROM t; SAVEPOINT x; ROLLBACK TO x; COMMIT",
            [true, false, true, false, false],
        ),
        (
            "BEGIN; SAVEPOINT x; INSERT INTO t VALUES (1); RELEASE x; COMMIT",
            [true, false, true, false, false],
        ),
        (
            "BEGIN; SAVEPOINT x; INSERT INTO u VALUES (7); ROLLBACK TO x; INSERT INTO t VALUES (2); COMMIT",
            [true, false, true, false, false],
        ),
        (
            "SET synchronous_commit = off; INSERT INTO u VALUES (8)",
            [false, true, false, false, false],
        ),
        ("SELECT * FROM t FOR UPDATE", [false; 5]),
        ("ANALYZE", [false; 5]),
        ("VACUUM t", [false; 5]),
        ("CHECKPOINT", [false; 5]),
        ("CREATE VIEW w AS SELECT 1", [true; 5]),
        ("VACUUM FULL t", [true; 5]),
        ("VACUUM FULL pg_class", [true; 5]),
        ("ALTER TABLE t ADD COLUMN k int DEFAULT 7", [true; 5]),
        ("TRUNCATE u", [true; 5]),
        (
            "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20)",
            [true; 5],
        ),
        (
            "INSERT INTO p VALUES (1, 11)",
            [false, false, false, true, false],
        ),
        ("UPDATE t SET n = n + 1", [true, false, true, false, false]),
        ("CREATE ROLE someone", [true; 5]),
    ] {
        let mut before = Vec::new();
        for sql in all {
            // The answer itself may tidy up pages.
            run(&mut a, sql).await;
            let version = version(&mut a, sql).await;
            assert!(still(&databases, sql, version), "{sql} before {change}");
            before.push(version);
        }
        for part in change.split("; ") {
            let ran = b.query(part, &[]).await;
            if let Err(error) = ran {
                assert_eq!(error.code(), "23505", "{part}: {error}");
            }
        }
        run(&mut b, "RESET synchronous_commit").await;
        for ((sql, before), noticed) in all.iter().zip(before).zip(noticed) {
            let same = version(&mut a, sql).await == before;
            assert_eq!(same, !noticed, "{sql} after {change}");
            if noticed {
                assert!(!still(&databases, sql, before), "{sql} after {change}");
            }
        }
    }
    a.close().await;
    b.close().await;
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_is_not_seen_before_its_commit() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    let mut a = session(&databases, "a").await;
    let mut b = session(&databases, "a").await;
    run_all(&mut b, &TABLES).await;
    let sql = "SELECT count(*) FROM u";
    // Begun before anybody reads the log along.
    run(&mut b, "BEGIN").await;
    run(&mut b, "INSERT INTO u VALUES (1)").await;
    let before = version(&mut a, sql).await;
    run(&mut a, "INSERT INTO t VALUES (1000)").await;
    assert!(still(&databases, sql, before));
    run(&mut b, "COMMIT").await;
    assert!(!still(&databases, sql, before));
    let before = version(&mut a, sql).await;
    run(&mut b, "BEGIN").await;
    run(&mut b, "INSERT INTO u VALUES (2)").await;
    run(&mut a, "INSERT INTO t VALUES (1001)").await;
    assert!(still(&databases, sql, before));
    run(&mut b, "COMMIT").await;
    assert!(!still(&databases, sql, before));
    assert_ne!(version(&mut a, sql).await, before);
    a.close().await;
    b.close().await;
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_change_by_itself_is_never_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    let mut a = session(&databases, "a").await;
    run_all(&mut a, &TABLES).await;
    run_all(
        &mut a,
        &[
            "CREATE SEQUENCE q",
            "CREATE UNLOGGED TABLE unlogged (n int)",
            "CREATE TEMPORARY TABLE temporary (n int)",
            "CREATE TABLE times (d date, z timestamptz, s text)",
            "CREATE FUNCTION reads() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM t'",
            "CREATE FUNCTION double(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * $1'",
            "CREATE DOMAIN positive AS int CHECK (value > 0)",
            "CREATE VIEW clock AS SELECT now()",
        ],
    )
    .await;
    for sql in [
        "SELECT now()",
        "SELECT CURRENT_DATE",
        "SELECT LOCALTIMESTAMP",
        "SELECT * FROM clock",
        "SELECT age(z) FROM times",
        "SELECT 'now'::timestamptz",
        "SELECT date 'to' \n 'day'",
        "SELECT date E'\\x6eow'",
        "SELECT s::date FROM times",
        "SELECT '{now}'::date[]",
        "SELECT '12:00 Europe/Paris'::timetz",
        "SELECT z::timetz FROM times",
        "SELECT random()",
        "SELECT clock_timestamp()",
        "SELECT nextval('q')",
        "SELECT last_value FROM q",
        "SELECT txid_current()",
        "SELECT pg_backend_pid()",
        "SELECT current_database()",
        "SELECT current_catalog",
        "SELECT * FROM unlogged",
        "SELECT * FROM temporary",
        "SELECT * FROM pg_class",
        "SELECT * FROM pg_stat_activity",
        "SELECT * FROM information_schema.tables",
        "SELECT ctid FROM t",
        "SELECT xmax, id FROM t",
        "SELECT * FROM t TABLESAMPLE SYSTEM (50)",
        "SELECT * FROM t FOR SHARE",
        "SELECT reads()",
        "SELECT id::positive FROM t",
        "SELECT pg_relation_size('t')",
        "WITH w AS (INSERT INTO u VALUES (99) RETURNING id) SELECT * FROM w",
        "INSERT INTO u VALUES (100)",
        "SHOW work_mem",
        "EXPLAIN SELECT 1",
        "SELECT * FROM no_such_table",
        "SELECT 1; SELECT 2",
        "",
        "BEGIN",
        "SELECT jsonb_populate_record(NULL::times, '{\"d\": \"now\"}')",
        "SELECT x FROM json_to_record('{\"x\": \"now\"}') AS r(x date)",
        "SELECT * FROM ROWS FROM (generate_series(1, 2), json_to_record('{}') AS (x date)) f",
        "SELECT query_to_xml('SELECT 1', true, true, '')",
    ] {
        never(&mut a, sql).await;
    }
    for sql in [
        "SELECT double(id), known.s FROM t JOIN u known USING (id)",
        "SELECT * FROM times WHERE d > '2020-01-01' AND z < timestamptz '2030-01-01' - interval '1 day'",
        "SELECT to_char(z, 'YYYY'), date_trunc('day', z), z::date, z AT TIME ZONE 'UTC' FROM times",
        "SELECT json_agg(t), jsonb_build_object('a', count(*)), array_agg(id ORDER BY id) FROM t",
        "SELECT current_user, session_user, current_schema, current_setting('my.claims', true)",
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT * FROM r",
        "SELECT id, row_number() OVER (PARTITION BY n % 3 ORDER BY id), rank() OVER w FROM t WINDOW w AS (ORDER BY n)",
        "SELECT n % 2, count(*) FILTER (WHERE id > 3) FROM t GROUP BY ROLLUP (1) HAVING count(*) > 1 ORDER BY 1",
        "SELECT * FROM t WHERE (id, n) > (5, 5) AND s LIKE 'row %' AND n IN (6, 7, 8) ORDER BY id LIMIT 3 OFFSET 1",
        "SELECT * FROM (VALUES (1), (2)) x UNION SELECT id FROM t EXCEPT SELECT 3 INTERSECT SELECT 4",
        "SELECT CASE WHEN EXISTS (SELECT FROM u) THEN 'a' ELSE s END, coalesce(s, 'b'), greatest(n, 1) FROM t",
        "SELECT x, n::text || 'a', id::numeric(5, 2) FROM t, LATERAL generate_series(1, t.id % 3) x",
        "SELECT '{\"a\": 1}'::jsonb -> 'a', s::json FROM t WHERE false",
    ] {
        version(&mut a, sql).await;
    }
    // Whether a parameter means the time of now depends on its type.
    let sql = "SELECT * FROM times WHERE d > $1 OR s = $2";
    for (params, is_known) in [
        (["2020-01-01", "now "], false),
        (["Today", "x"], false),
        (["2020-01-01", "x"], true),
    ] {
        let key = QueryKey::new("", [], sql, params.map(Some));
        let currency = a.currency(&key, sql).await.unwrap();
        assert_eq!(
            matches!(currency, Currency::Version(_)),
            is_known,
            "{params:?}: {currency:?}"
        );
    }
    // Somebody has made a cast to JSON, which may do anything.
    let sql = "SELECT to_jsonb(id) FROM t";
    version(&mut a, sql).await;
    run_all(
        &mut a,
        &[
            "CREATE TYPE mood AS ENUM ('good')",
            "CREATE FUNCTION mood_json(mood) RETURNS json LANGUAGE sql IMMUTABLE AS $$ SELECT '1'::json $$",
            "CREATE CAST (mood AS json) WITH FUNCTION mood_json(mood)",
        ],
    )
    .await;
    assert_eq!(
        never(&mut a, sql).await,
        Uncacheable::Function("to_jsonb".into())
    );
    run(&mut a, "BEGIN").await;
    assert_eq!(never(&mut a, "SELECT 1").await, Uncacheable::InTransaction);
    a.close().await;
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sleep_keeps_what_is_known_and_a_crash_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), drowsy()).await;
    let mut a = session(&databases, "a").await;
    run_all(&mut a, &TABLES).await;
    let sql = "SELECT * FROM t ORDER BY id";
    let mut before = version(&mut a, sql).await;
    a.close().await;
    for round in 0..3 {
        all_asleep(&databases).await;
        assert!(still(&databases, sql, before), "round {round}");
        assert_eq!(databases.count().unwrap().1, 0);
        let mut a = session(&databases, "a").await;
        run(&mut a, "INSERT INTO u VALUES ((SELECT count(*) FROM u))").await;
        assert!(still(&databases, sql, before), "round {round}");
        assert_eq!(version(&mut a, sql).await, before);
        run(&mut a, "SET synchronous_commit = off").await;
        run(&mut a, "UPDATE t SET n = n + 1").await;
        assert!(!still(&databases, sql, before));
        before = version(&mut a, sql).await;
        a.close().await;
    }
    // Settings that are changed, and hold from whenever on.
    let mut a = session(&databases, "a").await;
    run(&mut a, "ALTER SYSTEM SET DateStyle = 'German'").await;
    assert!(!still(&databases, sql, before));
    assert_eq!(never(&mut a, sql).await, Uncacheable::Settings);
    a.close().await;
    all_asleep(&databases).await;
    assert!(!still(&databases, sql, before));
    let mut a = session(&databases, "a").await;
    let before = version(&mut a, sql).await;
    assert!(still(&databases, sql, before));
    // A session that is cut off in the middle costs the database its backend.
    let mut b = session_as(&databases, "a", "").await;
    let cut = tokio::time::timeout(
        Duration::from_millis(200),
        b.query("SELECT pg_sleep(60)", &[]),
    );
    assert!(cut.await.is_err());
    drop(b);
    assert!(!still(&databases, sql, before));
    drop(a);
    databases.close().await.unwrap();
    drop(databases);
    // Another process knows nothing of it.
    let databases = open(folder.path(), drowsy()).await;
    assert!(!still(&databases, sql, before));
    let options = SessionOptions::default();
    let mut a = databases.session(&name("a"), options).await.unwrap();
    assert_ne!(version(&mut a, sql).await, before);
    a.close().await;
    databases.close().await.unwrap();
}
