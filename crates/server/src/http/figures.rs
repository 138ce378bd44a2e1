//! Figures of databases: what was counted of each since the server started.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use database::{Counts, DatabaseFigures, Durations, NodeFigures};
use serde::{Deserialize, Serialize};

use super::caller::Scope;
use super::error::ApiError;
use super::router::{App, Name};
use super::tenant;
use crate::blocking::blocking;

/// Most databases in one answer (`http.page_max`).
const TOP_MAX: usize = 1_000;
const TOP: usize = 20;

/// The query of `GET /v1/figures`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FiguresQuery {
    /// How many databases.
    #[serde(default = "top")]
    top: usize,
    /// Those that have the most of what.
    #[serde(default)]
    by: By,
}

fn top() -> usize {
    TOP
}

/// What databases are put in order by, the greatest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Messages with statements.
    #[default]
    Queries,
    /// The time of these.
    Time,
    /// Statements with an error.
    Errors,
    /// Rows returned or changed.
    Rows,
    /// Bytes to and from clients.
    Bytes,
    /// Bytes of WAL.
    Wal,
    /// How often it woke.
    Wakes,
    /// Messages that waited for other sessions.
    Waits,
    /// Answers from the cache.
    Hits,
}

impl By {
    fn key(self, counts: &Counts) -> u64 {
        match self {
            Self::Queries => counts.durations.count(),
            Self::Time => counts.durations.sum().as_micros() as u64,
            Self::Errors => counts.errors,
            Self::Rows => counts.rows,
            Self::Bytes => counts.bytes_in + counts.bytes_out,
            Self::Wal => counts.wal_bytes,
            Self::Wakes => counts.wakes.into(),
            Self::Waits => counts.waits,
            Self::Hits => counts.cache_hits,
        }
    }
}

/// What was counted since the server started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CountsDocument {
    /// Messages with statements.
    pub queries: u64,
    /// Their durations, in milliseconds: from the arrival of a message until its answer was durable.
    pub latency_ms: LatencyDocument,
    /// Statements that came to their end.
    pub statements: u64,
    /// Those with an error.
    pub errors: u64,
    /// Rows returned or changed.
    pub rows: u64,
    /// Bytes of clients' messages.
    pub bytes_in: u64,
    /// Bytes of the answers.
    pub bytes_out: u64,
    /// Bytes of WAL.
    pub wal_bytes: u64,
    /// Messages that waited because other sessions had all processes.
    pub waits: u64,
    /// How long these waited in all.
    pub wait_ms: f64,
    /// How often it woke.
    pub wakes: u32,
    /// How often it fell asleep.
    pub sleeps: u32,
    /// Answers that were taken from the result cache.
    #[serde(default)]
    pub cache_hits: u64,
    /// Answers that were not in it.
    #[serde(default)]
    pub cache_misses: u64,
    /// Answers that the client had already.
    #[serde(default)]
    pub not_modified: u64,
}

/// How long messages took, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LatencyDocument {
    /// All together.
    pub sum: f64,
    /// On average; 0 of none.
    pub average: f64,
    /// A bound that half of them do not exceed, and other shares: from the histogram, so coarse.
    pub p50: f64,
    /// 95 of 100.
    pub p95: f64,
    /// 99 of 100.
    pub p99: f64,
    /// How many were at most as long as `le`, and longer than the one before; the last has no `le`.
    pub buckets: Vec<BucketDocument>,
}

/// A bucket of a histogram.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BucketDocument {
    /// The longest duration in it, in milliseconds.
    pub le: Option<f64>,
    /// How many are in it.
    pub count: u64,
}

/// What is told of one database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FiguresDocument {
    /// Its name.
    pub name: String,
    /// `asleep`, `waking`, `awake`, `hibernating` or `fenced`.
    pub state: String,
    /// Sessions now.
    pub sessions: u64,
    /// Bytes of memory; 0 when asleep or busy.
    pub memory_bytes: u64,
    /// Bytes on disk that it shares with no other database; absent where that would have to be looked up.
    pub own_bytes: Option<u64>,
    /// Seconds since it was last used; absent if it was not.
    pub idle_seconds: Option<u32>,
    /// What was counted.
    #[serde(flatten)]
    pub counts: CountsDocument,
}

