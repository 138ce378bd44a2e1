//! sqlx: its migrations, its pool, and queries that are known when they run.

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use dormouse_clients::{ODD_TEXT, new_database};
use futures_util::TryStreamExt as _;
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use sqlx::error::ErrorKind;
use sqlx::migrate::{MigrateDatabase as _, Migrator};
use sqlx::postgres::types::{PgInterval, PgRange};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPool, PgPoolOptions};
use sqlx::types::BigDecimal;
use sqlx::{
    AssertSqlSafe, Connection as _, Decode, Encode, PgConnection, Postgres, Row as _, Type,
};
use uuid::Uuid;

static MIGRATOR: Migrator = sqlx::migrate!("migrations/sqlx");

async fn pool(max: u32) -> PgPool {
    let options: PgConnectOptions = new_database().parse().unwrap();
    let options = options.options([("deadlock_timeout", "10ms")]);
    let pool = PgPoolOptions::new().max_connections(max);
    pool.connect_with(options).await.unwrap()
}

fn code(error: sqlx::Error) -> String {
    let error = error.into_database_error().unwrap();
    error.code().unwrap().into_owned()
}

#[derive(Debug, Clone, PartialEq, sqlx::Type)]
#[sqlx(type_name = "mood", rename_all = "lowercase")]
enum Mood {
    Asleep,
    Awake,
}

#[derive(Debug, sqlx::FromRow)]
struct Animal {
    id: i32,
    name: String,
    mood: Mood,
    colours: Vec<String>,
    traits: Option<sqlx::types::Json<Value>>,
}

#[tokio::test]
async fn migrations_up_and_down() {
    let pool = pool(4).await;
    // Two at once: the second waits for the first's lock.
    let (a, b) = tokio::join!(MIGRATOR.run(&pool), MIGRATOR.run(&pool));
    a.unwrap();
    b.unwrap();
    let count = "select count(*) from _sqlx_migrations where success";
    assert_eq!(
        sqlx::query_scalar::<_, i64>(count)
            .fetch_one(&pool)
            .await
            .unwrap(),
        2
    );
    MIGRATOR.undo(&pool, 1).await.unwrap();
    assert_eq!(
        code(
            sqlx::query("select 1 from stock")
                .execute(&pool)
                .await
                .unwrap_err()
        ),
        "42P01"
    );
    MIGRATOR.run(&pool).await.unwrap();
    sqlx::query("select 1 from stock")
        .execute(&pool)
        .await
        .unwrap();
}

#[tokio::test]
async fn rows_as_structs() {
    let pool = pool(1).await;
    MIGRATOR.run(&pool).await.unwrap();
    let insert =
        "insert into animal (name, mood, colours, traits) values ($1, $2, $3, $4) returning *";
    let animal: Animal = sqlx::query_as(insert)
        .bind("Bilch")
        .bind(Mood::Awake)
        .bind(["grey", ODD_TEXT])
        .bind(json!({"odd": ODD_TEXT}))
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(
        (animal.id, animal.name.as_str(), animal.mood),
        (1, "Bilch", Mood::Awake)
    );
    assert_eq!(animal.colours, ["grey", ODD_TEXT]);
    assert_eq!(animal.traits.unwrap().0, json!({"odd": ODD_TEXT}));
    let moods = sqlx::query_scalar("select array_agg(mood) from animal where mood <> $1");
    let moods: Vec<Mood> = moods.bind(Mood::Asleep).fetch_one(&pool).await.unwrap();
    assert_eq!(moods, [Mood::Awake]);
}

async fn both_ways<T>(pool: &PgPool, kind: &str, value: T)
where
    T: for<'q> Encode<'q, Postgres> + for<'r> Decode<'r, Postgres> + Type<Postgres>,
    T: Clone + PartialEq + std::fmt::Debug + Send + Unpin + 'static,
{
    let sql = AssertSqlSafe(format!("select $1::{kind}, null::{kind}"));
    let row = sqlx::query(sql)
        .bind(value.clone())
        .fetch_one(pool)
        .await
        .unwrap();
    assert_eq!((row.get(0), row.get(1)), (value, None::<T>));
}

