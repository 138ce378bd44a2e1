//! What breaks between the pool and its origin while transactions are under way.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use dormouse_pooler::{Host, Origin, PoolOptions, Target};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use wire::pg::frontend;

use crate::harness::wired::{Wired, values};
use crate::harness::{Pooled, Postgres, limited, one, told, until};

/// A network between the pool and a server, which can be cut: then nothing comes through, and nobody is told.
struct Network {
    port: u16,
    is_cut: watch::Sender<bool>,
}

impl Network {
    async fn to(address: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (is_cut, watched) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut watched = watched.clone();
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(address).await.unwrap();
                    tokio::select! {
                        biased;
                        _ = watched.wait_for(|is_cut| *is_cut) => {}
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
                    }
                    // As long as it is cut neither side hears that the other has gone.
                    let _ = watched.wait_for(|is_cut| !*is_cut).await;
                });
            }
        });
        Self { port, is_cut }
    }

    fn origin(&self, of: &Postgres) -> Origin {
        let mut origin = of.origin();
        origin.hosts = vec![Host::Tcp("127.0.0.1".to_owned(), self.port)];
        origin
    }
}

/// Whoever is amid a transaction waits for as long as they like; when they leave nothing is left of it, and others have
/// connections as soon as there is a network.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_is_cut_amid_transactions() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let network = Network::to(postgres.native.address).await;
    let options = PoolOptions {
        connect_timeout: Duration::from_secs(2),
        abandoned_max: Duration::from_secs(1),
        ..limited(2)
    };
    let pooled = Pooled::start(network.origin(&postgres), options).await;
    let beside = postgres.session().await;
    beside
        .batch_execute("create table t (n int)")
        .await
        .unwrap();
    let mut ann = Wired::connect(pooled.address).await;
    let mut joe = Wired::connect(pooled.address).await;
    for client in [&mut ann, &mut joe] {
        client.query("begin; insert into t values (1)").await;
    }
    let process = values(&ann.query("select pg_backend_pid()").await);
    network.is_cut.send_replace(true);
    // One goes amid its commit, of which nobody hears; the other amid its transaction.
    frontend::query(&mut ann.out, b"commit").unwrap();
    ann.send().await;
    drop((ann, joe));
    let next = pooled.session().await;
    let (code, text) = told(&next.simple_query("select 1").await.unwrap_err());
    assert!(code == "58000" && text.contains("timeout"), "{code} {text}");
    network.is_cut.send_replace(false);
    until("the network is back", async || {
        next.simple_query("select 1").await.is_ok()
    })
    .await;
    // What the pool has given up the origin gives up when it hears of it.
    let old = format!("select count(*) from pg_stat_activity where pid = {process}");
    until("the old session is over", async || {
        one(&beside, &old).await == "0"
    })
    .await;
    assert_eq!(one(&next, "select count(*) from t").await, "0");
    assert!(pooled.pool.standing().connections <= 2);
}

