//! Many clients over few connections, and what those hear who wait.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dormouse_pooler::{Durations, Host, PoolOptions};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use tokio::time::sleep;

use crate::harness::{Pooled, Postgres, limited, one, told, until};

const CLIENTS: usize = 1_000;
const CONNECTIONS: usize = 5;

/// How long somebody waits in vain.
const WAIT: Duration = Duration::from_secs(1);

/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(600);

/// Each client here has two descriptors, its own and the pool's.
fn allow_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// All of them are there before the first works, and the origin is asked all the time how many it sees.
#[tokio::test(flavor = "multi_thread")]
async fn behaviour_16_a_thousand_clients_over_five_connections() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    allow_descriptors();
    let options = PoolOptions {
        wait_max: LONG,
        ..limited(CONNECTIONS)
    };
    let pooled = Pooled::start(postgres.origin(), options).await;
    let beside = postgres.session().await;
    beside
        .batch_execute("create table t (who int, n int)")
        .await
        .unwrap();
    let all_there = Arc::new(Barrier::new(CLIENTS));
    let clients: Vec<_> = (0..CLIENTS as i32)
        .map(|who| {
            let (config, all_there) = (pooled.config(), Arc::clone(&all_there));
            tokio::spawn(async move {
                let (mut session, connection) =
                    config.connect(tokio_postgres::NoTls).await.unwrap();
                tokio::spawn(connection);
                all_there.wait().await;
                for n in 0..3_i32 {
                    let transaction = session.transaction().await.unwrap();
                    let insert = "insert into t values ($1, $2)";
                    transaction.execute(insert, &[&who, &n]).await.unwrap();
                    transaction.commit().await.unwrap();
                }
            })
        })
        .collect();
    let over = Arc::new(AtomicBool::new(false));
    let is_over = Arc::clone(&over);
    let watching = tokio::spawn(async move {
        // Those count that only begin, and those that are about to end.
        let there = "select count(*) from pg_stat_activity \
                     where backend_type = 'client backend' and pid <> pg_backend_pid()";
        let mut most = 0;
        let mut looks = 0;
        while !is_over.load(Ordering::Acquire) {
            let now: usize = one(&beside, there).await.parse().unwrap();
            assert!(now <= CONNECTIONS, "the origin has {now} connections");
            most = most.max(now);
            looks += 1;
        }
        (beside, most, looks)
    });
    for client in clients {
        client.await.unwrap();
    }
    over.store(true, Ordering::Release);
    let (beside, most, looks) = watching.await.unwrap();
    println!("at most {most} connections in {looks} looks");
    assert_eq!(most, CONNECTIONS);
    let done = "select count(*) || ' ' || count(distinct who) from t";
    assert_eq!(one(&beside, done).await, "3000 1000");
    let counts = pooled.pool.standing().counts;
    assert_eq!((counts.refused, counts.abandoned), (0, 0), "{counts:?}");
}

/// Of three who have a connection, the one that began first is named.
#[tokio::test(flavor = "multi_thread")]
async fn behaviour_22_who_waits_hears_of_the_longest_transaction() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let options = PoolOptions {
        wait_max: WAIT,
        ..limited(3)
    };
    let pooled = Pooled::start(postgres.origin(), options).await;
    let mut holders = Vec::new();
    for _ in 0..3 {
        let session = pooled.session().await;
        session.batch_execute("begin").await.unwrap();
        holders.push(session);
    }
    // In one breath: it does not give its connection back in between.
    holders[0].batch_execute("commit; begin").await.unwrap();
    let waiting = pooled.session().await;
    let hint = async || {
        let error = waiting.simple_query("select 1").await.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "53300");
        let message = "Failed to acquire a connection from the pool.";
        assert_eq!(error.message(), message);
        error.hint().unwrap().to_owned()
    };
    let counts = || pooled.pool.standing().counts;
    let before = counts();
    assert!(hint().await.contains("of the 3 in use is with client 1 "));
    holders[0].batch_execute("commit").await.unwrap();
    holders[0].batch_execute("begin").await.unwrap();
    assert!(hint().await.contains("of the 3 in use is with client 2 "));
    // Two waits of a second, and one transaction that was over after the first of them.
    assert_eq!(
        beyond_a_second(&counts().waits),
        beyond_a_second(&before.waits) + 2
    );
    assert_eq!(
        beyond_a_second(&counts().held),
        beyond_a_second(&before.held) + 1
    );
    assert!(counts().waits.sum() >= before.waits.sum() + 2 * WAIT);
}

