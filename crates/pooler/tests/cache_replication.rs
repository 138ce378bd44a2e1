//! Writes made elsewhere that are heard of by logical replication.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod harness;

use std::time::Duration;

use dormouse_pooler::{
    CacheStatus, Caching, CachingMode, PoolOptions, ReplicationReason, ReplicationStanding,
};
use harness::{Pooled, Postgres, limited, one, until};
use tokio_postgres::Client as Session;

const SCHEMA: &str = "create table a (n int primary key, v int); insert into a values (1, 0);
    create table child (n int primary key references a on delete cascade); insert into child values (1);
    create table whole (n int primary key) partition by range (n);
    create table part1 partition of whole for values from (0) to (10);
    create table part2 partition of whole for values from (10) to (20);
    create table logged (n int primary key); create table log (n int primary key);
    create function log_it() returns trigger language plpgsql as
    $$ begin insert into log values (new.n); return new; end $$;
    create trigger log_it after insert on logged for each row execute function log_it();
    create table quiet (n int primary key);
    create view av as select * from a;";

fn server(settings: &[&str]) -> Option<Postgres> {
    let settings = settings.iter().map(|setting| (*setting).to_owned());
    Postgres::start(&native::Options {
        settings: settings.collect(),
        ..native::Options::default()
    })
}

/// Answers live for an hour, and what is written elsewhere is heard of.
fn hearing() -> Caching {
    Caching {
        max_age: 3600,
        stale_while_revalidate: 0,
        replication: true,
        ..Caching::default()
    }
}

async fn pooled(server: &Postgres, options: PoolOptions) -> Pooled {
    Pooled::cached(server.origin(), options, hearing()).await
}

async fn streams(pooled: &Pooled) {
    until("streaming", async || {
        pooled.pool.replication() == ReplicationStanding::Streaming
    })
    .await;
}

/// Asks until the answer comes from the cache.
async fn settle(pooled: &Pooled, session: &Session, sql: &str) -> String {
    let mut last = String::new();
    until("hit", async || {
        let before = pooled.count(CacheStatus::Hit);
        last = one(session, sql).await;
        pooled.count(CacheStatus::Hit) > before
    })
    .await;
    last
}

