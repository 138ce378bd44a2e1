//! Everything that is counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use database::{Counts, Durations, Histogram, Metrics, Timed};

use super::labelled::Numbers;
use super::{Family, Kind, bindings, process};
use crate::apps::Apps;
use crate::http::{Configured, Http};
use crate::result_cache::ResultCacheMetrics;

/// Statuses of HTTP are from 100 to 599.
const STATUSES: usize = 500;
const STATUS_MIN: u16 = 100;

/// Requests of HTTP, by what became of them.
#[derive(Debug)]
pub(crate) struct Counted {
    statuses: Box<[AtomicU64]>,
    durations: Histogram,
}

impl Default for Counted {
    fn default() -> Self {
        Self {
            statuses: (0..STATUSES).map(|_| AtomicU64::new(0)).collect(),
            durations: Histogram::default(),
        }
    }
}

impl Counted {
    pub(crate) fn answered(&self, status: StatusCode, elapsed: Duration) {
        let at = usize::from(status.as_u16().saturating_sub(STATUS_MIN));
        if let Some(count) = self.statuses.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.durations.took(elapsed);
    }

    fn statuses(&self) -> Vec<(String, u64)> {
        let counts = (STATUS_MIN..).zip(&self.statuses);
        let counts = counts.map(|(status, count)| (status, count.load(Ordering::Relaxed)));
        let counts = counts.filter(|(_, count)| *count > 0);
        counts
            .map(|(status, count)| (status.to_string(), count))
            .collect()
    }
}

/// All families. Reads files of the system, and looks at each database that has figures.
pub(crate) fn collect(http: &Configured) -> Vec<Family> {
    let metrics = http.databases().metrics();
    let mut families = node(&metrics);
    families.extend(lives(&metrics));
    families.extend(upkeep(&metrics));
    let max = http.options().metrics_databases_max;
    let top = match max {
        0 => 0,
        // To find again those that have samples already, however busy others are.
        _ => usize::MAX,
    };
    let figures = http.databases().figures(top, |counts| counts.statements);
    families.extend(queries(&figures.total));
    families.push(counters(
        "dormouse_errors_total",
        "Errors that sessions were told, by the class of their SQLSTATE.",
        "class",
        http.databases()
            .errors()
            .into_iter()
            .map(|(class, count)| (class.to_owned(), count)),
    ));
    families.push(counter(
        "dormouse_figures_forgotten_total",
        "Sleeping databases whose figures are only kept in the sum.",
        figures.forgotten,
    ));
    families.extend(connections(http, &metrics));
    families.extend(requests(http.counted()));
    if let Some(managed) = http.bindings() {
        families.extend(bindings::families(managed));
    }
    if let Some(apps) = http.apps() {
        families.extend(of_apps(apps));
    }
    families.extend(results(http.results().metrics()));
    if max > 0 {
        families.extend(databases(http.labelled().lock().tell(&figures, max)));
    }
    families.extend(process::families());
    // A family without samples says nothing.
    families.retain(|family| !family.samples.is_empty());
    families
}

fn gauge(name: &'static str, help: &'static str, value: u64) -> Family {
    Family::one(Kind::Gauge, name, help, value)
}

fn counter(name: &'static str, help: &'static str, value: u64) -> Family {
    Family::one(Kind::Counter, name, help, value)
}

fn seconds(name: &'static str, help: &'static str, value: Duration) -> Family {
    Family::one(Kind::Counter, name, help, value.as_secs_f64())
}

fn histogram(name: &'static str, help: &'static str, value: Durations) -> Family {
    Family::one(Kind::Histogram, name, help, value)
}

fn counters(
    name: &'static str,
    help: &'static str,
    label: &'static str,
    values: impl IntoIterator<Item = (String, u64)>,
) -> Family {
    Family::labelled(Kind::Counter, name, help, label, values)
}

