//! Random reads, writes, definitions, roles, sleeps and crashes over several sessions: what is said to be the same
//! as before is the same.
//!
//! `CURRENCY_SEED` and `CURRENCY_STEPS` choose another history and its length.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod harness;

use std::collections::HashMap;
use std::time::Duration;

use dormouse_database::{Currency, Databases, Limits, PgError, QueryKey, ResultVersion, Session};
use harness::{all_asleep, name, open, run_all, session, session_as};

const TABLES: [&str; 16] = [
    "CREATE TABLE t (id int PRIMARY KEY, s text, n int)",
    "INSERT INTO t SELECT i, 'row ' || i, i FROM generate_series(1, 50) i",
    "CREATE TABLE u (id int PRIMARY KEY, s text)",
    "INSERT INTO u VALUES (1, 'one')",
    "CREATE VIEW v AS SELECT id, n FROM t WHERE n > 5",
    "CREATE TABLE p (id int, d int) PARTITION BY RANGE (d)",
    "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)",
    "CREATE TABLE owned (owner text, x int)",
    "INSERT INTO owned SELECT CASE i % 2 WHEN 0 THEN 'ann' ELSE 'bob' END, i FROM generate_series(1, 9) i",
    "ALTER TABLE owned ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY own ON owned USING (owner = current_user)",
    "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS c FROM t",
    "CREATE FUNCTION f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + 1'",
    "CREATE ROLE ann LOGIN",
    "CREATE ROLE bob LOGIN",
    "GRANT SELECT ON ALL TABLES IN SCHEMA public TO ann, bob",
];

const QUERIES: [&str; 12] = [
    "SELECT * FROM t ORDER BY id",
    "SELECT count(*), sum(length(s)) FROM t",
    "SELECT * FROM u ORDER BY id",
    "SELECT t.id, u.s FROM t JOIN u USING (id) ORDER BY 1",
    "SELECT * FROM v ORDER BY id",
    "SELECT * FROM p ORDER BY id, d",
    "SELECT count(*) FROM p WHERE d < 5",
    "SELECT * FROM owned ORDER BY x",
    "SELECT c FROM m",
    "SELECT sum(f(n)) FROM t",
    "SELECT current_user, has_table_privilege('u', 'SELECT')",
    "SELECT EXISTS (SELECT FROM u WHERE s LIKE 'a%'), (SELECT max(x) FROM owned)",
];

/// Statements of writers; `#` is a random number.
const CHANGES: [&str; 44] = [
    "UPDATE t SET n = # WHERE id = # % 60",
    "UPDATE t SET n = n WHERE id = #",
    "INSERT INTO t VALUES (#, 'a#', #)",
    "DELETE FROM t WHERE id = #",
    "INSERT INTO u VALUES (#, 'a#') ON CONFLICT (id) DO UPDATE SET s = u.s || '+'",
    "UPDATE u SET s = (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 100 + #) i) WHERE id = 1",
    "DELETE FROM u WHERE id = #",
    "INSERT INTO p VALUES (#, # % 20)",
    "UPDATE p SET d = (d + 7) % 20",
    "INSERT INTO owned VALUES ('ann', #)",
    "UPDATE owned SET owner = CASE owner WHEN 'ann' THEN 'bob' ELSE 'ann' END WHERE x = # % 10",
    "MERGE INTO u USING t ON t.id = u.id WHEN MATCHED THEN UPDATE SET s = t.s \
     WHEN NOT MATCHED AND t.id < 3 THEN INSERT VALUES (t.id, t.s)",
    "SELECT * FROM t WHERE id = # FOR UPDATE",
    "WITH d AS (DELETE FROM p WHERE id = # RETURNING *) INSERT INTO p SELECT id + 1, d FROM d",
    "TRUNCATE u",
    "TRUNCATE p1",
    "VACUUM t",
    "VACUUM FULL t",
    "ANALYZE",
    "CHECKPOINT",
    "REFRESH MATERIALIZED VIEW m",
    "CREATE OR REPLACE VIEW v AS SELECT id, n FROM t WHERE n > #",
    "CREATE OR REPLACE FUNCTION f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + #'",
    "CREATE TABLE IF NOT EXISTS p2 PARTITION OF p FOR VALUES FROM (10) TO (20)",
    "DROP TABLE IF EXISTS p2",
    "ALTER TABLE p DETACH PARTITION p1",
    "ALTER TABLE p ATTACH PARTITION p1 FOR VALUES FROM (0) TO (10)",
    "ALTER TABLE t ADD COLUMN k# int DEFAULT 5",
    "ALTER TABLE t ALTER COLUMN n TYPE bigint",
    "ALTER TABLE t ALTER COLUMN n TYPE int",
    "ALTER POLICY own ON owned USING (owner = current_user AND x > # % 9)",
    "ALTER TABLE owned DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE owned ENABLE ROW LEVEL SECURITY",
    "REVOKE SELECT ON u FROM bob",
    "GRANT SELECT ON u TO bob",
    "ALTER TABLE u RENAME TO u2",
    "ALTER TABLE u2 RENAME TO u",
    "CREATE INDEX ON t (n)",
    "CREATE TEMPORARY TABLE IF NOT EXISTS tmp (n int)",
    "INSERT INTO t SELECT i, 'many', i FROM generate_series(1000 + # * 300, 1300 + # * 300) i",
    "DELETE FROM t WHERE s = 'many'",
    "DO 'BEGIN INSERT INTO u VALUES (#, ''do''); EXCEPTION WHEN OTHERS THEN UPDATE u SET s = ''again''; END'",
    "DO 'BEGIN BEGIN DELETE FROM t WHERE id = #; RAISE EXCEPTION ''no''; EXCEPTION WHEN OTHERS THEN NULL; END; END'",
    "ALTER ROLE ann SET DateStyle = 'German'",
];

