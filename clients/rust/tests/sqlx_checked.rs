//! sqlx: queries that were checked when this was compiled, against the database that they now run in.

use sqlx::postgres::PgPool;
use sqlx::types::BigDecimal;

/// Another address is another database: cargo compiles this again.
const DATABASE: &str = env!("DATABASE_URL");

#[derive(Debug, PartialEq, sqlx::Type)]
#[sqlx(type_name = "mood", rename_all = "lowercase")]
enum Mood {
    Asleep,
    Awake,
}

#[tokio::test]
async fn checked_queries() {
    let pool = PgPool::connect(DATABASE).await.unwrap();
    let weight: BigDecimal = "12.50".parse().unwrap();
    let made = sqlx::query!(
        "insert into animal (name, mood, weight, colours) values ($1, $2, $3, $4) returning id, born, weight",
        "Bilch",
        Mood::Awake as _,
        weight.clone(),
        &["grey".to_owned()]
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    // Types of Rust follow from the columns, and `Option` from whether they may be null.
    let (id, year, kept): (i32, i32, Option<BigDecimal>) =
        (made.id, chrono::Datelike::year(&made.born), made.weight);
    assert_eq!(kept, Some(weight));
    assert!(year >= 2026);
    sqlx::query!("insert into stock values ($1, 'nut', 3)", id)
        .execute(&pool)
        .await
        .unwrap();
    let found = sqlx::query!(
        r#"select a.name, a.mood as "mood: Mood", s.count as "count?", count(*) over () as "total!"
           from animal a left join stock s on s.animal = a.id and s.food = $1"#,
        "nut"
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let [row] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(
        (row.name.as_str(), &row.mood, row.count, row.total),
        ("Bilch", &Mood::Awake, Some(3), 1)
    );
    let sum = sqlx::query_scalar!("select sum(count) from stock")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(sum, Some(3));
}
