//! Cancellations as an origin sees them: encrypted as what they are for, and not more at once than may be.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod harness;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dormouse_pooler::{Caching, Host, Origin, PoolOptions, Tls, TlsMode};
use harness::wired::{Wired, kinds, values};
use harness::{PASSWORD, Pooled, Postgres, limited, one, programs, told, until};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::Instant;
use wire::pg::{Format, Target, frontend};

/// The first eight bytes of a packet that asks for TLS, and of one that cancels.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const CANCEL_REQUEST: [u8; 8] = [0, 0, 0, 16, 4, 210, 22, 46];

/// The first byte of a handshake of TLS.
const HANDSHAKE: u8 = 22;

/// Stands before a server and hears how connections begin.
#[derive(Default)]
struct Ear {
    /// The first bytes of each.
    beginnings: Mutex<Vec<Vec<u8>>>,
    /// Cancellations that are held back, and the most that there were at once.
    held: Mutex<(Vec<std::net::TcpStream>, usize)>,
    /// The process that each of those was for.
    of: Mutex<Vec<u32>>,
    /// Those that are held back are held back no longer.
    release: Notify,
}

impl Ear {
    /// Passes everything on; cancellations only if they are not to be held back.
    async fn listen(origin: SocketAddr, holds: bool) -> (Arc<Self>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ear = Arc::new(Self::default());
        let heard = Arc::clone(&ear);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&heard).pass_on(client, origin, holds));
            }
        });
        (ear, address)
    }

    async fn pass_on(self: Arc<Self>, mut client: TcpStream, origin: SocketAddr, holds: bool) {
        let mut first = [0; 8];
        client.read_exact(&mut first).await.unwrap();
        if first == CANCEL_REQUEST && holds {
            let process = client.read_u32().await.unwrap();
            // The key, and so all that comes.
            client.read_u32().await.unwrap();
            let released = self.release.notified();
            let client = client.into_std().unwrap();
            {
                let mut held = self.held.lock();
                // Who has hung up did so before this one came.
                held.0.retain(|one| one.peek(&mut [0]).is_err());
                held.0.push(client.try_clone().unwrap());
                held.1 = held.1.max(held.0.len());
                self.of.lock().push(process);
            }
            let mut client = TcpStream::from_std(client).unwrap();
            // Or until who cancels gives up.
            let mut rest = Vec::new();
            tokio::select! {
                _ = client.read_to_end(&mut rest) => {}
                () = released => client.shutdown().await.unwrap(),
            }
            return;
        }
        let mut server = TcpStream::connect(origin).await.unwrap();
        server.write_all(&first).await.unwrap();
        let mut beginning = first.to_vec();
        if first == SSL_REQUEST {
            let answer = server.read_u8().await.unwrap();
            client.write_u8(answer).await.unwrap();
            let next = client.read_u8().await.unwrap();
            server.write_u8(next).await.unwrap();
            beginning.push(next);
        }
        self.beginnings.lock().push(beginning);
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}