/// Each transaction writes to two tables. Whatever is killed when: both or none, and all that was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_is_killed_under_load() {
    let Some(mut postgres) = Postgres::with_password() else {
        return;
    };
    let options = PoolOptions {
        connect_timeout: Duration::from_secs(10),
        ..limited(4)
    };
    let pooled = Arc::new(Pooled::start(postgres.origin(), options).await);
    let beside = postgres.session().await;
    beside
        .batch_execute("create table a (n int); create table b (n int)")
        .await
        .unwrap();
    let (next, over) = (
        Arc::new(AtomicI32::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let acknowledged = Arc::new(AtomicI32::new(0));
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let (pooled, next, over) = (pooled.clone(), next.clone(), over.clone());
            let acknowledged = acknowledged.clone();
            tokio::spawn(async move {
                let mut done = Vec::new();
                let mut session = pooled.session().await;
                while !over.load(Ordering::Acquire) {
                    let n = next.fetch_add(1, Ordering::AcqRel);
                    match write(&mut session, n).await {
                        Ok(()) => {
                            done.push(n);
                            acknowledged.fetch_add(1, Ordering::AcqRel);
                        }
                        Err(_) if session.is_closed() => {
                            session = match pooled.config().connect(tokio_postgres::NoTls).await {
                                Ok((session, connection)) => {
                                    tokio::spawn(connection);
                                    session
                                }
                                Err(_) => continue,
                            };
                        }
                        Err(_) => {}
                    }
                }
                done
            })
        })
        .collect();
    for _ in 0..3 {
        let before = acknowledged.load(Ordering::Acquire);
        until("some are done", async || {
            acknowledged.load(Ordering::Acquire) > before + 50
        })
        .await;
        postgres.native.kill().unwrap();
        until("it can be started again", async || {
            postgres.native.run().is_ok()
        })
        .await;
    }
    let before = acknowledged.load(Ordering::Acquire);
    until("it goes on", async || {
        acknowledged.load(Ordering::Acquire) > before + 50
    })
    .await;
    over.store(true, Ordering::Release);
    let mut done = BTreeSet::new();
    for client in clients {
        done.extend(client.await.unwrap());
    }
    let beside = postgres.session().await;
    let table = async |name: &str| {
        let rows = beside
            .query(&format!("select n from {name}"), &[])
            .await
            .unwrap();
        let all = rows.iter().map(|row| row.get::<_, i32>(0));
        let set: BTreeSet<i32> = all.clone().collect();
        assert_eq!(set.len(), rows.len(), "one was done twice");
        set
    };
    let (a, b) = (table("a").await, table("b").await);
    assert_eq!(a, b, "a transaction is half done");
    let lost: Vec<_> = done.difference(&a).collect();
    assert!(lost.is_empty(), "acknowledged, and not there: {lost:?}");
    println!("{} acknowledged, {} there", done.len(), a.len());
    assert!(pooled.pool.standing().connections <= 4);
}

async fn write(session: &mut tokio_postgres::Client, n: i32) -> Result<(), tokio_postgres::Error> {
    let transaction = session.transaction().await?;
    transaction
        .execute("insert into a values ($1)", &[&n])
        .await?;
    transaction
        .execute("insert into b values ($1)", &[&n])
        .await?;
    transaction.commit().await
}

/// Two servers, of which the first is used as long as it takes writes, and a pool of three connections.
struct Pair {
    one: Postgres,
    other: Postgres,
    /// To the first server, from before all others.
    first: tokio_postgres::Client,
    pooled: Pooled,
    /// Of the pool. There was a connection for each, to the first server.
    sessions: Vec<tokio_postgres::Client>,
}

impl Pair {
    async fn start() -> Option<Self> {
        let (one_server, other) = (Postgres::with_password()?, Postgres::with_password()?);
        for (postgres, name) in [(&one_server, "one"), (&other, "other")] {
            let sql = format!(
                "create table t (n int); create function name() returns text immutable language sql return '{name}'"
            );
            postgres.session().await.batch_execute(&sql).await.unwrap();
        }
        let first = one_server.session().await;
        let mut origin = one_server.origin();
        origin.hosts.extend(other.origin().hosts);
        origin.target = Target::ReadWrite;
        let pooled = Pooled::start(origin, limited(3)).await;
        let mut sessions = Vec::new();
        for _ in 0..3 {
            let session = pooled.session().await;
            session.batch_execute("begin").await.unwrap();
            sessions.push(session);
        }
        for session in &sessions {
            assert_eq!(one(session, "select name()").await, "one");
            session.batch_execute("commit").await.unwrap();
        }
        assert_eq!(pooled.pool.standing().connections, 3);
        Some(Self {
            one: one_server,
            other,
            first,
            pooled,
            sessions,
        })
    }

