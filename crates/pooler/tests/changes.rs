//! Results whose type changes under a prepared statement, and statements of which a server has too many.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod harness;

use std::num::NonZeroUsize;

use dormouse_pooler::PoolOptions;
use harness::wired::{Wired, kinds, values};
use harness::{Pooled, Postgres, limited, one, until};
use wire::pg::{Format, Target, frontend};

/// Each of three connections has the statement when its result changes.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_what_the_result_is_does_not_notice() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(3)).await;
    let beside = postgres.session().await;
    beside
        .batch_execute("create table t as select 1 as a")
        .await
        .unwrap();
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(Wired::connect(pooled.address).await);
    }
    // Each gets a connection of its own.
    for client in &mut clients {
        client.query("begin").await;
        client
            .parse("s", "select * from t", &[])
            .bind("s", &[], Format::Text);
        client.describe(Target::Portal, "").execute(0);
        assert_eq!(values(&client.sync().await), "1");
    }
    for client in &mut clients {
        client.query("commit").await;
    }
    for (column, expected) in [("b", "1|2"), ("c", "1|2|2")] {
        let sql = format!("alter table t add {column} int default 2");
        beside.batch_execute(&sql).await.unwrap();
        for client in &mut clients {
            client.bind("s", &[], Format::Text);
            client.describe(Target::Portal, "").execute(0);
            let answer = client.sync().await;
            assert_eq!(values(&answer), expected);
            assert_eq!(kinds(&answer), "2TDCZ");
        }
    }
    // In a transaction the error is Postgres' own, and the statement works again behind it.
    beside.batch_execute("alter table t drop c").await.unwrap();
    let client = &mut clients[0];
    client.query("begin").await;
    client
        .bind("s", &[], Format::Text)
        .describe(Target::Portal, "")
        .execute(0);
    assert!(values(&client.sync().await).contains("0A000"));
    client.query("rollback").await;
    client
        .bind("s", &[], Format::Text)
        .describe(Target::Portal, "")
        .execute(0);
    assert_eq!(values(&client.sync().await), "1|2");
}

/// Who would take the new columns for the old ones is told, once for all connections if the text is prepared again.
#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_ask_is_told() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let beside = postgres.session().await;
    beside
        .batch_execute("create table t as select 1 as a")
        .await
        .unwrap();
    let mut client = Wired::connect(pooled.address).await;
    client
        .parse("s", "select * from t", &[])
        .bind("s", &[], Format::Text)
        .execute(0);
    assert_eq!(values(&client.sync().await), "1");
    beside
        .batch_execute("alter table t add b int default 2")
        .await
        .unwrap();
    client.bind("s", &[], Format::Text).execute(0);
    assert!(values(&client.sync().await).contains("0A000"));
    client
        .parse("again", "select * from t", &[])
        .bind("again", &[], Format::Text)
        .execute(0);
    assert_eq!(values(&client.sync().await), "1|2");
    client.bind("s", &[], Format::Text).execute(0);
    assert_eq!(values(&client.sync().await), "1|2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_keeps_so_many_statements_and_no_more() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let options = PoolOptions {
        statements_max: NonZeroUsize::new(5).unwrap(),
        ..limited(1)
    };
    let pooled = Pooled::start(postgres.origin(), options).await;
    let mut client = Wired::connect(pooled.address).await;
    for round in 0..2 {
        for n in 0..20 {
            let name = format!("s{n}");
            if round == 0 {
                client.parse(&name, &format!("select {n}"), &[]);
            }
            client.bind(&name, &[], Format::Text).execute(0);
            assert_eq!(values(&client.sync().await), n.to_string());
        }
    }
    let count = "select count(*) <= 7 from pg_prepared_statements";
    assert_eq!(values(&client.query(count).await), "t");
}

/// Answers for which no server is asked wait for others behind them, and never longer than Postgres would let them.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_flushed_arrives() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let mut holder = Wired::connect(pooled.address).await;
    let mut client = Wired::connect(pooled.address).await;
    let sql = "select 1";
    // From now on it is known that servers take it.
    holder.parse("h", sql, &[]).sync().await;
    for name in ["", "s"] {
        holder.query("begin").await;
        // The only connection is taken.
        client.parse(name, sql, &[]).flush();
        assert_eq!(kinds(&client.until(b'1').await), "1");
        client.close(name).flush();
        assert_eq!(kinds(&client.until(b'3').await), "3");
        client.parse(name, sql, &[]);
        assert_eq!(kinds(&client.sync().await), "1Z");
        client.close(name).parse(name, sql, &[]);
        client.send().await;
        client.flush();
        assert_eq!(kinds(&client.until(b'1').await), "31");
        holder.query("commit").await;
        // What waits is as long as the answer that comes behind it.
        client.close(name).parse(name, sql, &[]);
        client.bind(name, &[], Format::Text).flush();
        assert_eq!(kinds(&client.until(b'2').await), "312");
        client.execute(0).flush();
        assert_eq!(kinds(&client.until(b'C').await), "DC");
        assert_eq!(kinds(&client.sync().await), "Z");
        // An error is told as well.
        client.close(name).bind("none", &[], Format::Text);
        let error = client.until(b'E').await;
        assert_eq!(kinds(&error), "3E");
        assert_eq!(kinds(&client.sync().await), "Z");
    }
}

/// More than Postgres would keep back leaves unasked, and who sends on without a word is still heard.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_flushes_is_not_kept_without_end() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let mut client = Wired::connect(pooled.address).await;
    // Their answers are more than waits for a client before it is not read any more.
    for _ in 0..60_000 {
        client.close("s");
    }
    client.send().await;
    let answers = client.sync().await;
    assert_eq!(answers.len(), 60_001);
    assert_eq!(values(&client.query("select 1").await), "1");
}

/// Postgres tells that it has taken a statement when the client is gone already.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_has_prepared_that_vanished_is_known() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let beside = postgres.session().await;
    let sleeping = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
    let sql = "select pg_sleep($1::float8)::text";
    for _ in 0..2 {
        let mut gone = Wired::connect(pooled.address).await;
        gone.parse("s", sql, &[])
            .bind("s", &["100000"], Format::Text);
        gone.execute(0);
        frontend::sync(&mut gone.out);
        gone.send().await;
        until("it sleeps", async || one(&beside, sleeping).await == "1").await;
        drop(gone);
        let mut next = Wired::connect(pooled.address).await;
        next.parse("t", sql, &[]).bind("t", &["0"], Format::Text);
        next.execute(0);
        assert_eq!(kinds(&next.sync().await), "12DCZ");
    }
}

/// A statement that is prepared again amid a transaction that has failed is closed there, and not made anew.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_closed_is_prepared_again() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let sql = "select 7";
    for round in 0..2 {
        let mut client = Wired::connect(pooled.address).await;
        // All in one flight: nothing is answered yet when the next comes.
        frontend::query(&mut client.out, b"begin").unwrap();
        client.parse("one", sql, &[]);
        frontend::sync(&mut client.out);
        client
            .parse("wrong", "select 1/0", &[])
            .bind("wrong", &[], Format::Text);
        client.execute(0);
        frontend::sync(&mut client.out);
        client.parse("two", sql, &[]);
        frontend::sync(&mut client.out);
        for _ in 0..4 {
            client.until(b'Z').await;
        }
        client.query("rollback").await;
        drop(client);
        let mut next = Wired::connect(pooled.address).await;
        next.parse("s", sql, &[]).bind("s", &[], Format::Text);
        next.execute(0);
        assert_eq!(values(&next.sync().await), "7", "round {round}");
    }
}
