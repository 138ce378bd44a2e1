//! A pool before a native PostgreSQL, and clients of it.

#![allow(dead_code, reason = "each test uses its part")]

pub(crate) mod wired;

use std::collections::HashMap;
use std::future::{Future as _, poll_fn};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::task::Poll;

use bytes::BytesMut;
use dormouse_pooler::{
    CacheOptions, CacheSpace, CacheStatus, Caching, Canceller, Client, ClientIdentity, Origin,
    Pool, PoolOptions, Secret, Stop,
};
use native::Native;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::{Client as Session, NoTls};
use wire::pg::startup::FirstPacket;

pub(crate) const PASSWORD: &str = "p@ss:w/rd#1";

/// The programs, if there are some.
pub(crate) fn programs() -> Option<PathBuf> {
    let tools = std::env::var_os("DORMOUSE_TEST_TOOLS");
    if tools.is_none() {
        eprintln!("skipped: `cargo xtask test` brings PostgreSQL");
    }
    Some(PathBuf::from(tools?).join("bin"))
}

/// A server, and the folder that it lives in.
pub(crate) struct Postgres {
    pub(crate) native: Native,
    _folder: tempfile::TempDir,
}

impl Postgres {
    pub(crate) fn start(options: &native::Options) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let native = Native::start(&programs()?, &folder.path().join("native"), options).unwrap();
        Some(Self {
            native,
            _folder: folder,
        })
    }

    /// Where everybody who knows the password is let in.
    pub(crate) fn with_password() -> Option<Self> {
        Self::start(&native::Options {
            password: Some(PASSWORD.to_owned()),
            ..native::Options::default()
        })
    }

    /// Where everybody is let in, with the extensions that the cache's tests want.
    pub(crate) fn open() -> Option<Self> {
        Self::start(&native::Options {
            settings: vec![
                "max_prepared_transactions=10".to_owned(),
                "max_connections=100".to_owned(),
            ],
            ..native::Options::default()
        })
    }

    pub(crate) fn origin(&self) -> Origin {
        let url = format!(
            "postgres://postgres:p%40ss%3Aw%2Frd%231@{}/postgres",
            self.native.address
        );
        Origin::of_url(&url).unwrap()
    }

    /// As a role of which there may be so many connections.
    pub(crate) async fn origin_of_limited(&self, connections_max: usize) -> Origin {
        let sql = format!(
            "create role limited login password 'limited' connection limit {connections_max}; \
             grant create on schema public to limited"
        );
        self.session().await.batch_execute(&sql).await.unwrap();
        let mut origin = self.origin();
        origin.user = "limited".to_owned();
        origin.password = Secret::new("limited");
        origin
    }

    /// A session of its own, beside the pool.
    pub(crate) async fn session(&self) -> Session {
        let mut config = tokio_postgres::Config::new();
        config
            .host("127.0.0.1")
            .port(self.native.address.port())
            .user("postgres")
            .password(PASSWORD)
            .dbname("postgres");
        let (session, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        session
    }
}

/// A pool that listens.
pub(crate) struct Pooled {
    pub(crate) pool: Arc<Pool>,
    pub(crate) address: SocketAddr,
    clients: Arc<Clients>,
}

/// Its clients, by the number of their process.
#[derive(Default)]
struct Clients {
    cancellers: Mutex<HashMap<u32, Canceller>>,
    /// Cancellations that have come and do what they do, or have done it.
    cancels: AtomicUsize,
}

impl Pooled {
    pub(crate) async fn start(origin: Origin, options: PoolOptions) -> Self {
        Self::of(Pool::new(origin, options)).await
    }

    /// With a cache.
    pub(crate) async fn cached(origin: Origin, options: PoolOptions, caching: Caching) -> Self {
        let space = CacheSpace::new(CacheOptions::default());
        Self::of(Pool::with_cache(origin, options, caching, space)).await
    }

