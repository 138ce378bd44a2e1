//! The result cache: what is kept, that a hit is what a miss is, and what a session may ask of it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod harness;

use std::num::NonZeroUsize;
use std::time::Duration;

use dormouse_pooler::{
    CacheOptions, CacheSpace, CacheStatus, Caching, CachingMode, Pool, PoolOptions,
};
use harness::wired::{Wired, bytes, kinds, notices, values};
use harness::{Pooled, Postgres, limited, until};
use tokio::time::{Instant, sleep};
use wire::pg::{Format, Target};

const HIT: CacheStatus = CacheStatus::Hit;
const MISS: CacheStatus = CacheStatus::Miss;

const SCHEMA: &str = "create table t (n int primary key, name text, at timestamptz, day date, j jsonb, tod timetz);
    insert into t select n, 'name ' || n, '2020-01-01'::timestamptz + n * interval '1 day', '2020-01-01', \
    jsonb_build_object('a', n), '10:00+00' from generate_series(1, 9) n;
    create table dated (at timestamptz); create table empty (n int); create sequence s;
    create view v as select n, name from t; create view vv as select * from v where n < 5;
    create view clock as select now() as at, n from t;
    create materialized view m as select count(*) as n from t;
    create table parts (n int) partition by range (n); create table part partition of parts for values from (0) to (9);
    create function pure(int) returns int immutable language sql return $1 + 1;
    create function stale(int) returns int stable language sql return $1 + 1;
    create function wild(int) returns int volatile language sql return $1 + 1;
    create function of_row(t) returns text volatile language sql return 'x';
    create table guarded (n int, owner text); insert into guarded values (1, 'ann'), (2, 'joe');
    alter table guarded enable row level security;
    create policy p on guarded using (owner = current_user);
    create table timed (n int); alter table timed enable row level security;
    create policy p on timed using (now() > '2000-01-01');
    create role ann; create role joe; grant select on all tables in schema public to ann, joe;
    create schema other; create table other.t (n int); insert into other.t values (77);";

async fn prepared() -> Option<(Postgres, Pooled)> {
    let postgres = Postgres::open()?;
    let beside = postgres.session().await;
    beside.batch_execute(SCHEMA).await.unwrap();
    let pooled = Pooled::cached(postgres.origin(), limited(4), Caching::default()).await;
    Some((postgres, pooled))
}

