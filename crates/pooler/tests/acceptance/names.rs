//! A host's name that leads elsewhere after a while.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use dormouse_pooler::{Addresses, Dialing, Host, PoolOptions, Resolver};
use parking_lot::Mutex;
use tokio_postgres::NoTls;

use crate::harness::{Pooled, Postgres, limited, one, told, until};

const NAME: &str = "db.example.com";
const PORT: u16 = 6000;

/// Where the name leads now, and how often that was asked.
#[derive(Debug, Default)]
struct Names(Mutex<(Vec<SocketAddr>, u64)>);

impl Names {
    fn lead_to(&self, addresses: &[SocketAddr]) {
        self.0.lock().0 = addresses.to_vec();
    }

    fn asked(&self) -> u64 {
        self.0.lock().1
    }
}

impl Resolver for Names {
    fn addresses<'a>(&'a self, name: &'a str, port: u16) -> Addresses<'a> {
        assert_eq!((name, port), (NAME, PORT));
        let mut names = self.0.lock();
        names.1 += 1;
        let known = match &*names.0 {
            [] => Err(io::Error::other("nobody has this name")),
            addresses => Ok(addresses.to_vec()),
        };
        Box::pin(std::future::ready(known))
    }
}

/// Each new connection goes where the name leads by then, without a restart; one that there is stays where it is, and so
/// does a cancellation of what it does.
#[tokio::test(flavor = "multi_thread")]
async fn behaviour_22_a_name_is_looked_up_for_each_connection() {
    let (Some(mut first), Some(second)) = (Postgres::with_password(), Postgres::with_password())
    else {
        return;
    };
    for (postgres, name) in [(&first, "first"), (&second, "second")] {
        let sql =
            format!("create function name() returns text immutable language sql return '{name}'");
        postgres.session().await.batch_execute(&sql).await.unwrap();
    }
    let names = Arc::new(Names::default());
    let mut origin = first.origin();
    origin.hosts = vec![Host::Tcp(NAME.to_owned(), PORT)];
    let options = PoolOptions {
        dialing: Dialing {
            resolver: Arc::clone(&names) as _,
            ..Dialing::default()
        },
        ..limited(2)
    };
    let pooled = Pooled::start(origin, options).await;
    let asks = "select name()";

    // Nowhere yet.
    let refused = pooled.config().connect(NoTls).await.err().unwrap();
    let (code, text) = told(&refused);
    assert!(code == "58000" && text.ends_with(": dns"), "{code} {text}");

    names.lead_to(&[first.native.address]);
    until("it is tried again", async || {
        pooled.config().connect(NoTls).await.is_ok()
    })
    .await;
    let ann = pooled.session().await;
    ann.batch_execute("begin").await.unwrap();
    assert_eq!(one(&ann, asks).await, "first");

    names.lead_to(&[second.native.address]);
    let joe = pooled.session().await;
    joe.batch_execute("begin").await.unwrap();
    assert_eq!(one(&joe, asks).await, "second");
    assert_eq!(one(&ann, asks).await, "first");
    let token = ann.cancel_token();
    let sleeping = ann.simple_query("select pg_sleep(600)");
    let cancelling = async {
        let beside = first.session().await;
        let sleeps = "select count(*) from pg_stat_activity where query = 'select pg_sleep(600)'";
        until("it sleeps", async || one(&beside, sleeps).await == "1").await;
        token.cancel_query(NoTls).await.unwrap();
    };
    let (slept, ()) = tokio::join!(sleeping, cancelling);
    assert_eq!(told(&slept.unwrap_err()).0, "57014");

    // The first is gone, and with it the connection that led there: Joe has the one that there is, and the next is another.
    first.native.kill().unwrap();
    until("the connection is lost", async || ann.is_closed()).await;
    let ann = pooled.session().await;
    assert_eq!(one(&ann, asks).await, "second");

    // Where it leads to several, one after the other is tried.
    names.lead_to(&[first.native.address, second.native.address]);
    pooled.pool.restart();
    assert_eq!(one(&ann, asks).await, "second");
    let counts = pooled.pool.standing().counts;
    assert_eq!(names.asked(), counts.connected + counts.failed);
    assert!(counts.connected >= 4, "{counts:?}");
}
