//! Clients that vanish without a word, as those of a request that has ended do.

use std::time::Instant;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wire::pg::startup::Startup;
use wire::pg::{Format, frontend};

use crate::harness::wired::Wired;
use crate::harness::{Pooled, Postgres, limited, one, told, until};

/// How a socket ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// Both ways.
    Closed,
    /// It says no more, and would still listen.
    Half,
}

/// A client that has said this, and nothing of leaving.
async fn says(pooled: &Pooled, sql: &str) -> TcpStream {
    let mut stream = TcpStream::connect(pooled.address).await.unwrap();
    let mut out = BytesMut::new();
    Startup::new("a", "b").encode(&mut out).unwrap();
    frontend::query(&mut out, sql.as_bytes()).unwrap();
    stream.write_all(&out).await.unwrap();
    stream
}

async fn ends(mut stream: TcpStream, how: End) {
    match how {
        End::Closed => drop(stream),
        End::Half => {
            stream.shutdown().await.unwrap();
            let mut rest = Vec::new();
            // It is told nothing more than what it had asked for.
            stream.read_to_end(&mut rest).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behaviour_18_a_transaction_is_rolled_back_when_its_client_vanishes() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let beside = postgres.session().await;
    beside
        .batch_execute("create table t (n int); insert into t values (1)")
        .await
        .unwrap();
    // The pool has transactions of its own.
    let open = "select count(*) from pg_stat_activity \
                where state = 'idle in transaction' and query like '%update t %'";
    let held = "select n from t for update nowait";
    for how in [End::Closed, End::Half, End::Closed, End::Half] {
        let stream = says(&pooled, "begin; update t set n = 2").await;
        until("the row is locked", async || {
            one(&beside, open).await == "1"
        })
        .await;
        let refused = beside.simple_query(held).await.unwrap_err();
        assert_eq!(told(&refused).0, "55P03");
        let begun = Instant::now();
        ends(stream, how).await;
        let mut looks = 0;
        until("the row is free", async || {
            looks += 1;
            beside.simple_query(held).await.is_ok()
        })
        .await;
        let took = begun.elapsed();
        println!("{how:?}: rolled back after {took:?}, {looks} looks");
        assert_eq!(one(&beside, "select n from t").await, "1");
        // The same connection goes on.
        let next = pooled.session().await;
        assert_eq!(one(&next, "select n from t").await, "1");
    }
    let standing = pooled.pool.standing();
    assert_eq!((standing.connections, standing.counts.connected), (1, 1));
    assert_eq!(standing.counts.abandoned, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn behaviour_18_a_statement_is_cancelled_when_its_client_vanishes() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let beside = postgres.session().await;
    let running = "select count(*) from pg_stat_activity \
                   where query like '%pg_sleep%' and state = 'active' and pid <> pg_backend_pid()";
    for how in [End::Closed, End::Half] {
        let stream = says(&pooled, "select pg_sleep(100000)").await;
        until("it runs", async || one(&beside, running).await == "1").await;
        let begun = Instant::now();
        ends(stream, how).await;
        until("it does not run", async || {
            one(&beside, running).await == "0"
        })
        .await;
        println!("{how:?}: cancelled after {:?}", begun.elapsed());
        let next = pooled.session().await;
        assert_eq!(one(&next, "select 1").await, "1");
    }
    // The origin heard a cancellation each time, and its connection was not just closed.
    let log = postgres.native.log();
    let heard = log.matches("canceling statement due to user request");
    assert_eq!(heard.count(), 2, "{log}");
    assert_eq!(pooled.pool.standing().counts.connected, 1);
}

/// What begins behind the statement that is cancelled takes no other message than the end of its data.
#[tokio::test(flavor = "multi_thread")]
async fn behaviour_18_a_copy_that_has_not_begun_is_ended_when_its_client_vanishes() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let beside = postgres.session().await;
    one(&beside, "create table t (n int); select 1").await;
    let running = "select count(*) from pg_stat_activity \
                   where query like '%pg_sleep%' and state = 'active' and pid <> pg_backend_pid()";
    const COPY: &str = "copy t from stdin";
    for way in ["a query", "an extended query", "one that is not ended"] {
        let mut client = Wired::connect(pooled.address).await;
        frontend::query(&mut client.out, b"select pg_sleep(100000)").unwrap();
        if way == "a query" {
            frontend::query(&mut client.out, COPY.as_bytes()).unwrap();
        } else {
            client.parse("", COPY, &[]).bind("", &[], Format::Text);
            client.execute(0);
        }
        if way == "an extended query" {
            frontend::sync(&mut client.out);
        }
        client.send().await;
        until("it runs", async || one(&beside, running).await == "1").await;
        drop(client);
        let next = pooled.session().await;
        assert_eq!(one(&next, "select count(*) from t").await, "0");
        let counts = pooled.pool.standing().counts;
        assert_eq!(counts.connected, 1, "{way}");
    }
}

/// Amid rows of which it reads none, with a message that is half through.
#[tokio::test(flavor = "multi_thread")]
async fn behaviour_18_a_large_result_is_cancelled_when_its_client_vanishes() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    for round in 0..2 {
        let mut stream = says(
            &pooled,
            "select repeat('x', 100000000), n from generate_series(1, 50) n",
        )
        .await;
        let mut some = [0; 100_000];
        stream.read_exact(&mut some).await.unwrap();
        drop(stream);
        let begun = Instant::now();
        let next = pooled.session().await;
        assert_eq!(one(&next, "select 1").await, "1");
        println!("{round}: free after {:?}", begun.elapsed());
    }
    let log = postgres.native.log();
    let heard = log.matches("canceling statement due to user request");
    assert_eq!(heard.count(), 2, "{log}");
    let counts = pooled.pool.standing().counts;
    assert_eq!((counts.connected, counts.abandoned), (1, 2));
}

/// Of many who do the same at the same time, each cancellation hits its own.
#[tokio::test(flavor = "multi_thread")]
async fn behaviour_18_a_cancellation_reaches_no_other() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    const CLIENTS: usize = 8;
    let pooled = Pooled::start(postgres.origin(), limited(CLIENTS)).await;
    let beside = postgres.session().await;
    let mut sessions = Vec::new();
    for _ in 0..CLIENTS {
        sessions.push(std::sync::Arc::new(pooled.session().await));
    }
    let running = "select count(*) from pg_stat_activity \
                   where query like '%pg_sleep%' and state = 'active' and pid <> pg_backend_pid()";
    let asked: Vec<_> = sessions
        .iter()
        .map(|session| {
            let session = std::sync::Arc::clone(session);
            tokio::spawn(async move { session.simple_query("select pg_sleep(100000)").await })
        })
        .collect();
    until("all run", async || {
        one(&beside, running).await == CLIENTS.to_string()
    })
    .await;
    for (n, (session, asked)) in sessions.iter().zip(asked).enumerate() {
        let token = session.cancel_token();
        token.cancel_query(tokio_postgres::NoTls).await.unwrap();
        let error = asked.await.unwrap().unwrap_err();
        assert_eq!(told(&error).0, "57014");
        let left = CLIENTS - n - 1;
        until("it does not run any more", async || {
            one(&beside, running).await == left.to_string()
        })
        .await;
        // One that comes when nothing runs hits nobody, whoever has that connection now.
        token.cancel_query(tokio_postgres::NoTls).await.unwrap();
        assert_eq!(one(session, "select 1").await, "1");
    }
}
