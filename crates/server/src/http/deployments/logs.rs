//! What is known of an app that runs: its log, and how often it was asked.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use workers::Refusal;
use workers::deployments::rfc3339;
use workers::runtime::{Level, LogEntry};

use super::asked::{Asked, Named};
use super::gate::Gate;
use super::{Refused, done, serving};
use crate::apps::today_as_date;

/// Milliseconds of an hour.
const HOUR_MS: u64 = 3_600_000;

/// What of a log is wanted.
#[derive(Debug, Deserialize)]
pub(in crate::http) struct Wanted {
    environment: Option<String>,
    hours: Option<String>,
    limit: Option<String>,
    kind: Option<String>,
    level: Option<String>,
    /// As an answer has it: entries before those.
    cursor: Option<String>,
    /// Entries after the one of this number, the oldest first.
    after: Option<String>,
}

/// Which day is wanted.
#[derive(Debug, Deserialize)]
pub(in crate::http) struct Day {
    environment: Option<String>,
    date: Option<String>,
}

/// `GET /api/v1/logs/OWNER/REPOSITORY`
pub(in crate::http) async fn logs(
    gate: Gate,
    Named(repository): Named,
    Asked(wanted): Asked<Wanted>,
) -> Result<Response, Refused> {
    let place = gate.place(&repository, wanted.environment.as_deref())?;
    let hours = number(wanted.hours.as_deref(), "hours", 1, 168)?.unwrap_or(1);
    let limit = number(wanted.limit.as_deref(), "limit", 1, 500)?.unwrap_or(100);
    let before = number(wanted.cursor.as_deref(), "cursor", 0, u64::MAX)?;
    let after = number(wanted.after.as_deref(), "after", 0, u64::MAX)?;
    let kind = one_of(
        wanted.kind.as_deref(),
        "kind",
        &["console", "exception", "outcome"],
    )?;
    let level = one_of(
        wanted.level.as_deref(),
        "level",
        &["debug", "info", "log", "warn", "error"],
    )?;
    serving(&gate.apps, &place)?;
    let to_ms = now_ms();
    let from_ms = to_ms.saturating_sub(hours * HOUR_MS);
    let log = gate.apps.deployments.log(&place);
    let (last, entries) = log.map_or((0, Vec::new()), |log| {
        let last = *log.follow().borrow();
        (last, log.after(after.unwrap_or(0), usize::MAX))
    });
    let fits = |entry: &LogEntry| {
        let (of_kind, of_level) = meaning(entry.level);
        entry.at_ms >= from_ms
            && before.is_none_or(|before| entry.number < before)
            && kind.as_deref().is_none_or(|kind| kind == of_kind)
            && level.as_deref().is_none_or(|level| level == of_level)
    };
    let mut entries: Vec<LogEntry> = entries.into_iter().filter(fits).collect();
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let cut = entries.len() > limit;
    match after {
        // Whoever follows reads on from the last one.
        Some(_) => entries.truncate(limit),
        None => drop(entries.drain(..entries.len().saturating_sub(limit))),
    }
    let cursor = entries.first().filter(|_| cut && after.is_none());
    Ok(done(json!({ "logs": {
        "repository": place.repository.to_string(),
        "environment": place.environment.as_str(),
        "from": rfc3339(from_ms),
        "to": rfc3339(to_ms),
        "limit": limit,
        "cursor": cursor.map(|entry| entry.number.to_string()),
        "last": last,
        "records": entries.iter().map(record).collect::<Vec<_>>(),
    }})))
}

/// `GET /api/v1/usage/OWNER/REPOSITORY`
pub(in crate::http) async fn usage(
    gate: Gate,
    Named(repository): Named,
    Asked(day): Asked<Day>,
) -> Result<Response, Refused> {
    let place = gate.place(&repository, day.environment.as_deref())?;
    let date = match day
        .date
        .as_deref()
        .map(str::trim)
        .filter(|date| !date.is_empty())
    {
        Some(date) if is_date(date) => date.to_owned(),
        Some(_) => return Err(Refusal::bad("date must be YYYY-MM-DD.").into()),
        None => today_as_date(),
    };
    serving(&gate.apps, &place)?;
    let counted = gate.apps.usage.on(&place, &date);
    Ok(done(json!({
        "usage": {
            "date": date,
            "repository": place.repository.to_string(),
            "environment": place.environment.as_str(),
            "metrics": { "requests": counted.requests, "errors": counted.errors },
        },
        "warnings": [],
    })))
}

fn record(entry: &LogEntry) -> Value {
    let (kind, level) = meaning(entry.level);
    let mut record = json!({
        "number": entry.number,
        "timestamp": rfc3339(entry.at_ms),
        "kind": kind,
        "level": level,
        "version": entry.version,
        "text": entry.text,
    });
    if kind == "exception" {
        let (name, message) = entry
            .text
            .split_once(": ")
            .unwrap_or(("Error", &entry.text));
        record["exception"] = json!({ "name": name, "message": message });
    }
    record
}

/// The kind and level that the platform would give an entry. What the runtime and the supervisor say is an outcome.
fn meaning(level: Level) -> (&'static str, &'static str) {
    match level {
        Level::Debug => ("console", "debug"),
        Level::Log => ("console", "log"),
        Level::Info => ("console", "info"),
        Level::Warn => ("console", "warn"),
        Level::Error => ("console", "error"),
        Level::Exception => ("exception", "error"),
        Level::Runtime => ("outcome", "warn"),
        Level::Supervisor => ("outcome", "info"),
    }
}

fn number(text: Option<&str>, name: &str, min: u64, max: u64) -> Result<Option<u64>, Refusal> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let number = text
        .parse()
        .ok()
        .filter(|number| (min..=max).contains(number));
    match number {
        Some(number) => Ok(Some(number)),
        None if max == u64::MAX => Err(Refusal::bad(format!("{name} must be a number."))),
        None => Err(Refusal::bad(format!(
            "{name} must be an integer from {min} to {max}."
        ))),
    }
}

fn one_of(text: Option<&str>, name: &str, known: &[&str]) -> Result<Option<String>, Refusal> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let text = text.to_ascii_lowercase();
    if known.contains(&&*text) {
        return Ok(Some(text));
    }
    let (last, others) = known.split_last().unwrap_or((&"", &[]));
    Err(Refusal::bad(format!(
        "{name} must be {}, or {last}.",
        others.join(", ")
    )))
}

fn is_date(text: &str) -> bool {
    let is_digit = |(at, byte): (usize, u8)| match at {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    };
    text.len() == 10 && text.bytes().enumerate().all(is_digit)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_checked() {
        assert_eq!(number(Some("7"), "hours", 1, 168).unwrap(), Some(7));
        assert_eq!(number(Some(""), "hours", 1, 168).unwrap(), None);
        let refused = number(Some("0"), "hours", 1, 168).unwrap_err();
        assert_eq!(refused.message, "hours must be an integer from 1 to 168.");
        assert!(number(Some("x"), "cursor", 0, u64::MAX).is_err());
        let refused = one_of(Some("x"), "kind", &["console", "exception", "outcome"]).unwrap_err();
        assert_eq!(
            refused.message,
            "kind must be console, exception, or outcome."
        );
        assert!(is_date("2026-11-22") && !is_date("2026-11-2") && !is_date("2026/11/22"));
    }
}
