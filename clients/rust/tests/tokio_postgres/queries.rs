use std::pin::pin;

use futures_util::future::{join_all, try_join_all};
use futures_util::{SinkExt as _, TryStreamExt as _};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::binary_copy::{BinaryCopyInWriter, BinaryCopyOutStream};
use tokio_postgres::types::Type;

use crate::{code, fresh};

#[tokio::test]
async fn a_thousand_queries_in_the_pipe() {
    let client = fresh().await;
    let statement = client.prepare("select $1::int4 + 1").await.unwrap();
    let asked = (0..1000_i32).map(|n| {
        let (client, statement) = (&client, &statement);
        async move {
            client
                .query_one(statement, &[&n])
                .await
                .map(|row| row.get::<_, i32>(0))
        }
    });
    let answers = try_join_all(asked).await.unwrap();
    assert!(answers.into_iter().eq(1..=1000));
}

#[tokio::test]
async fn an_error_in_the_pipe_is_one_statements_alone() {
    let client = fresh().await;
    let asked = [1, 0, 2, 0, 5].map(|n: i32| {
        let client = &client;
        async move {
            client
                .query_typed("select 10 / $1", &[(&n, Type::INT4)])
                .await
        }
    });
    let answers = join_all(asked).await;
    let answers = answers.iter().map(|answer| match answer {
        Ok(rows) => rows[0].get::<_, i32>(0),
        Err(error) => {
            assert_eq!(code(error), "22012");
            -1
        }
    });
    assert_eq!(answers.collect::<Vec<_>>(), [10, -1, 5, -1, 2]);
}

#[tokio::test]
async fn statements_are_closed_when_they_are_dropped() {
    let client = fresh().await;
    for n in 0..50 {
        client
            .prepare(&format!("select {n}, $1::int"))
            .await
            .unwrap();
    }
    let kept = "select count(*) from pg_prepared_statements where statement like '%$1::int'";
    // Their closing may still be on the way.
    while client.query_typed(kept, &[]).await.unwrap()[0].get::<_, i64>(0) > 0 {}
}

#[tokio::test]
async fn a_prepared_statement_whose_table_has_changed() {
    let client = fresh().await;
    client
        .batch_execute("create table t as select 1 as a")
        .await
        .unwrap();
    let statement = client.prepare("select * from t").await.unwrap();
    client
        .batch_execute("alter table t add b int")
        .await
        .unwrap();
    let error = client.query(&statement, &[]).await.unwrap_err();
    assert_eq!(code(&error), "0A000");
    assert_eq!(
        client.query("select * from t", &[]).await.unwrap()[0].len(),
        2
    );
}

#[tokio::test]
async fn several_statements() {
    let client = fresh().await;
    let sql =
        "create table t (n int); insert into t values (1), (null); select n from t; ; drop table t";
    let messages = client.simple_query(sql).await.unwrap();
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0)),
        _ => None,
    });
    assert_eq!(rows.collect::<Vec<_>>(), [Some("1"), None]);
}

#[tokio::test]
async fn a_hundred_thousand_rows() {
    let client = fresh().await;
    let sql = "select n, 'row ' || n from generate_series(1, $1::int4) n";
    let mut rows = pin!(client.query_raw(sql, [100_000]).await.unwrap());
    let mut expected = 1..;
    while let Some(row) = rows.try_next().await.unwrap() {
        let n = expected.next().unwrap();
        assert_eq!((row.get(0), row.get(1)), (n, format!("row {n}").as_str()));
    }
    assert_eq!(expected.next(), Some(100_001));
}

#[tokio::test]
async fn portals() {
    let mut client = fresh().await;
    let transaction = client.transaction().await.unwrap();
    let sql = "select n from generate_series(1, 1000000) n";
    let (a, b) = tokio::join!(transaction.bind(sql, &[]), transaction.bind(sql, &[]));
    let (a, b) = (a.unwrap(), b.unwrap());
    let mut seen = Vec::new();
    for portal in [&a, &b, &a] {
        let rows = transaction.query_portal(portal, 2).await.unwrap();
        seen.extend(rows.iter().map(|row| row.get::<_, i32>(0)));
    }
    assert_eq!(seen, [1, 2, 1, 2, 3, 4]);
    drop((a, b));
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn copy_as_text_and_binary() {
    let client = fresh().await;
    client
        .batch_execute("create table t (n int4, s text)")
        .await
        .unwrap();
    let sink = client.copy_in::<_, std::io::Cursor<Vec<u8>>>("copy t from stdin");
    let mut sink = pin!(sink.await.unwrap());
    let lines: Vec<String> = (0..100_000).map(|n| format!("{n}\trow {n}\n")).collect();
    for some in lines.chunks(1000) {
        sink.send(std::io::Cursor::new(some.concat().into_bytes()))
            .await
            .unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), 100_000);
    let out = client
        .copy_out("copy (table t order by n) to stdout")
        .await
        .unwrap();
    let bytes = out.try_fold(Vec::new(), async |mut all, chunk| {
        all.extend_from_slice(&chunk);
        Ok(all)
    });
    assert!(bytes.await.unwrap() == lines.concat().as_bytes());

    let types = [Type::INT4, Type::TEXT];
    client.batch_execute("truncate t").await.unwrap();
    let sink = client.copy_in("copy t from stdin binary").await.unwrap();
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &types));
    for n in 0..1000_i32 {
        let text = (n % 2 == 0).then(|| format!("row {n}"));
        writer.as_mut().write(&[&n, &text]).await.unwrap();
    }
    assert_eq!(writer.finish().await.unwrap(), 1000);
    let out = client
        .copy_out("copy (table t order by n) to stdout binary")
        .await
        .unwrap();
    let rows: Vec<_> = BinaryCopyOutStream::new(out, &types)
        .try_collect()
        .await
        .unwrap();
    assert_eq!(rows.len(), 1000);
    assert_eq!(rows[998].get::<Option<&str>>(1), Some("row 998"));
    assert_eq!(rows[999].get::<Option<&str>>(1), None);
}

#[tokio::test]
async fn a_copy_that_fails_and_one_that_is_given_up() {
    let client = fresh().await;
    client
        .batch_execute("create table t (n int4)")
        .await
        .unwrap();
    let mut sink = pin!(client.copy_in("copy t from stdin").await.unwrap());
    sink.send(&b"1\nno\n"[..]).await.unwrap();
    assert_eq!(code(&sink.finish().await.unwrap_err()), "22P02");
    {
        let mut left = pin!(
            client
                .copy_in::<_, &[u8]>("copy t from stdin")
                .await
                .unwrap()
        );
        left.send(&b"2\n"[..]).await.unwrap();
    }
    let row = client
        .query_one("select count(*) from t", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, i64>(0), 0);
}
