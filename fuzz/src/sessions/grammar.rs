//! Statements of sessions. `#` is a small number, `@` the session's own word.

use sim::Random;

use super::op::{Hold, Op};

/// Settings, and values that they may have; some are wrong.
const SETTINGS: [(&str, &[&str]); 17] = [
    ("my.a", &["'@'", "'b'", "''"]),
    ("my.b", &["'@ and more'", "1"]),
    ("work_mem", &["'1MB'", "'2MB'", "'nonsense'", "DEFAULT"]),
    (
        "DateStyle",
        &["'ISO, MDY'", "'German'", "'SQL, DMY'", "'ISO, DMY'"],
    ),
    ("IntervalStyle", &["'postgres'", "'iso_8601'", "'no_such'"]),
    (
        "TimeZone",
        &["'UTC'", "'Asia/Tokyo'", "'America/New_York'", "'+3'"],
    ),
    ("search_path", &["'@'", "'@_b', '@'", "no_such", "DEFAULT"]),
    ("extra_float_digits", &["0", "1", "-5"]),
    ("bytea_output", &["'hex'", "'escape'"]),
    (
        "default_transaction_isolation",
        &["'serializable'", "'read committed'"],
    ),
    ("default_transaction_read_only", &["off"]),
    (
        "client_min_messages",
        &["'notice'", "'warning'", "'error'", "'log'"],
    ),
    ("standard_conforming_strings", &["on", "off"]),
    ("application_name", &["'@'", "'another'"]),
    (
        "plan_cache_mode",
        &["'auto'", "'force_generic_plan'", "'force_custom_plan'"],
    ),
    ("statement_timeout", &["'60s'", "0"]),
    ("row_security", &["on", "off"]),
];

/// Statements that leave nothing that only their process has.
const FREE: [&str; 75] = [
    "SELECT '@'",
    "SELECT current_setting('my.a', true), current_setting('my.b', true), current_setting('search_path')",
    "SELECT name, setting, source, reset_val FROM pg_settings WHERE name IN ('work_mem', 'DateStyle', \
     'TimeZone', 'my.a', 'my.b', 'search_path', 'application_name', 'extra_float_digits', 'row_security', \
     'bytea_output', 'role', 'session_authorization', 'statement_timeout') ORDER BY name",
    "SELECT '2024-02-03 04:05:06+00'::timestamptz, '1 day 2 hours'::interval, '\\xabcd'::bytea, 1.1::float8 / 3",
    "SELECT '01/02/2024'::date, 'a\\\\b', E'c\\\\d'",
    "SELECT current_user, session_user, current_schema(), current_schemas(false)",
    "SHOW transaction_isolation",
    "RESET ALL",
    "RESET ALL",
    "DISCARD PLANS",
    "DISCARD SEQUENCES",
    "DISCARD ALL",
    "PREPARE p# AS SELECT '@', # AS n",
    "PREPARE p# (int) AS SELECT $1 + #, '@'",
    "PREPARE p# (text, date) AS SELECT $1 || '@', $2, '01/02/2024'::date",
    "PREPARE p# AS SELECT * FROM t#",
    "PREPARE p# (int, text) AS INSERT INTO t# VALUES ($1, $2) RETURNING *",
    "PREPARE p# AS SELECT 'a\\\\b', '1 day'::interval, '2024-01-01 12:00'::timestamptz",
    "PREPARE p# (no_such_type) AS SELECT 1",
    "PREPARE p# AS SELECT count(*), current_setting('my.a', true) FROM generate_series(1, #)",
    "EXECUTE p#",
    "EXECUTE p#",
    "EXECUTE p# (#)",
    "EXECUTE p# (#)",
    "EXECUTE p# ('x', '03/04/2024')",
    "EXECUTE p# (#, '@')",
    "EXECUTE s#",
    "EXECUTE s# (#)",
    "DEALLOCATE p#",
    "DEALLOCATE s#",
    "DEALLOCATE ALL",
    "SELECT name, statement, parameter_types, result_types, from_sql FROM pg_prepared_statements ORDER BY name",
    "CREATE TABLE t# (n int, s text)",
    "CREATE TABLE t# (n int PRIMARY KEY, s text DEFAULT '@')",
    "DROP TABLE t#",
    "ALTER TABLE t# ADD x int DEFAULT #",
    "ALTER TABLE t# RENAME TO t#",
    "INSERT INTO t# VALUES (#, '@') RETURNING *",
    "UPDATE t# SET s = s || '!' WHERE n = #",
    "DELETE FROM t# WHERE n = #",
    "SELECT * FROM t# ORDER BY n, s",
    "TRUNCATE t#",
    "CREATE SEQUENCE q#",
    "CREATE SEQUENCE q# CACHE 5 INCREMENT 3",
    "ALTER SEQUENCE q# RESTART 100",
    "DROP SEQUENCE q#",
    "SELECT nextval('q#')",
    "SELECT nextval('q#')",
    "SELECT nextval('q#'), nextval('q#'), lastval()",
    "SELECT currval('q#')",
    "SELECT currval('q#')",
    "SELECT lastval()",
    "SELECT lastval()",
    "SELECT setval('q#', #0)",
    "SELECT setval('q#', #0, false)",
    "SELECT last_value, is_called FROM q#",
    "SET ROLE fuzz_one",
    "SET ROLE fuzz_two",
    "SET ROLE NONE",
    "RESET ROLE",
    "SET SESSION AUTHORIZATION fuzz_one",
    "SET SESSION AUTHORIZATION postgres",
    "NOTIFY news, '@'",
    "SELECT pg_notify('more', '@')",
    "UNLISTEN *",
    "SELECT 1 / 0",
    "SELECT no_such",
    "SELEC",
    "",
    "DO $$ BEGIN PERFORM set_config('my.a', 'from DO', false); END $$",
    "DO $$ BEGIN PERFORM set_config('my.b', 'lost', false); RAISE EXCEPTION 'as it should'; END $$",
    "DO $$ BEGIN RAISE NOTICE 'n of @'; END $$",
    "COPY (SELECT n, '@' FROM generate_series(1, #) AS n) TO STDOUT",
    "SET my.a = 'one'; SELECT 1 / 0; SET my.a = 'two'",
    "SELECT n, length(s) FROM public.common WHERE n < 3 ORDER BY n",
];

