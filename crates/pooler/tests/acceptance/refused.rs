//! What the pool itself refuses: it takes along what an error of Postgres would.

use dormouse_pooler::PoolOptions;
use wire::pg::{Format, Frame, frontend};

use crate::harness::wired::{Wired, kinds, values};
use crate::harness::{Pooled, Postgres, limited};

/// A pool in which nothing may keep a connection, and a table in which nothing is.
async fn stage() -> Option<(Postgres, Pooled, Wired)> {
    let postgres = Postgres::with_password()?;
    let options = PoolOptions {
        pinned_max: 0,
        ..limited(1)
    };
    let pooled = Pooled::start(postgres.origin(), options).await;
    let mut client = Wired::connect(pooled.address).await;
    client.query("create table t (n int)").await;
    Some((postgres, pooled, client))
}

fn status(frames: &[Frame]) -> char {
    let last = frames.last().unwrap();
    char::from(last.body()[0])
}

async fn count(client: &mut Wired) -> String {
    values(&client.query("select count(*) from t").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_undone() {
    let Some((_postgres, _pooled, mut client)) = stage().await else {
        return;
    };
    for round in 0..2 {
        for sql in [
            "insert into t values (1)",
            "create temp table x (n int)",
            "insert into t values (2)",
        ] {
            client.parse("", sql, &[]).bind("", &[], Format::Text);
            client.execute(0);
        }
        let got = client.sync().await;
        assert!(values(&got).starts_with("53300"), "{}", values(&got));
        assert_eq!((kinds(&got).matches('E').count(), status(&got)), (1, 'I'));
        assert_eq!(count(&mut client).await, "0", "round {round}");
    }
    // A name that is there.
    client.parse("s", "select 1", &[]).sync().await;
    client
        .parse("", "insert into t values (1)", &[])
        .bind("", &[], Format::Text);
    let got = client.execute(0).parse("s", "select 2", &[]).sync().await;
    assert!(values(&got).starts_with("42P05"), "{}", values(&got));
    assert_eq!(count(&mut client).await, "0");
    // Nothing was under way: nothing is asked of the server.
    let got = client.parse("s", "select 2", &[]).sync().await;
    assert_eq!((&*kinds(&got), status(&got)), ("EZ", 'I'));
    // Alone it is right still.
    client.bind("s", &[], Format::Text);
    assert_eq!(values(&client.execute(0).sync().await), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_has_failed() {
    let Some((_postgres, _pooled, mut client)) = stage().await else {
        return;
    };
    client.parse("s", "select 1", &[]).sync().await;
    client.query("begin; insert into t values (1)").await;
    let got = client.query("listen a").await;
    assert_eq!((&*kinds(&got), status(&got)), ("EZ", 'E'));
    assert!(values(&got).starts_with("53300"));
    let got = client.query("select 1").await;
    assert!(values(&got).starts_with("25P02"), "{}", values(&got));
    // Postgres itself has refused meanwhile, and the pool refuses once more.
    let got = client.query("listen a").await;
    assert_eq!((&*kinds(&got), status(&got)), ("EZ", 'E'));
    assert_eq!(status(&client.query("commit").await), 'I');
    assert_eq!(count(&mut client).await, "0");
    client.query("begin").await;
    client.query("insert into t values (1)").await;
    let got = client.parse("s", "select 2", &[]).sync().await;
    assert_eq!((&*kinds(&got), status(&got)), ("EZ", 'E'));
    let got = client.bind("s", &[], Format::Text).execute(0).sync().await;
    assert!(values(&got).starts_with("25P02"), "{}", values(&got));
    client.query("rollback").await;
    assert_eq!(count(&mut client).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn simple_queries_in_one_breath_go_on() {
    let Some((_postgres, _pooled, mut client)) = stage().await else {
        return;
    };
    let all = [
        "select pg_sleep(0.05)",
        "listen a",
        "select 7",
        "begin",
        "insert into t values (1)",
        "listen a",
        "commit",
        "select count(*) from t",
    ];
    for sql in all {
        frontend::query(&mut client.out, sql.as_bytes()).unwrap();
    }
    let mut answers = Vec::new();
    for _ in all {
        let frames = client.until(b'Z').await;
        answers.push((kinds(&frames), status(&frames)));
    }
    let expected = [
        ("TDCZ", 'I'),
        ("EZ", 'I'),
        ("TDCZ", 'I'),
        ("CZ", 'T'),
        ("CZ", 'T'),
        ("EZ", 'E'),
        ("CZ", 'I'),
        ("TDCZ", 'I'),
    ];
    assert_eq!(
        answers,
        expected.map(|(kinds, status)| (kinds.to_owned(), status))
    );
    assert_eq!(count(&mut client).await, "0");
}

/// What one client deallocates, by whatever name, is there for the others, and for itself once it is prepared again.
#[tokio::test(flavor = "multi_thread")]
async fn who_deallocates_takes_nothing_from_others() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let mut one = Wired::connect(pooled.address).await;
    let mut other = Wired::connect(pooled.address).await;
    let run = async |client: &mut Wired, name: &str| {
        values(&client.bind(name, &[], Format::Text).execute(0).sync().await)
    };
    for client in [&mut one, &mut other] {
        client.parse("s", "select 7", &[]).sync().await;
        assert_eq!(run(client, "s").await, "7");
    }
    for sql in ["prepare p as select 1", "deallocate p"] {
        assert_eq!(kinds(&one.query(sql).await), "CZ", "{sql}");
    }
    assert_eq!(run(&mut one, "s").await, "7");
    // The pool's own names are nobody's.
    for n in 1..4 {
        let got = one.query(&format!("deallocate dormouse_{n}")).await;
        assert!(values(&got).starts_with("26000"), "{}", values(&got));
        let got = one
            .query(&format!("prepare dormouse_{n} as select 1"))
            .await;
        assert!(values(&got).starts_with("42602"), "{}", values(&got));
    }
    assert_eq!(run(&mut one, "s").await, "7");
    // Its own name for a statement, with a connection and without one.
    for begin in ["", "begin"] {
        one.query(begin).await;
        let got = one.query("DEALLOCATE PREPARE s").await;
        assert_eq!(kinds(&got), "CZ");
        one.query(begin.replace("begin", "rollback").as_str()).await;
        assert!(run(&mut one, "s").await.starts_with("26000"));
        assert_eq!(kinds(&one.parse("s", "select 7", &[]).sync().await), "1Z");
    }
    let got = one.query("deallocate missing").await;
    assert!(values(&got).starts_with("26000"), "{}", values(&got));
    for all in [
        "deallocate all",
        "discard all",
        // It is done, and what comes behind it fails.
        "deallocate all; select 1/0",
        // Nobody can see it.
        "do $$ begin execute 'deallocate all'; end $$",
    ] {
        one.query(all).await;
        assert_eq!(run(&mut other, "s").await, "7", "{all}");
        let again = kinds(&one.parse("t", "select 7", &[]).sync().await);
        assert_eq!(again, "1Z", "{all}");
        assert_eq!(run(&mut one, "t").await, "7", "{all}");
        one.query("deallocate t").await;
    }
}
