//! Sessions that come in while the only other one is in the middle of a statement.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dormouse_database::{Databases, Limits, Session, SessionEnded};
use engine::{ClientIo, ClientIoError};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use wire::pg::{backend, frames, frontend};

mod harness;

use harness::{all_asleep, open, run, session, value};

/// More output than is gathered before a statement waits for its client: whoever has taken some of it knows that
/// the statement runs.
const BEGINNING: &str = "SELECT repeat('x', 300000)";

/// A client whose bytes a test holds back or looks at.
#[derive(Default)]
struct Wire {
    /// Postgres has wanted to write, or to read.
    asked: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    taken: Vec<u8>,
    given: BytesMut,
    is_closed: bool,
    waker: Option<Waker>,
}

impl Wire {
    /// One that takes nothing before it is opened.
    fn closed() -> Self {
        let wire = Self::default();
        wire.state.lock().is_closed = true;
        wire
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

struct End(Arc<Wire>);

impl ClientIo for End {
    fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        input: &mut BytesMut,
    ) -> Poll<Result<(), ClientIoError>> {
        self.0.asked.notify_one();
        let mut state = self.0.state.lock();
        if state.given.is_empty() {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        input.extend_from_slice(&state.given.split());
        Poll::Ready(Ok(()))
    }

    fn poll_drain(
        &mut self,
        context: &mut Context<'_>,
        output: &mut BytesMut,
    ) -> Poll<Result<(), ClientIoError>> {
        self.0.asked.notify_one();
        let mut state = self.0.state.lock();
        if state.is_closed {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        state.taken.extend_from_slice(&output.split());
        Poll::Ready(Ok(()))
    }
}

type Running = JoinHandle<(Session, Result<Bytes, SessionEnded>)>;

/// Begins a query, and waits until Postgres is in the middle of it.
async fn begin(mut session: Session, wire: &Arc<Wire>, sql: &str) -> Running {
    let mut query = BytesMut::new();
    frontend::query(&mut query, sql.as_bytes()).unwrap();
    let end = Box::new(End(Arc::clone(wire)));
    let running = tokio::spawn(async move {
        let answer = session.exchange(query.freeze(), Some(end)).await;
        (session, answer.map(|(output, _)| output))
    });
    wire.asked.notified().await;
    running
}

/// All that the client of an exchange was told, once it has ended.
async fn ended(running: Running, wire: &Wire) -> (Session, Bytes) {
    let (session, rest) = running.await.unwrap();
    let mut all = BytesMut::from(&wire.state.lock().taken[..]);
    all.extend_from_slice(&rest.unwrap());
    (session, all.freeze())
}

fn count(messages: &Bytes, kind: u8) -> usize {
    frames(messages).filter(|(found, _)| *found == kind).count()
}

/// A database with a table, and its only session.
async fn alone(databases: &Databases) -> Session {
    let mut session = session(databases, "a").await;
    run(&mut session, "CREATE TABLE t (n int)").await;
    session
}

/// Another session comes in, sees what there is to see, and cancels the statement of the first.
async fn cancels(databases: &Databases, process_id: u32) {
    let mut other = session(databases, "a").await;
    assert_eq!(value(&mut other, "SELECT count(*) FROM t").await, "0");
    run(&mut other, "INSERT INTO t VALUES (2)").await;
    let states = "SELECT state FROM pg_stat_activity WHERE pid = ";
    assert_eq!(
        value(&mut other, &format!("{states}{process_id}")).await,
        "active"
    );
    let cancel = format!("SELECT pg_cancel_backend({process_id})");
    assert_eq!(value(&mut other, &cancel).await, "t");
    other.close().await;
}

/// Somebody comes in while this runs, in a transaction that has written; it goes on afterwards.
async fn while_it_runs(statement: &str) {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    let mut first = alone(&databases).await;
    run(&mut first, "BEGIN").await;
    run(&mut first, "INSERT INTO t VALUES (1)").await;
    run(&mut first, "SAVEPOINT s").await;
    let process_id = first.process_id();
    let wire = Arc::new(Wire::default());
    let running = begin(first, &wire, statement).await;
    cancels(&databases, process_id).await;
    let (mut first, told) = ended(running, &wire).await;
    let error = frames(&told).find(|(kind, _)| *kind == backend::kind::ERROR_RESPONSE);
    let error = String::from_utf8_lossy(error.unwrap().1).into_owned();
    assert!(error.contains("57014"), "{error}");
    run(&mut first, "ROLLBACK TO s").await;
    assert_eq!(value(&mut first, "SELECT count(*) FROM t").await, "2");
    run(&mut first, "COMMIT").await;
    first.close().await;
    let mut last = session(&databases, "a").await;
    assert_eq!(value(&mut last, "SELECT sum(n) FROM t").await, "3");
    last.close().await;
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_sleeps() {
    while_it_runs(&format!("{BEGINNING} UNION ALL SELECT pg_sleep(600)::text")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_computes() {
    let endless = "SELECT count(*)::text FROM generate_series(1, 10000) AS a, \
        generate_series(1, 10000) AS b, generate_series(1, 10000) AS c";
    while_it_runs(&format!("{BEGINNING} UNION ALL {endless}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_whose_client_does_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        idle: Duration::ZERO,
        ..Limits::default()
    };
    let databases = open(folder.path(), limits).await;
    for _ in 0..2 {
        let first = session(&databases, "a").await;
        let wire = Arc::new(Wire::closed());
        let sql = "SELECT repeat('x', 1000) FROM generate_series(1, 2000)";
        let running = begin(first, &wire, sql).await;
        let mut other = session(&databases, "a").await;
        assert_eq!(value(&mut other, "SELECT 1").await, "1");
        other.close().await;
        wire.change(|state| state.is_closed = false);
        let (first, told) = ended(running, &wire).await;
        assert_eq!(count(&told, backend::kind::DATA_ROW), 2000);
        assert_eq!(count(&told, backend::kind::READY_FOR_QUERY), 1);
        first.close().await;
        // It has been shared, and is saved and woken as ever.
        all_asleep(&databases).await;
    }
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_whose_client_does_not_write() {
    let folder = tempfile::tempdir().unwrap();
    let databases = open(folder.path(), Limits::default()).await;
    let first = alone(&databases).await;
    let wire = Arc::new(Wire::default());
    let running = begin(first, &wire, "COPY t FROM STDIN").await;
    let mut other = session(&databases, "a").await;
    run(&mut other, "INSERT INTO t VALUES (40)").await;
    other.close().await;
    wire.change(|state| {
        frontend::copy_data(&mut state.given, b"1\n1\n").unwrap();
        frontend::copy_done(&mut state.given);
    });
    let (mut first, told) = ended(running, &wire).await;
    assert_eq!(count(&told, backend::kind::COMMAND_COMPLETE), 1);
    assert_eq!(value(&mut first, "SELECT sum(n) FROM t").await, "42");
    first.close().await;
    databases.close().await.unwrap();
}