fn to(origin: &Origin, host: &str, address: SocketAddr) -> Origin {
    let mut origin = origin.clone();
    origin.hosts = vec![Host::Tcp(host.to_owned(), address.port())];
    origin
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_is_encrypted_like_the_connection() {
    if programs().is_none() {
        return;
    }
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let options = native::Options {
        password: Some(PASSWORD.to_owned()),
        settings: vec!["ssl=on".to_owned()],
        files: vec![
            ("server.crt".to_owned(), made.cert.pem()),
            ("server.key".to_owned(), made.signing_key.serialize_pem()),
        ],
        ..native::Options::default()
    };
    let postgres = Postgres::start(&options).unwrap();
    for (mode, expected) in [
        (
            TlsMode::VerifyFull,
            &[&SSL_REQUEST[..], &[HANDSHAKE]].concat(),
        ),
        (TlsMode::Disable, &CANCEL_REQUEST.to_vec()),
    ] {
        let (ear, address) = Ear::listen(postgres.native.address, false).await;
        let mut origin = to(&postgres.origin(), "localhost", address);
        origin.tls = Tls {
            mode,
            authorities: Some(made.cert.pem()),
            ..Tls::default()
        };
        let pooled = Pooled::start(origin, limited(1)).await;
        let session = pooled.session().await;
        let token = session.cancel_token();
        let beside = postgres.session().await;
        let (slow, ()) = tokio::join!(session.simple_query("select pg_sleep(60)"), async {
            let running = "select 1 from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'";
            until("it runs", async || {
                beside.query(running, &[]).await.unwrap().len() == 1
            })
            .await;
            token.cancel_query(tokio_postgres::NoTls).await.unwrap();
        });
        assert_eq!(told(&slow.unwrap_err()).0, "57014", "{mode:?}");
        assert_eq!(ear.beginnings.lock().last(), Some(expected), "{mode:?}");
        until("it is counted", async || {
            pooled.pool.standing().counts.cancels == 1
        })
        .await;
    }
}

/// Who cancels gives up after this in what follows.
const CANCEL_MAX: Duration = Duration::from_millis(1_500);

/// Sessions that are cancelled so often each, at an origin that takes no note: the most cancellations at once that it saw.
async fn at_once(cancels_max: usize, sessions: usize, each: usize) -> Option<usize> {
    let postgres = Postgres::with_password()?;
    let (ear, address) = Ear::listen(postgres.native.address, true).await;
    let options = PoolOptions {
        cancels_max,
        cancel_max: CANCEL_MAX,
        ..limited(sessions)
    };
    let pooled = Pooled::start(to(&postgres.origin(), "127.0.0.1", address), options).await;
    let mut tokens = Vec::new();
    for _ in 0..sessions {
        let session = pooled.session().await;
        tokens.push(session.cancel_token());
        tokio::spawn(async move { session.simple_query("select pg_sleep(60)").await });
    }
    let beside = postgres.session().await;
    let all =
        "select 1 from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'";
    until("all run", async || {
        beside.query(all, &[]).await.unwrap().len() == sessions
    })
    .await;
    let begun = Instant::now();
    for token in tokens.iter().cycle().take(sessions * each) {
        token.cancel_query(tokio_postgres::NoTls).await.unwrap();
    }
    let wanted = (sessions * each) as u64;
    until("all are given up", async || {
        let counts = pooled.pool.standing().counts;
        counts.cancels_failed + counts.cancels_refused == wanted
    })
    .await;
    // Nobody waits for all the others.
    assert!(begun.elapsed() < CANCEL_MAX * 4);
    assert_eq!(pooled.pool.standing().counts.cancels, 0);
    Some(ear.held.lock().1)
}

/// One that waits for a place meanwhile cancels nothing of what its client does then.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_is_of_one_transaction() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let (ear, address) = Ear::listen(postgres.native.address, true).await;
    let options = PoolOptions {
        cancels_max: 1,
        ..limited(2)
    };
    let pooled = Pooled::start(to(&postgres.origin(), "127.0.0.1", address), options).await;
    let other = pooled.session().await;
    other.batch_execute("begin").await.unwrap();
    let session = pooled.session().await;
    session.batch_execute("begin").await.unwrap();
    let cancel = async |session: &tokio_postgres::Client| {
        let token = session.cancel_token();
        token.cancel_query(tokio_postgres::NoTls).await.unwrap();
    };
    cancel(&other).await;
    until("it has the place", async || ear.of.lock().len() == 1).await;
    cancel(&session).await;
    pooled.until_cancels(2).await;
    // The same server, and the next transaction.
    session.batch_execute("commit").await.unwrap();
    session.batch_execute("begin").await.unwrap();
    // This one comes behind the others.
    cancel(&other).await;
    pooled.until_cancels(3).await;
    ear.release.notify_waiters();
    until("another is there", async || ear.of.lock().len() == 2).await;
    let of = ear.of.lock().clone();
    assert_eq!(of[0], of[1]);
    ear.release.notify_waiters();
    for session in [session, other] {
        session.batch_execute("commit").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_has_few_cancellations_at_once() {
    if let Some(most) = at_once(2, 5, 1).await {
        assert_eq!(most, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_one_cancellation_at_once() {
    if let Some(most) = at_once(10, 1, 5).await {
        assert_eq!(most, 1);
    }
}

const CANCELLED: &str = "57014 canceling statement due to user request";

/// Who waits for a connection is not to wait for it to be told that nothing is done.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_connection_is_cancelled() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let beside = postgres.session().await;
    beside
        .batch_execute("create table t (n int)")
        .await
        .unwrap();
    for caching in [Caching::disabled(), Caching::default()] {
        let pooled = Pooled::cached(postgres.origin(), limited(1), caching).await;
        let other = pooled.session().await;
        let mut client = Wired::connect(pooled.address).await;
        let waits = async || {
            until("it waits", async || pooled.pool.standing().waiting == 1).await;
        };
        // Nothing is asked: that is of nothing.
        client.cancel().await;
        other.batch_execute("begin").await.unwrap();
        for sql in ["insert into t values (1)", "select n from t"] {
            for is_simple in [true, false] {
                if is_simple {
                    frontend::query(&mut client.out, sql.as_bytes()).unwrap();
                } else {
                    // What comes behind it up to `Sync` is left out.
                    client
                        .parse("", sql, &[])
                        .bind("", &[], Format::Text)
                        .execute(0);
                    frontend::sync(&mut client.out);
                }
                client.send().await;
                waits().await;
                client.cancel().await;
                let answer = client.until(b'Z').await;
                assert_eq!(
                    (&*kinds(&answer), &*values(&answer)),
                    ("EZ", CANCELLED),
                    "{sql}"
                );
            }
        }
        // The next is another: what has come between cancels it no more than what came before.
        client.cancel().await;
        frontend::query(&mut client.out, b"insert into t values (2)").unwrap();
        client.send().await;
        waits().await;
        other.batch_execute("commit").await.unwrap();
        let answer = client.until(b'Z').await;
        assert_eq!(kinds(&answer), "CZ", "{}", values(&answer));
        assert_eq!(
            one(&beside, "select string_agg(n::text, ',') from t").await,
            "2"
        );
        beside.batch_execute("truncate t").await.unwrap();
        let standing = pooled.pool.standing();
        assert_eq!((standing.waiting, standing.counts.connected), (0, 1));
        let counts = standing.counts;
        assert_eq!((counts.cancels_unsent, counts.cancels), (4, 0));
    }
}

/// Nor is a statement run for which the pool was asking the server something when it was cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_pool_asks_for_a_statement_is_cancelled_with_it() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let beside = postgres.session().await;
    let sql = "create table t (n int); create view v as select n from t; create sequence s";
    beside.batch_execute(sql).await.unwrap();
    let pooled = Pooled::cached(postgres.origin(), limited(2), Caching::default()).await;
    let mut client = Wired::connect(pooled.address).await;
    let blocked = async || {
        let sql = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'";
        until("it waits for the lock", async || {
            one(&beside, sql).await == "1"
        })
        .await;
    };
    let locker = postgres.session().await;

    let mut twin = Wired::connect(pooled.address).await;
    client.query("select 1").await;

    // On what an answer depends: another wants the same.
    locker
        .batch_execute("begin; lock table pg_catalog.pg_policy")
        .await
        .unwrap();
    for one in [&mut client, &mut twin] {
        frontend::query(&mut one.out, b"select n from t").unwrap();
        one.send().await;
    }
    blocked().await;
    for one in [&mut twin, &mut client] {
        one.cancel().await;
        let answer = one.until(b'Z').await;
        assert_eq!((&*kinds(&answer), &*values(&answer)), ("EZ", CANCELLED));
    }
    locker.batch_execute("rollback").await.unwrap();
    // It is found out by the next who asks.
    assert_eq!(kinds(&client.query("select n from t").await), "TCZ");

    // What a statement gives, of which the client was told from memory.
    let sql = "select n as told from t";
    client.parse("a", sql, &[]).describe(Target::Statement, "a");
    client.sync().await;
    let mut told = Wired::connect(pooled.address).await;
    told.parse("a", sql, &[]).describe(Target::Statement, "a");
    assert_eq!(kinds(&told.sync().await), "1tTZ");
    // On another connection than that which has said so.
    client.query("begin").await;
    client.query("select 1").await;
    locker.batch_execute("begin; lock table t").await.unwrap();
    told.bind("a", &[], Format::Text).execute(0);
    frontend::sync(&mut told.out);
    told.send().await;
    blocked().await;
    told.cancel().await;
    let answer = told.until(b'Z').await;
    assert_eq!((&*kinds(&answer), &*values(&answer)), ("EZ", CANCELLED));
    locker.batch_execute("rollback").await.unwrap();
    told.bind("a", &[], Format::Text).execute(0);
    assert_eq!(kinds(&told.sync().await), "2CZ");
    assert_eq!(pooled.pool.standing().counts.cancels, 2);
}
