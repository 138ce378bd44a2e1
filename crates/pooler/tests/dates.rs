//! Statements keep what their strings were read as when they were prepared: dates by the session's settings, and the clock.
//! What one session's were read as is nobody else's.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod harness;

use dormouse_pooler::{CacheStatus, Caching};
use harness::wired::{Wired, kinds, values};
use harness::{Pooled, Postgres, limited};
use wire::pg::{Format, Target, frontend};

const MONTH: &str = "select extract(month from '01/02/2020'::date)";

/// Prepares the text by a name, runs it, and forgets it.
async fn month(client: &mut Wired) -> String {
    client.parse("month", MONTH, &[]);
    client.bind("month", &[], Format::Text).execute(0);
    let month = values(&client.sync().await);
    client.close("month").sync().await;
    month
}

/// A statement keeps what its strings were read as when it was prepared: that is nobody else's who has not set the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_strings_are_read_as_is_the_sessions_own() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    for set in [
        "set local datestyle = 'SQL, DMY'",
        "set datestyle = 'SQL, DMY'",
        "select set_config('DateStyle', 'SQL, DMY', true)",
        "select set_config(n, 'SQL, DMY', true) from (values ('DateStyle')) v (n)",
        "do $$ begin set local datestyle = 'SQL, DMY'; end $$",
    ] {
        for is_first in [true, false] {
            let pooled = Pooled::start(postgres.origin(), limited(1)).await;
            let mut ann = Wired::connect(pooled.address).await;
            let mut joe = Wired::connect(pooled.address).await;
            if !is_first {
                assert_eq!(month(&mut joe).await, "1");
            }
            ann.query("begin").await;
            ann.query(set).await;
            assert_eq!(month(&mut ann).await, "2", "{set}");
            ann.query("rollback").await;
            assert_eq!(month(&mut joe).await, "1", "{set}");
            assert_eq!(month(&mut ann).await, "1", "{set}");
            // In one breath.
            for sql in ["begin", set] {
                frontend::query(&mut ann.out, sql.as_bytes()).unwrap();
            }
            ann.until(b'Z').await;
            ann.until(b'Z').await;
            assert_eq!(month(&mut ann).await, "2", "{set}");
            ann.query("rollback").await;
            assert_eq!(month(&mut joe).await, "1", "{set}");
        }
    }
}

/// As above, of a statement that was prepared before and comes to another connection.
#[tokio::test(flavor = "multi_thread")]
async fn what_moves_is_not_read_for_others_by_what_is_set_there() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(2)).await;
    let mut ann = Wired::connect(pooled.address).await;
    let mut joe = Wired::connect(pooled.address).await;
    let mut ben = Wired::connect(pooled.address).await;
    assert_eq!(month(&mut joe).await, "1");
    ann.parse("mine", MONTH, &[]).sync().await;
    // The other connection is ann's.
    joe.query("begin").await;
    assert_eq!(month(&mut joe).await, "1");
    ann.query("begin; set local datestyle = 'SQL, DMY'").await;
    let told = ann.bind("mine", &[], Format::Text).execute(0).sync().await;
    assert!(!kinds(&told).contains('E'), "{}", values(&told));
    ann.query("commit").await;
    assert_eq!(month(&mut ben).await, "1");
    joe.query("commit").await;
    assert_eq!(month(&mut ben).await, "1");
}

/// As above, of one that was prepared under what its session has set no longer, which is what another has set.
#[tokio::test(flavor = "multi_thread")]
async fn what_moves_is_not_read_for_others_by_what_is_set_no_longer() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(2)).await;
    let mut ann = Wired::connect(pooled.address).await;
    let mut joe = Wired::connect(pooled.address).await;
    let mut ben = Wired::connect(pooled.address).await;
    let dmy = "set datestyle = 'SQL, DMY'";
    ann.query(dmy).await;
    ann.parse("mine", MONTH, &[]).sync().await;
    ann.query("reset datestyle").await;
    // The other connection is ann's, and then ben's.
    joe.query("begin").await;
    let told = ann.bind("mine", &[], Format::Text).execute(0).sync().await;
    assert!(!kinds(&told).contains('E'), "{}", values(&told));
    ben.query(dmy).await;
    assert_eq!(month(&mut ben).await, "2");
    joe.query("commit").await;
    assert_eq!(month(&mut ben).await, "2");
}

