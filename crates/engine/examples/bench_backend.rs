//! What backends cost: prints tables.
//!
//! `cargo run --release -p dormouse-engine --example bench_backend CACHE_FOLDER [PART [COUNT]]`,
//! where the parts are `fork`, `boot`, `hibernate` and `footprint`.

#![allow(clippy::unwrap_used, reason = "a panic is how a measurement fails")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dormouse_engine::BackendLimits;

#[path = "../tests/harness/mod.rs"]
mod harness;

use harness::Ground;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let cache = arguments
        .next()
        .expect("the first argument is the cache folder");
    let part = arguments.next();
    let count = arguments.next().map_or(200, |count| count.parse().unwrap());
    let ground = Ground::new(&PathBuf::from(cache)).await;
    let wanted = |name: &str| part.as_deref().is_none_or(|part| part == name);
    println!("| what | p50 ms | p99 ms | rounds |\n|---|---:|---:|---:|");
    if wanted("fork") {
        fork(&ground, count).await;
    }
    if wanted("hibernate") {
        hibernate(&ground, count, 0).await;
        hibernate(&ground, count, 1).await;
    }
    if wanted("footprint") {
        footprint(&ground, count).await;
    }
}

/// What an awake backend of a small database holds while it is idle.
async fn footprint(ground: &Ground, count: usize) {
    let held = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let number = |name: &str| -> f64 {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
        [
            number("RssAnon"),
            number("VmPTE"),
            maps.lines().count() as f64,
            descriptors as f64,
            number("Threads"),
        ]
    };
    let volumes: Vec<_> = (0..count).map(|_| ground.volume()).collect();
    let mut backends = Vec::new();
    let before = held();
    for volume in &volumes {
        backends.push(ground.fork(volume).await);
    }
    let each = |after: [f64; 5]| {
        let mut each = after;
        for (after, before) in each.iter_mut().zip(before) {
            *after = (*after - before) / count as f64;
        }
        each
    };
    let [anonymous, ..] = each(held());
    println!("A fork that ran nothing: {anonymous:.0} KiB.");
    for (backend, volume) in backends.iter_mut().zip(&volumes) {
        for statement in SMALL_DATABASE {
            harness::run(backend, statement).await;
        }
        // As maintenance does after a checkpoint.
        volume.flush().unwrap();
    }
    let [anonymous, tables, mappings, descriptors, threads] = each(held());
    println!(
        "An awake backend of {count}: {anonymous:.0} KiB, {tables:.0} KiB of page tables, \
         {mappings:.2} mappings, {descriptors:.2} descriptors, {threads:.2} threads."
    );
    let mut rested = Vec::new();
    for backend in &mut backends {
        let started = Instant::now();
        backend.release(&ground.image).unwrap();
        rested.push(started.elapsed());
    }
    let [anonymous, ..] = each(held());
    println!("What is free released: {anonymous:.0} KiB.");
    report("release", &mut rested);
    let mut answered = Vec::new();
    for backend in &mut backends {
        let started = Instant::now();
        harness::run(backend, BY_KEY).await;
        answered.push(started.elapsed());
    }
    report("first answer after that", &mut answered);
    let mut rested = Vec::new();
    for backend in &mut backends {
        let started = Instant::now();
        backend.trim(&ground.image).await.unwrap();
        backend.release(&ground.image).unwrap();
        rested.push(started.elapsed());
    }
    let [anonymous, ..] = each(held());
    println!("Trimmed and released: {anonymous:.0} KiB.");
    report("trim and release", &mut rested);
    let mut answered = Vec::new();
    for backend in &mut backends {
        let started = Instant::now();
        harness::run(backend, BY_KEY).await;
        answered.push(started.elapsed());
    }
    report("first answer after that", &mut answered);
    if std::env::var("MAPS").is_ok() {
        println!("{}", std::fs::read_to_string("/proc/self/smaps").unwrap());
    }
}