/// Two counters: how often, and for how long.
fn timed(names: [&'static str; 2], help: &'static str, timed: Timed) -> [Family; 2] {
    [
        counter(names[0], help, timed.count),
        seconds(names[1], "The time that these took.", timed.time),
    ]
}

fn node(metrics: &Metrics) -> Vec<Family> {
    vec![
        gauge(
            "dormouse_databases",
            "Databases in the directory.",
            metrics.databases,
        ),
        gauge(
            "dormouse_databases_awake",
            "Databases that are not asleep.",
            metrics.awake,
        ),
        gauge(
            "dormouse_private_bytes",
            "Memory that only this process has.",
            metrics.private_bytes,
        ),
        gauge(
            "dormouse_journal_bytes",
            "Length of the journal.",
            metrics.journal_bytes,
        ),
    ]
}

/// Waking and sleeping.
fn lives(metrics: &Metrics) -> Vec<Family> {
    let from = || ["template", "image", "boot"].map(str::to_owned).into_iter();
    let wakes = [
        metrics.wakes_forked,
        metrics.wakes_resumed,
        metrics.wakes_booted,
    ];
    let mut families = vec![
        counters(
            "dormouse_wakes_total",
            "Databases that woke, by where their backend came from.",
            "from",
            from().zip(wakes.map(|wakes| wakes.count)),
        ),
        Family::labelled(
            Kind::Counter,
            "dormouse_wakes_seconds_total",
            "The time that these took.",
            "from",
            from().zip(wakes.map(|wakes| wakes.time.as_secs_f64())),
        ),
        Family::labelled(
            Kind::Histogram,
            "dormouse_wake_duration_seconds",
            "How long wakes took, without the wait for a turn.",
            "from",
            from().zip(metrics.wake_durations),
        ),
        histogram(
            "dormouse_wake_wait_seconds",
            "How long databases waited for their turn to wake.",
            metrics.wake_waits,
        ),
    ];
    families.extend(timed(
        [
            "dormouse_hibernations_total",
            "dormouse_hibernations_seconds_total",
        ],
        "Databases that fell asleep.",
        metrics.hibernations,
    ));
    families.push(counter(
        "dormouse_hibernations_early_total",
        "Databases that fell asleep before their idle time was over, for want of room.",
        metrics.hibernations_early,
    ));
    families
}

/// What the host does of its own accord.
fn upkeep(metrics: &Metrics) -> Vec<Family> {
    let work = [
        (
            ["dormouse_versions_total", "dormouse_versions_seconds_total"],
            "Versions of volumes that the host wrote.",
            metrics.versions,
        ),
        (
            [
                "dormouse_checkpoints_total",
                "dormouse_checkpoints_seconds_total",
            ],
            "Checkpoints that the host made for the length of the WAL.",
            metrics.checkpoints,
        ),
        (
            ["dormouse_vacuums_total", "dormouse_vacuums_seconds_total"],
            "Tables that the host vacuumed or analyzed.",
            metrics.vacuums,
        ),
        (
            ["dormouse_freezes_total", "dormouse_freezes_seconds_total"],
            "Databases that the host froze.",
            metrics.freezes,
        ),
        (
            [
                "dormouse_compactions_total",
                "dormouse_compactions_seconds_total",
            ],
            "Steps of compaction that did something.",
            metrics.compactions,
        ),
    ];
    let work = work
        .into_iter()
        .flat_map(|(names, help, time)| timed(names, help, time));
    let mut families: Vec<_> = work.collect();
    families.push(counter(
        "dormouse_wal_flushes_total",
        "Writes of WAL that its commits did not wait for, in silent sessions.",
        metrics.wal_flushes,
    ));
    families.push(counter(
        "dormouse_maintenance_preemptions_total",
        "Maintenance that gave way to a session.",
        metrics.preemptions,
    ));
    families.push(histogram(
        "dormouse_durability_wait_seconds",
        "How long answers waited for the disk, of those that had to.",
        metrics.gate_waits,
    ));
    families
}

/// What clients asked for, of all databases.
fn queries(total: &Counts) -> Vec<Family> {
    vec![
        histogram(
            "dormouse_query_duration_seconds",
            "Messages with statements, from their arrival until their answer was durable.",
            total.durations,
        ),
        counter(
            "dormouse_statements_total",
            "Statements that came to their end.",
            total.statements,
        ),
        counter(
            "dormouse_rows_total",
            "Rows returned or changed.",
            total.rows,
        ),
        counter(
            "dormouse_received_bytes_total",
            "Bytes of messages to databases.",
            total.bytes_in,
        ),
        counter(
            "dormouse_sent_bytes_total",
            "Bytes of databases' answers.",
            total.bytes_out,
        ),
        counter(
            "dormouse_wal_bytes_total",
            "Bytes of WAL that databases wrote.",
            total.wal_bytes,
        ),
        counter(
            "dormouse_session_waits_total",
            "Messages that waited because other sessions had all processes of their database.",
            total.waits,
        ),
        seconds(
            "dormouse_session_waits_seconds_total",
            "The time that these waited.",
            Duration::from_micros(total.wait_micros),
        ),
    ]
}

fn connections(http: &Http, metrics: &Metrics) -> Vec<Family> {
    let open = [
        ("pgwire".to_owned(), http.pgwire_connections() as u64),
        ("http".to_owned(), http.connections() as u64),
        ("websocket".to_owned(), http.websockets() as u64),
    ];
    vec![
        Family::labelled(
            Kind::Gauge,
            "dormouse_connections",
            "Connections that are open, by their protocol.",
            "protocol",
            open,
        ),
        gauge(
            "dormouse_http_bodies_bytes",
            "Bytes of the bodies of requests under way, of http.bodies_bytes_max.",
            http.bodies_bytes() as u64,
        ),
        gauge(
            "dormouse_sessions",
            "Sessions of databases, HTTP requests that run statements included.",
            metrics.sessions,
        ),
        counter(
            "dormouse_sessions_begun_total",
            "Sessions that were begun.",
            metrics.sessions_begun,
        ),
    ]
}

fn requests(counted: &Counted) -> Vec<Family> {
    vec![
        counters(
            "dormouse_http_requests_total",
            "HTTP requests, by the status of their answer.",
            "status",
            counted.statuses(),
        ),
        histogram(
            "dormouse_http_request_duration_seconds",
            "How long HTTP requests took.",
            counted.durations.get(),
        ),
    ]
}

/// What is deployed. By app there is `usage`.
fn of_apps(apps: &Apps) -> [Family; 4] {
    let counted = apps.usage.total();
    [
        gauge(
            "dormouse_apps",
            "Apps that are deployed.",
            apps.deployments.all().len() as u64,
        ),
        gauge(
            "dormouse_app_backends",
            "Processes of backends that run.",
            apps.deployments.running() as u64,
        ),
        counter(
            "dormouse_app_requests_total",
            "Requests that apps have answered, of those of HTTP.",
            counted.requests,
        ),
        counter(
            "dormouse_app_errors_total",
            "Those of them that were answered with 5xx.",
            counted.errors,
        ),
    ]
}

/// The cache of results.
fn results(metrics: ResultCacheMetrics) -> [Family; 5] {
    [
        counter(
            "dormouse_result_cache_hits_total",
            "Queries that the result cache had the answer to.",
            metrics.hits,
        ),
        counter(
            "dormouse_result_cache_misses_total",
            "Queries that it was asked for in vain.",
            metrics.misses,
        ),
        counter(
            "dormouse_result_cache_evictions_total",
            "Answers that it gave up for want of room.",
            metrics.evictions,
        ),
        gauge(
            "dormouse_result_cache_entries",
            "Answers that it keeps.",
            metrics.entries,
        ),
        gauge(
            "dormouse_result_cache_bytes",
            "Memory that it takes for these.",
            metrics.bytes,
        ),
    ]
}

/// What is told of some databases, and of all others together.
fn databases(told: Vec<(String, Numbers)>) -> Vec<Family> {
    let of = |at: usize| {
        let numbers = told
            .iter()
            .map(|(name, numbers)| (name.clone(), numbers[at]));
        numbers.collect::<Vec<_>>()
    };
    let times = of(3)
        .into_iter()
        .map(|(name, micros)| (name, micros as f64 / 1e6));
    vec![
        counters(
            "dormouse_database_statements_total",
            "Statements of a database since it has samples of its own.",
            "database",
            of(0),
        ),
        counters(
            "dormouse_database_errors_total",
            "Errors of its statements.",
            "database",
            of(1),
        ),
        counters(
            "dormouse_database_rows_total",
            "Rows that it returned or changed.",
            "database",
            of(2),
        ),
        Family::labelled(
            Kind::Counter,
            "dormouse_database_query_seconds_total",
            "The time of its messages with statements.",
            "database",
            times,
        ),
        counters(
            "dormouse_database_wal_bytes_total",
            "Bytes of WAL that it wrote.",
            "database",
            of(4),
        ),
        counters(
            "dormouse_database_wakes_total",
            "How often it woke.",
            "database",
            of(5),
        ),
        counters(
            "dormouse_database_cache_hits_total",
            "Answers of it that were taken from the result cache.",
            "database",
            of(6),
        ),
        counters(
            "dormouse_database_cache_misses_total",
            "Answers of it that were not in the result cache.",
            "database",
            of(7),
        ),
        counters(
            "dormouse_database_not_modified_total",
            "Answers of it that the client had already.",
            "database",
            of(8),
        ),
    ]
}