/// The status of a query, by the notice of it.
async fn status(wired: &mut Wired, sql: &str) -> String {
    let mut told = notices(&wired.query(sql).await);
    told.retain(|notice| notice.starts_with("dormouse cache: "));
    let [told] = told.as_slice() else {
        panic!("{sql}: {told:?}");
    };
    told.strip_prefix("dormouse cache: ").unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_decision() {
    let Some((_postgres, pooled)) = prepared().await else {
        return;
    };
    let mut wired = Wired::connect(pooled.address).await;
    wired.query("set dormouse.cache_notice = 'on'").await;
    let table: &[(&str, &[&str])] = &[
        (
            "hit",
            &[
                "select 1",
                "select * from t",
                "table t",
                "values (1), (2)",
                "select count(*), max(n) from t where name like 'n%'",
                "with t as (select 1 as n) select * from t",
                "with c as (select * from t) select * from c join v using (n)",
                "select * from vv order by n",
                "select * from m",
                "select * from parts",
                "select pure(n) from t",
                "select * from guarded",
                "select date_trunc('month', at), to_char(at, 'YYYY'), at at time zone 'UTC' from dated",
                "select json_agg(t), jsonb_build_object('a', n) from t group by n",
                "select '2020-01-01'::date, at::date, date_trunc('day', at)::date from t",
                "select n::text, name::varchar(3), j->>'a' from t",
                "select percentile_cont(0.5) within group (order by n) from t",
                "select row_number() over (order by n) from t",
                "select * from generate_series(1, 3)",
                "select case when n > 3 then 'a' else 'b' end from t limit 3",
                "select current_setting('work_mem')",
                "select * from other.t",
                "select md5(name), upper(name), coalesce(name, 'x') from t",
            ],
        ),
        (
            "volatile",
            &[
                "select now()",
                "select random()",
                "select current_date, 1",
                "select localtimestamp",
                "select current_user",
                "select age(at) from t",
                "select clock_timestamp(), n from t",
                "select nextval('s')",
                "select gen_random_uuid()",
                "select wild(1)",
                "select stale(1)",
                "select of_row(t) from t",
                "select t.of_row from t",
                "select * from clock",
                "select * from timed",
                "select 'now'::timestamptz",
                "select * from t where at < 'today'",
                "select * from t where at < timestamp 'tomorrow'",
                "select name::timestamptz from t where false",
                "select (j->>'a')::date from t where false",
                "select '10:00'::timetz",
                "select tod at time zone 'UTC' from t",
                "select txid_current()",
                "select set_config('a.b', 'x', false)",
                "select pg_backend_pid()",
                "select 't'::text::regclass",
                "select no_such_function()",
            ],
        ),
        (
            "uncacheable",
            &[
                "select * from t for update",
                "select * from t tablesample system (50)",
                "select * from pg_class",
                "select * from information_schema.tables",
                "select * from pg_stat_activity",
                "select last_value from s",
                "select ctid from t",
                "select xmin, n from t",
                "select * from no_such_table",
            ],
        ),
        (
            "notaquery",
            &[
                "insert into empty values (1)",
                "update t set name = name where n = 99",
                "with d as (delete from empty returning n) select * from d",
                "select 1 as n into temp made",
                "begin",
                "commit",
                "show work_mem",
                "explain select 1",
                "set work_mem = '5MB'",
                "",
            ],
        ),
        ("multiplestatements", &["select 1; select 2"]),
        ("parseerror", &["selec 1", "select ((1)"]),
        (
            "disabled",
            &[
                "/* dormouse: nocache */ select 1",
                "select 1 -- w7s: nocache",
            ],
        ),
    ];
    // What pins a session comes last.
    let mut table: Vec<_> = table.to_vec();
    table.sort_by_key(|(expected, _)| *expected == "notaquery");
    for (expected, queries) in table {
        for sql in queries {
            status(&mut wired, sql).await;
            let got = status(&mut wired, sql).await;
            assert_eq!(got, expected, "{sql}");
        }
    }
    let mut wired = Wired::connect(pooled.address).await;
    wired.query("set dormouse.cache_notice = 'on'").await;
    wired.query("begin").await;
    assert_eq!(status(&mut wired, "select * from t").await, "transaction");
    wired.query("rollback").await;
    let long = format!("select '{}'", "x".repeat(70_000));
    assert_eq!(status(&mut wired, &long).await, "oversizedquery");
    status(&mut wired, "select * from t").await;
    assert_eq!(status(&mut wired, "select * from t").await, "hit");
    wired.query("set dormouse.cache = 'off'").await;
    assert_eq!(status(&mut wired, "select * from t").await, "disabled");
    wired.query("set dormouse.cache = 'on'").await;
    assert_eq!(
        status(&mut wired, "/* other */ select * from t").await,
        "hit"
    );
    wired.query("listen a").await;
    assert_eq!(status(&mut wired, "select * from t").await, "uncacheable");
    let figures = pooled.pool.cache_figures();
    let by_status: u64 = CacheStatus::ALL
        .iter()
        .map(|status| figures.with(*status))
        .sum();
    assert_eq!(figures.queries(), by_status);
    assert!(figures.with(HIT) > 20 && figures.hit_bytes > 100);
}

const QUERIES: [&str; 6] = [
    "select n, name, at, day, j from t order by n",
    "select null::int, 'x'::text, array[1, 2], 1.5::numeric, true, 'a'::bytea",
    "select * from empty",
    "select n from t where n > $1::int order by n",
    "select $1::text as a, $2::int8 as b",
    "select from t",
];

fn params(sql: &str) -> &'static [&'static str] {
    match sql {
        _ if sql.contains("$2") => &["a", "5"],
        _ if sql.contains("$1") => &["3"],
        _ => &[],
    }
}