const ROLES: [&str; 3] = ["", "ann", "bob"];
const WRITERS: usize = 3;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

type Rows = Vec<Vec<Option<String>>>;

struct World {
    databases: Databases,
    random: Random,
    readers: Vec<Option<Session>>,
    writers: Vec<Option<Session>>,
    /// What each query has answered, by version.
    answers: HashMap<(usize, usize, ResultVersion), Rows>,
    /// How often the same was promised while awake, and while asleep.
    promised: [u32; 2],
    log: Vec<String>,
}

impl World {
    fn key(query: usize, role: usize) -> QueryKey {
        QueryKey::new(ROLES[role], [], QUERIES[query], [])
    }

    /// What is promised of an answer that is known, without waking anyone.
    fn promise(&self, query: usize, role: usize) -> Option<&Rows> {
        let currency = self.databases.currency(&name("a"), &Self::key(query, role));
        match currency.unwrap() {
            Currency::Version(version) => self.answers.get(&(query, role, version)),
            _ => None,
        }
    }

    fn told(&self) -> String {
        let from = self.log.len().saturating_sub(40);
        self.log[from..].join("\n")
    }

    /// A new session, for which the others make room.
    async fn come(&mut self, role: usize) -> Session {
        loop {
            let databases = self.databases.clone();
            let coming =
                tokio::spawn(async move { session_as(&databases, "a", ROLES[role]).await });
            while !coming.is_finished() {
                let others = self.readers.iter_mut().chain(&mut self.writers);
                others.flatten().for_each(Session::share);
                tokio::task::yield_now().await;
            }
            let mut session = coming.await.unwrap();
            match session.query("SET lock_timeout = '5ms'", &[]).await {
                Ok(_) => return session,
                // The last crash has come to it late.
                Err(error) => assert!(is_fatal(&error), "{error}"),
            }
        }
    }

    async fn reader(&mut self, role: usize) -> Session {
        match self.readers[role].take() {
            Some(reader) => reader,
            None => self.come(role).await,
        }
    }

    /// Runs a query, after it was asked as of when its answer is; compares it with what was promised.
    async fn read(&mut self, query: usize, role: usize) {
        let promised = self.promise(query, role).cloned();
        let mut reader = self.reader(role).await;
        // The settings of the role hold for new sessions: theirs is another key.
        let (key, sql) = (Self::key(query, role), QUERIES[query]);
        let Ok(currency) = reader.currency(&key, sql).await else {
            return;
        };
        let rows = match reader.query(sql, &[]).await {
            Ok(result) => result.rows,
            Err(error) => {
                self.log.push(format!("{query} as {role}: {error}"));
                let is_gone = is_fatal(&error);
                assert!(
                    promised.is_none() || is_gone || ["55P03", "53300"].contains(&error.code()),
                    "{error}\n{}",
                    self.told()
                );
                self.readers[role] = (!is_gone).then_some(reader);
                return;
            }
        };
        self.readers[role] = Some(reader);
        self.log.push(format!("{sql} as {role}: {currency:?}"));
        if let Some(promised) = promised {
            assert_eq!(promised, rows, "{sql}\n{}", self.told());
            self.promised[0] += 1;
        }
        if let Currency::Version(version) = currency {
            let before = self.answers.insert((query, role, version), rows.clone());
            assert!(
                before.is_none_or(|before| before == rows),
                "{sql}\n{}",
                self.told()
            );
        }
    }

