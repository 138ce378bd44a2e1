//! How long databases take to come up, in a process that has the engine loaded: prints a table.
//!
//! `cargo run --release -p dormouse --example bench_wake [ROUNDS]`

use std::time::{Duration, Instant};

use database::{DatabaseName, Databases, Limits, Options, Session, SessionOptions, Source};

type Outcome<T> = Result<T, String>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let rounds: usize = match std::env::args().nth(1) {
        Some(text) => text.parse().map_err(text_of)?,
        None => 100,
    };
    let folder = std::env::temp_dir().join(format!("dormouse-bench-wake-{}", std::process::id()));
    let limits = Limits {
        idle: Duration::ZERO,
        flush_interval: Duration::from_millis(10),
        ..Limits::default()
    };
    let cache = dormouse::default_cache_directory();
    let options = Options {
        limits,
        ..Options::new(&folder, cache)
    };
    // The first opening may compile; the second is what a restart costs.
    Databases::open(options.clone())
        .await
        .map_err(text_of)?
        .close()
        .await
        .map_err(text_of)?;
    let started = Instant::now();
    let databases = Databases::open(options).await.map_err(text_of)?;
    let opened = started.elapsed();

    println!("| what | p50 ms | p99 ms | rounds |\n|---|---:|---:|---:|");
    println!(
        "| open a data directory, engine included | {:.1} | | 1 |",
        ms(opened)
    );
    let mut created = Vec::new();
    let mut answered = Vec::new();
    for round in 0..rounds {
        let name = name(&format!("fork{round}"))?;
        let started = Instant::now();
        databases
            .create(&name, Source::Template)
            .await
            .map_err(text_of)?;
        created.push(started.elapsed());
        let started = Instant::now();
        begin(&databases, &name).await?.close().await;
        answered.push(started.elapsed());
    }
    report("create a database (durable)", &mut created);
    report(
        "first wake of a new database: fork of the image, to its first answer",
        &mut answered,
    );

    let name = name("kept")?;
    let mut session = begin(&databases, &name).await?;
    let table =
        "CREATE TABLE t AS SELECT g AS id, md5(g::text) AS v FROM generate_series(1, 10000) g";
    session.query(table, &[]).await.map_err(text_of)?;
    session.close().await;
    let mut woken = Vec::new();
    for _ in 0..rounds {
        while databases.count().map_err(text_of)?.1 > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let started = Instant::now();
        let session = begin(&databases, &name).await?;
        woken.push(started.elapsed());
        session.close().await;
    }
    report(
        "wake of an existing database: from its image, to its first answer",
        &mut woken,
    );
    let mut recovered = Vec::new();
    for _ in 0..rounds {
        let mut session = begin(&databases, &name).await?;
        session
            .query("UPDATE t SET v = v WHERE id <= 100", &[])
            .await
            .map_err(text_of)?;
        // Dropping the call costs the backend its life, as a crash does.
        let endless = session.query("SELECT pg_sleep(600)", &[]);
        if tokio::time::timeout(Duration::from_millis(1), endless)
            .await
            .is_ok()
        {
            return Err("a sleep of ten minutes ended".to_owned());
        }
        drop(session);
        let started = Instant::now();
        begin(&databases, &name).await?.close().await;
        recovered.push(started.elapsed());
    }
    report(
        "the same after a crash, with recovery of 100 updates",
        &mut recovered,
    );
    databases.close().await.map_err(text_of)?;
    std::fs::remove_dir_all(&folder).map_err(text_of)
}

fn text_of(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn name(text: &str) -> Outcome<DatabaseName> {
    DatabaseName::parse(text).map_err(text_of)
}

/// A session that has had an answer.
async fn begin(databases: &Databases, name: &DatabaseName) -> Outcome<Session> {
    let mut session = databases
        .session(name, SessionOptions::default())
        .await
        .map_err(text_of)?;
    session.query("SELECT 1", &[]).await.map_err(text_of)?;
    Ok(session)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn report(what: &str, samples: &mut [Duration]) {
    samples.sort();
    let at = |share: f64| samples[((samples.len() - 1) as f64 * share) as usize];
    println!(
        "| {what} | {:.2} | {:.2} | {} |",
        ms(at(0.5)),
        ms(at(0.99)),
        samples.len()
    );
}
