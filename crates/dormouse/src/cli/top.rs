//! `dormouse top`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use clap::ValueEnum as _;
use server::{CountsDocument, FiguresDocument, FiguresPage};

use super::args::{ByArg, TopArgs};
use super::databases::size;
use super::failure::Failure;
use super::remote::Remote;
use super::table::Table;

/// Clears a terminal, and begins at its top.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

/// The look before, for what happens in a second.
struct Before {
    at: Instant,
    total: CountsDocument,
    databases: HashMap<String, CountsDocument>,
}

/// Shows what is used most, until it is interrupted.
pub(crate) async fn run(args: TopArgs) -> Result<(), Failure> {
    let remote = Remote::new(&args.server, &args.access)?;
    let by = name(args.by);
    let mut before = None;
    let mut ticks = tokio::time::interval(Duration::from_secs(args.interval));
    loop {
        ticks.tick().await;
        let page = remote.figures(args.top, &by).await;
        let page = page.map_err(|failure| failure.in_json(args.json))?;
        if args.json {
            let document = serde_json::to_string(&page);
            let document = document.map_err(|error| Failure::unavailable(error.to_string()))?;
            super::print(&format!("{document}\n"));
        } else {
            let clear = if args.once { "" } else { CLEAR };
            let shown = render(&page, before.as_ref(), Instant::now());
            super::print(&format!("{clear}{shown}"));
        }
        if args.once {
            return Ok(());
        }
        before = Some(Before::of(page));
    }
}

fn name(by: ByArg) -> String {
    let value = by.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

impl Before {
    fn of(page: FiguresPage) -> Self {
        let databases = page.databases.into_iter();
        Self {
            at: Instant::now(),
            total: page.total,
            databases: databases.map(|one| (one.name, one.counts)).collect(),
        }
    }
}

/// The page as a table; with a look before, what happened in a second since.
fn render(page: &FiguresPage, before: Option<&Before>, now: Instant) -> String {
    let seconds = before.map(|before| (now - before.at).as_secs_f64());
    let mut table = Table::default();
    let queries = if before.is_some() {
        "queries/s"
    } else {
        "queries"
    };
    let columns = [
        ("database", false),
        ("state", false),
        ("sessions", true),
        (queries, true),
        ("avg ms", true),
        ("p99 ms", true),
        ("errors", true),
        ("rows", true),
        ("in", true),
        ("out", true),
        ("WAL", true),
        ("waits", true),
        ("wakes", true),
        ("hits", true),
        ("misses", true),
        ("304s", true),
        ("memory", true),
        ("disk", true),
    ];
    for (name, right) in columns {
        table.column(name, right);
    }
    for one in &page.databases {
        let known = before.and_then(|before| before.databases.get(&one.name));
        let rate = known.zip(seconds);
        table.row(row(one, rate));
    }
    let total = &page.total;
    let rate = before.zip(seconds);
    let rate = rate.map_or_else(String::new, |(before, seconds)| {
        format!(", {:.1}/s", per_second(total, &before.total, seconds))
    });
    format!(
        "up {} s, {} queries{rate}, {} errors, {} wakes; {} databases were used\n{}",
        page.uptime_seconds,
        total.queries,
        total.errors,
        total.wakes,
        page.known,
        table.render()
    )
}

/// Queries in a second. A server that started anew has counted fewer.
fn per_second(now: &CountsDocument, before: &CountsDocument, seconds: f64) -> f64 {
    now.queries.saturating_sub(before.queries) as f64 / seconds.max(0.001)
}

fn row(one: &FiguresDocument, rate: Option<(&CountsDocument, f64)>) -> [String; 18] {
    let counts = &one.counts;
    let queries = match rate {
        Some((before, seconds)) => format!("{:.1}", per_second(counts, before, seconds)),
        None => counts.queries.to_string(),
    };
    [
        one.name.clone(),
        one.state.clone(),
        one.sessions.to_string(),
        queries,
        format!("{:.2}", counts.latency_ms.average),
        format!("{:.1}", counts.latency_ms.p99),
        counts.errors.to_string(),
        counts.rows.to_string(),
        size(counts.bytes_in),
        size(counts.bytes_out),
        size(counts.wal_bytes),
        counts.waits.to_string(),
        counts.wakes.to_string(),
        counts.cache_hits.to_string(),
        counts.cache_misses.to_string(),
        counts.not_modified.to_string(),
        size(one.memory_bytes),
        one.own_bytes.map_or_else(String::new, size),
    ]
}
