use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, UNIX_EPOCH};

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use dormouse_clients::ODD_TEXT;
use serde_json::{Value, json};
use tokio_postgres::types::{FromSqlOwned, Kind, ToSql};
use uuid::Uuid;

use crate::{code, fresh};

async fn both_ways<T>(kind: &str, values: &[T])
where
    T: ToSql + FromSqlOwned + PartialEq + std::fmt::Debug + Sync,
{
    let client = fresh().await;
    let table = format!("create table kept (id int generated always as identity, value {kind})");
    client.batch_execute(&table).await.unwrap();
    for value in values {
        let select = format!("select $1::{kind}");
        let row = client.query_one(&select, &[value]).await.unwrap();
        assert_eq!(&row.get::<_, T>(0), value);
        let insert = "insert into kept (value) values ($1)";
        assert_eq!(client.execute(insert, &[value]).await.unwrap(), 1);
    }
    let none: Option<T> = None;
    let insert = "insert into kept (value) values ($1)";
    client.execute(insert, &[&none]).await.unwrap();
    let rows = client.query("select value from kept order by id", &[]);
    let kept: Vec<Option<T>> = rows.await.unwrap().iter().map(|row| row.get(0)).collect();
    let (last, kept) = kept.split_last().unwrap();
    assert!(last.is_none());
    assert!(kept.iter().flatten().eq(values), "{kept:?}");
}

#[tokio::test]
async fn numbers() {
    both_ways("int2", &[i16::MIN, i16::MAX]).await;
    both_ways("int4", &[i32::MIN, 0, i32::MAX]).await;
    both_ways("int8", &[i64::MIN, i64::MAX]).await;
    both_ways("oid", &[u32::MAX]).await;
    both_ways("float4", &[1.5_f32, f32::NEG_INFINITY]).await;
    both_ways("float8", &[0.1_f64, f64::MIN_POSITIVE, f64::INFINITY]).await;
    both_ways("bool", &[true, false]).await;
}

#[tokio::test]
async fn texts_and_bytes() {
    both_ways("text", &[String::new(), ODD_TEXT.to_owned()]).await;
    both_ways("varchar(5)", &["short".to_owned()]).await;
    both_ways("bytea", &[vec![], (0..=255).collect::<Vec<u8>>()]).await;
    both_ways("json", &[json!({"a": [1, "zwei", null, ODD_TEXT]})]).await;
    both_ways(
        "jsonb",
        &[json!({"a": [1, "zwei", null, ODD_TEXT]}), Value::Null],
    )
    .await;
    both_ways("uuid", &[Uuid::new_v4(), Uuid::nil()]).await;
    both_ways("inet", &[IpAddr::from(Ipv6Addr::LOCALHOST)]).await;
}

#[tokio::test]
async fn times() {
    let at = UNIX_EPOCH + Duration::from_micros(1_772_323_199_987_654);
    both_ways("timestamptz", &[at]).await;
    both_ways("timestamptz", &[DateTime::<Utc>::from(at)]).await;
    both_ways("timestamp", &[DateTime::<Utc>::from(at).naive_utc()]).await;
    both_ways("date", &[NaiveDate::from_ymd_opt(2026, 2, 28).unwrap()]).await;
    both_ways(
        "time",
        &[NaiveTime::from_hms_micro_opt(23, 59, 59, 987_654).unwrap()],
    )
    .await;
}

#[tokio::test]
async fn arrays() {
    both_ways("int4[]", &[vec![Some(1), None, Some(3)], vec![]]).await;
    let texts = [ODD_TEXT, "", "NULL", "{}"].map(str::to_owned).to_vec();
    both_ways("text[]", &[texts]).await;
    both_ways("jsonb[]", &[vec![json!(1), json!({"a": ODD_TEXT})]]).await;
}

#[tokio::test]
async fn types_of_ones_own() {
    let client = fresh().await;
    let types = "create type mood as enum ('sad', 'ok'); create type animal as (name text, mood mood); \
                 create domain age as int check (value >= 0); create table t (m mood, a animal, g age, r int4range)";
    client.batch_execute(types).await.unwrap();
    // The driver asks the server what they are made of.
    let statement = client
        .prepare("insert into t values ($1, $2, $3, $4)")
        .await
        .unwrap();
    let [mood, animal, age, range] = statement.params() else {
        panic!("{:?}", statement.params())
    };
    assert_eq!(
        mood.kind(),
        &Kind::Enum(vec!["sad".to_owned(), "ok".to_owned()])
    );
    let Kind::Composite(fields) = animal.kind() else {
        panic!("{animal:?}")
    };
    assert_eq!(fields[1].type_(), mood);
    assert!(matches!(age.kind(), Kind::Domain(base) if base.name() == "int4"));
    assert!(matches!(range.kind(), Kind::Range(base) if base.name() == "int4"));
    let error = client.query("select 'angry'::mood", &[]).await.unwrap_err();
    assert_eq!(code(&error), "22P02");
}

#[tokio::test]
async fn five_megabytes() {
    let client = fresh().await;
    let text = "ä0123456789".repeat(436_907);
    let bytes: Vec<u8> = (0..=255).cycle().take(5 << 20).collect();
    let select = "select $1::text, $2::bytea";
    let row = client.query_one(select, &[&text, &bytes]).await.unwrap();
    assert!(row.get::<_, &str>(0) == text && row.get::<_, &[u8]>(1) == bytes);
}
