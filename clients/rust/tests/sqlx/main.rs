//! sqlx: its migrations, its pool, and queries that are known when they run.

mod sessions;

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use dormouse_clients::{ODD_TEXT, new_database};
use serde_json::{Value, json};
use sqlx::migrate::Migrator;
use sqlx::postgres::types::{PgInterval, PgRange};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
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
