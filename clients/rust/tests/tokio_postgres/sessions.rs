use std::future::poll_fn;
use std::time::Duration;

use dormouse_clients::new_database;
use futures_util::future::try_join_all;
use tokio_postgres::{AsyncMessage, Client, IsolationLevel, NoTls};

use crate::{code, connect, fresh};

async fn sessions(count: usize) -> Vec<Client> {
    let address = format!("{}?options=-c%20deadlock_timeout%3D10ms", new_database());
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(connect(&address).await);
    }
    clients
}

#[tokio::test]
async fn options_of_the_address() {
    let options = "?application_name=dormice&options=-c%20search_path%3Dnest&connect_timeout=10&sslmode=prefer&target_session_attrs=read-write";
    let client = connect(&(new_database() + options)).await;
    let settings = "select current_setting('application_name'), current_setting('search_path')";
    let row = client.query_one(settings, &[]).await.unwrap();
    assert_eq!((row.get(0), row.get(1)), ("dormice", "nest"));
    let refused = new_database() + "?options=-c%20nonsense%3D1";
    let error = tokio_postgres::connect(&refused, NoTls)
        .await
        .err()
        .unwrap();
    assert_eq!(code(&error), "42704");
}

#[tokio::test]
async fn errors_have_the_fields_of_the_server() {
    let client = fresh().await;
    let sql = "create table t (name text constraint named unique); insert into t values ('a')";
    client.batch_execute(sql).await.unwrap();
    let error = client
        .execute("insert into t values ($1)", &[&"a"])
        .await
        .unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "23505");
    assert_eq!(
        (error.table(), error.constraint()),
        (Some("t"), Some("named"))
    );
    assert_eq!(error.detail(), Some("Key (name)=(a) already exists."));
    assert_eq!(
        code(&client.query("selec 1", &[]).await.unwrap_err()),
        "42601"
    );
}

#[tokio::test]
async fn transactions_and_savepoints() {
    let mut client = fresh().await;
    client
        .batch_execute("create table t (n int primary key)")
        .await
        .unwrap();
    let mut transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::Serializable)
        .start()
        .await
        .unwrap();
    transaction
        .execute("insert into t values (1)", &[])
        .await
        .unwrap();
    let savepoint = transaction.savepoint("a").await.unwrap();
    let error = savepoint
        .execute("insert into t values (2), (1)", &[])
        .await
        .unwrap_err();
    assert_eq!(code(&error), "23505");
    savepoint.rollback().await.unwrap();
    transaction
        .execute("insert into t values (3)", &[])
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    // One that is dropped is rolled back.
    let dropped = client.transaction().await.unwrap();
    dropped
        .execute("insert into t values (4)", &[])
        .await
        .unwrap();
    drop(dropped);
    let rows = client
        .query("select n from t order by n", &[])
        .await
        .unwrap();
    assert!(rows.iter().map(|row| row.get::<_, i32>(0)).eq([1, 3]));
}

#[tokio::test]
async fn cancel_and_timeout() {
    let client = fresh().await;
    let token = client.cancel_token();
    let cancel = tokio::spawn(async move {
        // A request that comes before the statement has begun cancels nothing.
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            token.cancel_query(NoTls).await.unwrap();
        }
    });
    let error = client
        .batch_execute("select pg_sleep(60)")
        .await
        .unwrap_err();
    cancel.abort();
    assert_eq!(code(&error), "57014");
    let _ = cancel.await;
    // A late request may hit this one.
    while client
        .batch_execute("set statement_timeout = 50")
        .await
        .is_err()
    {}
    let error = client
        .batch_execute("select pg_sleep(60)")
        .await
        .unwrap_err();
    assert_eq!(code(&error), "57014");
}

#[tokio::test]
async fn notifications_and_notices() {
    let address = new_database();
    let (client, mut connection) = tokio_postgres::connect(&address, NoTls).await.unwrap();
    let (sender, mut heard) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            sender.send(message).unwrap();
        }
    });
    client
        .batch_execute("listen nest; drop table if exists never")
        .await
        .unwrap();
    assert!(
        matches!(heard.recv().await, Some(AsyncMessage::Notice(notice)) if notice.code().code() == "00000")
    );
    let other = connect(&address).await;
    let payload = "ä".repeat(3000);
    other
        .execute("select pg_notify('nest', $1)", &[&payload])
        .await
        .unwrap();
    let message = heard.recv().await.unwrap();
    assert!(matches!(message, AsyncMessage::Notification(n) if n.payload() == payload));
}

#[tokio::test]
async fn a_session_that_the_server_ended() {
    let address = new_database();
    let client = connect(&address).await;
    client
        .batch_execute("create table t as select 1 as n")
        .await
        .unwrap();
    let error = client
        .batch_execute("select pg_terminate_backend(pg_backend_pid())")
        .await;
    let error = error.unwrap_err();
    assert!(error.is_closed() || code(&error) == "57P01", "{error}");
    drop(client);
    let row = connect(&address)
        .await
        .query_one("select n from t", &[])
        .await;
    assert_eq!(row.unwrap().get::<_, i32>(0), 1);
}

#[tokio::test]
async fn eight_sessions_move_money_and_none_is_lost() {
    let mut clients = sessions(8).await;
    let table = "create table account as select id, 1000 as amount from generate_series(0, 9) id";
    clients[0].batch_execute(table).await.unwrap();
    let work = clients
        .iter_mut()
        .enumerate()
        .map(async |(worker, client)| {
            for n in 0..25 {
                let pairs = [((worker + n) % 10, -1), ((worker * 3 + n * 7 + 1) % 10, 1)];
                while let Err(error) = moved(client, pairs).await {
                    assert!(["40001", "40P01"].contains(&code(&error)), "{error:?}");
                }
            }
            Ok::<(), tokio_postgres::Error>(())
        });
    try_join_all(work).await.unwrap();
    let sum = "select sum(amount), count(*) from account";
    let row = clients[0].query_one(sum, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (10_000, 10));
}

async fn moved(client: &mut Client, pairs: [(usize, i32); 2]) -> Result<(), tokio_postgres::Error> {
    let builder = client.build_transaction();
    let level = IsolationLevel::RepeatableRead;
    let transaction = builder.isolation_level(level).start().await?;
    for (id, by) in pairs {
        let sql = "update account set amount = amount + $1 where id = $2";
        transaction.execute(sql, &[&by, &(id as i32)]).await?;
    }
    transaction.commit().await
}

#[tokio::test]
async fn thirty_databases() {
    let admin = fresh().await;
    for n in 0..30 {
        let address = new_database();
        let name = address.rsplit('/').next().unwrap();
        admin
            .batch_execute(&format!("create database {name}"))
            .await
            .unwrap();
        let client = connect(&address).await;
        client
            .batch_execute(&format!("create table t as select {n} as n"))
            .await
            .unwrap();
        let row = client
            .query_one("select n, current_database()::text from t", &[])
            .await;
        let row = row.unwrap();
        assert_eq!((row.get::<_, i32>(0), row.get::<_, &str>(1)), (n, name));
        drop(client);
        admin
            .batch_execute(&format!("drop database {name} with (force)"))
            .await
            .unwrap();
    }
}
