//! Each way to write through the pool: the next read is fresh.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod harness;

use dormouse_pooler::{CacheStatus, Caching};
use harness::wired::{Wired, values};
use harness::{Pooled, Postgres, limited, until};
use wire::pg::{Format, Target};

const HIT: CacheStatus = CacheStatus::Hit;

const SCHEMA: &str = "create table a (n int primary key, v int); insert into a select n, 0 from generate_series(1, 5) n;
    create table child (n int primary key references a on delete cascade on update cascade, v int);
    create table grandchild (n int references child on delete set null on update cascade);
    insert into a values (100, 0); insert into child values (100, 0); insert into grandchild values (100);
    create table quiet (n int); insert into quiet values (1);
    create table log (n int);
    create table logged (n int);
    create function log_it() returns trigger language plpgsql as $$ begin insert into log values (new.n); return new; end $$;
    create trigger log_it after insert on logged for each row execute function log_it();
    create table stamped (n int, at timestamptz);
    create function stamp() returns trigger language plpgsql as $$ begin new.at := now(); return new; end $$;
    create trigger stamp before insert or update on stamped for each row execute function stamp();
    create table ruled (n int); create rule r as on insert to ruled do also insert into log values (new.n);
    create table defaulted (n int, m int); 
    create function next_m() returns int language sql as $$ insert into log values (9) returning n $$;
    alter table defaulted alter m set default next_m();
    create domain numbered as int default next_m(); create table of_domain (n int, m numbered);
    create domain checking as int check (next_m() > 0); create table of_check (m checking);
    create view av as select n, v from a; create view avv as select * from av;
    create view log_view as select count(*) as c from log;
    create view acting as select next_m() as m;
    create table whole (n int) partition by range (n);
    create table part1 partition of whole for values from (0) to (10);
    create table part2 partition of whole for values from (10) to (20);
    create table parent (n int); create table heir (m int) inherits (parent);
    create materialized view mat as select sum(v) as v from a;
    create function writes(x int) returns int language plpgsql as $$ begin update a set v = v + x where n = 1; return x; end $$;
    create procedure proc() language sql as $$ update a set v = v + 1 where n = 1 $$;
    create procedure committing() language plpgsql as $$ begin update a set v = v + 1 where n = 1; commit; update a set v = v + 1; end $$;
    create schema other; create table other.a (n int, v int); insert into other.a values (1, 0);
    create function pick() returns int language sql immutable as $$ select 1 $$;
    create table guarded (n int); insert into guarded values (1), (2);
    create role joe; grant all on all tables in schema public to joe;
    create sequence seq;";

/// What is read, by which all that is written shows.
const READS: &[&str] = &[
    "select coalesce(sum(v), 0), count(*) from a",
    "select coalesce(sum(v), 0), count(*), sum(n) from child",
    "select count(n), count(*), sum(n) from grandchild",
    "select * from av order by n limit 3",
    "select sum(v) from avv",
    "select * from log_view",
    "select count(*) from whole",
    "select count(*) from part1",
    "select count(*) from parent",
    "select count(*) from heir",
    "select v from mat",
    "select count(*), count(at) from stamped",
    "select sum(v) from other.a",
    "select count(*) from guarded",
    "with x as (select * from a where n = 1) select v from x",
];

