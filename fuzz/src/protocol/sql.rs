//! Statements that leave something in a session, or look for it.

use sim::Random;

use super::canary::Canary;

/// Statements in which `@` stands for the canary, `#` for a small number. Names are the same in all
/// sessions, so that one which gets another's things notices.
///
/// Left out, as docs/compatibility.md says what they do: other encodings of the client, statements that
/// end the backend, `pg_terminate_backend`.
const STATEMENTS: [&str; 85] = [
    "SELECT '@'",
    "SELECT '@' || n FROM generate_series(1, #) AS n",
    "SELECT n, repeat('@', 50) FROM generate_series(1, #00) AS n",
    "SET my.canary = '@'",
    "SET my.canary = '@'",
    "SET LOCAL my.canary = '@'",
    "SHOW my.canary",
    "SELECT current_setting('my.canary', true)",
    "SELECT set_config('my.canary', '@', #::int % 2 = 0)",
    "RESET my.canary",
    "SET application_name = '@'",
    "SHOW application_name",
    "SET search_path = '@', public",
    "SHOW search_path",
    "SET work_mem = '#00kB'",
    "SET DateStyle = 'German'",
    "SET TimeZone = 'Asia/Tokyo'",
    "SHOW ALL",
    "RESET ALL",
    "DISCARD ALL",
    "DISCARD TEMP",
    "DISCARD PLANS",
    "DISCARD SEQUENCES",
    "PREPARE p# AS SELECT '@'",
    "PREPARE p# (text, int) AS SELECT $1 || '@', $2",
    "PREPARE q AS INSERT INTO tt VALUES (#, '@')",
    "EXECUTE p#",
    "EXECUTE p# ('@', #)",
    "EXECUTE q",
    "EXECUTE s1",
    "DEALLOCATE p#",
    "DEALLOCATE ALL",
    "SELECT name, statement, parameter_types FROM pg_prepared_statements",
    "CREATE TEMP TABLE tt (n int, c text)",
    "CREATE TEMP TABLE tt AS SELECT 1 AS n, '@' AS c",
    "INSERT INTO tt VALUES (#, '@')",
    "SELECT * FROM tt",
    "DROP TABLE tt",
    "CREATE TEMP SEQUENCE ts; SELECT nextval('ts')",
    "BEGIN",
    "BEGIN",
    "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY",
    "COMMIT",
    "COMMIT",
    "ROLLBACK",
    "COMMIT AND CHAIN",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "RELEASE s",
    "DECLARE cu CURSOR FOR SELECT '@' FROM generate_series(1, 50)",
    "DECLARE cu CURSOR WITH HOLD FOR SELECT n, '@' FROM generate_series(1, 50) AS n",
    "FETCH # FROM cu",
    "MOVE # IN cu",
    "CLOSE cu",
    "CLOSE ALL",
    "SELECT name, statement FROM pg_cursors",
    "COPY tt FROM STDIN",
    "COPY (SELECT '@' FROM generate_series(1, #00)) TO STDOUT",
    "COPY (SELECT '@', n FROM generate_series(1, #0) AS n) TO STDOUT WITH (FORMAT binary)",
    "COPY known TO STDOUT",
    "SELECT nextval('shared')",
    "SELECT currval('shared') > 0",
    "SELECT lastval() > 0",
    "SELECT pg_try_advisory_lock(#)",
    "SELECT pg_try_advisory_xact_lock(#)",
    "SELECT pg_advisory_unlock(#)",
    "SELECT pg_advisory_unlock_all()",
    "LISTEN news",
    "NOTIFY news, 'nobody''s'",
    "UNLISTEN *",
    "SELECT pg_sleep(0.00#)",
    "SET statement_timeout = '#0ms'; SELECT pg_sleep(0.04); RESET statement_timeout",
    "SELECT 1 / (# - #), '@'",
    "SELECT no_such_column FROM known WHERE s = '@'",
    "DO $$ BEGIN RAISE NOTICE '@'; END $$",
    "DO $$ BEGIN RAISE EXCEPTION '@' USING DETAIL = '@'; END $$",
    "SET ROLE other",
    "SET SESSION AUTHORIZATION other",
    "RESET ROLE",
    "SET SESSION AUTHORIZATION DEFAULT",
    "SELECT current_user, session_user, '@'",
    "SELECT pg_cancel_backend(pg_backend_pid())",
    "INSERT INTO scratch VALUES (#, '@')",
    "CREATE DATABASE postgres",
    "DROP DATABASE no_such_database",
];

/// Texts that are no good.
const NONSENSE: [&str; 10] = [
    "",
    ";",
    ";;  ; -- @",
    "/* @",
    "SELEC '@'",
    "SELECT '@",
    "SELECT \"@\"",
    "SELECT $1",
    "\u{1F9A6} @",
    "SELECT E'\\xff@'",
];

/// One statement, or several in one text.
pub fn text(random: &mut Random, canary: &Canary) -> String {
    let count = if random.one_in(8) {
        random.within(2..=4)
    } else {
        1
    };
    let texts: Vec<_> = (0..count).map(|_| statement(random, canary)).collect();
    texts.join("; ")
}

/// One statement.
pub fn statement(random: &mut Random, canary: &Canary) -> String {
    let text = match random.one_in(25) {
        true => random.pick(&NONSENSE),
        false => random.pick(&STATEMENTS),
    };
    fill(text, random, canary)
}

/// Puts canary and numbers where they belong.
pub fn fill(text: &str, random: &mut Random, canary: &Canary) -> String {
    let mut filled = String::new();
    for letter in text.chars() {
        match letter {
            '@' => filled.push_str(canary.as_str()),
            '#' => filled.push_str(&random.within(1..=5).to_string()),
            letter => filled.push(letter),
        }
    }
    filled
}