    /// From now on the first server takes no writes. Its postmaster tells its processes in the order of their age, one way or
    /// the other: when the oldest and the youngest have heard, the pool's have.
    async fn take_no_writes(&self) {
        let last = self.one.session().await;
        for sql in [
            "alter system set default_transaction_read_only = on",
            "select pg_reload_conf()",
        ] {
            last.batch_execute(sql).await.unwrap();
        }
        for session in [&self.first, &last] {
            until("a process has heard", async || {
                one(session, "show default_transaction_read_only").await == "on"
            })
            .await;
        }
    }
}

/// A client is told in its transaction, and stays there: nobody else is told.
#[tokio::test(flavor = "multi_thread")]
async fn behaviour_22_a_server_that_takes_no_writes_is_given_to_nobody_else() {
    let Some(pair) = Pair::start().await else {
        return;
    };
    let [ann, joe, eve] = &*pair.sessions else {
        panic!("not three sessions");
    };
    pair.take_no_writes().await;
    ann.batch_execute("begin").await.unwrap();
    let refused = ann.batch_execute("insert into t values (1)").await;
    assert_eq!(told(&refused.unwrap_err()).0, "25006");
    for session in [joe, eve] {
        // What it has set itself says nothing of the server.
        session
            .batch_execute("set default_transaction_read_only = off")
            .await
            .unwrap();
        session
            .batch_execute("insert into t values (2)")
            .await
            .unwrap();
        assert_eq!(one(session, "select name()").await, "other");
    }
    let connected = pair.pooled.pool.standing().counts.connected;
    ann.batch_execute("rollback").await.unwrap();
    ann.batch_execute("insert into t values (3)").await.unwrap();
    assert_eq!(one(ann, "select name()").await, "other");
    // What is known already is no reason to connect anew.
    let now = pair.pooled.pool.standing().counts.connected;
    assert_eq!(now, connected);
}

/// Of two servers the one that takes writes is used: one that takes none any more is left, whether its connections end or
/// not.
#[tokio::test(flavor = "multi_thread")]
async fn behaviour_22_a_server_that_takes_no_writes_any_more_is_left() {
    let Some(pair) = Pair::start().await else {
        return;
    };
    let sessions = &pair.sessions;
    // A client's own wish to write nothing says nothing of the server.
    sessions[0]
        .batch_execute("set default_transaction_read_only = on")
        .await
        .unwrap();
    let refused = sessions[0].batch_execute("insert into t values (1)").await;
    assert_eq!(told(&refused.unwrap_err()).0, "25006");
    sessions[0]
        .batch_execute("reset default_transaction_read_only")
        .await
        .unwrap();
    pair.take_no_writes().await;
    // One is told; nobody else, though its client hears of the refusal before the server is done with it.
    let refused = sessions[1].batch_execute("insert into t values (1)").await;
    assert_eq!(told(&refused.unwrap_err()).0, "25006");
    for session in sessions {
        session
            .batch_execute("insert into t values (2)")
            .await
            .unwrap();
        assert_eq!(one(session, "select name()").await, "other");
    }
    // And one whose process ends.
    let Pair {
        one: mut one_server,
        other,
        pooled,
        ..
    } = pair;
    let beside = one_server.session().await;
    for sql in [
        "set default_transaction_read_only = off",
        "alter system reset default_transaction_read_only",
        "select pg_reload_conf()",
    ] {
        beside.batch_execute(sql).await.unwrap();
    }
    let gone = other.session().await;
    gone.batch_execute(
        "select pg_terminate_backend(pid) from pg_stat_activity \
         where application_name = 'Dormouse' and pid <> pg_backend_pid()",
    )
    .await
    .unwrap();
    until("they have moved", async || {
        let session = pooled.session().await;
        let name = session.simple_query("select name()").await;
        name.is_ok() && one(&session, "select name()").await == "one"
    })
    .await;
    one_server.native.kill().unwrap();
    until("the other is there for them", async || {
        let session = pooled.session().await;
        session
            .simple_query("insert into t values (3)")
            .await
            .is_ok()
    })
    .await;
}