fn beyond_a_second(durations: &Durations) -> u64 {
    let buckets = Durations::bounds()
        .chain([f64::INFINITY])
        .zip(durations.buckets());
    buckets
        .filter(|(bound, _)| *bound > 1.0)
        .map(|(_, count)| count)
        .sum()
}

/// With nobody there at all, nobody waits as long as they would for a connection; who comes later is served.
#[tokio::test(flavor = "multi_thread")]
async fn behaviour_22_without_an_origin_everybody_is_told_at_once() {
    let Some(mut postgres) = Postgres::with_password() else {
        return;
    };
    let options = PoolOptions {
        wait_max: LONG,
        connect_timeout: LONG,
        ..limited(2)
    };
    let pooled = Pooled::start(postgres.origin(), options).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(pooled.session().await);
    }
    postgres.native.kill().unwrap();
    until("the origin is gone", async || {
        let address = postgres.native.address;
        tokio::net::TcpStream::connect(address).await.is_err()
    })
    .await;
    let asking = clients.into_iter().map(|session| {
        tokio::spawn(async move {
            // A process of a server that was killed may answer once more before it notices.
            loop {
                if let Err(error) = session.simple_query("select 1").await {
                    return (session, error);
                }
            }
        })
    });
    let mut kept = Vec::new();
    for asked in asking.collect::<Vec<_>>() {
        let (session, error) = tokio::time::timeout(LONG / 10, asked)
            .await
            .unwrap()
            .unwrap();
        if let Some(error) = error.as_db_error()
            && error.code().code() == "58000"
        {
            let message = "Server connection attempt failed: connection_refused";
            assert_eq!(error.message(), message);
            kept.push(session);
        }
    }
    assert!(!kept.is_empty());
    postgres.native.run().unwrap();
    // The same sessions, without another login.
    for session in &kept {
        until("the origin is back", async || {
            session.simple_query("select 1").await.is_ok()
        })
        .await;
    }
}

/// The only connection is one that its session keeps, and no other can be made: whoever waits hears at once why.
#[tokio::test(flavor = "multi_thread")]
async fn behaviour_22_nobody_waits_for_connections_that_sessions_keep() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let options = PoolOptions {
        wait_max: LONG,
        ..limited(2)
    };
    let pooled = Pooled::start(postgres.origin_of_limited(9).await, options).await;
    let (listening, waiting) = (pooled.session().await, pooled.session().await);
    listening.batch_execute("listen news").await.unwrap();
    let beside = postgres.session().await;
    let change = "alter role limited password 'another'";
    beside.batch_execute(change).await.unwrap();
    for _ in 0..2 {
        let asking = waiting.simple_query("select 1");
        let asked = tokio::time::timeout(LONG / 10, asking).await;
        assert_eq!(told(&asked.unwrap().unwrap_err()).0, "28P01");
    }
    // It has noticed nothing, and what it has others can have when it is done.
    listening.batch_execute("unlisten *").await.unwrap();
    assert_eq!(one(&waiting, "select 1").await, "1");
}

