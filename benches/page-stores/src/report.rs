//! The tables, in Markdown.

use crate::{
    results::Results,
    sizes::{BATCHES, HOT_PAGES, SMALL_PAGES},
    stores::Candidate,
};
use std::fmt::Write as _;

/// A row: what stands before it, the figure, and what its cells show.
type Row<'a> = (&'a str, &'a str, Cell);

#[derive(Clone, Copy, Debug)]
enum Cell {
    /// The median, and the ratios to own and to plain.
    Ratios,
    /// The median alone: a count, or a ratio itself.
    Alone,
}

use Cell::{Alone, Ratios};

const MANY: [Row<'_>; 16] = [
    ("make one, durably, ms ↓", "make_ms", Ratios),
    ("disk, MiB ↓", "disk_made_mib", Alone),
    ("start and read one page, ms ↓", "start_ms", Alone),
    ("memory after that, MiB ↓", "start_mib", Alone),
    ("wake one: open, read a page, µs ↓", "wake_p50_us", Ratios),
    ("memory, all awake, MiB ↓", "awake_mib", Alone),
    ("descriptors, all awake ↓", "awake_descriptors", Alone),
    ("threads, all awake ↓", "awake_threads", Alone),
    ("memory, all asleep again, MiB ↓", "asleep_mib", Alone),
    ("descriptors, all asleep ↓", "asleep_descriptors", Alone),
    ("threads, all asleep ↓", "asleep_threads", Alone),
    ("remove one, ms ↓", "remove_ms", Ratios),
    (
        "space given back, half removed (1 = all) ↑",
        "given_back_removed",
        Alone,
    ),
    (
        "same, after the engine's compaction ↑",
        "given_back_tidied",
        Alone,
    ),
    ("that compaction, s ↓", "tidy_s", Alone),
    ("disk after it, MiB ↓", "disk_tidied_mib", Alone),
];

const HOT: [Row<'_>; 5] = [
    ("pages/s ↑", "hot_pages_per_s", Ratios),
    ("p99 of a batch, µs ↓", "hot_p99_us", Ratios),
    ("disk at most / live bytes ↓", "hot_peak_ratio", Alone),
    ("disk when closed / live bytes ↓", "hot_end_ratio", Alone),
    ("bytes written / bytes given ↓", "hot_written_ratio", Alone),
];

/// All tables of a run.
pub(crate) fn markdown(candidates: &[Candidate], results: &Results) -> String {
    let sizes = &results.sizes;
    let rounds = results.rounds.iter();
    let rounds: Vec<String> = rounds.map(|(what, n)| format!("{what} {n}")).collect();
    let mut out = format!(
        "{}; the run took {:.0} s; rounds: {}.\n\
         Cells: median of the rounds (ratio to own / ratio to plain: medians of ratios within a round).\n",
        results.machine,
        results.took.as_secs_f64(),
        rounds.join(", "),
    );
    for (prefix, title) in [
        (
            "large_",
            format!("One database of {} pages", sizes.large_pages),
        ),
        (
            "many_",
            format!(
                "{} databases of {SMALL_PAGES} pages, one after the other",
                sizes.databases
            ),
        ),
    ] {
        let mut rows = vec![
            (
                "random reads/s ↑".to_owned(),
                "read_pages_per_s".to_owned(),
                Ratios,
            ),
            (
                "read p99, µs ↓".to_owned(),
                "read_p99_us".to_owned(),
                Ratios,
            ),
        ];
        for pages in BATCHES {
            for (text, what, cell) in [
                ("pages/s ↑", "pages_per_s", Ratios),
                ("p50, µs ↓", "p50_us", Ratios),
                ("p99, µs ↓", "p99_us", Ratios),
                ("bytes written / bytes given ↓", "written_ratio", Alone),
            ] {
                let text = format!("batches of {pages}: {text}");
                rows.push((text, format!("write_{pages}_{what}"), cell));
            }
        }
        for (_, name, _) in &mut rows {
            name.insert_str(0, prefix);
        }
        let rows: Vec<Row<'_>> = rows
            .iter()
            .map(|(text, name, cell)| (text.as_str(), name.as_str(), *cell))
            .collect();
        table(&mut out, &title, &rows, candidates, results);
    }
    let title = format!("{} databases of {SMALL_PAGES} pages", sizes.databases);
    table(&mut out, &title, &MANY, candidates, results);
    let title = format!(
        "{HOT_PAGES} pages overwritten {} times, in random order",
        sizes.hot_passes
    );
    table(&mut out, &title, &HOT, candidates, results);
    let rows = [("the large database, ms ↓", "fork_ms", Ratios)];
    table(&mut out, "Fork", &rows, candidates, results);
    faults(&mut out, candidates, results);
    for note in &results.notes {
        line(&mut out, &format!("- not measured: {note}"));
    }
    out
}

