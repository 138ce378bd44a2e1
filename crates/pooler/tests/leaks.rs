//! What one client leaves on a connection by ways that its text does not show: nobody else sees it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod harness;

use dormouse_pooler::{CacheStatus, Caching};
use harness::wired::{Wired, kinds, values};
use harness::{Pooled, Postgres, limited, one};
use wire::pg::{Format, Target, frontend};

/// What sequences have given to one client is told to no other, wherever it asks: amid a transaction, in one message,
/// in a pipeline, by a statement that was prepared or described before. Its own numbers it has.
#[tokio::test(flavor = "multi_thread")]
async fn numbers_of_sequences_are_the_clients_own() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let beside = postgres.session().await;
    beside
        .batch_execute(
            "create sequence s start 100; create table t (n serial, m int); create table u (m int)",
        )
        .await
        .unwrap();
    let gives = [
        "select nextval('s')",
        "select setval('s', 100)",
        "insert into t (m) values (1)",
        "with x as (insert into t (m) values (1) returning n) select n from x",
        "update t set n = default",
        "alter table u add column if not exists k serial; insert into u (m) values (1)",
    ];
    for caching in [Caching::disabled(), Caching::default()] {
        let pooled = Pooled::cached(postgres.origin(), limited(1), caching).await;
        let mut ann = Wired::connect(pooled.address).await;
        let mut joe = Wired::connect(pooled.address).await;
        let is_error = |frames: &[wire::pg::Frame]| values(frames).starts_with("55000 ");
        // So that a server has taken them, and to prepare them needs none.
        for prepared in ["lastval", "currval"] {
            let sql = match prepared {
                "lastval" => "select lastval()",
                _ => "select currval($1::text::regclass)",
            };
            joe.parse(prepared, sql, &[]);
            joe.describe(Target::Statement, prepared).sync().await;
        }
        for give in gives {
            ann.query(give).await;
            assert!(is_error(&joe.query("select lastval()").await), "{give}");
            ann.query(give).await;
            joe.query("begin").await;
            assert!(is_error(&joe.query("select lastval()").await), "{give}");
            joe.query("rollback").await;
            ann.query(give).await;
            let told = joe.query("begin; select lastval()").await;
            assert_eq!(kinds(&told), "CTEZ", "{give}");
            joe.query("rollback").await;
            // As postgres.js does: it asks first what the statement is.
            ann.query(give).await;
            joe.parse("", "select lastval()", &[]);
            joe.describe(Target::Statement, "").flush();
            joe.until_described().await;
            joe.bind("", &[], Format::Text).execute(0);
            assert!(is_error(&joe.sync().await), "{give}");
            // A statement of before, alone and behind others in a pipeline.
            ann.query(give).await;
            joe.bind("lastval", &[], Format::Text).execute(0);
            assert!(is_error(&joe.sync().await), "{give}");
            ann.query(give).await;
            joe.parse("", "select 1", &[])
                .bind("", &[], Format::Text)
                .execute(0);
            joe.bind("lastval", &[], Format::Text).execute(0);
            let told = joe.sync().await;
            assert!(kinds(&told).ends_with("EZ"), "{give}");
            ann.query(give).await;
            joe.describe(Target::Statement, "lastval");
            joe.bind("currval", &["s"], Format::Text).execute(0);
            assert!(kinds(&joe.sync().await).ends_with("EZ"), "{give}");
            // What it has been given itself is told, others' before it is not.
            ann.query(give).await;
            joe.query("begin").await;
            let own = values(&joe.query("select nextval('s')").await);
            assert_eq!(values(&joe.query("select lastval()").await), own);
            assert_eq!(values(&joe.query("select currval('s')").await), own);
            joe.query("commit").await;
            assert_eq!(values(&joe.query("select lastval()").await), own);
            ann.query(give).await;
            let told = joe
                .query("insert into t (m) values (2) returning n; select lastval()")
                .await;
            assert_eq!(kinds(&told), "TDCTDCZ", "{give}");
            let told = values(&told);
            let (given, last) = told.split_once(' ').unwrap_or_else(|| panic!("{told}"));
            assert_eq!(given, last);
        }
    }
}