    async fn write(&mut self, writer: usize) {
        let sql = match self.random.below(10) {
            0 => "BEGIN".to_owned(),
            1 | 2 => "COMMIT".to_owned(),
            3 if self.random.below(2) == 0 => "ROLLBACK".to_owned(),
            3 => "SAVEPOINT s".to_owned(),
            4 if self.random.below(2) == 0 => "ROLLBACK TO s".to_owned(),
            4 => format!(
                "SET synchronous_commit = {}",
                ["on", "off"][self.random.below(2)]
            ),
            _ => {
                let change = CHANGES[self.random.below(CHANGES.len())];
                let number = self.random.below(60).to_string();
                change.replace('#', &number)
            }
        };
        let mut session = match self.writers[writer].take() {
            Some(session) => session,
            None => self.come(0).await,
        };
        let done = session.query(&sql, &[]).await;
        let is_gone = done.as_ref().is_err_and(is_fatal);
        let outcome = done.map_or_else(|error| error.to_string(), |_| "done".to_owned());
        self.log.push(format!("writer {writer}: {sql}: {outcome}"));
        self.writers[writer] = (!is_gone).then_some(session);
    }

    /// Ends all sessions; what is promised while the database sleeps is so when it is awake again.
    async fn sleep(&mut self) {
        for session in self.readers.iter_mut().chain(&mut self.writers) {
            if let Some(session) = session.take() {
                session.close().await;
            }
        }
        all_asleep(&self.databases).await;
        self.log.push("asleep".to_owned());
        let mut promised = Vec::new();
        for query in 0..QUERIES.len() {
            for role in 0..ROLES.len() {
                let rows = self.promise(query, role).cloned();
                promised.extend(rows.map(|rows| (query, role, rows)));
            }
        }
        assert_eq!(self.databases.count().unwrap().1, 0);
        for (query, role, rows) in promised {
            let mut reader = self.reader(role).await;
            let fresh = reader.query(QUERIES[query], &[]).await;
            let fresh = fresh.unwrap_or_else(|error| panic!("{error}\n{}", self.told()));
            assert_eq!(fresh.rows, rows, "{}\n{}", QUERIES[query], self.told());
            self.readers[role] = Some(reader);
            self.promised[1] += 1;
        }
    }

    /// Costs the database its backend in the middle of a statement.
    async fn crash(&mut self) {
        let mut session = self.come(0).await;
        let cut = session.query("SELECT pg_sleep(60)", &[]);
        assert!(
            tokio::time::timeout(Duration::from_millis(20), cut)
                .await
                .is_err()
        );
        drop(session);
        self.log.push("crashed".to_owned());
        // All processes have ended with it; who has one in a transaction lets go of it when it finds out.
        for session in self.readers.iter_mut().chain(&mut self.writers) {
            drop(session.take());
        }
    }
}

fn is_fatal(error: &PgError) -> bool {
    error.severity() != wire::Severity::Error
}

fn number(variable: &str, default: u64) -> u64 {
    let set = std::env::var(variable).ok();
    set.map_or(default, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_to_be_the_same_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        idle: Duration::from_millis(50),
        session_wait_max: Duration::from_secs(2),
        ..Limits::default()
    };
    let databases = open(folder.path(), limits).await;
    let mut first = session(&databases, "a").await;
    run_all(&mut first, &TABLES).await;
    first.close().await;
    let mut world = World {
        databases,
        random: Random(number("CURRENCY_SEED", 0x5EED) | 1),
        readers: ROLES.iter().map(|_| None).collect(),
        writers: (0..WRITERS).map(|_| None).collect(),
        answers: HashMap::new(),
        promised: [0; 2],
        log: Vec::new(),
    };
    for _ in 0..number("CURRENCY_STEPS", 600) {
        match world.random.below(200) {
            0 => world.sleep().await,
            1 => world.crash().await,
            2..70 => {
                let writer = world.random.below(WRITERS);
                world.write(writer).await;
            }
            _ => {
                let (query, role) = (
                    world.random.below(QUERIES.len()),
                    world.random.below(ROLES.len()),
                );
                world.read(query, role).await;
            }
        }
    }
    // Nobody writes any more.
    for writer in &mut world.writers {
        drop(writer.take());
    }
    for _ in 0..2 {
        for query in 0..QUERIES.len() {
            for role in 0..ROLES.len() {
                world.read(query, role).await;
            }
        }
    }
    world.sleep().await;
    // Otherwise nothing was tested.
    let [awake, asleep] = world.promised;
    assert!(awake > 20 && asleep > 2, "{awake} {asleep}");
    world.databases.close().await.unwrap();
}
