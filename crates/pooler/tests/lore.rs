//! What a pool knows of its origin's catalog, and that nobody waits while it asks.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod harness;

use std::time::Duration;

use dormouse_pooler::PoolOptions;
use harness::wired::{Wired, kinds, values};
use harness::{Pooled, Postgres, limited, one, until, until_late};
use tokio::time::timeout;

const SCHEMA: &str = "create table plain (n int);
    create function leave_by() returns trigger language plpgsql as $$ begin
    perform set_config('work_mem', '9MB', false); return new; end $$;
    create table triggered (n int); create trigger t before insert on triggered execute function leave_by();
    create table \"größe\" (n int); create trigger t before insert on \"größe\" execute function leave_by();";

/// Whoever waits for the catalog waits as long as this is there.
const LOCK: &str = "begin; lock table pg_catalog.pg_policy in access exclusive mode";

fn logging() -> Option<Postgres> {
    Postgres::start(&native::Options {
        settings: vec!["log_statement=all".to_owned()],
        ..native::Options::default()
    })
}

/// Whether a text of one that leaves nothing costs another nothing.
async fn is_learned(postgres: &Postgres, ann: &mut Wired, joe: &mut Wired) -> bool {
    let cleanings = || {
        postgres
            .native
            .log()
            .matches("statement: CLOSE ALL")
            .count()
    };
    let before = cleanings();
    for _ in 0..3 {
        for session in [&mut *ann, &mut *joe] {
            let told = session.query("insert into plain values (1)").await;
            assert!(!kinds(&told).contains('E'), "{}", values(&told));
        }
    }
    // What was left before may have been cleaned once.
    let after = cleanings();
    after <= before + 1
}

/// What a trigger leaves is gone.
async fn expect_clean(ann: &mut Wired, joe: &mut Wired, table: &str) {
    let told = ann.query(&format!("insert into {table} values (1)")).await;
    assert!(!kinds(&told).contains('E'), "{}", values(&told));
    assert_eq!(values(&joe.query("show work_mem").await), "4MB");
}

/// An origin whose catalog takes long is used at once, and what it has told counts when it has.
#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_does_not_tell_can_be_used() {
    let Some(postgres) = logging() else {
        return;
    };
    let beside = postgres.session().await;
    beside.batch_execute(SCHEMA).await.unwrap();
    beside.batch_execute(LOCK).await.unwrap();
    let options = PoolOptions {
        connect_timeout: Duration::from_secs(5),
        ..limited(1)
    };
    let pooled = Pooled::start(postgres.origin(), options).await;
    let mut ann = Wired::connect(pooled.address).await;
    let mut joe = Wired::connect(pooled.address).await;
    expect_clean(&mut ann, &mut joe, "triggered").await;
    assert_eq!(pooled.pool.standing().counts.failed, 0);
    beside.batch_execute("rollback").await.unwrap();
    // It is left alone for ten times as long as it was asked.
    until_late("it has told", async || {
        is_learned(&postgres, &mut ann, &mut joe).await
    })
    .await;
    expect_clean(&mut ann, &mut joe, "triggered").await;
}

/// Nor does anybody wait while it is asked anew.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_while_the_origin_is_asked_anew() {
    let Some(postgres) = logging() else {
        return;
    };
    let beside = postgres.session().await;
    beside.batch_execute(SCHEMA).await.unwrap();
    let pooled = Pooled::start(postgres.origin(), limited(2)).await;
    let mut ann = Wired::connect(pooled.address).await;
    let mut joe = Wired::connect(pooled.address).await;
    until("it has told", async || {
        is_learned(&postgres, &mut ann, &mut joe).await
    })
    .await;
    beside.batch_execute(LOCK).await.unwrap();
    ann.query("create table later (n int)").await;
    ann.query("insert into plain values (1)").await;
    let waits = "select count(*) from pg_locks where not granted";
    until("the pool asks", async || one(&beside, waits).await == "1").await;
    for _ in 0..10 {
        // Not as long as the origin is given.
        let told = timeout(Duration::from_secs(20), joe.query("select 1")).await;
        assert_eq!(values(&told.unwrap()), "1");
        ann.query("insert into later values (1)").await;
    }
    // Nobody knows now what leaves nothing.
    expect_clean(&mut ann, &mut joe, "triggered").await;
    beside.batch_execute("rollback").await.unwrap();
    until("it has told", async || {
        is_learned(&postgres, &mut ann, &mut joe).await
    })
    .await;
    expect_clean(&mut ann, &mut joe, "triggered").await;
}

/// Names are read in one encoding, whatever that of the session is on whose connection they are asked for.
#[tokio::test(flavor = "multi_thread")]
async fn names_are_read_in_one_encoding() {
    let Some(postgres) = logging() else {
        return;
    };
    let beside = postgres.session().await;
    beside.batch_execute(SCHEMA).await.unwrap();
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let mut ann = Wired::connect(pooled.address).await;
    let mut joe = Wired::connect(pooled.address).await;
    expect_clean(&mut ann, &mut joe, "\"größe\"").await;
    joe.query("set client_encoding = 'LATIN1'").await;
    joe.query("create table later (n int)").await;
    joe.query("insert into plain values (1)").await;
    let asked = || postgres.native.log().matches("statement: COMMIT").count() > 1;
    until("it is asked anew", async || asked()).await;
    assert_eq!(values(&joe.query("show client_encoding").await), "LATIN1");
    until("it has told", async || {
        is_learned(&postgres, &mut ann, &mut joe).await
    })
    .await;
    expect_clean(&mut ann, &mut joe, "\"größe\"").await;
}