/// Its log has all statements.
fn logging() -> Option<Postgres> {
    Postgres::start(&native::Options {
        settings: vec!["log_statement=all".to_owned()],
        ..native::Options::default()
    })
}

/// Whose predecessor was given no numbers pays for nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_gives_no_numbers_discards_none() {
    let Some(postgres) = logging() else {
        return;
    };
    let beside = postgres.session().await;
    beside
        .batch_execute("create table t (n serial, m int); insert into t (m) values (1)")
        .await
        .unwrap();
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let mut ann = Wired::connect(pooled.address).await;
    let mut joe = Wired::connect(pooled.address).await;
    let discarded = || {
        let log = postgres.native.log();
        log.matches("statement: DISCARD SEQUENCES").count()
    };
    for sql in [
        "select m from t",
        "update t set m = 2",
        "begin; select 1; commit",
        "delete from t where m = 7",
    ] {
        for _ in 0..3 {
            ann.query(sql).await;
            joe.query(sql).await;
        }
    }
    assert_eq!(discarded(), 0);
    ann.query("insert into t (m) values (3)").await;
    ann.query("insert into t (m) values (3)").await;
    assert_eq!(discarded(), 0, "nobody else was there");
    joe.query("select 1").await;
    ann.query("select 1").await;
    assert_eq!(discarded(), 1);
}

const SCHEMA: &str = "create role r;
    create function leave() returns int language plpgsql as $$ begin
    perform set_config('work_mem', '9MB', false); perform pg_advisory_lock(7); return 1; end $$;
    create function leave_of(int, int) returns int language plpgsql as $$ begin return leave(); end $$;
    create function leave_by() returns trigger language plpgsql as $$ begin
    perform set_config('work_mem', '9MB', false); perform pg_advisory_lock(7); return new; end $$;
    create table triggered (n int); create trigger t before insert on triggered execute function leave_by();
    create table whole (n int) partition by range (n);
    create table part partition of whole for values from (0) to (9);
    create trigger t before insert on part for each row execute function leave_by();
    create table mother (n int primary key); create table child (n int references mother on update cascade);
    create trigger t after update on child execute function leave_by();
    insert into mother values (1); insert into child values (1);
    create table defaulted (n int default leave(), m int);
    create table checked (n int check (n < leave() + 9));
    create table ruled (n int); create rule l as on insert to ruled do also select leave();
    create table guarded (n int); insert into guarded values (1); alter table guarded enable row level security;
    create policy p on guarded using (leave() = 1);
    create domain left_d as int default leave(); create domain left_dd as left_d;
    create table of_domain (n left_dd, m int);
    create function leave_now(int) returns int immutable language plpgsql as $$ begin perform leave(); return $1; end $$;
    create table keyed (n int) partition by range (leave_now(n));
    create table keyed_part partition of keyed for values from (0) to (9);
    create view sets as select set_config('work_mem', '9MB', false) as n, pg_advisory_lock(7) is null as m;
    create view calls as select leave() as n; create view calls_twice as select n from calls;
    create view over as select * from triggered;
    create view all_settings as select name, setting from pg_settings;
    create table rows (n int); insert into rows values (1);
    create function left_by(rows) returns int language sql as $$ select leave() $$;
    create operator @@@ (function = leave_of, leftarg = int, rightarg = int);
    grant select on guarded to r; grant usage on schema public to r;";

/// Nothing of what anybody has left.
async fn expect_clean(beside: &tokio_postgres::Client, other: &mut Wired, what: &str) {
    let seen = values(&other.query("show work_mem; select current_user").await);
    assert_eq!(seen, "4MB postgres", "{what}");
    let lock = "select pg_try_advisory_lock(7)";
    assert_eq!(one(beside, lock).await, "t", "{what}");
    one(beside, "select pg_advisory_unlock_all()").await;
}

