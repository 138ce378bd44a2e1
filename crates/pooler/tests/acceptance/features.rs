//! What belongs to a session beside its settings: it works as on a connection of one's own, or an error says what does not.

use std::time::Duration;

use tokio::time::timeout;
use wire::pg::Format;

use crate::harness::wired::{Wired, kinds, values};
use crate::harness::{Pooled, Postgres, limited};

use dormouse_pooler::PoolOptions;

/// Longer than a notification takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn prepared(options: PoolOptions) -> Option<(Postgres, Pooled)> {
    let postgres = Postgres::open()?;
    let pooled = Pooled::start(postgres.origin(), options).await;
    Some((postgres, pooled))
}

/// Each step of the first client is followed by transactions of others, which would have its connection if it did not
/// keep it.
#[tokio::test(flavor = "multi_thread")]
async fn behaviour_21_features_of_a_session_work() {
    let Some((postgres, pooled)) = prepared(limited(2)).await else {
        return;
    };
    let table: &[&[&str]] = &[
        &[
            "prepare p as select $1::int + 1",
            "execute p(41)",
            "deallocate p",
            "execute p(1)",
        ],
        &[
            "begin",
            "declare c cursor with hold for select generate_series(1, 4)",
            "fetch 1 from c",
            "commit",
            "fetch 2 from c",
            "close c",
        ],
        &[
            "create temp table mine as select 7 as n",
            "select n from mine",
            "drop table mine",
        ],
        &[
            "select pg_advisory_lock(5)",
            "select pg_advisory_unlock(5)",
            "select pg_advisory_unlock(5)",
        ],
        &["load 'plpgsql'", "select 1"],
        &[
            "create sequence s",
            "begin",
            "select nextval('s'), currval('s')",
            "select lastval()",
            "commit",
            "drop sequence s",
        ],
        &[
            "begin",
            "select pg_advisory_xact_lock(6)",
            "savepoint a",
            "select 1/0",
            "rollback to a",
            "commit",
        ],
        &[
            "begin",
            "create table two (n int)",
            "prepare transaction 'two'",
            "rollback prepared 'two'",
        ],
        &[
            "set session characteristics as transaction read only",
            "create table no (n int)",
            "reset all",
        ],
        &[
            "select set_config('my.own', 'x', false)",
            "select current_setting('my.own')",
        ],
        &["discard all"],
    ];
    for steps in table {
        let mut client = Wired::connect(pooled.address).await;
        let mut others = [
            Wired::connect(pooled.address).await,
            Wired::connect(pooled.address).await,
        ];
        let mut alone = Wired::connect(postgres.native.address).await;
        let mut told = Vec::new();
        for step in *steps {
            let got = client.query(step).await;
            for other in &mut others {
                assert_eq!(values(&other.query("select 'other'").await), "other");
            }
            told.push(format!("{} {}", kinds(&got), values(&got)));
        }
        // Alone as a whole: both must not make the same things at the same time.
        for (step, got) in steps.iter().zip(told) {
            let expected = alone.query(step).await;
            let expected = format!("{} {}", kinds(&expected), values(&expected));
            assert_eq!(got, expected, "{step}");
        }
    }
}

/// Between transactions a connection's sequences may have given numbers to others: that is an error, and no number of theirs.
#[tokio::test(flavor = "multi_thread")]
async fn behaviour_21_what_sequences_gave_to_others_is_told_to_nobody() {
    let Some((_postgres, pooled)) = prepared(limited(1)).await else {
        return;
    };
    let mut ann = Wired::connect(pooled.address).await;
    let mut joe = Wired::connect(pooled.address).await;
    ann.query("create sequence s").await;
    assert_eq!(values(&ann.query("select nextval('s')").await), "1");
    assert_eq!(values(&joe.query("select nextval('s')").await), "2");
    for sql in ["select currval('s')", "select lastval()"] {
        let told = values(&ann.query(sql).await);
        assert!(told.starts_with("55000 "), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behaviour_21_notifications_reach_who_listens() {
    let Some((_postgres, pooled)) = prepared(limited(2)).await else {
        return;
    };
    let mut listens = Wired::connect(pooled.address).await;
    let mut speaks = Wired::connect(pooled.address).await;
    listens.query("listen news").await;
    for text in ["one", "two"] {
        speaks.query(&format!("notify news, '{text}'")).await;
        let told = timeout(PATIENCE, listens.until(b'A')).await.unwrap();
        let body = told.last().unwrap().body();
        assert!(
            body.ends_with(format!("news\0{text}\0").as_bytes()),
            "{body:?}"
        );
    }
    assert_eq!(values(&listens.query("select 1").await), "1");
    // Whoever unlistens gives its connection to others, and hears nothing any more.
    listens.query("unlisten *").await;
    speaks.query("notify news, 'three'").await;
    assert_eq!(kinds(&listens.query("select 2").await), "TDCZ");
    assert_eq!(pooled.pool.standing().pinned, 0);
}

/// Past the limit each of them is refused before it reaches the origin, with what to do about it.
#[tokio::test(flavor = "multi_thread")]
async fn behaviour_21_what_cannot_be_kept_is_refused_with_a_hint() {
    let options = PoolOptions {
        pinned_max: 0,
        ..limited(2)
    };
    let Some((_postgres, pooled)) = prepared(options).await else {
        return;
    };
    let mut client = Wired::connect(pooled.address).await;
    for (sql, what) in [
        ("listen news", "LISTEN"),
        ("create temp table mine (n int)", "a temporary object"),
        ("select pg_advisory_lock(5)", "an advisory lock"),
        ("prepare p as select 1", "PREPARE"),
        (
            "declare c cursor with hold for select 1",
            "a cursor WITH HOLD",
        ),
        ("load 'plpgsql'", "LOAD"),
        (
            "select set_config(n, 'x', false) from (values ('a.b')) v(n)",
            "set_config",
        ),
    ] {
        for is_extended in [false, true] {
            let frames = match is_extended {
                false => client.query(sql).await,
                true => {
                    client.parse("", sql, &[]).bind("", &[], Format::Text);
                    client.execute(0).sync().await
                }
            };
            let error = frames.iter().find(|frame| frame.kind() == b'E').unwrap();
            let error = wire::PgError::decode(error.body()).unwrap();
            assert_eq!(error.code(), "53300", "{sql}");
            assert!(error.message().starts_with(what), "{sql}: {error}");
            assert!(error.message().contains("pinnedMax"), "{sql}: {error}");
            let hint = error.get(wire::pg::ErrorField::Hint).unwrap();
            assert!(hint.contains("Raise pinnedMax"), "{sql}: {hint}");
            assert_eq!(values(&client.query("select 'goes on'").await), "goes on");
        }
    }
}
