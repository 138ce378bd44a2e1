//! How long upkeep is in the way of a session that comes while a large table is vacuumed: prints a table.
//!
//! `cargo run --release -p dormouse --example bench_upkeep [ROUNDS] [ROWS]`

use std::time::{Duration, Instant};

use database::{DatabaseName, Databases, Limits, Options, Session, SessionOptions};

type Outcome<T> = Result<T, String>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let argument = |number: usize, default: u64| match std::env::args().nth(number) {
        Some(text) => text.parse().map_err(text_of),
        None => Ok(default),
    };
    let (rounds, rows) = (argument(1, 20)?, argument(2, 500_000)?);
    let folder = std::env::temp_dir().join(format!("dormouse-bench-upkeep-{}", std::process::id()));
    let limits = Limits {
        idle: Duration::from_secs(600),
        ..Limits::default()
    };
    let options = Options {
        limits,
        ..Options::new(&folder, dormouse::default_cache_directory())
    };
    let databases = Databases::open(options).await.map_err(text_of)?;
    let name = DatabaseName::parse("large").map_err(text_of)?;
    let mut session = begin(&databases, &name).await?;
    let fill = format!(
        "CREATE TABLE t AS SELECT g AS id, md5(g::text) AS v FROM generate_series(1, {rows}) g"
    );
    for sql in [&fill, "ALTER TABLE t ADD PRIMARY KEY (id)"] {
        session.query(sql, &[]).await.map_err(text_of)?;
    }
    let mut waits = Vec::new();
    let mut interrupted = 0;
    for round in 0..rounds {
        let churn = "UPDATE t SET v = md5(v)";
        session.query(churn, &[]).await.map_err(text_of)?;
        session.close().await;
        // Upkeep begins half a second later; each round meets another moment of it.
        let into = Duration::from_millis(600 + 37 * round);
        tokio::time::sleep(into).await;
        let before = databases.metrics().preemptions;
        let started = Instant::now();
        session = begin(&databases, &name).await?;
        session.query("SELECT 1", &[]).await.map_err(text_of)?;
        waits.push(started.elapsed());
        interrupted += databases.metrics().preemptions - before;
    }
    session.close().await;
    databases.close().await.map_err(text_of)?;
    waits.sort_unstable();
    let ms = |at: usize| waits[at].as_secs_f64() * 1e3;
    println!("| rows | sessions | interrupted upkeep | p50 ms | most ms |");
    println!("|---:|---:|---:|---:|---:|");
    println!(
        "| {rows} | {rounds} | {interrupted} | {:.2} | {:.2} |",
        ms(waits.len() / 2),
        ms(waits.len() - 1)
    );
    std::fs::remove_dir_all(&folder).map_err(text_of)
}

async fn begin(databases: &Databases, name: &DatabaseName) -> Outcome<Session> {
    let options = SessionOptions::default();
    databases.session(name, options).await.map_err(text_of)
}

fn text_of(error: impl std::fmt::Display) -> String {
    error.to_string()
}