/// The answer to `GET /v1/figures`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FiguresPage {
    /// Seconds since the server started, which is when counting began.
    pub uptime_seconds: u64,
    /// Of all databases, those that are deleted included.
    pub total: CountsDocument,
    /// Databases with figures of their own.
    pub known: u64,
    /// How many times those of a sleeping one were only kept in the sum.
    pub forgotten: u64,
    /// The first of them.
    pub databases: Vec<FiguresDocument>,
}

/// `GET /v1/databases/NAME/figures`
pub(super) async fn of_database(
    State(app): State<App>,
    Name(name): Name,
    tenant::By(caller): tenant::By,
) -> Result<Response, ApiError> {
    caller.expect(Scope::Read)?;
    let figures = blocking(move || app.databases.figures_of(&name)).await?;
    Ok(Json(FiguresDocument::from(figures)).into_response())
}

/// `GET /v1/figures`
pub(super) async fn of_node(
    State(app): State<App>,
    tenant::By(caller): tenant::By,
    query: Result<Query<FiguresQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    caller.expect_node(Scope::Admin)?;
    let Query(FiguresQuery { top, by }) = query
        .map_err(|rejection| ApiError::request(StatusCode::BAD_REQUEST, rejection.body_text()))?;
    if top > TOP_MAX {
        return Err(ApiError::request(
            StatusCode::BAD_REQUEST,
            format!("\"top\" is {top}; it must be from 0 to {TOP_MAX}"),
        ));
    }
    let uptime_seconds = app.started.elapsed().as_secs();
    let figures = blocking(move || {
        let key = |counts: &Counts| by.key(counts);
        Ok(app.databases.figures(top, key))
    })
    .await?;
    let NodeFigures {
        total,
        forgotten,
        known,
        databases,
    } = figures;
    let page = FiguresPage {
        uptime_seconds,
        total: CountsDocument::from(&total),
        known,
        forgotten,
        databases: databases.into_iter().map(FiguresDocument::from).collect(),
    };
    Ok(Json(page).into_response())
}

impl From<DatabaseFigures> for FiguresDocument {
    fn from(figures: DatabaseFigures) -> Self {
        Self {
            name: figures.name,
            state: figures.state.to_string(),
            sessions: figures.sessions,
            memory_bytes: figures.memory_bytes,
            own_bytes: figures.own_bytes,
            idle_seconds: figures.idle_seconds,
            counts: CountsDocument::from(&figures.counts),
        }
    }
}

impl From<&Counts> for CountsDocument {
    fn from(counts: &Counts) -> Self {
        Self {
            queries: counts.durations.count(),
            latency_ms: LatencyDocument::from(&counts.durations),
            statements: counts.statements,
            errors: counts.errors,
            rows: counts.rows,
            bytes_in: counts.bytes_in,
            bytes_out: counts.bytes_out,
            wal_bytes: counts.wal_bytes,
            waits: counts.waits,
            wait_ms: counts.wait_micros as f64 / 1e3,
            wakes: counts.wakes,
            sleeps: counts.sleeps,
            cache_hits: counts.cache_hits,
            cache_misses: counts.cache_misses,
            not_modified: counts.not_modified,
        }
    }
}

impl From<&Durations> for LatencyDocument {
    fn from(durations: &Durations) -> Self {
        let ms = |share| durations.quantile(share).as_secs_f64() * 1e3;
        let sum = durations.sum().as_secs_f64() * 1e3;
        let bounds = Durations::bounds().map(|bound| Some(bound * 1e3));
        let bounds = bounds.into_iter().chain([None]);
        let buckets = bounds.zip(durations.buckets());
        Self {
            sum,
            average: sum / durations.count().max(1) as f64,
            p50: ms(0.5),
            p95: ms(0.95),
            p99: ms(0.99),
            buckets: buckets
                .map(|(le, count)| BucketDocument { le, count: *count })
                .collect(),
        }
    }
}