/// Those of a transaction.
const AMID: [(&str, Hold); 14] = [
    ("SAVEPOINT a", Hold::Nothing),
    ("SAVEPOINT b", Hold::Nothing),
    ("ROLLBACK TO a", Hold::Nothing),
    ("ROLLBACK TO b", Hold::Nothing),
    ("RELEASE a", Hold::Nothing),
    ("COMMIT", Hold::End),
    ("COMMIT", Hold::End),
    ("ROLLBACK", Hold::End),
    ("COMMIT AND CHAIN", Hold::Nothing),
    (
        "DECLARE c CURSOR FOR SELECT n, '@' FROM generate_series(1, 9) AS n",
        Hold::Nothing,
    ),
    ("FETCH # FROM c", Hold::Nothing),
    ("MOVE # IN c", Hold::Nothing),
    ("CLOSE c", Hold::Nothing),
    ("SELECT pg_try_advisory_xact_lock(#)", Hold::Nothing),
];

/// What binds a session to its process.
const BINDING: [&str; 20] = [
    "CREATE TEMP TABLE t# (n int, s text)",
    "CREATE TEMP TABLE t# ON COMMIT DELETE ROWS AS SELECT # AS n, '@'::text AS s",
    "CREATE TEMP TABLE t# ON COMMIT DROP AS SELECT # AS n, '@'::text AS s",
    "CREATE TEMP SEQUENCE q#",
    "DISCARD TEMP",
    "SELECT pg_try_advisory_lock(#)",
    "SELECT pg_try_advisory_lock_shared(#)",
    "SELECT pg_advisory_unlock(#)",
    "SELECT pg_advisory_unlock_all()",
    "SELECT locktype, objid, mode, granted FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() \
     ORDER BY objid, mode",
    "LISTEN news",
    "LISTEN more",
    "UNLISTEN news",
    "SELECT * FROM pg_listening_channels() ORDER BY 1",
    "DECLARE h CURSOR WITH HOLD FOR SELECT n, '@' FROM generate_series(1, 9) AS n",
    "FETCH # FROM h",
    "FETCH # FROM h",
    "CLOSE h",
    "CLOSE ALL",
    "SELECT name, statement, is_holdable FROM pg_cursors ORDER BY name",
];

/// A statement that leaves the session free.
pub fn free(random: &mut Random, word: &str) -> Op {
    let text = match random.below(10) {
        0..4 => setting(random),
        _ => (*random.pick(&FREE)).to_owned(),
    };
    Op::query(&fill(&text, random, word), Hold::Nothing)
}

/// One that begins a transaction.
pub fn begin(random: &mut Random) -> Op {
    let texts = [
        "BEGIN",
        "BEGIN",
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        "START TRANSACTION READ WRITE",
    ];
    let text = *random.pick(&texts);
    Op::query(text, Hold::Begin)
}

/// One of a transaction.
pub fn amid(random: &mut Random, word: &str) -> Op {
    let (text, hold) = *random.pick(&AMID);
    Op::query(&fill(text, random, word), hold)
}

/// One that binds, or is about what is bound.
pub fn binding(random: &mut Random, word: &str) -> Op {
    let text = *random.pick(&BINDING);
    Op::query(&fill(text, random, word), Hold::Bind)
}

fn setting(random: &mut Random) -> String {
    let (name, values) = *random.pick(&SETTINGS);
    let value = *random.pick(values);
    match random.below(10) {
        0 => format!("SHOW {name}"),
        1 => format!("RESET {name}"),
        2 => format!("SET LOCAL {name} = {value}"),
        3 if value.starts_with('\'') => format!("SELECT set_config('{name}', {value}, #::int = 1)"),
        _ => format!("SET {name} = {value}"),
    }
}

pub(super) fn fill(text: &str, random: &mut Random, word: &str) -> String {
    let mut filled = String::new();
    for letter in text.chars() {
        match letter {
            '@' => filled.push_str(word),
            '#' => filled.push_str(&random.within(1..=3).to_string()),
            letter => filled.push(letter),
        }
    }
    filled
}
