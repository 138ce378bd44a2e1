use dormouse_clients::new_database;
use futures_util::TryStreamExt as _;
use futures_util::future::try_join_all;
use sqlx::error::ErrorKind;
use sqlx::migrate::MigrateDatabase as _;
use sqlx::postgres::{PgListener, PgPool};
use sqlx::{Connection as _, PgConnection, Postgres};

use crate::{MIGRATOR, code, pool};

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
