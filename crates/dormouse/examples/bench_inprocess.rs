//! The engine without a server, behind the driver protocol of `benches/README.md`.
//!
//! Speaks to `dormouse-database` directly, in protocol bytes, as the server does: what is timed is
//! Postgres and our session, not the conversion of values.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use database::{DatabaseName, Databases, Options, PgError, Session, SessionOptions, Source};
use serde_json::{Value, json};
use wire::pg::frontend::{self, Bind, Execute, Param, Parse};
use wire::pg::{backend, frames};

type Outcome<T> = Result<T, String>;

const STATEMENT: &[u8] = b"bench";

#[tokio::main]
async fn main() -> Outcome<()> {
    let folder = std::env::args()
        .nth(1)
        .ok_or("usage: bench_inprocess DATA_FOLDER")?;
    let started = Instant::now();
    let databases = open(Path::new(&folder)).await?;
    let mut session = begin(&databases, "postgres").await?;
    let mut ask = BytesMut::new();
    frontend::query(&mut ask, b"select 1").map_err(text)?;
    run(&mut session, ask.freeze()).await?;
    say(&json!({
        "ready": true,
        "open_us": us(started.elapsed()),
        "version": format!("Dormouse {} in process", env!("CARGO_PKG_VERSION")),
    }));
    let mut others = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let question: Value = serde_json::from_str(&line.map_err(text)?).map_err(text)?;
        let answer = match question["op"].as_str() {
            Some("simple") => simple(&mut session, &question).await,
            Some("prepared") => prepared(&mut session, &question).await,
            Some("transaction") => transaction(&mut session, &question).await,
            Some("create") => create(&databases, &question, &mut others).await,
            Some("release") => {
                others.clear();
                Ok(json!({}))
            }
            other => Err(format!("no operation {other:?}")),
        };
        say(&answer.unwrap_or_else(|error| json!({ "error": error })));
    }
    session.close().await;
    databases.close().await.map_err(text)
}

async fn open(folder: &Path) -> Outcome<Databases> {
    let cache = dormouse::default_cache_directory();
    Databases::open(Options::new(PathBuf::from(folder), cache))
        .await
        .map_err(text)
}

async fn begin(databases: &Databases, name: &str) -> Outcome<Session> {
    let name = DatabaseName::parse(name).map_err(text)?;
    databases
        .session(&name, SessionOptions::default())
        .await
        .map_err(text)
}

fn say(answer: &Value) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    // Whoever started this has gone away if it cannot be told.
    if writeln!(out, "{answer}")
        .and_then(|()| out.flush())
        .is_err()
    {
        std::process::exit(1);
    }
}

fn us(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1000.0
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Runs messages; fails if the answer has an error.
async fn run(session: &mut Session, messages: Bytes) -> Outcome<()> {
    let (answer, _) = session
        .exchange(messages, None)
        .await
        .map_err(|e| text(e.error))?;
    match frames(&answer).find(|(kind, _)| *kind == backend::kind::ERROR_RESPONSE) {
        Some((_, body)) => Err(PgError::decode(body).map_or_else(text, text)),
        None => Ok(()),
    }
}

fn number(question: &Value, field: &str) -> u64 {
    question[field].as_u64().unwrap_or_default()
}

/// Times `messages(i)` for each run, as the protocol asks.
async fn repeat(
    session: &mut Session,
    question: &Value,
    messages: impl Fn(usize) -> Bytes,
) -> Outcome<Value> {
    let warmup = number(question, "warmup") as usize;
    let limit = Duration::from_millis(number(question, "limit_ms"));
    for index in 0..warmup {
        run(session, messages(index)).await?;
    }
    let mut samples = Vec::new();
    let started = Instant::now();
    for index in 0..number(question, "iterations") as usize {
        let ask = messages(warmup + index);
        let before = Instant::now();
        run(session, ask).await?;
        samples.push(us(before.elapsed()));
        if started.elapsed() >= limit {
            break;
        }
    }
    Ok(json!({ "samples_us": samples }))
}

async fn simple(session: &mut Session, question: &Value) -> Outcome<Value> {
    let mut ask = BytesMut::new();
    let sql = question["sql"].as_str().unwrap_or_default();
    frontend::query(&mut ask, sql.as_bytes()).map_err(text)?;
    let ask = ask.freeze();
    repeat(session, question, |_| ask.clone()).await
}

/// Each row of `params` as the messages that run the prepared statement with it.
async fn prepare(session: &mut Session, question: &Value) -> Outcome<Vec<Bytes>> {
    let sql = question["sql"].as_str().unwrap_or_default();
    let mut ask = BytesMut::new();
    frontend::close(&mut ask, wire::pg::Target::Statement, STATEMENT).map_err(text)?;
    Parse {
        statement: STATEMENT,
        sql: sql.as_bytes(),
        param_oids: Vec::new(),
    }
    .encode(&mut ask)
    .map_err(text)?;
    frontend::sync(&mut ask);
    run(session, ask.freeze()).await?;
    let empty = vec![json!([])];
    let rows = question["params"].as_array().unwrap_or(&empty);
    rows.iter().map(bind).collect()
}

fn bind(row: &Value) -> Outcome<Bytes> {
    let values: Vec<String> = (row.as_array().into_iter().flatten())
        .map(|value| {
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        })
        .collect();
    let mut ask = BytesMut::new();
    Bind {
        portal: b"",
        statement: STATEMENT,
        params: values
            .iter()
            .map(|value| Param::text(Some(value.as_bytes())))
            .collect(),
        result_formats: Vec::new(),
    }
    .encode(&mut ask)
    .map_err(text)?;
    Execute {
        portal: b"",
        rows_max: 0,
    }
    .encode(&mut ask)
    .map_err(text)?;
    frontend::sync(&mut ask);
    Ok(ask.freeze())
}

async fn prepared(session: &mut Session, question: &Value) -> Outcome<Value> {
    let rows = prepare(session, question).await?;
    repeat(session, question, |index| rows[index % rows.len()].clone()).await
}

async fn transaction(session: &mut Session, question: &Value) -> Outcome<Value> {
    let rows = prepare(session, question).await?;
    let statement = |sql: &[u8]| {
        let mut ask = BytesMut::new();
        frontend::query(&mut ask, sql)
            .map(|()| ask.freeze())
            .map_err(text)
    };
    let started = Instant::now();
    run(session, statement(b"begin")?).await?;
    for row in rows {
        run(session, row).await?;
    }
    run(session, statement(b"commit")?).await?;
    Ok(json!({ "us": us(started.elapsed()) }))
}

async fn create(
    databases: &Databases,
    question: &Value,
    others: &mut Vec<Session>,
) -> Outcome<Value> {
    let name = question["name"].as_str().unwrap_or_default();
    let parsed = DatabaseName::parse(name).map_err(text)?;
    let started = Instant::now();
    databases
        .create(&parsed, Source::Template)
        .await
        .map_err(text)?;
    let created = us(started.elapsed());
    let mut session = begin(databases, name).await?;
    let mut ask = BytesMut::new();
    frontend::query(&mut ask, b"select 1").map_err(text)?;
    run(&mut session, ask.freeze()).await?;
    others.push(session);
    Ok(json!({ "us": created, "first_us": us(started.elapsed()) }))
}