/// Ways to write. A text with `;;` is sent in several messages.
const WRITES: &[&str] = &[
    "insert into a values (6, 1)",
    "update a set v = v + 1",
    "update a set v = 5 where n = 2 returning v",
    "delete from a where n = 3",
    "delete from a where n = 100",
    "update a set n = 101 where n = 4",
    "insert into a values (1, 1) on conflict (n) do update set v = a.v + 1",
    "merge into a using (select 1 as n) s on a.n = s.n when matched then update set v = a.v + 10",
    "with w as (update a set v = v + 1 returning *) select count(*) from w",
    "with w as (delete from child returning *) insert into quiet select n from w",
    "insert into logged values (1)",
    "insert into ruled values (2)",
    "insert into defaulted (n) values (3)",
    "insert into of_domain (n) values (3)",
    "insert into of_check values (4)",
    "select m from acting",
    "insert into stamped (n) values (1)",
    "update avv set v = v + 1 where n = 1",
    "insert into av values (50, 50)",
    "insert into whole values (1), (11)",
    "insert into part1 values (2)",
    "update whole set n = 12 where n = 1",
    "insert into heir values (1, 2)",
    "insert into parent values (1)",
    "truncate part2",
    "truncate grandchild",
    "refresh materialized view mat",
    "select writes(3)",
    "select a.n from a where writes(1) > 0",
    "call proc()",
    "call committing()",
    "do $$ begin update a set v = v + 1; end $$",
    "insert into quiet select writes(1)",
    "explain analyze update a set v = v + 1",
    "begin;;update a set v = v + 1;;commit",
    "begin;;update a set v = v + 1;;rollback",
    "begin;;update a set v = v + 1;;savepoint s;;insert into whole values (3);;rollback to s;;commit",
    "begin;;savepoint s;;update a set v = v + 1;;release s;;end",
    "begin;;update a set v = v + 1;;select 1/0;;commit",
    "begin; update a set v = v + 1; commit",
    "update a set v = v + 1; update other.a set v = v + 1",
    "begin;;update a set v = v + 1;;commit and chain;;update other.a set v = v + 1;;commit",
    "begin;;update a set v = v + 1;;rollback; update other.a set v = v + 1",
    "begin;;update a set v = v + 1;;prepare transaction 'x';;commit prepared 'x'",
    "begin;;update a set v = v + 1;;prepare transaction 'y';;rollback prepared 'y'",
    "prepare p as update a set v = v + 1;;execute p;;deallocate all",
    "begin;;declare c cursor for select n from a for update;;fetch c;;update a set v = 77 where current of c;;commit",
    "set search_path = other;;update a set v = v + 1;;reset search_path",
    "begin;;set local search_path = other;;update a set v = v + 1;;commit",
    "create temp table tmp (n int);;insert into tmp values (1);;discard all",
    "create temp table a (n int, v int);;insert into a values (1);;discard all",
    "alter table guarded add m int",
    "insert into guarded values (3)",
    "create or replace view av as select n, v + 1 as v from a",
    "create or replace view log_view as select count(*) + 1 as c from log",
    "drop table grandchild;;create table grandchild (n int)",
    "alter table part1 rename to part3;;create table part1 (n int)",
    "insert into part3 values (5)",
    "alter table whole detach partition part3",
    "alter table guarded enable row level security;;create policy p on guarded using (n < 2)",
    "create trigger log_it after update on a for each row execute function log_it()",
    "update a set v = v + 1 where n = 2",
    "create table other.child (n int, v int);;set search_path = other, public;;insert into child values (1, 1);;reset search_path",
    "drop view acting",
    "set client_encoding = 'LATIN1';;update a set v = v + 1;;reset client_encoding",
    "lock a; update a set v = 0",
    "select setval('seq', 7)",
    "grant select on a to joe",
];

