//! Random programs of several sessions through a pool with a cache: what is read is what is committed at the origin.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dormouse_pooler::{CacheStatus, Caching};
use harness::wired::{Wired, kinds, values};
use harness::{Pooled, Postgres, limited};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use wire::pg::{Format, Target};

const SESSIONS: usize = 4;

/// Nobody waits longer for a lock, so that programs whose sessions hold each other up go on.
const LOCK_TIMEOUT: &str = "lock_timeout=30";

const RESET: &str = "drop schema if exists s1 cascade; drop schema if exists s2 cascade; create schema s1; create schema s2;
    create table s1.t (n int primary key, v int); create table s2.t (n int primary key, v int);
    insert into s1.t values (1, 0), (2, 0), (3, 0); insert into s2.t values (1, 10), (2, 10);
    create table s1.child (n int references s1.t on delete cascade on update cascade, v int);
    insert into s1.child values (1, 0), (2, 0), (3, 0);
    create view s1.view as select t.n, t.v + c.v as v from s1.t join s1.child c using (n);
    create table s1.whole (n int) partition by range (n);
    create table s1.part partition of s1.whole for values from (0) to (1000);
    create table s1.log (n int);
    create function s1.log() returns trigger language plpgsql as $$ begin insert into s1.log values (1); return null; end $$;
    create trigger log after insert on s1.part for each statement execute function s1.log();
    create function s1.act(x int) returns int language plpgsql as $$ begin update s1.t set v = v + x; return x; end $$;
    create table s1.guarded (n int, owner text); insert into s1.guarded values (1, 'r1'), (2, 'r2'), (3, 'r1');
    alter table s1.guarded enable row level security; create policy p on s1.guarded using (owner = current_user);
    create materialized view s1.mat as select sum(v) as v from s1.t;
    grant usage on schema s1, s2 to r1, r2; grant all on all tables in schema s1, s2 to r1, r2;";

const READS: &[&str] = &[
    "select n, v from t order by n",
    "select sum(v), count(*) from s1.t",
    "select n, v from s1.child order by n",
    "select * from s1.view order by n",
    "select * from s1.view order by n",
    "select * from s1.view order by n",
    "select count(*) from s1.whole",
    "select count(*) from s1.part",
    "select count(*) from s1.log",
    "select n from s1.guarded order by n",
    "select v from s1.mat",
    "with x as (select * from s1.t) select max(v) from x join s2.t using (n)",
];

/// What changes something of which the pool knows what it is.
const WRITES: &[&str] = &[
    "begin",
    "begin",
    "begin",
    "commit",
    "commit",
    "commit",
    "rollback",
    "savepoint s",
    "rollback to s",
    "select 1/0",
    "update t set v = v + 1 where n = 1",
    "update s1.t set v = v + 1 where n = 2",
    "update s2.t set v = v + 1",
    "update s1.child set v = v + 1 where n = 1",
    "update s1.t set n = n + 10 where n = 3",
    "delete from s1.t where n in (3, 13)",
    "insert into s1.t values (3, 5) on conflict do nothing",
    "insert into s1.child values (3, 1)",
    "insert into s1.whole values (1)",
    "truncate s1.log",
    "with w as (update s1.t set v = v + 1 where n = 1 returning n) select * from w",
    "update s1.guarded set n = n + 1",
    "refresh materialized view s1.mat",
    "begin; update s1.t set v = v + 1 where n = 1; commit",
    "update s1.t set v = v + 1 where n = 2; update s2.t set v = v + 1",
    "rollback; update s1.t set v = v + 1 where n = 1",
];

/// Settings, changes of the catalog, and what may write anything.
const RARE: &[&str] = &[
    "select s1.act(1)",
    "do $$ begin update s1.t set v = v + 1 where n = 1; end $$",
    "insert into s1.part values (2)",
    "set search_path = s1",
    "set search_path = s2",
    "set role r1",
    "set role r2",
    "reset role",
    "set local search_path = s2",
    "reset all",
    "create or replace view s1.view as select t.n, t.v * 2 + c.v as v from s1.t join s1.child c using (n)",
    "create or replace view s1.view as select t.n, t.v + c.v as v from s1.t join s1.child c using (n)",
    "create or replace view s1.view as select t.n, t.v * 2 + c.v as v from s1.t join s1.child c using (n)",
    "create or replace view s1.view as select t.n, t.v + c.v as v from s1.t join s1.child c using (n)",
    "create or replace view s1.view as select t.n, t.v * 2 + c.v as v from s1.t join s1.child c using (n)",
    "create or replace view s1.view as select t.n, t.v + c.v as v from s1.t join s1.child c using (n)",
    "alter table s1.guarded disable row level security",
    "alter table s1.guarded enable row level security",
    "alter table s1.log add column if not exists m int",
    "revoke select on s1.t from r1",
    "grant select on s1.t to r1",
];