/// The text names a relation, an operator, a statement: what these run leaves something.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_text_does_not_name_is_gone_as_well() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let beside = postgres.session().await;
    beside.batch_execute(SCHEMA).await.unwrap();
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let mut ann = Wired::connect(pooled.address).await;
    let mut joe = Wired::connect(pooled.address).await;
    let leaves = [
        "update pg_settings set setting = '9MB' where name = 'work_mem'",
        "update all_settings set setting = '9MB' where name = 'work_mem'",
        "insert into triggered values (1)",
        "with x as (insert into triggered values (1) returning n) select n from x",
        "insert into whole values (1)",
        "insert into over values (1)",
        "update mother set n = n + 1",
        "insert into defaulted (m) values (1)",
        "insert into checked values (1)",
        "insert into ruled values (1)",
        "insert into of_domain (m) values (1)",
        "insert into keyed values (1)",
        "insert into keyed_part values (1)",
        "begin; set local role r; select n from guarded; commit",
        "select n from sets",
        "select table_to_xml('sets', true, true, '')",
        "select n from calls_twice",
        "select 1 @@@ 2",
        "select x.left_by from rows x",
        "explain analyze insert into triggered values (1)",
        "do $$ begin perform leave(); end $$",
        "create function g() returns int language sql as $$ select leave() $$; create view g as select g() as n; select n from g",
        "create table later (n int); create trigger t before insert on later execute function leave_by()",
        "insert into later values (1)",
    ];
    for sql in leaves {
        let frames = ann.query(sql).await;
        assert!(!kinds(&frames).contains('E'), "{sql}: {}", values(&frames));
        expect_clean(&beside, &mut joe, sql).await;
        // By several messages.
        if sql.contains(';') || sql.starts_with("create") {
            continue;
        }
        ann.parse("", sql, &[]).bind("", &[], Format::Text);
        let frames = ann.execute(0).sync().await;
        assert!(!kinds(&frames).contains('E'), "{sql}: {}", values(&frames));
        expect_clean(&beside, &mut joe, sql).await;
    }
    // A statement that is prepared and run.
    for prepare in [
        "select leave()",
        "select set_config('work_mem', '9MB', false)",
    ] {
        for sql in [
            &format!("prepare p as {prepare}"),
            "execute p",
            "deallocate all",
        ] {
            ann.query(sql).await;
        }
        assert_eq!(pooled.pool.standing().pinned, 0, "{prepare}");
        expect_clean(&beside, &mut joe, prepare).await;
    }
    ann.query("do $$ begin execute 'prepare hidden as select 1'; end $$")
        .await;
    assert!(values(&joe.query("execute hidden").await).starts_with("26000 "));
    // What would unlock all is not run.
    ann.query("select pg_advisory_lock(7)").await;
    let unlocks = "select case when random() < 0 then pg_advisory_unlock_all()::text end";
    ann.query(unlocks).await;
    expect_clean(&beside, &mut joe, unlocks).await;
    // What stands behind that which drops all of its kind is kept, and keeps the connection.
    ann.query("deallocate all; prepare q as select 1").await;
    assert_eq!(pooled.pool.standing().pinned, 1);
    assert_eq!(values(&ann.query("execute q").await), "1");
}

/// What no text is free of: implicit casts, checks of domains.
#[tokio::test(flavor = "multi_thread")]
async fn casts_and_domains_are_in_every_text() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let beside = postgres.session().await;
    beside.batch_execute(SCHEMA).await.unwrap();
    beside
        .batch_execute(
            "create type odd as (n int); create function to_odd(int) returns odd language sql as $$ select row(leave())::odd $$;
             create cast (int as odd) with function to_odd(int) as assignment; create table odds (o odd)",
        )
        .await
        .unwrap();
    for (make, sql) in [
        ("select 1", "insert into odds values (1)"),
        (
            "drop cast (int as odd); create domain narrow as int check (value < leave() + 9); select 1",
            "select 5::narrow",
        ),
    ] {
        one(&beside, make).await;
        let pooled = Pooled::start(postgres.origin(), limited(1)).await;
        let mut ann = Wired::connect(pooled.address).await;
        let mut joe = Wired::connect(pooled.address).await;
        let frames = ann.query(sql).await;
        assert!(!kinds(&frames).contains('E'), "{sql}: {}", values(&frames));
        expect_clean(&beside, &mut joe, sql).await;
    }
}

