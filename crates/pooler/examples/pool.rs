//! A pool in a process of its own, without logins: `pool ORIGIN_URL ADDRESS [CONNECTIONS_MAX [cached]]`. For benchmarks and
//! for looking at it by hand, on loopback only.

use std::collections::HashMap;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::BytesMut;
use dormouse_pooler::{
    CacheOptions, CacheSpace, Caching, Canceller, Client, ClientIdentity, Origin, Pool,
    PoolOptions, Stop,
};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use wire::pg::startup::FirstPacket;

type Cancellers = Arc<Mutex<HashMap<u32, Canceller>>>;

// All on one thread, as a pool of the server is.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("the origin's URL is missing")?;
    let address: SocketAddr = arguments.next().ok_or("the address is missing")?.parse()?;
    if !address.ip().is_loopback() {
        return Err("it has no logins, and so listens on loopback only".into());
    }
    let mut options = PoolOptions::default();
    if let Some(connections) = arguments.next() {
        options.connections_max = connections.parse()?;
        options.pinned_max = options.connections_max;
    }
    let caching = match arguments.next().as_deref() {
        Some("cached") => Caching::default(),
        _ => Caching::disabled(),
    };
    let space = CacheSpace::new(CacheOptions::default());
    let pool = Pool::with_cache(Origin::of_url(&url)?, options, caching, space);
    let listener = TcpListener::bind(address).await?;
    println!("{}", listener.local_addr()?);
    let cancellers = Cancellers::default();
    let pids = Arc::new(AtomicU32::new(1));
    loop {
        let (stream, from) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let pool = Arc::clone(&pool);
        let cancellers = Arc::clone(&cancellers);
        let pid = pids.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            if let Err(error) = serve(pool, stream, from, pid, &cancellers).await {
                eprintln!("{from}: {error}");
            }
            cancellers.lock().remove(&pid);
        });
    }
}

async fn serve(
    pool: Arc<Pool>,
    mut stream: TcpStream,
    from: SocketAddr,
    pid: u32,
    cancellers: &Cancellers,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut arrived = BytesMut::new();
    let startup = loop {
        match FirstPacket::split(&mut arrived).map_err(|error| error.to_string())? {
            Some(FirstPacket::Startup(startup)) => break startup,
            Some(FirstPacket::CancelRequest { pid, .. }) => {
                let canceller = cancellers.lock().get(&pid).cloned();
                if let Some(canceller) = canceller {
                    canceller.cancel().await;
                }
                return Ok(());
            }
            Some(_) => stream.write_all(b"N").await?,
            None => {
                if stream.read_buf(&mut arrived).await? == 0 {
                    return Ok(());
                }
            }
        }
    };
    let identity = ClientIdentity {
        pid,
        key: vec![0; 4],
        label: from.to_string().into(),
        canceller: Canceller::default(),
    };
    cancellers.lock().insert(pid, identity.canceller.clone());
    let client = Client::new(pool, stream, (arrived, BytesMut::new()), identity);
    let (_stream, served) = client.serve(&startup, Stop::never()).await;
    served?;
    Ok(())
}
