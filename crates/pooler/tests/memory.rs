//! What one client makes the pool keep, measured: in a process of its own, one after the other.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod harness;

use harness::wired::{Wired, kinds, values};
use harness::{Pooled, Postgres, limited};
use tokio::sync::Mutex;
use wire::pg::Format;

/// Memory is that of the whole process.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Memory of this process, in MiB.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = pages.split(' ').nth(1).unwrap().parse().unwrap();
    (pages * 4096) >> 20
}

/// Texts whose fate the client has still to hear are not kept for that: behind an error nobody answers them.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_answered_is_not_kept() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let _alone = ALONE.lock().await;
    for fails in [true, false] {
        let mut client = Wired::connect(pooled.address).await;
        let text = format!("select 1 /*{}*/", "x".repeat(1 << 20));
        if fails {
            client.parse("", "selec", &[]).flush().until(b'E').await;
        }
        client.parse("", &text, &[]).send().await;
        let before = resident();
        for _ in 0..200 {
            client.parse("", &text, &[]).send().await;
        }
        let grown = resident().saturating_sub(before);
        assert!(grown < 100, "{grown} MiB, behind an error: {fails}");
        let said = client.sync().await;
        let taken = if fails { 0 } else { 201 };
        assert_eq!(kinds(&said), format!("{}Z", "1".repeat(taken)));
    }
}

/// Nor are names that are closed, of which there is nothing.
#[tokio::test(flavor = "multi_thread")]
async fn names_of_nothing_are_not_kept() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let _alone = ALONE.lock().await;
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let mut client = Wired::connect(pooled.address).await;
    client.parse("", "select pg_sleep(60)", &[]);
    client.bind("", &[], Format::Text).execute(0);
    let name = "x".repeat(8 << 20);
    client.close(&name).send().await;
    let before = resident();
    for _ in 0..50 {
        client.close(&name).send().await;
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 100, "{grown} MiB");
}

/// Nor are settings that a transaction may have changed until its end, where they are too many.
#[tokio::test(flavor = "multi_thread")]
async fn names_of_settings_are_not_kept_for_long() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let _alone = ALONE.lock().await;
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let mut client = Wired::connect(pooled.address).await;
    client.query("begin; select 1/0").await;
    let name = "x".repeat(900 << 10);
    let before = resident();
    for n in 0..300 {
        let sql = format!("select set_config('a.{name}{n}', 'x', true)");
        let said = values(&client.query(&sql).await);
        assert!(said.starts_with("25P02 "), "{said}");
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 150, "{grown} MiB");
}