/// Where what one has left cannot be cleaned in the time that it has left for that, the next has another connection.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_cleaned_is_closed() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let beside = postgres.session().await;
    let sql = "create function leave_much() returns int language plpgsql as $$ begin
        for n in 1..100000 loop perform set_config('many.a' || n, 'x', false); end loop;
        perform set_config('statement_timeout', '1', false); return 1; end $$";
    beside.batch_execute(sql).await.unwrap();
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let mut ann = Wired::connect(pooled.address).await;
    let mut joe = Wired::connect(pooled.address).await;
    assert_eq!(values(&ann.query("select leave_much()").await), "1");
    let told = joe.query("show statement_timeout").await;
    assert_eq!(values(&told), "0");
    let counts = pooled.pool.standing().counts;
    assert_eq!((counts.connected, counts.refused), (2, 0));
}

/// Where `standard_conforming_strings` is off a text with a backslash is another than the parser reads.
#[tokio::test(flavor = "multi_thread")]
async fn strings_that_go_on() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let beside = postgres.session().await;
    beside.batch_execute(SCHEMA).await.unwrap();
    beside
        .batch_execute("create table t (n int); insert into t values (1), (2)")
        .await
        .unwrap();
    let pooled = Pooled::cached(postgres.origin(), limited(1), Caching::default()).await;
    let mut ann = Wired::connect(pooled.address).await;
    let mut joe = Wired::connect(pooled.address).await;
    let count = "select count(*) from t";
    for off in [
        &["set standard_conforming_strings = off"][..],
        // In one transaction, and by what nobody sees through.
        &[
            "set standard_conforming_strings = on",
            "begin; set standard_conforming_strings = off",
        ],
        &[
            "rollback",
            "set standard_conforming_strings = on",
            "begin; do $$ begin set standard_conforming_strings = off; end $$",
        ],
    ] {
        for sql in off {
            ann.query(sql).await;
        }
        let told = ann.query("select 'a\\' , ' ; set role r; --'").await;
        assert_eq!(values(&told), "a' , ", "{off:?}");
        ann.query("commit").await;
        expect_clean(&beside, &mut joe, off[0]).await;
        // What it was called, it has lost: nobody has told the pool.
        ann.query("reset role").await;
        for sql in off {
            ann.query(sql).await;
        }
        let text = "select 'a\\' , ' || leave() --'";
        ann.parse("odd", text, &[]).bind("odd", &[], Format::Text);
        let told = ann.execute(0).sync().await;
        assert_eq!(values(&told), "a' , 1", "{off:?}");
        ann.query("commit").await;
        expect_clean(&beside, &mut joe, off[0]).await;
        ann.close("odd").sync().await;
        joe.parse("odd", text, &[]).bind("odd", &[], Format::Text);
        let told = joe.execute(0).sync().await;
        assert_eq!(values(&told), "a\\| || leave() --", "{off:?}");
        joe.close("odd").sync().await;
        // A commit through the pool that the parser takes for a string.
        beside
            .batch_execute("insert into t values (3)")
            .await
            .unwrap();
        pooled.pool.purge();
        for _ in 0..2 {
            assert_ne!(values(&joe.query(count).await), "0");
        }
        for sql in off {
            ann.query(sql).await;
        }
        ann.query("select 'a\\' , ' ; delete from t; --'").await;
        ann.query("commit").await;
        assert_eq!(values(&joe.query(count).await), "0", "{off:?}");
    }
    assert!(pooled.count(CacheStatus::Hit) > 2);
}

/// The same in one breath, where the setting has a name that nobody has written down.
#[tokio::test(flavor = "multi_thread")]
async fn strings_that_go_on_behind_what_sets_anything() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let beside = postgres.session().await;
    beside.batch_execute(SCHEMA).await.unwrap();
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    for is_local in [true, false] {
        let set = format!("select set_config($1, 'off', {is_local})");
        let mut ann = Wired::connect(pooled.address).await;
        let mut joe = Wired::connect(pooled.address).await;
        frontend::query(&mut ann.out, b"begin").unwrap();
        ann.parse("", &set, &[]);
        ann.bind("", &["standard_conforming_strings"], Format::Text)
            .execute(0);
        let text = b"select 'a\\' , ' ; set role r; --'";
        frontend::query(&mut ann.out, text).unwrap();
        frontend::query(&mut ann.out, b"commit").unwrap();
        let mut told = Vec::new();
        for _ in 0..3 {
            told.extend(ann.until(b'Z').await);
        }
        assert_eq!(values(&told), "off a' , ", "{is_local}");
        drop(ann);
        expect_clean(&beside, &mut joe, &set).await;
    }
}