    /// Queries with this status so far.
    pub(crate) fn count(&self, status: CacheStatus) -> u64 {
        self.pool.cache_figures().with(status)
    }

    pub(crate) async fn of(pool: Arc<Pool>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let clients = Arc::<Clients>::default();
        tokio::spawn(accept(listener, Arc::clone(&pool), Arc::clone(&clients)));
        Self {
            pool,
            address,
            clients,
        }
    }

    /// Waits until so many cancellations are under way or done.
    pub(crate) async fn until_cancels(&self, count: usize) {
        until("the cancellations have come", async || {
            self.clients.cancels.load(Ordering::SeqCst) >= count
        })
        .await;
    }

    pub(crate) fn config(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .host("127.0.0.1")
            .port(self.address.port())
            .user("anybody")
            .dbname("anything");
        config
    }

    pub(crate) async fn session(&self) -> Session {
        let (session, connection) = self.config().connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        session
    }
}

async fn accept(listener: TcpListener, pool: Arc<Pool>, clients: Arc<Clients>) {
    let pids = AtomicU32::new(1);
    while let Ok((stream, _)) = listener.accept().await {
        let pool = Arc::clone(&pool);
        let pid = pids.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(serve(pool, stream, pid, Arc::clone(&clients)));
    }
}

async fn serve(pool: Arc<Pool>, mut stream: TcpStream, pid: u32, clients: Arc<Clients>) {
    let mut arrived = BytesMut::new();
    let startup = loop {
        match FirstPacket::split(&mut arrived).unwrap() {
            Some(FirstPacket::Startup(startup)) => break startup,
            Some(FirstPacket::CancelRequest { pid, .. }) => {
                let canceller = clients.cancellers.lock().get(&pid).cloned().unwrap();
                let mut cancelling = pin!(canceller.cancel());
                let begun = poll_fn(|cx| Poll::Ready(cancelling.as_mut().poll(cx)));
                let begun = begun.await;
                clients.cancels.fetch_add(1, Ordering::SeqCst);
                if begun.is_pending() {
                    cancelling.await;
                }
                return;
            }
            Some(_) => stream.write_all(b"N").await.unwrap(),
            None => {
                if stream.read_buf(&mut arrived).await.unwrap_or(0) == 0 {
                    return;
                }
            }
        }
    };
    let identity = ClientIdentity {
        pid,
        key: vec![7; 4],
        label: format!("client {pid}").into(),
        canceller: Canceller::default(),
    };
    let cancellers = &clients.cancellers;
    cancellers.lock().insert(pid, identity.canceller.clone());
    let client = Client::new(pool, stream, (arrived, BytesMut::new()), identity);
    // A client that breaks off is an error of its own.
    let (_stream, _served) = client.serve(&startup, Stop::never()).await;
}

/// Waits until something is so, or for long enough.
pub(crate) async fn until(what: &str, is_so: impl AsyncFnMut() -> bool) {
    until_looked(1_000, what, is_so).await;
}

/// The same, of what takes its time.
pub(crate) async fn until_late(what: &str, is_so: impl AsyncFnMut() -> bool) {
    until_looked(9_000, what, is_so).await;
}

async fn until_looked(times: usize, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..times {
        if is_so().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

pub(crate) fn limited(connections_max: usize) -> PoolOptions {
    PoolOptions {
        connections_max,
        pinned_max: connections_max,
        ..PoolOptions::default()
    }
}

/// The first column of the first row of a simple query.
pub(crate) async fn one(session: &Session, sql: &str) -> String {
    let rows = session.simple_query(sql).await.unwrap();
    let row = rows.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    row.unwrap().get(0).unwrap_or("NULL").to_owned()
}

/// The SQLSTATE and the text of an error.
pub(crate) fn told(error: &tokio_postgres::Error) -> (String, String) {
    let error = error
        .as_db_error()
        .unwrap_or_else(|| panic!("no error of a server: {error:?}"));
    (error.code().code().to_owned(), error.message().to_owned())
}
