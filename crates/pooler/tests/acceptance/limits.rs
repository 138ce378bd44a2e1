//! What one client may have.

use wire::pg::Format;

use crate::harness::wired::{Wired, kinds, values};
use crate::harness::{Pooled, Postgres, limited};

/// `client_statements_max`.
const STATEMENTS_MAX: usize = 10_000;

/// `client_statements_bytes_max`, in MiB.
const STATEMENTS_MIB_MAX: usize = 64;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_so_many_statements_and_no_more() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let mut client = Wired::connect(pooled.address).await;
    for n in 0..STATEMENTS_MAX {
        client.parse(&format!("s{n}"), "select 1", &[]);
    }
    let prepared = client.sync().await;
    assert_eq!(prepared.len(), STATEMENTS_MAX + 1);
    assert!(!kinds(&prepared).contains('E'), "{}", values(&prepared));
    let refused = values(&client.parse("more", "select 1", &[]).sync().await);
    assert!(refused.starts_with("53400 "), "{refused}");
    assert!(refused.contains("client_statements_max"), "{refused}");
    // The session goes on, with those that it has, and with another in the place of one.
    client.bind("s9999", &[], Format::Text).execute(0);
    assert_eq!(values(&client.sync().await), "1");
    client.close("s0").parse("more", "select 2", &[]);
    client.bind("more", &[], Format::Text).execute(0);
    assert_eq!(values(&client.sync().await), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_statements_are_so_long_and_no_longer() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let mut client = Wired::connect(pooled.address).await;
    let space = " ".repeat((1 << 20) - 20);
    let text = |n: usize| format!("select {n} /*{space}*/");
    let mut refused = None;
    for n in 0..STATEMENTS_MIB_MAX + 5 {
        let said = client.parse(&format!("s{n}"), &text(n), &[]).sync().await;
        if kinds(&said).contains('E') {
            refused = Some((n, values(&said)));
            break;
        }
    }
    let (at, refused) = refused.unwrap();
    assert!(at >= STATEMENTS_MIB_MAX, "{at}: {refused}");
    assert!(refused.starts_with("53400 "), "{refused}");
    assert!(refused.contains("client_statements_bytes_max"), "{refused}");
    // Short ones are not looked at.
    client.parse("short", "select 'short'", &[]);
    client.bind("short", &[], Format::Text).execute(0);
    assert_eq!(values(&client.sync().await), "short");
}