/// Forks that do nothing, and forks that answer once.
async fn fork(ground: &Ground, rounds: usize) {
    let volumes: Vec<_> = (0..rounds).map(|_| ground.volume()).collect();
    let (mut forked, mut dropped) = (Vec::new(), Vec::new());
    for volume in &volumes {
        let started = Instant::now();
        let backend = ground.fork(volume).await;
        forked.push(started.elapsed());
        let started = Instant::now();
        drop(backend);
        dropped.push(started.elapsed());
    }
    report("fork", &mut forked);
    let mut from_spare = Vec::new();
    for volume in &volumes {
        ground.engine.stock(&ground.image, 1).await.unwrap();
        let started = Instant::now();
        drop(ground.fork(volume).await);
        from_spare.push(started.elapsed());
    }
    report("fork of a spare, and its drop", &mut from_spare);
    let mut shared = Vec::new();
    let mut joined = Vec::new();
    for volume in &volumes {
        let mut first = ground.fork(volume).await;
        harness::run(&mut first, "SELECT 1").await;
        let started = Instant::now();
        let memory = first.share_memory().unwrap();
        shared.push(started.elapsed());
        let started = Instant::now();
        let limits = BackendLimits::default();
        let joining = ground
            .engine
            .join(&ground.image, &memory, Arc::clone(volume), limits);
        let second = joining.await.unwrap();
        joined.push(started.elapsed());
        drop((first, second));
    }
    report("memory shared with others", &mut shared);
    report("a further process of a database", &mut joined);
    report("drop of a fork", &mut dropped);
    let mut answers = [Vec::new(), Vec::new()];
    for volume in &volumes {
        let mut backend = ground.fork(volume).await;
        for samples in &mut answers {
            let started = Instant::now();
            harness::run(&mut backend, "SELECT 1").await;
            samples.push(started.elapsed());
        }
    }
    let [mut first, mut second] = answers;
    report("first answer of a fork", &mut first);
    report("second answer", &mut second);
}

/// Small databases that are saved, dropped and continued, and then asked for a row by its key; with
/// so many spares at hand.
async fn hibernate(ground: &Ground, rounds: usize, spares: usize) {
    println!("With {spares} spares:");
    let [mut saved, mut resumed, mut answered, mut both, mut second] = [const { Vec::new() }; 5];
    let mut bytes = Vec::new();
    let mut trimmed = Vec::new();
    let mut stocked = Vec::new();
    let mut evicted = 0;
    for _ in 0..rounds {
        let volume = ground.volume();
        let mut backend = ground.fork(&volume).await;
        for statement in SMALL_DATABASE {
            harness::run(&mut backend, statement).await;
        }
        let started = Instant::now();
        evicted = backend.trim(&ground.image).await.unwrap();
        trimmed.push(started.elapsed());
        let started = Instant::now();
        bytes = ground.engine.save(&mut backend, &ground.image).unwrap();
        saved.push(started.elapsed());
        drop(backend);
        let started = Instant::now();
        ground.engine.stock(&ground.image, spares).await.unwrap();
        stocked.push(started.elapsed());
        let started = Instant::now();
        let mut backend = ground.resume(&bytes, &volume).await.unwrap();
        let woken = started.elapsed();
        harness::run(&mut backend, BY_KEY).await;
        let total = started.elapsed();
        resumed.push(woken);
        answered.push(total.saturating_sub(woken));
        both.push(total);
        let started = Instant::now();
        harness::run(&mut backend, BY_KEY).await;
        second.push(started.elapsed());
    }
    report("trim", &mut trimmed);
    report("save", &mut saved);
    report("stock", &mut stocked);
    report("resume", &mut resumed);
    report("first answer of a resumed backend", &mut answered);
    report("resume and first answer", &mut both);
    report("second answer", &mut second);
    println!(
        "A saved backend: {} bytes, {evicted} buffers evicted.",
        bytes.len()
    );
}

const BY_KEY: &str = "SELECT o.id, o.total, c.name FROM orders o JOIN customers c ON c.id = o.customer \
     WHERE o.id = 77";

/// What a tenant of a small service has, and asks often.
const SMALL_DATABASE: [&str; 8] = [
    "CREATE TABLE customers (id serial PRIMARY KEY, name text NOT NULL, email text UNIQUE)",
    "CREATE TABLE orders (id serial PRIMARY KEY, customer int REFERENCES customers, total numeric, \
     at timestamptz DEFAULT now())",
    "INSERT INTO customers (name, email) SELECT 'c' || g, 'c' || g || '@example.com' \
     FROM generate_series(1, 100) g",
    "INSERT INTO orders (customer, total) SELECT 1 + g % 100, g FROM generate_series(1, 500) g",
    BY_KEY,
    "UPDATE orders SET total = 5 WHERE id = 2",
    "DISCARD ALL",
    "CHECKPOINT",
];

fn report(what: &str, samples: &mut [Duration]) {
    samples.sort();
    let at = |share: f64| samples[((samples.len() - 1) as f64 * share) as usize].as_secs_f64();
    let (middle, late) = (at(0.5) * 1000.0, at(0.99) * 1000.0);
    println!("| {what} | {middle:.3} | {late:.3} | {} |", samples.len());
}