fn table(
    out: &mut String,
    title: &str,
    rows: &[Row<'_>],
    candidates: &[Candidate],
    results: &Results,
) {
    head(out, title, candidates);
    for (text, name, cell) in rows {
        let cells = candidates.iter().map(|candidate| {
            let Some(value) = results.median(name, *candidate).map(short) else {
                return "-".to_owned();
            };
            let ratio = |base| match results.ratio(name, *candidate, base) {
                Some(ratio) => short(ratio),
                None => "-".to_owned(),
            };
            match cell {
                Ratios => format!(
                    "{value} ({} / {})",
                    ratio(Candidate::Own),
                    ratio(Candidate::Plain)
                ),
                Alone => value,
            }
        });
        row(out, text, cells);
    }
}

fn faults(out: &mut String, candidates: &[Candidate], results: &Results) {
    let title = format!("{} writers killed", results.sizes.kills);
    head(out, &title, candidates);
    let kills = |text: &str, out: &mut String, cell: &dyn Fn(&crate::crash::Kills) -> String| {
        let cells = candidates.iter().map(|candidate| {
            let kills = results.kills.get(candidate);
            kills.map_or_else(|| "-".to_owned(), cell)
        });
        row(out, text, cells);
    };
    kills("as acknowledged", out, &|kills| kills.said.to_string());
    kills("and the batch under way", out, &|kills| {
        kills.next.to_string()
    });
    kills("a part of that batch", out, &|kills| kills.torn.to_string());
    kills("acknowledged ones missing", out, &|kills| {
        kills.lost.to_string()
    });
    kills("damaged pages", out, &|kills| kills.damaged.to_string());
    kills("refused to open or read", out, &|kills| {
        kills.refused.len().to_string()
    });
    kills("open afterwards, ms, median", out, &|kills| {
        crate::figures::median(kills.open_ms.iter().copied()).map_or_else(|| "-".to_owned(), short)
    });
    for (candidate, kills) in &results.kills {
        if let Some(first) = kills.refused.first() {
            line(out, &format!("- {}: {first}", candidate.name()));
        }
    }

    let title = format!("{} flipped bits", results.sizes.flips);
    head(out, &title, candidates);
    let flips = |text: &str, out: &mut String, cell: &dyn Fn(&crate::rot::Flips) -> usize| {
        let cells = candidates.iter().map(|candidate| {
            let flips = results.flips.get(candidate);
            flips.map_or_else(|| "-".to_owned(), |flips| cell(flips).to_string())
        });
        row(out, text, cells);
    };
    flips("detected", out, &|flips| flips.detected);
    flips("served wrong", out, &|flips| flips.served);
    flips("pages silently gone or old", out, &|flips| flips.lost);
    flips("no effect", out, &|flips| flips.harmless);
}

fn head(out: &mut String, title: &str, candidates: &[Candidate]) {
    let names = candidates
        .iter()
        .map(|candidate| candidate.name().to_owned());
    line(out, "");
    row(out, title, names);
    line(out, &format!("|---{}|", "|---:".repeat(candidates.len())));
}

fn row(out: &mut String, text: &str, cells: impl Iterator<Item = String>) {
    let cells: Vec<String> = cells.collect();
    line(out, &format!("| {text} | {} |", cells.join(" | ")));
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "{text}").expect("BUG: writing to a string failed");
}

/// Three digits, and thousands by `k`.
fn short(value: f64) -> String {
    match value.abs() {
        size if size < 0.005 => "0".to_owned(),
        size if size >= 99_950.0 => format!("{:.0}k", value / 1e3),
        size if size >= 9_995.0 => format!("{:.1}k", value / 1e3),
        size if size >= 99.5 => format!("{value:.0}"),
        size if size >= 9.95 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_are_enough() {
        let shown = [
            0.0, 0.123, 12.34, 123.4, 9_990.0, 12_345.0, 123_456.0, -12.34,
        ]
        .map(short);
        let expected = ["0", "0.12", "12.3", "123", "9990", "12.3k", "123k", "-12.3"];
        assert_eq!(shown, expected);
    }
}