/// One query in one of the ways in which drivers ask.
async fn ask(wired: &mut Wired, flow: usize, sql: &str, format: Format) -> Vec<u8> {
    let params = params(sql);
    let frames = match flow {
        0 => {
            let text = sql.replace("$1", "'3'").replace("$2", "'5'");
            wired.query(&text).await
        }
        // node-postgres.
        1 => {
            wired.parse("", sql, &[]).bind("", params, format);
            wired.describe(Target::Portal, "").execute(0).sync().await
        }
        // postgres.js.
        2 => {
            wired
                .parse("s", sql, &[])
                .describe(Target::Statement, "s")
                .flush();
            let mut frames = wired.until_described().await;
            frames.extend(wired.bind("s", params, format).execute(0).sync().await);
            frames.extend(wired.close("s").sync().await);
            frames
        }
        // tokio-postgres.
        _ => {
            wired.parse("s", sql, &[]).describe(Target::Statement, "s");
            let mut frames = wired.sync().await;
            frames.extend(wired.bind("s", params, format).execute(0).sync().await);
            frames.extend(wired.close("s").sync().await);
            frames
        }
    };
    assert!(!kinds(&frames).contains('E'), "{sql}: {}", values(&frames));
    bytes(&frames)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hit_is_a_miss_byte_for_byte() {
    let Some((postgres, pooled)) = prepared().await else {
        return;
    };
    let mut alone = Wired::connect(postgres.native.address).await;
    for flow in 0..4 {
        for format in [Format::Text, Format::Binary] {
            for sql in QUERIES {
                let expected = ask(&mut alone, flow, sql, format).await;
                pooled.pool.purge();
                for turn in 0..4 {
                    let mut wired = Wired::connect(pooled.address).await;
                    let (hits, given) = (pooled.count(HIT), pooled.pool.standing().counts.given);
                    let got = ask(&mut wired, flow, sql, format).await;
                    assert_eq!(
                        got, expected,
                        "{sql} in flow {flow}, {format:?}, turn {turn}"
                    );
                    if turn > 1 {
                        assert_eq!(
                            pooled.count(HIT),
                            hits + 1,
                            "{sql} in flow {flow}, turn {turn}"
                        );
                        let now = pooled.pool.standing().counts.given;
                        assert_eq!(now, given, "{sql} in flow {flow}: a hit had a connection");
                    }
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_answer_depends_on_is_part_of_the_question() {
    let Some((postgres, pooled)) = prepared().await else {
        return;
    };
    // Each pair of sessions differs in one thing; the answers are those that a session alone gets.
    let settings = [
        "set search_path = other",
        "set role ann",
        "set role joe",
        "set time zone 'Asia/Tokyo'",
        "set datestyle = 'SQL, DMY'",
        "set bytea_output = 'escape'",
        "set extra_float_digits = -3",
        "set intervalstyle = 'iso_8601'",
        "select set_config('app.user', 'seven', false)",
        "set session authorization joe",
        "select 1",
    ];
    let queries = [
        "select n from t order by n",
        "select n, owner from guarded order by n",
        "select '2020-05-06 07:00+00'::timestamptz, '2020-05-06'::date",
        "select 'a\\000b'::bytea, 1.123456789012345::float8",
        "select interval '3 days 2 hours'",
        // A placeholder that was reset is an empty one.
        "select nullif(current_setting('app.user', true), '')",
    ];
    for round in 0..2 {
        for set in settings {
            let mut alone = Wired::connect(postgres.native.address).await;
            let mut through = Wired::connect(pooled.address).await;
            alone.query(set).await;
            through.query(set).await;
            for sql in queries {
                let expected = alone.query(sql).await;
                let got = through.query(sql).await;
                // What an error says of where it is in Postgres' own sources is said as well.
                assert_eq!(values(&got), values(&expected), "{set}; {sql}");
                assert_eq!(bytes(&got), bytes(&expected), "{set}; {sql}");
            }
        }
        assert!(
            round == 0 || pooled.count(HIT) > 40,
            "{:?}",
            pooled.pool.cache_figures()
        );
    }
    // Parameters, and their types.
    let mut wired = Wired::connect(pooled.address).await;
    for (oid, value, expected) in [
        (23, "12", "12"),
        (25, "12", "12"),
        (23, "13", "13"),
        (20, "12", "12"),
    ] {
        for _ in 0..2 {
            wired
                .parse("", "select $1", &[oid])
                .bind("", &[value], Format::Text);
            let frames = wired.describe(Target::Portal, "").execute(0).sync().await;
            assert_eq!(values(&frames), expected);
            let described = wire::pg::backend::decode_row_description(frames[2].body()).unwrap();
            assert_eq!(described[0].type_oid, oid);
        }
    }
    // What a parameter says may be the time.
    for _ in 0..2 {
        let hits = pooled.count(HIT);
        wired
            .parse("", "select $1::timestamptz", &[])
            .bind("", &["now"], Format::Text);
        wired.execute(0).sync().await;
        assert_eq!(pooled.count(HIT), hits);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_is_not_kept() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let space = CacheSpace::new(CacheOptions {
        cache_bytes_max: 200_000,
        cache_entries_max: NonZeroUsize::new(10).unwrap(),
        result_bytes_max: 50_000,
        query_bytes_max: 1_000,
    });
    let pool = Pool::with_cache(
        postgres.origin(),
        limited(2),
        Caching::default(),
        space.clone(),
    );
    let pooled = Pooled::of(pool).await;
    let mut wired = Wired::connect(pooled.address).await;
    let long = "select repeat('x', 60000)";
    assert_eq!(values(&wired.query(long).await).len(), 60_000);
    assert_eq!(values(&wired.query(long).await).len(), 60_000);
    assert_eq!(pooled.count(CacheStatus::OversizedResult), 2);
    for n in 0..30 {
        wired
            .query(&format!("select {n}, repeat('x', 40000)"))
            .await;
        let filling = space.filling();
        assert!(
            filling.bytes <= 200_000 && filling.entries <= 10,
            "{filling:?}"
        );
    }
    for n in 0..30 {
        wired.query(&format!("select {n}")).await;
    }
    let filling = space.filling();
    assert!(filling.entries == 10 && filling.evicted > 30, "{filling:?}");
    // A long answer from the cache to a client that takes its time.
    let space = CacheSpace::new(CacheOptions::default());
    let pool = Pool::with_cache(postgres.origin(), limited(2), Caching::default(), space);
    let pooled = Pooled::of(pool).await;
    let mut wired = Wired::connect(pooled.address).await;
    let sql = "select n, repeat('x', 1000) from generate_series(1, 20000) n";
    let expected = bytes(&wired.query(sql).await);
    let mut other = Wired::connect(pooled.address).await;
    assert_eq!(bytes(&other.query(sql).await), expected);
    assert_eq!(pooled.count(HIT), 1);
    assert_eq!(values(&other.query("select 5").await), "5");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_answers_are_asked_anew() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let beside = postgres.session().await;
    beside
        .batch_execute("create table t (n int); insert into t values (1)")
        .await
        .unwrap();
    let caching = Caching {
        max_age: 1,
        stale_while_revalidate: 30,
        mode: CachingMode::Ttl,
        ..Caching::default()
    };
    let pooled = Pooled::cached(postgres.origin(), limited(3), caching).await;
    let mut wired = Wired::connect(pooled.address).await;
    let sql = "select n from t where n > $1";
    for flow in 0..4 {
        pooled.pool.purge();
        let text = sql.replace("$1", "0");
        let mut one = async || match flow {
            0 => values(&wired.query(&text).await),
            1 => {
                wired.parse("", sql, &[23]).bind("", &["0"], Format::Text);
                values(&wired.describe(Target::Portal, "").execute(0).sync().await)
            }
            _ => {
                wired.parse("", sql, &[23]).bind("", &["0"], Format::Text);
                values(&wired.execute(0).sync().await)
            }
        };
        beside.batch_execute("update t set n = 1").await.unwrap();
        assert_eq!(one().await, "1");
        // By time alone, a write is not seen at once.
        beside.batch_execute("update t set n = 2").await.unwrap();
        assert_eq!(one().await, "1");
        let begun = Instant::now();
        let before = pooled.pool.cache_figures().revalidated;
        sleep(Duration::from_millis(1_100)).await;
        // The old one, and a new one is asked.
        assert_eq!(one().await, "1", "after {:?}", begun.elapsed());
        until("asked anew", async || {
            pooled.pool.cache_figures().revalidated > before
        })
        .await;
        assert_eq!(one().await, "2");
        assert_eq!(pooled.pool.cache_figures().revalidated, before + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_ask_the_same_ask_once() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let pooled = Pooled::cached(postgres.origin(), limited(20), Caching::default()).await;
    // What the catalog says is known before.
    Wired::connect(pooled.address)
        .await
        .query("select count(*) from generate_series(1, 2)")
        .await;
    let misses = pooled.count(MISS);
    let asking = (0..50).map(|_| {
        let address = pooled.address;
        tokio::spawn(async move {
            let mut wired = Wired::connect(address).await;
            values(
                &wired
                    .query("select count(*) from generate_series(1, 3000000)")
                    .await,
            )
        })
    });
    for asked in asking.collect::<Vec<_>>() {
        assert_eq!(asked.await.unwrap(), "3000000");
    }
    let figures = pooled.pool.cache_figures();
    assert_eq!(figures.with(MISS), misses + 1, "{figures:?}");
    assert_eq!(figures.with(HIT), 49, "{figures:?}");
    assert!(figures.shared > 0, "{figures:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_origin_has_other_answers() {
    let (Some(one), Some(two)) = (Postgres::open(), Postgres::open()) else {
        return;
    };
    for (postgres, n) in [(&one, 1), (&two, 2)] {
        let sql = format!("create table t (n int); insert into t values ({n})");
        postgres.session().await.batch_execute(&sql).await.unwrap();
    }
    let pooled = Pooled::cached(one.origin(), PoolOptions::default(), Caching::default()).await;
    let mut wired = Wired::connect(pooled.address).await;
    for _ in 0..2 {
        assert_eq!(values(&wired.query("select n from t").await), "1");
    }
    pooled.pool.turn_to(two.origin());
    for _ in 0..2 {
        assert_eq!(values(&wired.query("select n from t").await), "2");
    }
    assert_eq!(pooled.count(HIT), 2);
    // A purge forgets, and changes nothing else.
    two.session()
        .await
        .batch_execute("update t set n = 3")
        .await
        .unwrap();
    assert_eq!(values(&wired.query("select n from t").await), "2");
    pooled.pool.purge();
    assert_eq!(values(&wired.query("select n from t").await), "3");
    pooled.pool.set_caching(Caching::disabled());
    wired.query("select n from t").await;
    assert_eq!(pooled.count(CacheStatus::Disabled), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_told_from_memory_is_not_given_something_else() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let beside = postgres.session().await;
    beside
        .batch_execute("create table t (n int); insert into t values (1)")
        .await
        .unwrap();
    let pooled = Pooled::cached(postgres.origin(), limited(1), Caching::default()).await;
    let sql = "select * from t where n > $1";
    let mut wired = Wired::connect(pooled.address).await;
    let mut described = Vec::new();
    for _ in 0..3 {
        wired
            .parse("s", sql, &[23])
            .describe(Target::Statement, "s");
        described.push(bytes(&wired.sync().await));
        wired.close("s").sync().await;
    }
    let given = pooled.pool.standing().counts.given;
    assert!(
        given <= 2 && described.iter().all(|one| *one == described[0]),
        "{given}"
    );
    // Elsewhere, so that the pool does not know; and the connection is another.
    beside
        .batch_execute("alter table t alter n type text")
        .await
        .unwrap();
    pooled.pool.restart();
    wired
        .parse("s", sql, &[23])
        .describe(Target::Statement, "s");
    assert_eq!(bytes(&wired.sync().await), described[0]);
    let given = pooled.pool.standing().counts.given;
    wired.bind("s", &["0"], Format::Text);
    let told = values(&wired.execute(0).sync().await);
    assert!(
        told.starts_with("42883") || told.starts_with("0A000"),
        "{told}"
    );
    assert_eq!(pooled.pool.standing().counts.given, given + 1);
    // One whose parameters stay what they are.
    let sql = "select n from t where $1 > 0";
    let mut wired = Wired::connect(pooled.address).await;
    let mut ask = async |param: &str| {
        wired
            .parse("s", sql, &[23])
            .describe(Target::Statement, "s");
        let described = bytes(&wired.sync().await);
        wired.bind("s", &[param], Format::Text);
        let told = values(&wired.execute(0).sync().await);
        wired.close("s").sync().await;
        (described, told)
    };
    let (text, told) = ask("1").await;
    assert_eq!(told, "1");
    assert_eq!(ask("2").await, (text.clone(), told));
    let change = "alter table t alter n type int8 using n::int8";
    beside.batch_execute(change).await.unwrap();
    pooled.pool.restart();
    let (same, told) = ask("3").await;
    assert_eq!(same, text);
    assert_eq!(told, "0A000 cached plan must not change result type");
    let (other, told) = ask("4").await;
    assert!(other != text && told == "1", "{told}");
}

/// What a client's program is called is part of what an answer is found by where the answer may depend on it, whoever asks
/// for it: the text, a policy, a view, a function that says that it is immutable. Other answers are shared.
#[tokio::test(flavor = "multi_thread")]
async fn answers_by_what_the_program_is_called() {
    let Some((postgres, pooled)) = prepared().await else {
        return;
    };
    let beside = postgres.session().await;
    beside
        .batch_execute(
            "create table by_program (n int, program text); alter table by_program enable row level security;
             insert into by_program values (1, 'ann'), (2, 'joe'), (3, 'nobody');
             create policy p on by_program using (program = current_setting('application_name'));
             create table by_tenant (n int, tenant text); alter table by_tenant enable row level security;
             insert into by_tenant values (1, 'one');
             create policy p on by_tenant using (tenant = current_setting('app.tenant', true));
             grant select on by_program, by_tenant to ann;
             create view program as select current_setting('APPLICATION_NAME') as name;
             grant select on program to ann;
             create function sworn() returns text immutable language sql as
             $$ select current_setting('application_name') $$;
             create function sworn(t) returns text immutable language sql as
             $$ select current_setting('application_name') $$;
             create function sworn(text, text) returns text immutable language sql as
             $$ select current_setting('application_name') $$;
             create operator ~~~ (function = sworn, leftarg = text, rightarg = text)",
        )
        .await
        .unwrap();
    let depends = [
        "select current_setting('application_name')",
        "select current_setting('application_' || 'name')",
        "select n from by_program order by n",
        "select name from program",
        "select sworn()",
        "select t.sworn from t where n = 1",
        "select 'a'::text ~~~ 'b'",
    ];
    let shared = ["select name from t where n = 7", "select n from by_tenant"];
    for round in 0..3 {
        for name in ["ann", "joe", "", "nobody"] {
            let mut alone = Wired::connect(postgres.native.address).await;
            let mut through = Wired::connect(pooled.address).await;
            for set in ["set role ann", "set app.tenant = 'one'"] {
                alone.query(set).await;
                through.query(set).await;
            }
            let set = format!("set application_name = '{name}'");
            alone.query(&set).await;
            through.query(&set).await;
            for sql in depends.iter().chain(&shared) {
                let expected = values(&alone.query(sql).await);
                let before = pooled.count(HIT);
                assert_eq!(values(&through.query(sql).await), expected, "{name}: {sql}");
                let is_hit = pooled.count(HIT) > before;
                let is_shared = shared.contains(sql);
                let is_first = round == 0 && (!is_shared || name == "ann");
                assert_eq!(is_hit, !is_first, "{round} {name}: {sql}");
            }
        }
    }
    // Whoever has never said what it is called is called what the pool is.
    let mut through = Wired::connect(pooled.address).await;
    for sql in &depends[..2] {
        assert_eq!(values(&through.query(sql).await), "Dormouse", "{sql}");
    }
}
