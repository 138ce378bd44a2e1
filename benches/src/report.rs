//! The tables for people, and the same for programs.

use crate::{
    machine::Machine,
    process::Memory,
    results::{ECHO, Metric, Results},
    samples::Round,
    work::Sizes,
};
use serde_json::{Value, json};
use std::fmt::Write as _;

const INPROCESS: &str = "Dormouse in process";
const PGWIRE: &str = "Dormouse pgwire";
const HTTP: &str = "Dormouse HTTP";
const UNIX: &str = "PostgreSQL, unix socket";
const TCP: &str = "PostgreSQL, TCP";
const PGLITE: &str = "PGlite in Node.js";

/// The rows, in order; those without figures are not shown.
const WAYS: [&str; 10] = [
    INPROCESS,
    PGWIRE,
    HTTP,
    UNIX,
    TCP,
    "PostgreSQL fsync=off, unix socket",
    "PostgreSQL fsync=off, TCP",
    PGLITE,
    "PGlite, pglite-socket",
    ECHO,
];

pub(crate) fn markdown(
    machine: &Machine,
    command: &str,
    sizes: &Sizes,
    results: &Results,
) -> String {
    let mut text = format!("- Command: `{command}`\n{}", machine.markdown());
    for (host, version) in &results.versions {
        line(&mut text, &format!("- {host}: {version}"));
    }
    line(
        &mut text,
        &format!(
            "- {} rounds of the short statements, {} of the larger work; up to {} timed runs or {} ms a \
         round after {} for warming up. Peers take turns. Figures are medians of the rounds' p50 and \
         p99; \"echoes\" are in the p50 of the TCP echo timed \
         just before each, within a round, and so are all ratios.",
            sizes.rounds,
            sizes.large_rounds,
            sizes.statement.iterations,
            sizes.statement.limit_ms,
            sizes.statement.warmup
        ),
    );
    line(
        &mut text,
        "- Durability: PostgreSQL syncs each commit to disk unless it says fsync=off; PGlite never \
         does. PGlite has no prepared statements: its `query` parses each time. Native servers plan \
         without parallel workers, as PGlite's build must, but in the column that says so.",
    );

    line(&mut text, "\n### Goals\n");
    goals(&mut text, results);

    line(
        &mut text,
        "\n### One statement, one client (p50 / p99, microseconds)\n",
    );
    table(
        &mut text,
        &Metric::STATEMENTS.map(Metric::title),
        results,
        |way| {
            Metric::STATEMENTS
                .map(|metric| {
                    let Round { p50, p99, .. } = results.summary(metric, way)?;
                    let mut cell = format!("{p50:.1} / {p99:.1}");
                    if way != ECHO
                        && let Some(echoes) = results.echoes(metric, way)
                    {
                        let _ = write!(cell, " ({echoes:.1} echoes)");
                    }
                    Some(cell)
                })
                .into()
        },
    );

    line(&mut text, "\n### Larger work (milliseconds)\n");
    let columns = [
        format!("{} prepared inserts in one transaction", sizes.inserts),
        format!("aggregate over {} rows", sizes.big),
        "the same, 2 parallel workers".to_owned(),
    ];
    table(&mut text, &columns, results, |way| {
        [
            Metric::Inserts,
            Metric::Aggregate,
            Metric::AggregateParallel,
        ]
        .map(|metric| results.summary(metric, way).map(|round| ms(round.p50)))
        .into()
    });

    line(
        &mut text,
        "\n### Starting and creating (p50, milliseconds)\n",
    );
    let columns = [
        "start to first answer, no data",
        "start to first answer, data there",
        "of that, opening the database",
        "create a database",
        "create it and its first answer",
    ];
    table(&mut text, &columns, results, |way| {
        [
            Metric::StartCold,
            Metric::StartWarm,
            Metric::Open,
            Metric::Create,
            Metric::CreateFirst,
        ]
        .map(|metric| results.summary(metric, way).map(|round| ms(round.p50)))
        .into()
    });

    line(&mut text, "\n### Memory (RSS / private dirty, MiB)\n");
    let columns = [
        "all processes after the first answer",
        "each database more, awake",
    ];
    table(&mut text, &columns, results, |way| {
        let mib = |memory: Memory| {
            let mib = |kib: u64| kib as f64 / 1024.0;
            format!(
                "{:.1} / {:.1}",
                mib(memory.rss_kib),
                mib(memory.private_dirty_kib)
            )
        };
        vec![
            results.process(way).map(mib),
            results.one_more(way).map(mib),
        ]
    });
    line(
        &mut text,
        "\nRSS counts memory that processes share once for each of them. \"Each database more\" is \
         what one more created database with one client takes, from the second one on.",
    );

    if !results.notes.is_empty() {
        line(&mut text, "\n### Left out\n");
        for note in &results.notes {
            line(&mut text, &format!("- {note}"));
        }
    }
    text
}

