//! Names of statements in one breath with what fails, or with what drops them all: as with the origin itself.

use wire::pg::{Format, Target, frontend};

use crate::harness::wired::{Wired, kinds, values};
use crate::harness::{Pooled, Postgres, limited, one, until};

/// One thing that a client sends.
#[derive(Debug, Clone, Copy)]
enum Step {
    Query(&'static str),
    /// The same, behind an error of an extended query: it is left out.
    LeftOut(&'static str),
    Parse(&'static str, &'static str),
    Describe(&'static str),
    /// `Bind` and `Execute`.
    Run(&'static str),
    Close(&'static str),
    /// And waits for an error.
    Flush,
    /// And waits for the end.
    Sync,
    /// And waits for it later.
    SyncLater,
}

use Step::{Close, Describe, Flush, LeftOut, Parse, Query, Run, Sync, SyncLater};

/// What a client hears.
async fn hear(client: &mut Wired, steps: &[Step]) -> Vec<String> {
    let mut heard = Vec::new();
    let mut ends = 0;
    for step in steps {
        let mut frames = Vec::new();
        match *step {
            Query(sql) => {
                frontend::query(&mut client.out, sql.as_bytes()).unwrap();
                ends += 1;
            }
            LeftOut(sql) => frontend::query(&mut client.out, sql.as_bytes()).unwrap(),
            Parse(name, sql) => drop(client.parse(name, sql, &[])),
            Describe(name) => drop(client.describe(Target::Statement, name)),
            Run(name) => drop(client.bind(name, &[], Format::Text).execute(0)),
            Close(name) => drop(client.close(name)),
            SyncLater => {
                frontend::sync(&mut client.out);
                ends += 1;
            }
            Flush => frames = client.flush().until(b'E').await,
            Sync => {
                frontend::sync(&mut client.out);
                for _ in 0..=std::mem::take(&mut ends) {
                    frames.extend(client.until(b'Z').await);
                }
            }
        }
        if !frames.is_empty() {
            heard.push(format!("{} {}", kinds(&frames), values(&frames)));
        }
    }
    heard
}

/// Whoever says these things to the pool hears what the origin says itself, also who comes next on the same connection.
async fn expect_the_same(all: &[&[Step]]) {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    for is_known in [false, true] {
        for steps in all {
            let pooled = Pooled::start(postgres.origin(), limited(1)).await;
            let mut client = Wired::connect(pooled.address).await;
            let mut other = Wired::connect(pooled.address).await;
            let texts = steps.iter().filter_map(|step| match step {
                Parse(_, sql) => Some(*sql),
                _ => None,
            });
            let each = |sql| [Parse("x", sql), Sync, Run("x"), Sync, Close("x"), Sync];
            let again: Vec<Step> = texts.flat_map(each).collect();
            if is_known {
                // A server has taken all texts already.
                hear(&mut other, &again).await;
            }
            let heard = hear(&mut client, steps).await;
            let mut native = Wired::connect(postgres.native.address).await;
            let expected = hear(&mut native, steps).await;
            assert_eq!(heard, expected, "{steps:?}");
            let expected = hear(&mut native, &again).await;
            for _ in 0..2 {
                assert_eq!(hear(&mut other, &again).await, expected, "{steps:?}");
            }
        }
    }
}

const FAILS: &str = "select 1/0";

#[tokio::test(flavor = "multi_thread")]
async fn names_behind_an_error_are_left_out() {
    expect_the_same(&[
        // The error is known to the pool before the rest comes.
        &[
            Parse("", FAILS),
            Run(""),
            Flush,
            Parse("a", "select 7"),
            Sync,
            Run("a"),
            Sync,
            Parse("a", "select 7"),
            Sync,
            Run("a"),
            Sync,
        ],
        &[
            Parse("", FAILS),
            Run(""),
            Flush,
            Parse("", "select 7"),
            Sync,
            Run(""),
            Sync,
        ],
        &[
            Parse("a", "select 7"),
            Sync,
            Parse("", FAILS),
            Run(""),
            Flush,
            Close("a"),
            Sync,
            Run("a"),
            Sync,
            Parse("a", "select 8"),
            Sync,
        ],
        // It is not.
        &[
            Parse("a", "select 7"),
            Sync,
            Parse("", FAILS),
            Run(""),
            Parse("b", "select 8"),
            Close("a"),
            Sync,
            Run("a"),
            Sync,
            Run("b"),
            Sync,
            Parse("b", "select 9"),
            Run("b"),
            Sync,
            Parse("a", "select 9"),
            Sync,
        ],
        // It takes a simple query along, and others are told by what is theirs.
        &[
            Parse("", "selec"),
            LeftOut("select 1"),
            SyncLater,
            Parse("b", "select 8"),
            SyncLater,
            Parse("c", "selec"),
            Sync,
            Run("b"),
            Sync,
            Parse("c", "select 9"),
            Sync,
            Parse("b", "select 9"),
            Sync,
        ],
        // The unnamed statement outlives a query that is left out.
        &[
            Parse("", "select 7"),
            Sync,
            Parse("a", "selec"),
            Flush,
            LeftOut("select 1"),
            Sync,
            Run(""),
            Sync,
        ],
        // It stands behind, and undoes nothing.
        &[
            Parse("a", "select 7"),
            Sync,
            Close("a"),
            Parse("a", "select 8"),
            Parse("", FAILS),
            Run(""),
            Sync,
            Run("a"),
            Sync,
            Close("a"),
            Parse("", FAILS),
            Run(""),
            Sync,
            Run("a"),
            Sync,
        ],
        // Amid a transaction, on the same connection.
        &[
            Query("begin"),
            Query("savepoint s"),
            Parse("", "select 7"),
            Run(""),
            Sync,
            Parse("", FAILS),
            Run(""),
            Flush,
            Parse("", "select 8"),
            Sync,
            Query("rollback to s"),
            Parse("", "select 8"),
            Run(""),
            Run(""),
            Sync,
            Query("commit"),
            Sync,
        ],
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_drops_all_statements_drops_none_behind_it() {
    let all = ["discard all", "deallocate all"].map(|drops| {
        let behind = |begin: &[Step]| {
            let mut steps = begin.to_vec();
            steps.extend([
                Parse("a", "select 7"),
                Describe("a"),
                Sync,
                Run("a"),
                Sync,
                Run("b"),
                Sync,
                Parse("b", "select 8"),
                Run("b"),
                Sync,
            ]);
            steps
        };
        [
            behind(&[Query(drops)]),
            // A name that there is, and another that is on its way.
            behind(&[
                Parse("a", "select 9"),
                Sync,
                Parse("b", "select 10"),
                Query(drops),
            ]),
            // Without a name.
            vec![
                Query(drops),
                Parse("", "select 7"),
                Describe(""),
                Sync,
                Run(""),
                Sync,
            ],
            behind(&[Query(drops), Query(drops)]),
            // By several messages.
            behind(&[Parse("", drops), Run(""), Sync]),
            behind(&[Parse("b", "select 9"), Parse("", drops), Run(""), Sync]),
            // It fails, and what there was is there.
            vec![
                Parse("a", "select 9"),
                Sync,
                Query("begin"),
                Query("select 1/0"),
                Query(drops),
                Query("rollback"),
                Sync,
                Run("a"),
                Sync,
            ],
            // So it does where each is answered before the next.
            vec![
                Parse("a", "select 9"),
                Sync,
                Query("begin"),
                Sync,
                Query(drops),
                Sync,
                Query("rollback"),
                Sync,
                Run("a"),
                Sync,
            ],
            vec![
                Parse("a", "select 9"),
                Sync,
                Parse("", "selec"),
                LeftOut(drops),
                Sync,
                Query("select 1"),
                Sync,
                Run("a"),
                Sync,
            ],
        ]
    });
    let all: Vec<&[Step]> = all.iter().flatten().map(Vec::as_slice).collect();
    expect_the_same(&all).await;
}

/// Nobody has heard what has become of it.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_while_all_statements_are_dropped_takes_none_from_others() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let prepares = [Parse("a", "select 7"), Sync, Run("a"), Sync];
    let mut other = Wired::connect(pooled.address).await;
    assert_eq!(hear(&mut other, &prepares).await, ["1Z ", "2DCZ 7"]);
    let mut client = Wired::connect(pooled.address).await;
    client.query("begin").await;
    frontend::query(&mut client.out, b"select pg_sleep(60)").unwrap();
    frontend::query(&mut client.out, b"deallocate all").unwrap();
    client.send().await;
    let beside = postgres.session().await;
    let sleeps = "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)'";
    until("it sleeps", async || one(&beside, sleeps).await == "1").await;
    drop(client);
    assert_eq!(values(&other.query("select 1").await), "1");
    assert_eq!(hear(&mut other, &[Run("a"), Sync]).await, ["2DCZ 7"]);
    assert_eq!(pooled.pool.standing().counts.connected, 1);
}

/// Somebody has taken the pool's names on a connection, where nobody could see it: who comes next is told so once.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_of_the_pools_that_is_taken_is_free_afterwards() {
    let Some(postgres) = Postgres::open() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let mut client = Wired::connect(pooled.address).await;
    let takes = "do $$ begin for n in 1..99 loop \
        execute format('prepare dormouse_%s as select 1', n); end loop; end $$";
    client.query(takes).await;
    let steps = [Parse("a", "select 7"), Sync];
    let refused = hear(&mut client, &steps).await;
    assert!(refused[0].starts_with("EZ 42P05 "), "{refused:?}");
    assert_eq!(hear(&mut client, &steps).await, ["1Z "]);
    assert_eq!(hear(&mut client, &[Run("a"), Sync]).await, ["2DCZ 7"]);
}