/// What nobody can read of one text is no reason to know nothing of those like it, whoever sends them.
#[tokio::test(flavor = "multi_thread")]
async fn texts_that_cannot_be_read_say_nothing_of_others() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(2)).await;
    let mut ann = Wired::connect(pooled.address).await;
    let mut joe = Wired::connect(pooled.address).await;
    // Of a client that has another encoding, which is no fault of its.
    ann.query("set client_encoding = 'latin1'").await;
    for begin in ["select pg_advisory_lock(", "set application_name = "] {
        let sql = [begin.as_bytes(), b"'\xe9'"].concat();
        frontend::query(&mut ann.out, &sql).unwrap();
        ann.until(b'Z').await;
    }
    let unreadable = "select pg_advisory_lock(12ab)";
    assert!(values(&ann.query(unreadable).await).starts_with("42601 "));
    joe.query("set application_name = 'joe'").await;
    joe.query("select pg_advisory_lock(7)").await;
    assert_eq!(pooled.pool.standing().pinned, 1);
    ann.query("begin").await;
    let name = "show application_name";
    assert_eq!(values(&joe.query(name).await), "joe");
    ann.query("rollback").await;
    joe.query("select pg_advisory_unlock_all()").await;
    for _ in 0..3 {
        assert_eq!(values(&joe.query(name).await), "joe");
        ann.query("select 1").await;
    }
}

/// What an identifier with escapes is called is told by a string behind it, and what stands in quotes is not what is
/// alike but for a line's end.
#[tokio::test(flavor = "multi_thread")]
async fn names_with_escapes_are_what_they_are_called() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let mut ann = Wired::connect(pooled.address).await;
    let mut joe = Wired::connect(pooled.address).await;
    let set = |escape: &str| format!("set U&\"work!005fmem\" uescape '{escape}' to '9MB'");
    assert_eq!(kinds(&joe.query(&set("#")).await), "EZ");
    assert_eq!(kinds(&ann.query(&set("!")).await), "CZ");
    assert_eq!(values(&joe.query("show work_mem").await), "4MB");
    assert_eq!(values(&ann.query("show work_mem").await), "9MB");
}

/// Most triggers, defaults, checks and views leave nothing, and cost nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_leaves_nothing_costs_nothing() {
    let Some(postgres) = logging() else {
        return;
    };
    let beside = postgres.session().await;
    beside
        .batch_execute(
            "create function touch() returns trigger language plpgsql as $$ begin
             new.at := now(); return new; end $$;
             create table t (n serial, at timestamptz, name text check (length(name) < 100));
             create trigger touch before insert or update on t for each row execute function touch();
             create view v as select n, lower(name) as name from t where n > 0;
             create function is_short(text) returns boolean immutable language sql as $$ select length($1) < 9 $$;
             create domain short as text check (is_short(value)); create table u (name short);
             create table guarded (n int); alter table guarded enable row level security;
             create policy p on guarded using (n = current_setting('app.n', true)::int);
             create function leave() returns trigger language plpgsql as $$ begin
             perform set_config('work_mem', '9MB', false); return new; end $$;
             create table audited (n int); insert into audited values (1); create view w as select n from audited;
             create trigger leave after insert on audited execute function leave()",

        )
        .await
        .unwrap();
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let mut ann = Wired::connect(pooled.address).await;
    let mut joe = Wired::connect(pooled.address).await;
    for sql in [
        "insert into t (name) values ('a')",
        "update t set name = 'b' where n = 1 returning at",
        "select n, name from v order by n",
        "insert into u values ('c')",
        "select n from guarded",
        "select name from pg_settings where name = 'work_mem'",
        "begin; delete from t; rollback",
        "begin; savepoint a; rollback",
        "select n from audited",
        "select n from w for update",
    ] {
        for session in [&mut ann, &mut joe] {
            let frames = session.query(sql).await;
            assert!(!kinds(&frames).contains('E'), "{sql}: {}", values(&frames));
        }
        let log = postgres.native.log();
        assert!(!log.contains("statement: CLOSE ALL"), "{sql}");
    }
}