fn line(text: &mut String, words: &str) {
    text.push_str(words);
    text.push('\n');
}

fn ms(us: f64) -> String {
    let ms = us / 1000.0;
    if ms < 10.0 {
        format!("{ms:.2}")
    } else {
        format!("{ms:.0}")
    }
}

fn table<C: AsRef<str>>(
    text: &mut String,
    columns: &[C],
    results: &Results,
    cells: impl Fn(&str) -> Vec<Option<String>>,
) {
    let titles: Vec<&str> = columns.iter().map(AsRef::as_ref).collect();
    line(text, &format!("| | {} |", titles.join(" | ")));
    line(text, &format!("|---|{}", "---:|".repeat(columns.len())));
    for way in WAYS {
        let cells = cells(way);
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let cells: Vec<String> = cells
            .into_iter()
            .map(|cell| cell.unwrap_or_else(|| "–".to_owned()))
            .collect();
        line(text, &format!("| {way} | {} |", cells.join(" | ")));
    }
    debug_assert!(
        results.all().all(|(_, way, _)| WAYS.contains(&way)),
        "a row is missing"
    );
}

fn goals(text: &mut String, results: &Results) {
    line(text, "| what | goal | measured | |\n|---|---|---:|---|");
    let mut row = |what: &str, goal: &str, measured: Option<(String, bool)>| {
        let (measured, verdict) = match measured {
            Some((measured, reached)) => {
                (measured, if reached { "reached" } else { "not reached" })
            }
            None => ("–".to_owned(), "not measured"),
        };
        line(
            text,
            &format!("| {what} | {goal} | {measured} | {verdict} |"),
        );
    };
    let at_most = |metric, most: f64| {
        results
            .summary(metric, INPROCESS)
            .map(|round| (format!("{} ms", ms(round.p50)), round.p50 <= most * 1000.0))
    };
    row(
        "open an existing database, in process",
        "<= 25 ms",
        at_most(Metric::Open, 25.0),
    );
    row(
        "create a database, in process",
        "<= 2 ms",
        at_most(Metric::Create, 2.0),
    );
    row(
        "select by primary key: PGlite in Node.js / Dormouse in process",
        ">= 6",
        results
            .times(Metric::Select, PGLITE, INPROCESS)
            .map(|times| (format!("{times:.1}"), times >= 6.0)),
    );
    let in_echoes = |way| results.echoes(Metric::Simple, way);
    for (way, most) in [(PGWIRE, 4.0), (HTTP, 12.0)] {
        let native = in_echoes(TCP).map_or_else(String::new, |n| format!(" (native TCP: {n:.1})"));
        row(
            &format!("`select 1` simple in echoes, {way}{native}"),
            &format!("<= {most}"),
            in_echoes(way).map(|times| (format!("{times:.1}"), times <= most)),
        );
    }
    for (ours, theirs) in [(INPROCESS, UNIX), (PGWIRE, TCP)] {
        for metric in Metric::STATEMENTS
            .into_iter()
            .chain([Metric::Inserts, Metric::Aggregate])
        {
            row(
                &format!(
                    "speed against native, {}: {ours} and {theirs}",
                    metric.title()
                ),
                ">= 0.7",
                results
                    .times(metric, theirs, ours)
                    .map(|times| (format!("{times:.2}"), times >= 0.7)),
            );
        }
    }
}

pub(crate) fn json(machine: &Machine, command: &str, results: &Results) -> Value {
    let measured: Vec<Value> = results
        .all()
        .map(|(metric, way, summary)| {
            let rounds = results.rounds(metric, way).iter();
            json!({
                "metric": metric.key(),
                "peer": way,
                "p50_us": summary.p50,
                "p99_us": summary.p99,
                "samples": summary.samples,
                "echoes": results.echoes(metric, way),
                "rounds": rounds
                    .map(|round| json!({ "p50_us": round.p50, "p99_us": round.p99 }))
                    .collect::<Vec<_>>(),
            })
        })
        .collect();
    let memory: Vec<Value> = WAYS
        .iter()
        .filter_map(|way| {
            let fields = |memory: Memory| {
                json!({
                    "rss_kib": memory.rss_kib,
                    "pss_kib": memory.pss_kib,
                    "private_dirty_kib": memory.private_dirty_kib,
                })
            };
            Some(json!({
                "peer": way,
                "process": fields(results.process(way)?),
                "one_more_database": results.one_more(way).map(fields),
            }))
        })
        .collect();
    json!({
        "command": command,
        "machine": machine.json(),
        "versions": results.versions,
        "measured": measured,
        "memory": memory,
        "left_out": results.notes,
    })
}
