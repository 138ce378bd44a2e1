//! The library, as an embedder uses it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use dormouse::{Dormouse, Error};

async fn open(folder: &tempfile::TempDir) -> Dormouse {
    Dormouse::open(folder.path().join("data")).await.unwrap()
}

#[tokio::test]
async fn values_travel_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let dormouse = open(&folder).await;
    let database = dormouse.database("values").unwrap();
    let json = serde_json::json!({"a": [1, null, "x"]});
    let rows = database
        .query(
            "select $1::int2, $2::int4, $3::int8, $4::float4, $5::float8, $6::bool, $7::text, \
             $8::bytea, $9::jsonb, $10::int4, $11::float8",
            &[
                &i16::MIN,
                &i32::MAX,
                &i64::MIN,
                &0.1_f32,
                &f64::MIN_POSITIVE,
                &true,
                &"it's \\ \"so\" ä",
                &vec![0_u8, 255, 92],
                &json,
                &None::<i32>,
                &f64::NEG_INFINITY,
            ],
        )
        .await
        .unwrap();
    let row = rows.first().unwrap();
    assert_eq!(row.get::<i16>(0).unwrap(), i16::MIN);
    assert_eq!(row.get::<i32>(1).unwrap(), i32::MAX);
    assert_eq!(row.get::<i64>(2).unwrap(), i64::MIN);
    assert_eq!(row.get::<f32>(3).unwrap(), 0.1);
    assert_eq!(row.get::<f64>(4).unwrap(), f64::MIN_POSITIVE);
    assert!(row.get::<bool>(5).unwrap());
    assert_eq!(row.get::<String>(6).unwrap(), "it's \\ \"so\" ä");
    assert_eq!(row.get::<Vec<u8>>(7).unwrap(), [0, 255, 92]);
    assert_eq!(row.get::<serde_json::Value>(8).unwrap(), json);
    assert_eq!(row.get::<Option<i32>>(9).unwrap(), None);
    assert_eq!(row.get::<f64>(10).unwrap(), f64::NEG_INFINITY);
    assert_eq!(
        (rows.command(), rows.row_count(), rows.len()),
        ("SELECT", Some(1), 1)
    );
    dormouse.close().await.unwrap();
}

#[tokio::test]
async fn sessions_hold_transactions() {
    let folder = tempfile::tempdir().unwrap();
    let dormouse = open(&folder).await;
    let database = dormouse.database("bank").unwrap();
    database.query("create table t (n int)", &[]).await.unwrap();
    let mut session = database.session().await.unwrap();
    session.query("begin", &[]).await.unwrap();
    let inserted = session
        .query("insert into t values (1), (2)", &[])
        .await
        .unwrap();
    assert_eq!(
        (inserted.command(), inserted.row_count()),
        ("INSERT", Some(2))
    );
    // Not committed: dropping rolls back.
    drop(session);
    let count = database
        .query("select count(*) as n from t", &[])
        .await
        .unwrap();
    assert_eq!(count[0].get::<i64>("n").unwrap(), 0);
    dormouse.close().await.unwrap();
}

#[tokio::test]
async fn databases_are_made_forked_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let dormouse = open(&folder).await;
    dormouse.create("one").await.unwrap();
    let taken = dormouse.create("one").await.unwrap_err();
    assert_eq!(taken.code(), Some("42P04"));
    let one = dormouse.database("one").unwrap();
    one.query("create table t as select 7 as n", &[])
        .await
        .unwrap();
    let fork = dormouse.fork("one", "two").await.unwrap();
    assert_eq!(fork.parent.as_deref(), Some("one"));
    let rows = dormouse
        .database("two")
        .unwrap()
        .query("table t", &[])
        .await
        .unwrap();
    assert_eq!(rows[0].get::<i32>("n").unwrap(), 7);
    assert!(
        dormouse
            .list()
            .unwrap()
            .iter()
            .any(|info| info.name == "two")
    );
    dormouse.delete("two", false).await.unwrap();
    assert_eq!(dormouse.info("two").unwrap_err().code(), Some("3D000"));
    // A handle keeps the directory open.
    drop(one);
    dormouse.close().await.unwrap();

    let dormouse = open(&folder).await;
    let rows = dormouse
        .database("one")
        .unwrap()
        .query("table t", &[])
        .await
        .unwrap();
    assert_eq!(rows.len(), 1);
    dormouse.close().await.unwrap();
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let dormouse = open(&folder).await;
    let name = dormouse.database("no/name").err().unwrap();
    assert!(matches!(name, Error::Name { .. }) && name.to_string().contains("1 to 63"));
    let database = dormouse.database("errors").unwrap();
    let wrong = database.query("select nope", &[]).await.unwrap_err();
    assert_eq!(wrong.code(), Some("42703"));
    let count = database.query("select $1::int", &[]).await.unwrap_err();
    assert_eq!(count.code(), Some("08P01"));
    let held = Dormouse::open(folder.path().join("data"))
        .await
        .err()
        .unwrap();
    assert!(matches!(held, Error::Open(_)), "{held}");
    assert!(held.to_string().contains("process"), "{held}");
    dormouse.close().await.unwrap();
}
