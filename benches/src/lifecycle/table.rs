//! Tables in Markdown, and how numbers are written in them.

use crate::samples::Round;
use std::fmt;

/// Rows of cells under a head.
pub(super) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(super) fn new<const N: usize>(head: [&str; N]) -> Self {
        Self {
            head: head.map(str::to_owned).into(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, with as many cells as the head has.
    pub(super) fn row(&mut self, cells: impl Into<Vec<String>>) {
        let cells = cells.into();
        assert_eq!(
            cells.len(),
            self.head.len(),
            "BUG: a row as wide as its head"
        );
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| {} |", self.head.join(" | "))?;
        let numbers = "---:|".repeat(self.head.len().saturating_sub(1));
        writeln!(f, "|---|{numbers}")?;
        for row in &self.rows {
            writeln!(f, "| {} |", row.join(" | "))?;
        }
        Ok(())
    }
}

/// Microseconds as milliseconds.
pub(super) fn ms(us: f64) -> String {
    let ms = us / 1000.0;
    match ms {
        _ if ms < 10.0 => format!("{ms:.2}"),
        _ if ms < 100.0 => format!("{ms:.1}"),
        _ => format!("{ms:.0}"),
    }
}

/// The p50 and the p99 of microseconds, as milliseconds.
pub(super) fn p50_p99(samples: &[f64]) -> [String; 2] {
    Round::of(samples.to_vec()).map_or_else(
        || ["–".to_owned(), "–".to_owned()],
        |round| [ms(round.p50), ms(round.p99)],
    )
}

/// The middle of microseconds, 0 of none.
pub(super) fn p50(samples: &[f64]) -> f64 {
    Round::of(samples.to_vec()).map_or(0.0, |round| round.p50)
}

/// Bytes as MiB.
pub(super) fn mib(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 10.0 {
        format!("{mib:.2}")
    } else {
        format!("{mib:.0}")
    }
}

/// Bytes of each of so many, given those of all, and of none.
pub(super) fn each(all: u64, none: u64, count: usize) -> String {
    let more = all.saturating_sub(none) as f64 / count.max(1) as f64;
    if more < 4096.0 {
        format!("{more:.0} B")
    } else {
        format!("{:.1} KiB", more / 1024.0)
    }
}

/// Whether a goal is reached.
pub(super) fn goal(what: &str, reached: bool) -> String {
    format!(
        "{what}: {}",
        if reached { "reached" } else { "not reached" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_markdown() {
        let mut table = Table::new(["a", "b"]);
        table.row([ms(1234.0), mib(3 << 20)]);
        assert_eq!(
            table.to_string(),
            "| a | b |\n|---|---:|\n| 1.23 | 3.00 |\n"
        );
        assert_eq!(each(3000, 1000, 2), "1000 B");
        assert_eq!(each(1 << 20, 0, 4), "256.0 KiB");
        assert_eq!(p50_p99(&[]), ["–", "–"]);
    }
}
