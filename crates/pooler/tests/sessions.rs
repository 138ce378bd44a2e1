//! Sessions of many clients over few connections: each has what it would have alone.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod harness;

use std::num::NonZeroUsize;
use std::time::Duration;

use dormouse_pooler::PoolOptions;
use harness::wired::{Wired, kinds, values};
use harness::{Pooled, Postgres, limited, one, told, until};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use wire::pg::{Format, frontend};

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_have_few_connections() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(5)).await;
    let beside = postgres.session().await;
    beside
        .batch_execute("create table t (n int, who int)")
        .await
        .unwrap();
    let clients = (0..200).map(|who: i32| {
        let config = pooled.config();
        tokio::spawn(async move {
            let (mut session, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            for n in 0..5_i32 {
                let transaction = session.transaction().await.unwrap();
                let insert = "insert into t values ($1, $2)";
                transaction.execute(insert, &[&n, &who]).await.unwrap();
                let own = "select count(*) from t where who = $1";
                let rows = transaction.query_one(own, &[&who]).await.unwrap();
                assert_eq!(rows.get::<_, i64>(0), i64::from(n) + 1);
                transaction.commit().await.unwrap();
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    assert_eq!(one(&beside, "select count(*) from t").await, "1000");
    let there = "select count(*) from pg_stat_activity where application_name = 'Dormouse'";
    assert_eq!(one(&beside, there).await, "5");
    // The pool itself may have one for a moment.
    until("all are free", async || pooled.pool.standing().idle == 5).await;
    assert_eq!(pooled.pool.standing().connections, 5);
}

/// What looks after idle connections is there once, not for each transaction.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_leave_nothing_running() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let session = pooled.session().await;
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    one(&session, "select 1::text").await;
    let before = tasks();
    for _ in 0..200 {
        one(&session, "select 1::text").await;
    }
    let after = tasks();
    assert!(after < before + 20, "{before} tasks, and then {after}");
}

/// A shorter `idle_ms` holds from the moment at which it is said.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_end_as_it_is_configured_now() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(2)).await;
    let session = pooled.session().await;
    assert_eq!(one(&session, "select 1").await, "1");
    pooled.pool.adjust(PoolOptions {
        idle: Duration::from_millis(200),
        ..limited(2)
    });
    assert_eq!(one(&session, "select 1").await, "1");
    until("it is closed", async || {
        pooled.pool.standing().connections == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_the_clients_own() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let (ann, joe) = (pooled.session().await, pooled.session().await);
    one(&ann, "create role joe; create schema s; select 1").await;
    // Each step on the one connection, in turns.
    ann.batch_execute("set search_path to s; set work_mem = '7MB'")
        .await
        .unwrap();
    assert_eq!(one(&joe, "show search_path").await, "\"$user\", public");
    assert_eq!(one(&joe, "show work_mem").await, "4MB");
    joe.batch_execute("set role joe").await.unwrap();
    assert_eq!(one(&ann, "select current_user").await, "postgres");
    assert_eq!(one(&joe, "select current_user").await, "joe");
    assert_eq!(one(&ann, "show search_path").await, "s");
    assert_eq!(one(&ann, "show work_mem").await, "7MB");
    // As a function, in a transaction that is rolled back, in one that fails, and to a savepoint.
    one(&ann, "select set_config('app.user', 'ann', false)").await;
    one(&joe, "select 1").await;
    assert_eq!(one(&ann, "select current_setting('app.user')").await, "ann");
    ann.batch_execute("begin; set work_mem = '9MB'; rollback")
        .await
        .unwrap();
    assert_eq!(one(&joe, "show work_mem").await, "4MB");
    assert_eq!(one(&ann, "show work_mem").await, "7MB");
    ann.batch_execute(
        "begin; set work_mem = '8MB'; savepoint a; set work_mem = '9MB'; rollback to a; commit",
    )
    .await
    .unwrap();
    assert_eq!(one(&joe, "show work_mem").await, "4MB");
    assert_eq!(one(&ann, "show work_mem").await, "8MB");
    let failed = ann.batch_execute("set work_mem = '5MB'; select 1/0").await;
    assert_eq!(told(&failed.unwrap_err()).0, "22012");
    one(&joe, "select 1").await;
    assert_eq!(one(&ann, "show work_mem").await, "8MB");
    ann.batch_execute("reset all").await.unwrap();
    one(&joe, "select 1").await;
    assert_eq!(one(&ann, "show work_mem").await, "4MB");
    joe.batch_execute("begin; set local work_mem = '3MB'; commit; reset role")
        .await
        .unwrap();
    assert_eq!(one(&ann, "show work_mem").await, "4MB");
    assert_eq!(one(&joe, "select current_user").await, "postgres");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_function_leaves_is_nobodys() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let beside = postgres.session().await;
    beside
        .batch_execute(
            "create sequence s; create function leave() returns int language plpgsql as $$ begin
             perform set_config('work_mem', '9MB', false); create temp table left_behind (n int);
             perform pg_advisory_lock(7); perform nextval('s'); set role pg_monitor; return 1; end $$",
        )
        .await
        .unwrap();
    let (ann, joe) = (pooled.session().await, pooled.session().await);
    one(&ann, "select leave()").await;
    assert_eq!(one(&joe, "show work_mem").await, "4MB");
    assert_eq!(one(&joe, "select current_user").await, "postgres");
    assert_eq!(one(&joe, "select to_regclass('left_behind')").await, "NULL");
    assert_eq!(one(&beside, "select pg_try_advisory_lock(7)").await, "t");
    let given = joe.simple_query("select lastval()").await.unwrap_err();
    assert_eq!(told(&given).0, "55000");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_move_keeps_its_connection() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let options = PoolOptions {
        pinned_max: 1,
        ..limited(2)
    };
    let pooled = Pooled::start(postgres.origin(), options).await;
    let (ann, joe) = (pooled.session().await, pooled.session().await);
    ann.batch_execute("create temp table mine (n int)")
        .await
        .unwrap();
    ann.batch_execute("insert into mine values (42)")
        .await
        .unwrap();
    for _ in 0..5 {
        assert_eq!(one(&joe, "select to_regclass('mine')").await, "NULL");
        assert_eq!(one(&ann, "select n from mine").await, "42");
    }
    assert_eq!(pooled.pool.standing().pinned, 1);
    let (code, text) = told(&joe.batch_execute("listen a").await.unwrap_err());
    assert_eq!(code, "53300");
    assert!(text.starts_with("LISTEN needs"), "{text}");
    assert!(text.contains("pinnedMax"), "{text}");
    assert_eq!(one(&joe, "select 1").await, "1", "the session goes on");
    ann.batch_execute("discard all").await.unwrap();
    assert_eq!(pooled.pool.standing().pinned, 0);
    joe.batch_execute("select pg_advisory_lock(1)")
        .await
        .unwrap();
    let free = "select pg_try_advisory_lock(1)";
    assert_eq!(one(&postgres.session().await, free).await, "f");
    drop(joe);
    until("the lock is free", async || {
        one(&postgres.session().await, free).await == "t"
    })
    .await;
    assert_eq!(pooled.pool.standing().pinned, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_move() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(2)).await;
    let (ann, joe) = (pooled.session().await, pooled.session().await);
    let sql = "select $1::int + 1";
    let (of_ann, of_joe) = (
        ann.prepare(sql).await.unwrap(),
        joe.prepare(sql).await.unwrap(),
    );
    for n in 0..20_i32 {
        // Somebody else has the connection that was the client's last.
        let held = (n % 2 == 0).then(|| pooled.session());
        let held = match held {
            Some(session) => {
                let session = session.await;
                session.batch_execute("begin").await.unwrap();
                Some(session)
            }
            None => None,
        };
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&n];
        let (a, j) = tokio::join!(
            ann.query_one(&of_ann, &parameters),
            joe.query_one(&of_joe, &parameters)
        );
        assert_eq!(a.unwrap().get::<_, i32>(0), n + 1);
        assert_eq!(j.unwrap().get::<_, i32>(0), n + 1);
        drop(held);
    }
    let wrong = ann.prepare("selec 1").await.unwrap_err();
    assert_eq!(told(&wrong).0, "42601");
    assert_eq!(
        ann.query_one(&of_ann, &[&1])
            .await
            .unwrap()
            .get::<_, i32>(0),
        2
    );
    let names = "select count(*) from pg_prepared_statements where name like 'dormouse_%'";
    assert!(one(&ann, names).await.parse::<i32>().unwrap() <= 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_vanishes_leaves_nothing() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let beside = postgres.session().await;
    beside
        .batch_execute("create table t (n int); insert into t values (1)")
        .await
        .unwrap();
    // What the pool asks of its first server is over.
    assert_eq!(one(&pooled.session().await, "select 1").await, "1");
    // Amid a transaction, amid a statement, amid an extended query, amid a COPY.
    let begin = query("begin; update t set n = 2");
    let sleep = query("begin; update t set n = 2; select pg_sleep(60)");
    let parse = message(b'P', b"\0update t set n = 2\0\0\0");
    let copy = query("copy t from stdin");
    for last in [begin, sleep, parse, copy] {
        let mut stream = TcpStream::connect(pooled.address).await.unwrap();
        let mut startup = bytes::BytesMut::new();
        wire::pg::startup::Startup::new("a", "b")
            .encode(&mut startup)
            .unwrap();
        stream.write_all(&startup).await.unwrap();
        stream.write_all(&last).await.unwrap();
        let busy = "select count(*) from pg_stat_activity where application_name = 'Dormouse' and state <> 'idle'";
        until("the server has the message", async || {
            one(&beside, busy).await == "1"
        })
        .await;
        drop(stream);
        // The next one gets the same connection, at once.
        let next = pooled.session().await;
        assert_eq!(one(&next, "select n from t").await, "1");
    }
    let standing = pooled.pool.standing();
    assert_eq!(standing.connections, 1, "{standing:?}");
    assert_eq!(standing.counts.abandoned, 4, "{standing:?}");
    assert_eq!(standing.counts.connected, 1, "it was used again each time");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_reaches_the_right_one() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(3)).await;
    let (ann, joe) = (pooled.session().await, pooled.session().await);
    let token = ann.cancel_token();
    let (slow, _, ()) = tokio::join!(
        ann.simple_query("select pg_sleep(60)"),
        joe.simple_query("select pg_sleep(0.5)"),
        async {
            until("it runs", async || pooled.pool.standing().counts.given >= 2).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            token.cancel_query(tokio_postgres::NoTls).await.unwrap();
        }
    );
    assert_eq!(told(&slow.unwrap_err()).0, "57014");
    // Nothing runs: nobody is hit.
    token.cancel_query(tokio_postgres::NoTls).await.unwrap();
    assert_eq!(one(&joe, "select 1").await, "1");
    assert_eq!(one(&ann, "select 1").await, "1");
}

/// What a rollback undoes lets no connection go.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_let_go_and_rolled_back_is_kept() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(2)).await;
    let ann = pooled.session().await;
    let listens = async || {
        let channels = "select count(*) from pg_listening_channels()";
        one(&ann, channels).await == "1" && pooled.pool.standing().pinned == 1
    };
    ann.batch_execute("listen a").await.unwrap();
    ann.batch_execute("create temp table mine (n int)")
        .await
        .unwrap();
    for texts in [
        &["begin", "unlisten *", "rollback"][..],
        &[
            "begin",
            "discard temp",
            "unlisten *",
            "select 1",
            "rollback",
        ],
        &["begin; unlisten *; discard temp; rollback"],
        &["begin", "unlisten *; discard temp", "rollback; select 1"],
        &["begin; unlisten *", "select 1/0", "commit"],
        &["begin", "unlisten *", "commit", "listen a"],
    ] {
        for text in texts {
            let _ = ann.batch_execute(text).await;
        }
        assert!(listens().await, "{texts:?}");
        assert_eq!(
            one(&ann, "select count(*) from mine").await,
            "0",
            "{texts:?}"
        );
    }
    // What is behind a rollback is no part of it.
    ann.batch_execute("begin").await.unwrap();
    ann.batch_execute("rollback; unlisten *; discard temp")
        .await
        .unwrap();
    assert_eq!(pooled.pool.standing().pinned, 0);
    for last in [&["begin", "unlisten *", "commit"][..], &["unlisten *"]] {
        ann.batch_execute("listen a").await.unwrap();
        assert!(listens().await);
        for text in last {
            ann.batch_execute(text).await.unwrap();
        }
        assert_eq!(pooled.pool.standing().pinned, 0, "{last:?}");
    }
}

/// A session that listens hears of everything, also while the pool asks what it has set, and prepares what it uses again.
#[tokio::test(flavor = "multi_thread")]
async fn who_listens_hears_everything() {
    const TOLD: usize = 3_000;
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let options = PoolOptions {
        statements_max: NonZeroUsize::MIN,
        ..limited(1)
    };
    let pooled = Pooled::start(postgres.origin(), options).await;
    let beside = postgres.session().await;
    let mut ann = Wired::connect(pooled.address).await;
    let mut heard = Vec::new();
    let mut frames = ann.query("listen a").await;
    let telling = tokio::spawn(async move {
        for n in 0..TOLD {
            let sql = format!("notify a, '{n}'");
            beside.batch_execute(&sql).await.unwrap();
        }
    });
    ann.parse("one", "select 1", &[])
        .parse("two", "select 2", &[]);
    frames.extend(ann.sync().await);
    let mut is_over = false;
    loop {
        for frame in frames.drain(..) {
            assert_ne!(frame.kind(), b'E');
            if frame.kind() == b'A' {
                // The process, then texts that a zero ends.
                let text = frame.body()[4..].split(|byte| *byte == 0).nth(1).unwrap();
                heard.push(String::from_utf8_lossy(text).parse::<usize>().unwrap());
            }
        }
        if is_over {
            break;
        }
        is_over = telling.is_finished();
        frames.extend(ann.query("set work_mem = '9MB'").await);
        for name in ["one", "two"] {
            ann.bind(name, &[], Format::Text).execute(0);
            frames.extend(ann.sync().await);
        }
    }
    telling.await.unwrap();
    let lost: Vec<_> = (0..TOLD).filter(|n| !heard.contains(n)).collect();
    assert!(
        lost.is_empty(),
        "{} lost, from {:?} on",
        lost.len(),
        lost.first()
    );
    assert!(heard.is_sorted() && heard.len() == TOLD);
}

/// What the pool asks itself when a transaction is over is no statement of the client's, neither for its
/// `statement_timeout` nor for who cancels.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_pool_asks_is_not_the_clients() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let beside = postgres.session().await;
    let asks = "select count(*) from pg_stat_activity where application_name = 'Dormouse' \
                and state = 'active' and query like '%unnest(ARRAY%'";
    // So many that Postgres takes some 0.2 s to tell of all.
    let many: String = (0..2_000)
        .map(|n| format!("set many.a{n} = 'x';"))
        .collect();
    for first in ["select 1", "listen a"] {
        let mut ann = Wired::connect(pooled.address).await;
        ann.query(first).await;
        let sql = format!("{many} set work_mem = '9MB'");
        frontend::query(&mut ann.out, sql.as_bytes()).unwrap();
        ann.send().await;
        until("the pool asks", async || one(&beside, asks).await == "1").await;
        ann.cancel().await;
        assert!(!kinds(&ann.until(b'Z').await).contains('E'), "{first}");
        assert_eq!(values(&ann.query("show work_mem").await), "9MB", "{first}");
        // Who keeps its connection has a cancellation that comes late.
        if first == "select 1" {
            assert_eq!(pooled.pool.standing().counts.cancels, 0);
        }
        let sql = format!("{many} set work_mem = '8MB'; set statement_timeout = '150ms'");
        assert!(!kinds(&ann.query(&sql).await).contains('E'), "{first}");
        for (setting, value) in [("statement_timeout", "150ms"), ("work_mem", "8MB")] {
            let shown = ann.query(&format!("show {setting}")).await;
            assert_eq!(values(&shown), value, "{first}");
        }
        drop(ann);
        until("it is free", async || pooled.pool.standing().idle == 1).await;
    }
}

fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &[sql.as_bytes(), b"\0"].concat())
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend_from_slice(&(body.len() as i32 + 4).to_be_bytes());
    message.extend_from_slice(body);
    message
}