#[derive(Debug, Clone)]
struct Step {
    session: usize,
    sql: &'static str,
    /// How it is asked: 0 simple, 1 extended, 2 by a name.
    flow: usize,
}

fn step() -> impl Strategy<Value = Step> {
    let read = proptest::sample::select(READS);
    let write = proptest::sample::select(WRITES);
    let rare = proptest::sample::select(RARE);
    let sql = prop_oneof![30 => read, 3 => write, 2 => rare];
    let flow = prop_oneof![3 => Just(0), 1 => Just(1), 1 => Just(2)];
    (0..SESSIONS, sql, flow).prop_map(|(session, sql, flow)| Step { session, sql, flow })
}

async fn run(wired: &mut Wired, sql: &str, flow: usize) -> (String, u8) {
    let frames = match flow {
        _ if sql.contains(';') => wired.query(sql).await,
        0 => wired.query(sql).await,
        1 => {
            wired.parse("", sql, &[]).bind("", &[], Format::Text);
            wired.describe(Target::Portal, "").execute(0).sync().await
        }
        _ => {
            // Each as a batch of its own, as drivers do.
            wired.parse("s", sql, &[]).describe(Target::Statement, "s");
            let described = wired.sync().await;
            match kinds(&described).contains('E') {
                true => {
                    wired.close("s").sync().await;
                    described
                }
                false => {
                    wired.bind("s", &[], Format::Text);
                    let frames = wired.execute(0).sync().await;
                    wired.close("s").sync().await;
                    frames
                }
            }
        }
    };
    let status = frames.last().unwrap().body()[0];
    (values(&frames), status)
}