#[tokio::test]
async fn values_both_ways() {
    let pool = &pool(1).await;
    let at: DateTime<Utc> = "2026-02-28T23:59:59.987654Z".parse().unwrap();
    both_ways(pool, "int2", i16::MIN).await;
    both_ways(pool, "int8", i64::MIN).await;
    both_ways(pool, "float4", 1.5_f32).await;
    both_ways(pool, "float8", 0.1_f64).await;
    both_ways(
        pool,
        "numeric",
        "-12345678901234567890.000000000123456789"
            .parse::<BigDecimal>()
            .unwrap(),
    )
    .await;
    both_ways(pool, "bool", true).await;
    both_ways(pool, "text", ODD_TEXT.to_owned()).await;
    both_ways(pool, "bytea", (0..=255).collect::<Vec<u8>>()).await;
    both_ways(pool, "json", json!({"a": [1, null, ODD_TEXT]})).await;
    both_ways(pool, "jsonb", json!({"a": [1, null, ODD_TEXT]})).await;
    both_ways(pool, "int4[]", vec![Some(1), None, Some(3)]).await;
    both_ways(
        pool,
        "text[]",
        ["", "NULL", "{}", ODD_TEXT].map(str::to_owned).to_vec(),
    )
    .await;
    both_ways(pool, "uuid[]", vec![Uuid::new_v4(), Uuid::nil()]).await;
    both_ways(pool, "timestamptz", at).await;
    both_ways(pool, "timestamp", at.naive_utc()).await;
    both_ways(pool, "date", NaiveDate::from_ymd_opt(2026, 2, 28).unwrap()).await;
    both_ways(
        pool,
        "time",
        NaiveTime::from_hms_micro_opt(23, 59, 59, 987_654).unwrap(),
    )
    .await;
    both_ways(
        pool,
        "interval",
        PgInterval {
            months: 1,
            days: -2,
            microseconds: 3,
        },
    )
    .await;
    both_ways(pool, "int4range", PgRange::from(1..5)).await;
    both_ways(pool, "tstzrange", PgRange::from(at..)).await;
    both_ways(pool, "text", "ä0123456789".repeat(436_907)).await;
}

#[tokio::test]
async fn statements_are_cached_and_forgotten() {
    let options: PgConnectOptions = new_database().parse().unwrap();
    let options = options.statement_cache_capacity(5);
    let mut connection = PgConnection::connect_with(&options).await.unwrap();
    for round in 0..3 {
        for n in 0..20 {
            let sql = AssertSqlSafe(format!("select $1::int + {n}"));
            let sum: i32 = sqlx::query_scalar(sql)
                .bind(round)
                .fetch_one(&mut connection)
                .await
                .unwrap();
            assert_eq!(sum, round + n);
        }
    }
    assert_eq!(connection.cached_statements_size(), 5);
    let kept = sqlx::query_scalar("select count(*) from pg_prepared_statements").persistent(false);
    let kept: i64 = kept.fetch_one(&mut connection).await.unwrap();
    assert!(kept <= 6, "{kept}");
    connection.clear_cached_statements().await.unwrap();
    assert_eq!(connection.cached_statements_size(), 0);
}

#[tokio::test]
async fn errors() {
    let pool = pool(1).await;
    MIGRATOR.run(&pool).await.unwrap();
    let insert = || sqlx::query("insert into animal (name) values ($1)").bind("a");
    insert().execute(&pool).await.unwrap();
    let error = insert()
        .execute(&pool)
        .await
        .unwrap_err()
        .into_database_error()
        .unwrap();
    assert_eq!(
        (error.kind(), error.constraint()),
        (ErrorKind::UniqueViolation, Some("animal_name_key"))
    );
    assert_eq!(
        code(sqlx::query("selec 1").execute(&pool).await.unwrap_err()),
        "42601"
    );
    let several = "create table a (); create table b (); select 1 / 0";
    assert_eq!(
        code(sqlx::raw_sql(several).execute(&pool).await.unwrap_err()),
        "22012"
    );
    sqlx::query("set statement_timeout = 50")
        .execute(&pool)
        .await
        .unwrap();
    assert_eq!(
        code(
            sqlx::query("select pg_sleep(60)")
                .execute(&pool)
                .await
                .unwrap_err()
        ),
        "57014"
    );
}

#[tokio::test]
async fn transactions_in_transactions() {
    let pool = pool(1).await;
    sqlx::query("create table t (n int primary key)")
        .execute(&pool)
        .await
        .unwrap();
    let mut outer = pool
        .begin_with("begin isolation level serializable")
        .await
        .unwrap();
    sqlx::query("insert into t values (1)")
        .execute(&mut *outer)
        .await
        .unwrap();
    let mut inner = outer.begin().await.unwrap();
    sqlx::query("insert into t values (1)")
        .execute(&mut *inner)
        .await
        .unwrap_err();
    inner.rollback().await.unwrap();
    // One that is dropped is rolled back.
    let mut dropped = outer.begin().await.unwrap();
    sqlx::query("insert into t values (2)")
        .execute(&mut *dropped)
        .await
        .unwrap();
    drop(dropped);
    outer.commit().await.unwrap();
    let rows: Vec<i32> = sqlx::query_scalar("select n from t")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(rows, [1]);
}