/// The origin has room for one, which is amid a transaction: who waits for another has it when there is room, without anybody
/// else coming; and hears of it, if that takes too long.
#[tokio::test(flavor = "multi_thread")]
async fn behaviour_22_who_waits_has_a_connection_when_the_origin_has_room() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let options = |wait_max| PoolOptions {
        wait_max,
        ..limited(3)
    };
    let origin = postgres.origin_of_limited(1).await;
    let pooled = Pooled::start(origin, options(Duration::from_secs(1))).await;
    let (holder, one_more, another) = (
        pooled.session().await,
        pooled.session().await,
        pooled.session().await,
    );
    holder.batch_execute("begin").await.unwrap();
    let error = one_more.simple_query("select 1").await.unwrap_err();
    let error = error.as_db_error().unwrap();
    let (detail, hint) = (error.detail().unwrap(), error.hint().unwrap());
    assert_eq!(error.code().code(), "53300");
    assert!(
        detail.contains("too many connections for role \"limited\" (53300)"),
        "{detail}"
    );
    assert!(
        hint.contains("with client 1 ") && !hint.contains("Raise"),
        "{hint}"
    );
    let failed = pooled.pool.standing().counts.failed;
    // Each 200 ms of the second, and never more often.
    assert!((2..=6).contains(&failed), "{failed}");

    holder.batch_execute("commit").await.unwrap();
    pooled.pool.adjust(options(LONG));
    holder.batch_execute("begin").await.unwrap();
    let failed = pooled.pool.standing().counts.failed;
    let serving = [one_more, another].map(|session| {
        tokio::spawn(async move {
            session.batch_execute("begin").await.unwrap();
            session
        })
    });
    until("no more can be made", async || {
        pooled.pool.standing().counts.failed > failed + 1
    })
    .await;
    let beside = postgres.session().await;
    let change = "alter role limited connection limit 3";
    beside.batch_execute(change).await.unwrap();
    let mut all = vec![holder];
    for served in serving {
        let served = tokio::time::timeout(LONG / 10, served).await;
        all.push(served.unwrap().unwrap());
    }
    for session in all {
        session.batch_execute("commit").await.unwrap();
    }
}

/// A network that takes its time with farewells: the port of it.
async fn slow_to_end(address: SocketAddr) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(address).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move {
                // Whoever has gone is not there for the rest.
                let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
            });
            tokio::spawn(async move {
                let mut room = [0; 4096];
                while let Ok(read @ 1..) = from_client.read(&mut room).await {
                    if room[..read] == *b"X\0\0\0\x04" {
                        sleep(Duration::from_millis(100)).await;
                    }
                    if to_server.write_all(&room[..read]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// The origin has room for as many as the pool may have, and for no more: those that go make room before the next come.
#[tokio::test(flavor = "multi_thread")]
async fn behaviour_16_no_more_connections_while_they_are_replaced() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let options = PoolOptions {
        wait_max: LONG,
        abandoned_max: LONG,
        ..limited(CONNECTIONS)
    };
    let mut origin = postgres.origin_of_limited(CONNECTIONS).await;
    let port = slow_to_end(postgres.native.address).await;
    origin.hosts = vec![Host::Tcp("127.0.0.1".to_owned(), port)];
    let pooled = Pooled::start(origin.clone(), options.clone()).await;
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4 * CONNECTIONS)
        .map(|who| {
            let (config, over) = (pooled.config(), Arc::clone(&over));
            tokio::spawn(async move {
                let (mut session, connection) =
                    config.connect(tokio_postgres::NoTls).await.unwrap();
                let mut connection = tokio::spawn(connection);
                let mut served = 0;
                while !over.load(Ordering::Acquire) {
                    session.batch_execute("begin; select 1").await.unwrap();
                    session.batch_execute("commit").await.unwrap();
                    served += 1;
                    // Some leave their transactions to the pool, and come again.
                    if who % 4 == 0 {
                        session.batch_execute("begin").await.unwrap();
                        connection.abort();
                        let (next, its) = config.connect(tokio_postgres::NoTls).await.unwrap();
                        session = next;
                        connection = tokio::spawn(its);
                    }
                }
                served
            })
        })
        .collect();
    for round in 0..30 {
        let before = pooled.pool.standing().counts.connected;
        match round % 3 {
            0 => pooled.pool.restart(),
            1 => pooled.pool.turn_to(origin.clone()),
            _ => pooled.pool.adjust(options.clone()),
        }
        until("some are replaced", async || {
            pooled.pool.standing().counts.connected >= before + 3
        })
        .await;
    }
    over.store(true, Ordering::Release);
    let mut served = 0;
    for client in clients {
        served += client.await.unwrap();
    }
    let counts = pooled.pool.standing().counts;
    println!(
        "{served} served, {} connections one after the other",
        counts.connected
    );
    assert_eq!(counts.failed, 0, "{counts:?}");
    pooled.pool.close();
    until("all have hung up", async || {
        pooled.pool.standing().connections == 0
    })
    .await;
}