async fn run(wired: &mut Wired, text: &str, is_extended: bool) {
    for sql in text.split(";;") {
        let frames = match is_extended && !sql.contains(';') {
            true => {
                wired.parse("", sql, &[]).bind("", &[], Format::Text);
                wired.describe(Target::Portal, "").execute(0).sync().await
            }
            false => wired.query(sql).await,
        };
        let told = values(&frames);
        assert!(
            !told.contains("42P01") && !told.contains("42601"),
            "{sql}: {told}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_read_is_fresh() {
    for is_extended in [false, true] {
        let Some(postgres) = Postgres::open() else {
            return;
        };
        let beside = postgres.session().await;
        beside.batch_execute(SCHEMA).await.unwrap();
        let caching = Caching {
            max_age: 3600,
            ..Caching::default()
        };
        let pooled = Pooled::cached(postgres.origin(), limited(3), caching).await;
        let mut alone = Wired::connect(postgres.native.address).await;
        let mut writer = Wired::connect(pooled.address).await;
        let mut reader = Wired::connect(pooled.address).await;
        let mut hits = 0;
        for write in WRITES {
            for turn in 0..2 {
                for sql in READS {
                    let before = pooled.count(HIT);
                    let got = values(&reader.query(sql).await);
                    assert_eq!(got, values(&alone.query(sql).await), "{sql} before {write}");
                    hits += turn * (pooled.count(HIT) - before);
                }
            }
            run(&mut writer, write, is_extended).await;
            for sql in READS {
                let got = values(&reader.query(sql).await);
                assert_eq!(got, values(&alone.query(sql).await), "{sql} after {write}");
            }
        }
        let asked = (WRITES.len() * READS.len()) as u64;
        assert!(
            hits > asked * 9 / 10,
            "{hits} of {asked} came from the cache"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_writes() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    postgres
        .session()
        .await
        .batch_execute("create table t (n int)")
        .await
        .unwrap();
    let pooled = Pooled::cached(postgres.origin(), limited(3), Caching::default()).await;
    let mut reader = Wired::connect(pooled.address).await;
    let sql = "select count(*) from t";
    for is_done in [true, false] {
        let mut writer = Wired::connect(pooled.address).await;
        let before = values(&reader.query(sql).await);
        wire::pg::frontend::query(&mut writer.out, b"copy t from stdin").unwrap();
        writer.until(b'G').await;
        // It is under way, and may end at any time.
        assert_eq!(values(&reader.query(sql).await), before);
        wire::pg::frontend::copy_data(&mut writer.out, b"1\n2\n").unwrap();
        match is_done {
            true => wire::pg::frontend::copy_done(&mut writer.out),
            false => wire::pg::frontend::copy_fail(&mut writer.out, b"no").unwrap(),
        }
        writer.until(b'Z').await;
        assert_eq!(values(&reader.query(sql).await), "2");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_write_is_left_alone() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    postgres
        .session()
        .await
        .batch_execute(SCHEMA)
        .await
        .unwrap();
    let pooled = Pooled::cached(postgres.origin(), limited(3), Caching::default()).await;
    let (mut reader, mut writer) = (
        Wired::connect(pooled.address).await,
        Wired::connect(pooled.address).await,
    );
    let sql = "select * from quiet";
    reader.query(sql).await;
    let writes = [
        "insert into a values (70, 1)",
        "update stamped set n = 2",
        "insert into stamped (n) values (1)",
        "begin;;update a set v = 1;;commit",
        "begin;;update quiet set n = 5;;rollback",
        "delete from child",
        "set work_mem = '5MB'",
        "select pick(), now()",
    ];
    for write in writes {
        let hits = pooled.count(HIT);
        run(&mut writer, write, false).await;
        assert_eq!(values(&reader.query(sql).await), "1");
        assert_eq!(pooled.count(HIT), hits + 1, "{write}");
    }
    // Amid a transaction what is committed is still so.
    run(&mut writer, "begin;;update quiet set n = 5", false).await;
    let hits = pooled.count(HIT);
    assert_eq!(values(&reader.query(sql).await), "1");
    assert_eq!(pooled.count(HIT), hits + 1);
    run(&mut writer, "commit", false).await;
    assert_eq!(values(&reader.query(sql).await), "5");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_of_before_may_commit() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    postgres
        .session()
        .await
        .batch_execute("create table t (n int); insert into t values (1)")
        .await
        .unwrap();
    let pooled = Pooled::cached(postgres.origin(), limited(3), Caching::default()).await;
    let (mut reader, mut writer) = (
        Wired::connect(pooled.address).await,
        Wired::connect(pooled.address).await,
    );
    let sql = "select n from t";
    assert_eq!(values(&reader.query(sql).await), "1");
    writer.query("begin").await;
    writer
        .parse("", "commit", &[])
        .bind("", &[], Format::Text)
        .sync()
        .await;
    writer.parse("w", "update t set n = 2", &[]);
    let bind = wire::pg::frontend::Bind {
        portal: b"w",
        statement: b"w",
        params: Vec::new(),
        result_formats: Vec::new(),
    };
    bind.encode(&mut writer.out).unwrap();
    let execute = wire::pg::frontend::Execute {
        portal: b"w",
        rows_max: 0,
    };
    execute.encode(&mut writer.out).unwrap();
    writer.sync().await;
    assert_eq!(values(&reader.query(sql).await), "1");
    writer.execute(0).sync().await;
    assert_eq!(values(&reader.query(sql).await), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_which_nobody_heard_is_in_doubt() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let beside = postgres.session().await;
    beside
        .batch_execute(
            "create table t (n int); insert into t values (1); create table gate (n int);
             create function slow() returns trigger language plpgsql as $$ begin perform pg_advisory_xact_lock(7); return null; end $$;
             create constraint trigger slow after update on t deferrable initially deferred for each row execute function slow()",
        )
        .await
        .unwrap();
    let pooled = Pooled::cached(postgres.origin(), limited(4), Caching::default()).await;
    let mut reader = Wired::connect(pooled.address).await;
    for _ in 0..2 {
        assert_eq!(values(&reader.query("select n from t").await), "1");
    }
    // The commit waits for a lock at the origin, and the client leaves: the pool cancels, and rolls back.
    beside
        .batch_execute("select pg_advisory_lock(7)")
        .await
        .unwrap();
    let mut writer = Wired::connect(pooled.address).await;
    wire::pg::frontend::query(&mut writer.out, b"update t set n = 2").unwrap();
    writer.send().await;
    until("it waits", async || {
        let sql = "select count(*) from pg_locks where locktype = 'advisory' and not granted";
        harness::one(&beside, sql).await == "1"
    })
    .await;
    let hits = pooled.count(HIT);
    for _ in 0..3 {
        assert_eq!(values(&reader.query("select n from t").await), "1");
    }
    assert_eq!(
        pooled.count(HIT),
        hits,
        "nothing is given while it is in doubt"
    );
    drop(writer);
    until("it is over", async || {
        values(&reader.query("select n from t").await);
        pooled.count(HIT) > hits
    })
    .await;
    assert_eq!(values(&reader.query("select n from t").await), "1");
    // A server that is killed amid a commit.
    let mut writer = Wired::connect(pooled.address).await;
    wire::pg::frontend::query(&mut writer.out, b"update t set n = 3").unwrap();
    writer.send().await;
    until("it waits", async || {
        let sql = "select count(*) from pg_locks where locktype = 'advisory' and not granted";
        harness::one(&beside, sql).await == "1"
    })
    .await;
    let kill = "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and not granted";
    harness::one(&beside, kill).await;
    let hits = pooled.count(HIT);
    until("the server is gone", async || {
        assert_eq!(values(&reader.query("select n from t").await), "1");
        pooled.count(HIT) > hits
    })
    .await;
}