#[tokio::test]
async fn a_stream_of_rows_and_one_that_is_left() {
    let pool = pool(1).await;
    let numbers = "select n::int8 from generate_series(1, 100000) n";
    let rows = sqlx::query_scalar::<_, i64>(numbers).fetch(&pool);
    let sum = rows.try_fold(0, async |sum, n| Ok(sum + n)).await.unwrap();
    assert_eq!(sum, 5_000_050_000);
    let mut left = sqlx::query_scalar::<_, i64>(numbers).fetch(&pool);
    assert_eq!(left.try_next().await.unwrap(), Some(1));
    drop(left);
    sqlx::query("select 1").execute(&pool).await.unwrap();
}

#[tokio::test]
async fn copy() {
    let pool = pool(1).await;
    sqlx::query("create table t (n int, s text)")
        .execute(&pool)
        .await
        .unwrap();
    let mut connection = pool.acquire().await.unwrap();
    let mut sink = connection.copy_in_raw("copy t from stdin").await.unwrap();
    let lines: Vec<String> = (0..100_000).map(|n| format!("{n}\trow {n}\n")).collect();
    for some in lines.chunks(5000) {
        sink.send(some.concat().into_bytes()).await.unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), 100_000);
    let out = connection
        .copy_out_raw("copy (table t order by n) to stdout")
        .await
        .unwrap();
    let bytes: Vec<_> = out.try_collect().await.unwrap();
    assert!(bytes.concat() == lines.concat().as_bytes());
    let mut sink = connection.copy_in_raw("copy t from stdin").await.unwrap();
    sink.send(&b"no\tx\n"[..]).await.unwrap();
    assert_eq!(code(sink.finish().await.unwrap_err()), "22P02");
}

#[tokio::test]
#[ignore = "an idle session hears of others at its next message: docs/compatibility.md"]
async fn a_listener() {
    let pool = pool(2).await;
    let mut listener = PgListener::connect_with(&pool).await.unwrap();
    listener.listen("nest").await.unwrap();
    sqlx::query("select pg_notify('nest', 'eggs')")
        .execute(&pool)
        .await
        .unwrap();
    assert_eq!(listener.recv().await.unwrap().payload(), "eggs");
}

#[tokio::test]
async fn a_pool_goes_on_after_the_server_ended_its_connection() {
    let pool = pool(1).await;
    sqlx::query("create table t as select 1 as n")
        .execute(&pool)
        .await
        .unwrap();
    let terminate = "select pg_terminate_backend(pg_backend_pid())";
    sqlx::raw_sql(terminate).execute(&pool).await.unwrap_err();
    let rows: Vec<i32> = sqlx::query_scalar("select n from t")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(rows, [1]);
}

#[tokio::test]
async fn a_pool_of_eight_moves_money_and_none_is_lost() {
    let pool = pool(8).await;
    let table = "create table account as select id, 1000 as amount from generate_series(0, 9) id";
    sqlx::query(table).execute(&pool).await.unwrap();
    let work = (0..150).map(|n| {
        let pool = &pool;
        async move {
            while let Err(error) = moved(pool, [(n % 10, -1), ((n * 7 + 1) % 10, 1)]).await {
                assert!(["40001", "40P01"].contains(&code(error).as_str()));
            }
            Ok::<(), sqlx::Error>(())
        }
    });
    try_join_all(work).await.unwrap();
    let sum = "select sum(amount), count(*) from account";
    let sum: (i64, i64) = sqlx::query_as(sum).fetch_one(&pool).await.unwrap();
    assert_eq!(sum, (10_000, 10));
}

async fn moved(pool: &PgPool, pairs: [(i32, i32); 2]) -> Result<(), sqlx::Error> {
    let mut transaction = pool
        .begin_with("begin isolation level repeatable read")
        .await?;
    for (id, by) in pairs {
        let update = sqlx::query("update account set amount = amount + $1 where id = $2");
        update.bind(by).bind(id).execute(&mut *transaction).await?;
    }
    transaction.commit().await
}

#[tokio::test]
async fn databases_are_made_and_dropped() {
    for _ in 0..20 {
        let address = new_database();
        assert!(!Postgres::database_exists(&address).await.unwrap());
        Postgres::create_database(&address).await.unwrap();
        assert!(Postgres::database_exists(&address).await.unwrap());
        let mut connection = PgConnection::connect(&address).await.unwrap();
        MIGRATOR.run(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        Postgres::drop_database(&address).await.unwrap();
        assert!(!Postgres::database_exists(&address).await.unwrap());
    }
}
