//! `GET /metrics`: what is counted, in the text format of Prometheus.

use std::fmt::Write as _;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use database::{Metrics, Timed};

use super::router::App;

/// The text format's own media type.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) async fn metrics(State(app): State<App>) -> Response {
    let text = render(&app.databases.metrics());
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
}

fn render(metrics: &Metrics) -> String {
    let mut page = Page::default();
    page.gauge(
        "databases",
        "Databases in the directory.",
        metrics.databases,
    );
    page.gauge(
        "databases_awake",
        "Databases that are not asleep.",
        metrics.awake,
    );
    page.gauge(
        "private_bytes",
        "Memory that only this process has.",
        metrics.private_bytes,
    );
    page.gauge(
        "journal_bytes",
        "Length of the journal.",
        metrics.journal_bytes,
    );
    page.timed(
        "wakes",
        "Databases that woke, by where their backend came from.",
        &[
            (Some("template"), metrics.wakes_forked),
            (Some("image"), metrics.wakes_resumed),
            (Some("boot"), metrics.wakes_booted),
        ],
    );
    page.timed(
        "hibernations",
        "Databases that fell asleep.",
        &[(None, metrics.hibernations)],
    );
    page.counter(
        "hibernations_early_total",
        "Databases that fell asleep before their idle time was over, for want of room.",
        metrics.hibernations_early,
    );
    page.timed(
        "versions",
        "Versions of volumes that the host wrote.",
        &[(None, metrics.versions)],
    );
    page.timed(
        "checkpoints",
        "Checkpoints that the host made for the length of the WAL.",
        &[(None, metrics.checkpoints)],
    );
    page.timed(
        "vacuums",
        "Tables that the host vacuumed or analyzed.",
        &[(None, metrics.vacuums)],
    );
    page.timed(
        "freezes",
        "Databases that the host froze.",
        &[(None, metrics.freezes)],
    );
    page.timed(
        "compactions",
        "Steps of compaction that did something.",
        &[(None, metrics.compactions)],
    );
    page.counter(
        "wal_flushes_total",
        "Writes of WAL that its commits did not wait for, in silent sessions.",
        metrics.wal_flushes,
    );
    page.counter(
        "maintenance_preemptions_total",
        "Maintenance that gave way to a session.",
        metrics.preemptions,
    );
    page.0
}

/// A page in the text format.
#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(&format!("# HELP dormouse_{name} {help}"));
        self.line(&format!("# TYPE dormouse_{name} {kind}"));
    }

    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "gauge", help);
        self.line(&format!("dormouse_{name} {value}"));
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "counter", help);
        self.line(&format!("dormouse_{name} {value}"));
    }

    /// Two counters: how often, and for how long.
    fn timed(&mut self, name: &str, help: &str, values: &[(Option<&str>, Timed)]) {
        let label = |from: &Option<&str>| {
            from.map_or_else(String::new, |from| format!("{{from=\"{from}\"}}"))
        };
        self.head(&format!("{name}_total"), "counter", help);
        for (from, timed) in values {
            let mut line = String::new();
            // Writing to a string does not fail.
            let _ = write!(line, "dormouse_{name}_total{} {}", label(from), timed.count);
            self.line(&line);
        }
        self.head(
            &format!("{name}_seconds_total"),
            "counter",
            "The time that these took.",
        );
        for (from, timed) in values {
            let seconds = timed.time.as_secs_f64();
            self.line(&format!(
                "dormouse_{name}_seconds_total{} {seconds}",
                label(from)
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_line_is_a_comment_or_a_sample() {
        let metrics = Metrics {
            wakes_resumed: Timed {
                count: 3,
                time: Duration::from_millis(1500),
            },
            ..Metrics::default()
        };
        let text = render(&metrics);
        assert!(text.contains("dormouse_wakes_total{from=\"image\"} 3\n"));
        assert!(text.contains("dormouse_wakes_seconds_total{from=\"image\"} 1.5\n"));
        for line in text.lines() {
            let sample = line
                .strip_prefix("dormouse_")
                .and_then(|line| line.rsplit_once(' '))
                .is_some_and(|(_, value)| value.parse::<f64>().is_ok());
            assert!(line.starts_with("# ") || sample, "{line}");
        }
    }
}