/// As above, where what a statement gives was told from memory, and is looked at again before it is run.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_from_memory_is_not_read_for_others_by_what_is_set_no_longer() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let pooled = Pooled::cached(postgres.origin(), limited(2), Caching::default()).await;
    let mut ann = Wired::connect(pooled.address).await;
    let mut joe = Wired::connect(pooled.address).await;
    let mut ben = Wired::connect(pooled.address).await;
    let dmy = "set datestyle = 'SQL, DMY'";
    for client in [&mut ben, &mut ann] {
        client.query(dmy).await;
        client.parse("mine", MONTH, &[]);
        client.describe(Target::Statement, "mine").sync().await;
    }
    ann.query("reset datestyle").await;
    // The other connection is ann's, and then ben's.
    joe.query("begin").await;
    let told = ann.bind("mine", &[], Format::Text).execute(0).sync().await;
    assert!(!kinds(&told).contains('E'), "{}", values(&told));
    assert_eq!(month(&mut ben).await, "2");
    joe.query("commit").await;
    assert_eq!(month(&mut ben).await, "2");
}

/// What a statement of one session finds by a date that it keeps is no answer for others.
#[tokio::test(flavor = "multi_thread")]
async fn what_dates_were_read_as_is_not_in_answers_for_others() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let beside = postgres.session().await;
    beside
        .batch_execute(
            "create table t (n int, d date); insert into t values (1, '2020-01-02'), (2, '2020-02-01')",
        )
        .await
        .unwrap();
    let sql = "select n from t where d = '01/02/2020'";
    for (begin, end) in [
        (&["begin", "set local datestyle = 'SQL, DMY'"][..], "commit"),
        (&["set datestyle = 'SQL, DMY'"], "reset datestyle"),
    ] {
        let pooled = Pooled::cached(postgres.origin(), limited(1), Caching::default()).await;
        let mut ann = Wired::connect(pooled.address).await;
        let mut joe = Wired::connect(pooled.address).await;
        for sql in begin {
            ann.query(sql).await;
        }
        ann.parse("mine", sql, &[]).sync().await;
        ann.query(end).await;
        for _ in 0..2 {
            let told = ann.bind("mine", &[], Format::Text).execute(0).sync().await;
            assert_eq!(values(&told), "2", "{begin:?}");
        }
        for n in 0..2 {
            let name = format!("s{n}");
            joe.parse(&name, sql, &[]);
            let told = joe.bind(&name, &[], Format::Text).execute(0).sync().await;
            assert_eq!(values(&told), "1", "{begin:?}");
        }
        assert_eq!(pooled.count(CacheStatus::Hit), 1, "{begin:?}");
        // Nor does it get others' answers.
        let told = ann.bind("mine", &[], Format::Text).execute(0).sync().await;
        assert_eq!(values(&told), "2", "{begin:?}");
    }
}

/// `now` in a string is when its statement was prepared, not when somebody else's was.
#[tokio::test(flavor = "multi_thread")]
async fn the_clock_in_a_string_is_the_sessions_own() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let mut ann = Wired::connect(pooled.address).await;
    let mut joe = Wired::connect(pooled.address).await;
    let mut times = Vec::new();
    for client in [&mut ann, &mut joe] {
        client.parse("s", "select 'now'::timestamptz", &[]);
        client.bind("s", &[], Format::Text).execute(0);
        times.push(values(&client.sync().await));
        client.bind("s", &[], Format::Text).execute(0);
        assert_eq!(times.last(), Some(&values(&client.sync().await)));
    }
    assert_ne!(times[0], times[1]);
}

/// What a statement gives is told to others only if it was asked under what is known to be set.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_described_amid_other_settings_is_told_to_nobody_else() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let beside = postgres.session().await;
    beside
        .batch_execute("create table t (a int); create schema other; create table other.t (b text)")
        .await
        .unwrap();
    for set in [
        &["set search_path = other"][..],
        &["begin", "set local search_path = other"],
    ] {
        let pooled = Pooled::cached(postgres.origin(), limited(1), Caching::default()).await;
        let mut ann = Wired::connect(pooled.address).await;
        let mut joe = Wired::connect(pooled.address).await;
        let sql = "select * from t";
        for sql in set {
            frontend::query(&mut ann.out, sql.as_bytes()).unwrap();
        }
        ann.parse("", sql, &[]).describe(Target::Statement, "");
        for _ in set {
            ann.until(b'Z').await;
        }
        let others = ann.sync().await;
        assert_eq!(kinds(&others), "1tTZ");
        ann.query("rollback").await;
        joe.parse("", sql, &[]).describe(Target::Statement, "");
        let own = joe.sync().await;
        let text = |frames: &[wire::pg::Frame]| frames[2].body()[2];
        assert_eq!((text(&others), text(&own)), (b'b', b'a'), "{set:?}");
    }
}