async fn slots(direct: &Session) -> String {
    one(direct, "select count(*) from pg_replication_slots").await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_write_is_read() {
    let Some(server) = server(&["wal_level=logical"]) else {
        return;
    };
    let direct = server.session().await;
    direct.batch_execute(SCHEMA).await.unwrap();
    let pooled = pooled(&server, limited(3)).await;
    let session = pooled.session().await;
    one(&session, "select 1").await;
    streams(&pooled).await;
    let a = "select coalesce(sum(v), -1) from a";
    let whole = "select count(*) from whole";
    let part1 = "select count(*) from part1";
    for (write, read, is) in [
        ("update a set v = 7", a, "7"),
        (
            "begin; insert into a values (2, 3); savepoint s; insert into a values (3, 1); release s; commit",
            a,
            "11",
        ),
        (
            "update a set v = 10 where n = 1",
            "select sum(v) from av",
            "14",
        ),
        ("insert into part1 values (1)", whole, "1"),
        ("insert into whole values (2), (12)", part1, "2"),
        ("update whole set n = 13 where n = 2", part1, "1"),
        ("truncate part2", whole, "1"),
        ("truncate whole", part1, "0"),
        (
            "delete from a where n = 1",
            "select count(*) from child",
            "0",
        ),
        (
            "insert into logged values (5)",
            "select count(*) from log",
            "1",
        ),
        ("copy a from program 'echo 9,90' csv", a, "94"),
        ("truncate a cascade", a, "-1"),
    ] {
        let before = settle(&pooled, &session, read).await;
        assert_ne!(before, is, "{write} would change nothing");
        direct.batch_execute(write).await.unwrap();
        until(write, async || one(&session, read).await == is).await;
    }
    // What nobody has written stays.
    let quiet = "select count(*) from quiet";
    settle(&pooled, &session, quiet).await;
    let dropped = pooled.pool.cache_figures().dropped_all;
    direct
        .batch_execute("insert into a values (50, 50)")
        .await
        .unwrap();
    until("heard", async || one(&session, a).await == "50").await;
    let hits = pooled.count(CacheStatus::Hit);
    assert_eq!(one(&session, quiet).await, "0");
    assert_eq!(pooled.count(CacheStatus::Hit), hits + 1);
    assert_eq!(pooled.pool.cache_figures().dropped_all, dropped);
    // A row that is longer than what is kept of a message, and many in one transaction.
    direct
        .batch_execute(
            "create table long (n int primary key, t text);
             insert into long select n, repeat(md5(n::text), 20000) from generate_series(1, 50) n",
        )
        .await
        .unwrap();
    let long = "select sum(length(t)) from long";
    settle(&pooled, &session, long).await;
    direct
        .batch_execute(
            "insert into long select n, repeat(md5(n::text), 20000) from generate_series(51, 60) n",
        )
        .await
        .unwrap();
    until("long rows", async || {
        one(&session, long).await == "38400000"
    })
    .await;
    assert_eq!(slots(&direct).await, "1");
    pooled.pool.close();
    until("no slot is left", async || slots(&direct).await == "0").await;
}

/// The stream tells a commit before it shows, if a standby has to confirm it: nothing of before is kept meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_does_not_show_yet_is_in_doubt() {
    let Some(server) = server(&["wal_level=logical"]) else {
        return;
    };
    let direct = server.session().await;
    direct.batch_execute(SCHEMA).await.unwrap();
    let pooled = pooled(&server, limited(3)).await;
    let session = pooled.session().await;
    let a = "select sum(v) from a";
    one(&session, a).await;
    streams(&pooled).await;
    assert_eq!(settle(&pooled, &session, a).await, "0");
    // A standby that there is not.
    direct
        .batch_execute("alter system set synchronous_standby_names = 'nobody'")
        .await
        .unwrap();
    direct
        .batch_execute("select pg_reload_conf()")
        .await
        .unwrap();
    until("the setting is there", async || {
        one(&direct, "show synchronous_standby_names").await == "nobody"
    })
    .await;
    let writer = server.session().await;
    let writing = tokio::spawn(async move { writer.batch_execute("update a set v = 1").await });
    until("the commit waits", async || {
        let sql = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";
        one(&direct, sql).await == "1"
    })
    .await;
    until("the commit is heard of", async || {
        let misses = pooled.count(CacheStatus::Miss);
        assert_eq!(one(&session, a).await, "0");
        pooled.count(CacheStatus::Miss) > misses
    })
    .await;
    let hits = pooled.count(CacheStatus::Hit);
    for _ in 0..20 {
        assert_eq!(one(&session, a).await, "0");
    }
    assert_eq!(pooled.count(CacheStatus::Hit), hits);
    // Whoever waits is let go by the setting alone.
    direct
        .batch_execute("alter system set synchronous_standby_names = ''")
        .await
        .unwrap();
    direct
        .batch_execute("select pg_reload_conf()")
        .await
        .unwrap();
    writing.await.unwrap().unwrap();
    assert_eq!(one(&session, a).await, "1");
    assert_eq!(settle(&pooled, &session, a).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_killed_comes_back() {
    let Some(server) = server(&["wal_level=logical"]) else {
        return;
    };
    let direct = server.session().await;
    direct.batch_execute(SCHEMA).await.unwrap();
    let pooled = pooled(&server, limited(3)).await;
    let session = pooled.session().await;
    let a = "select sum(v) from a";
    one(&session, a).await;
    streams(&pooled).await;
    for round in 1..=3 {
        settle(&pooled, &session, a).await;
        direct
            .batch_execute("select pg_terminate_backend(pid) from pg_stat_replication")
            .await
            .unwrap();
        until("the stream is lost", async || slots(&direct).await == "0").await;
        let sql = format!("update a set v = {round}");
        direct.batch_execute(&sql).await.unwrap();
        until("what was written meanwhile is read", async || {
            one(&session, a).await == round.to_string()
        })
        .await;
        streams(&pooled).await;
        settle(&pooled, &session, a).await;
    }
    assert_eq!(slots(&direct).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_others_have_is_waited_for() {
    let Some(server) = server(&["wal_level=logical", "max_replication_slots=1"]) else {
        return;
    };
    let direct = server.session().await;
    let others = "select pg_create_physical_replication_slot('others')";
    direct.batch_execute(others).await.unwrap();
    let pooled = pooled(&server, limited(3)).await;
    one(&pooled.session().await, "select 1").await;
    failed(
        &pooled,
        ReplicationReason::NoSlotLeft,
        "max_replication_slots",
    )
    .await;
    let gone = "select pg_drop_replication_slot('others')";
    direct.batch_execute(gone).await.unwrap();
    streams(&pooled).await;
}

async fn failed(pooled: &Pooled, reason: ReplicationReason, part: &str) {
    until("failed", async || match pooled.pool.replication() {
        ReplicationStanding::Failed(failure) if failure.reason == reason => {
            assert!(failure.message.contains(part), "{failure}");
            true
        }
        _ => false,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn why_there_is_no_stream_is_told() {
    let Some(server) = server(&["wal_level=replica"]) else {
        return;
    };
    let direct = server.session().await;
    direct.batch_execute(SCHEMA).await.unwrap();
    let caching = Caching {
        max_age: 1,
        ..hearing()
    };
    let pooled = Pooled::cached(server.origin(), limited(3), caching).await;
    assert_eq!(pooled.pool.replication(), ReplicationStanding::Off);
    let session = pooled.session().await;
    let a = "select sum(v) from a";
    one(&session, a).await;
    failed(&pooled, ReplicationReason::WalLevel, "wal_level is replica").await;
    // By time it works as ever.
    settle(&pooled, &session, a).await;
    direct.batch_execute("update a set v = 5").await.unwrap();
    until("by time", async || one(&session, a).await == "5").await;
    pooled.pool.set_caching(Caching {
        replication: false,
        ..hearing()
    });
    assert_eq!(pooled.pool.replication(), ReplicationStanding::Off);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_needs_rights_and_tables_an_identity() {
    let Some(server) = server(&["wal_level=logical"]) else {
        return;
    };
    let direct = server.session().await;
    direct.batch_execute(SCHEMA).await.unwrap();
    let roles = "create role plain login; create role streamer login replication;
        grant pg_read_all_data to plain, streamer; create table keyless (n int);";
    direct.batch_execute(roles).await.unwrap();
    let of = async |user: &str| {
        let mut origin = server.origin();
        origin.user = user.to_owned();
        let pooled = Pooled::cached(origin, limited(3), hearing()).await;
        one(&pooled.session().await, "select sum(v) from a").await;
        pooled
    };
    let plain = of("plain").await;
    failed(&plain, ReplicationReason::Permission, "REPLICATION").await;
    // With a publication of all tables nobody could change this one any more.
    let streamer = of("streamer").await;
    failed(&streamer, ReplicationReason::Identity, "public.keyless").await;
    direct
        .batch_execute("alter table keyless replica identity full")
        .await
        .unwrap();
    failed(&streamer, ReplicationReason::Permission, "dormouse_cache").await;
    // Made by somebody who may.
    direct
        .batch_execute("create publication dormouse_cache for table a, keyless")
        .await
        .unwrap();
    streams(&streamer).await;
    let session = streamer.session().await;
    let keyless = "select count(*) from keyless";
    settle(&streamer, &session, keyless).await;
    direct
        .batch_execute("insert into keyless values (1); update keyless set n = 2")
        .await
        .unwrap();
    until("heard", async || one(&session, keyless).await == "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_who_uses_it_is_no_stream() {
    let Some(server) = server(&["wal_level=logical"]) else {
        return;
    };
    let direct = server.session().await;
    direct.batch_execute(SCHEMA).await.unwrap();
    let options = PoolOptions {
        idle: Duration::from_millis(300),
        ..limited(3)
    };
    let pooled = pooled(&server, options).await;
    let session = pooled.session().await;
    let a = "select sum(v) from a";
    one(&session, a).await;
    streams(&pooled).await;
    assert_eq!(settle(&pooled, &session, a).await, "0");
    drop(session);
    until("idle", async || {
        pooled.pool.replication() == ReplicationStanding::Idle
    })
    .await;
    until("no slot is left", async || slots(&direct).await == "0").await;
    direct.batch_execute("update a set v = 3").await.unwrap();
    let session = pooled.session().await;
    assert_eq!(one(&session, a).await, "3");
    streams(&pooled).await;
    // Turned off while it is used.
    pooled.pool.set_caching(Caching {
        mode: CachingMode::Ttl,
        ..hearing()
    });
    assert_eq!(pooled.pool.replication(), ReplicationStanding::Off);
    until("no slot is left", async || slots(&direct).await == "0").await;
    pooled.pool.set_caching(hearing());
    one(&session, a).await;
    streams(&pooled).await;
    // Another origin, or the same anew.
    pooled.pool.turn_to(server.origin());
    settle(&pooled, &session, a).await;
    streams(&pooled).await;
    direct.batch_execute("update a set v = 4").await.unwrap();
    until("heard", async || one(&session, a).await == "4").await;
    until("one slot", async || slots(&direct).await == "1").await;
}
