//! What one client may have.

use dormouse_pooler::{CacheStatus, Caching};
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

/// Prepares statements until one is refused: which one, and why.
async fn refused_at(
    client: &mut Wired,
    mut sets: impl FnMut(usize) -> String,
    oids: &[u32],
) -> (usize, String) {
    for n in 0..1_000 {
        let set = sets(n);
        if !set.is_empty() {
            let said = client.query(&set).await;
            assert_eq!(kinds(&said), "CZ");
        }
        let said = client
            .parse(&format!("s{n}"), "select 1", oids)
            .sync()
            .await;
        if kinds(&said).contains('E') {
            return (n, values(&said));
        }
    }
    panic!("nothing was refused");
}

/// Types of parameters and settings are kept with each statement.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_with_statements_counts() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let mut client = Wired::connect(pooled.address).await;
    let oids = vec![23; 65_535];
    let (at, refused) = refused_at(&mut client, |_| String::new(), &oids).await;
    assert!((250..260).contains(&at), "{at}: {refused}");
    assert!(refused.contains("client_statements_bytes_max"), "{refused}");
    let mut client = Wired::connect(pooled.address).await;
    let long = "x".repeat(100 << 10);
    let (at, refused) = refused_at(&mut client, |n| format!("set a.b = '{n}{long}'"), &[]).await;
    assert!((600..660).contains(&at), "{at}: {refused}");
    assert!(refused.contains("client_statements_bytes_max"), "{refused}");
}

/// So are names.
#[tokio::test(flavor = "multi_thread")]
async fn names_of_statements_count() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let mut client = Wired::connect(pooled.address).await;
    let long = "x".repeat(100 << 10);
    let name = |n: usize| format!("{n}{long}");
    let mut refused = None;
    for n in 0..1_000 {
        let said = client.parse(&name(n), "select 1", &[]).sync().await;
        if kinds(&said).contains('E') {
            refused = Some((n, values(&said)));
            break;
        }
    }
    let (at, refused) = refused.unwrap();
    assert!((600..660).contains(&at), "{at}: {refused}");
    assert!(refused.contains("client_statements_bytes_max"), "{refused}");
    client.close(&name(0)).parse(&name(at), "select 1", &[]);
    assert_eq!(kinds(&client.sync().await), "31Z");
}

/// Names of settings are kept until their transaction ends, also where it has failed.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_sets_so_much_and_no_more() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let mut client = Wired::connect(pooled.address).await;
    let set = |n: usize, local: bool| {
        let name = "x".repeat(60 << 10);
        format!("select set_config('a.{name}{n}', 'x', {local})")
    };
    for begin in ["begin", "begin; select 1/0"] {
        client.query(begin).await;
        for n in 0..2 {
            let said = values(&client.query(&set(n, false)).await);
            assert!(!said.contains("53400"), "{said}");
        }
        let said = values(&client.query(&set(2, false)).await);
        assert!(
            said.starts_with("53400 ") && said.contains("session_settings_bytes_max"),
            "{begin}: {said}"
        );
        client.query("rollback").await;
        // Those of the transaction alone are not counted, and not kept either.
        client.query("begin").await;
        for n in 0..5 {
            assert_eq!(values(&client.query(&set(n, true)).await), "x");
        }
        client.query("rollback").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_set_so_much_and_no_more() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let value = |kib: usize| "x".repeat(kib << 10);
    for kib in [128, 2_048] {
        let mut client = Wired::connect(pooled.address).await;
        client
            .query(&format!("set local a.b = '{}'", value(kib)))
            .await;
        client.query(&format!("set a.b = '{}'", value(127))).await;
        assert_eq!(values(&client.query("select 1").await), "1");
        let sql = format!("select set_config('a.c', repeat('x', {kib} << 10), false) is null");
        assert_eq!(values(&client.query(&sql).await), "f");
        let said = values(&client.until(b'E').await);
        assert!(
            said.starts_with("53400 ") && said.contains("session_settings_bytes_max"),
            "{said}"
        );
        // Nothing of it is there for others.
        let mut other = Wired::connect(pooled.address).await;
        for name in ["a.b", "a.c"] {
            let sql = format!("select coalesce(current_setting('{name}', true), '')");
            assert_eq!(values(&other.query(&sql).await), "");
        }
    }
    assert_eq!(pooled.pool.standing().counts.connected, 1);
}

/// Statements whose answers come from the cache are statements as well.
#[tokio::test(flavor = "multi_thread")]
async fn statements_that_hit_count() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let beside = postgres.session().await;
    beside
        .batch_execute("create table t (n int)")
        .await
        .unwrap();
    let pooled = Pooled::cached(postgres.origin(), limited(1), Caching::default()).await;
    let mut client = Wired::connect(pooled.address).await;
    for n in 0..=STATEMENTS_MAX {
        // Another text for who prepares it, and the same for the cache.
        client.parse(&format!("s{n}"), &format!("select n from t /* {n} */"), &[]);
        client.bind(&format!("s{n}"), &[], Format::Text).execute(0);
        let said = client.sync().await;
        match n {
            STATEMENTS_MAX => {
                let refused = values(&said);
                assert!(refused.contains("client_statements_max"), "{refused}");
            }
            _ => assert_eq!(kinds(&said), "12CZ"),
        }
    }
    let hits = usize::try_from(pooled.count(CacheStatus::Hit)).unwrap();
    assert!(hits > STATEMENTS_MAX / 2, "{hits}");
}