/// An error that says no more than that another session was in the way.
fn was_held_up(told: &str) -> bool {
    ["55P03", "40P01"].iter().any(|code| told.starts_with(code))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_is_what_is_committed() {
    let Some(postgres) = Postgres::start(&native::Options {
        settings: vec![LOCK_TIMEOUT.to_owned(), "fsync=off".to_owned()],
        ..native::Options::default()
    }) else {
        return;
    };
    let beside = postgres.session().await;
    beside
        .batch_execute("create role r1; create role r2")
        .await
        .unwrap();
    let caching = Caching {
        max_age: 3600,
        ..Caching::default()
    };
    let programs = std::env::var("DORMOUSE_CACHE_PROGRAMS").map_or(8, |text| text.parse().unwrap());
    let mut runner = TestRunner::new(Config {
        rng_seed: RngSeed::Fixed(11),
        ..Config::default()
    });
    let pooled = Pooled::cached(postgres.origin(), limited(SESSIONS), caching).await;
    let mut compared = 0;
    let mut alone = Wired::connect(postgres.native.address).await;
    for program in 0..programs {
        beside.batch_execute(RESET).await.unwrap();
        // That was done elsewhere.
        pooled.pool.purge();
        let steps = proptest::collection::vec(step(), 300);
        let steps = steps.new_tree(&mut runner).unwrap().current();
        let mut sessions = Vec::new();
        for _ in 0..SESSIONS {
            let mut session = Wired::connect(pooled.address).await;
            session.query("set search_path = s1").await;
            sessions.push((session, b'I'));
        }
        for (at, step) in steps.iter().enumerate() {
            let (session, status) = &mut sessions[step.session];
            let was_free = *status == b'I';
            let (got, now) = run(session, step.sql, step.flow).await;
            *status = now;
            if !was_free || !READS.contains(&step.sql) || was_held_up(&got) {
                continue;
            }
            // The same question, asked of the origin by a session of the same settings.
            let path = values(&session.query("show search_path").await);
            let role = values(&session.query("select current_user").await);
            let set = format!("reset role; set search_path = {path}; set role {role}");
            alone.query(&set).await;
            let expected = values(&alone.query(step.sql).await);
            if was_held_up(&expected) {
                continue;
            }
            compared += 1;
            let told = || {
                let before = steps[..=at].iter();
                let lines =
                    before.map(|step| format!("{} ({}): {}", step.session, step.flow, step.sql));
                lines.collect::<Vec<_>>().join("\n")
            };
            assert_eq!(got, expected, "program {program}:\n{}", told());
        }
        // What is left open is rolled back before the next begins.
        for (mut session, _) in sessions {
            session.query("rollback").await;
        }
    }
    let hits = pooled.pool.cache_figures().with(CacheStatus::Hit);
    assert!(hits > compared / 6, "{hits} hits in {compared} reads");
}

/// Ways to count one up; `{}` is the table. After the last of them nobody knows what has changed.
const INCREMENTS: [&[&str]; 7] = [
    &["update {} set v = v + 1 returning v"],
    &["begin", "update {} set v = v + 1 returning v", "commit"],
    &[
        "begin",
        "savepoint s",
        "update {} set v = v + 1 returning v",
        "release s",
        "end",
    ],
    &["with w as (update {} set v = v + 1 returning v) select v from w"],
    &["update {}_view set v = v + 1 returning v"],
    &["begin; update {} set v = v + 1 returning v; commit"],
    &["select {}_up()"],
];

const COUNTERS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_older_than_an_acknowledged_commit() {
    let Some(postgres) = Postgres::start(&native::Options {
        settings: vec!["fsync=off".to_owned()],
        ..native::Options::default()
    }) else {
        return;
    };
    let beside = postgres.session().await;
    for at in 0..COUNTERS {
        let sql = format!(
            "create table c{at} (v int); insert into c{at} values (0); create view c{at}_view as select * from c{at};
             create function c{at}_up() returns int language sql as 'update c{at} set v = v + 1 returning v'"
        );
        beside.batch_execute(&sql).await.unwrap();
    }
    let caching = Caching {
        max_age: 3600,
        ..Caching::default()
    };
    let pooled = Pooled::cached(postgres.origin(), limited(8), caching).await;
    let acknowledged: Arc<[AtomicU64; COUNTERS]> = Arc::default();
    let is_over = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for at in 0..COUNTERS {
        let (address, known) = (pooled.address, Arc::clone(&acknowledged));
        let over = Arc::clone(&is_over);
        tasks.push(tokio::spawn(async move {
            let mut writer = Wired::connect(address).await;
            let mut turn = at;
            while !over.load(Ordering::Relaxed) {
                turn += 1;
                let mut value = 0;
                let known_ways = INCREMENTS.len() - usize::from(turn % 50 != 0);
                for sql in INCREMENTS[turn % known_ways] {
                    let sql = sql.replace("{}", &format!("c{at}"));
                    let told = run(&mut writer, &sql, turn % 3).await.0;
                    value = told.parse().unwrap_or(value);
                }
                assert!(value > 0);
                known[at].fetch_max(value, Ordering::SeqCst);
                if turn % 40 == 0 {
                    // One that leaves amid a commit, which may have happened or not.
                    let sql = format!("update c{at} set v = v + 1");
                    wire::pg::frontend::query(&mut writer.out, sql.as_bytes()).unwrap();
                    writer.send().await;
                    writer = Wired::connect(address).await;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }));
    }
    for reader in 0..6_usize {
        let (address, known) = (pooled.address, Arc::clone(&acknowledged));
        let over = Arc::clone(&is_over);
        tasks.push(tokio::spawn(async move {
            let mut session = Wired::connect(address).await;
            let mut turn = reader;
            let mut seen = [0; COUNTERS];
            while !over.load(Ordering::Relaxed) {
                turn += 1;
                let at = turn % COUNTERS;
                let least = known[at].load(Ordering::SeqCst);
                let sql = match turn % 7 {
                    0 => format!("select v from c{at}_view"),
                    _ => format!("select v from c{at}"),
                };
                let told = run(&mut session, &sql, turn % 3).await.0;
                let value: u64 = told.parse().unwrap_or_else(|_| panic!("{told}"));
                assert!(
                    value >= least,
                    "c{at}: {value} was read after {least} was acknowledged"
                );
                // Nor does a session go back in time.
                assert!(
                    value >= seen[at],
                    "c{at}: {value} was read after {}",
                    seen[at]
                );
                seen[at] = value;
            }
        }));
    }
    // Changes of the catalog amid all that.
    for n in 0..40 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        if n % 8 == 7 {
            Wired::connect(pooled.address)
                .await
                .query(&format!("create table made{n} (n int)"))
                .await;
        }
        if tasks.iter().any(tokio::task::JoinHandle::is_finished) {
            break;
        }
    }
    is_over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let figures = pooled.pool.cache_figures();
    assert!(figures.with(CacheStatus::Hit) > 100, "{figures:?}");
}
