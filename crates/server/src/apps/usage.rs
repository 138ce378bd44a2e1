//! How often apps are asked: requests and errors by day, since the server started.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use parking_lot::Mutex;
use workers::App;

/// Days that are kept.
const DAYS_MAX: usize = 8;

/// Seconds of a day.
const DAY: u64 = 86_400;

/// What was counted on a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counted {
    /// Requests that were answered.
    pub(crate) requests: u64,
    /// Those of them that were answered with 5xx.
    pub(crate) errors: u64,
}

/// Counts requests to apps.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    apps: Mutex<HashMap<App, BTreeMap<u64, Counted>>>,
    requests: AtomicU64,
    errors: AtomicU64,
}

impl Usage {
    /// A request to an app that is there was answered.
    pub(super) fn answered(&self, app: &App, status: StatusCode) {
        self.answered_on(app, status, today());
    }

    fn answered_on(&self, app: &App, status: StatusCode, day: u64) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.errors
            .fetch_add(u64::from(status.is_server_error()), Ordering::Relaxed);
        let mut apps = self.apps.lock();
        if !apps.contains_key(app) {
            apps.insert(app.clone(), BTreeMap::new());
        }
        let Some(days) = apps.get_mut(app) else {
            return;
        };
        let counted = days.entry(day).or_default();
        counted.requests += 1;
        counted.errors += u64::from(status.is_server_error());
        while days.len() > DAYS_MAX {
            days.pop_first();
        }
    }

    /// What was counted on a day, as `2026-11-22`; without one today.
    pub(crate) fn on(&self, app: &App, date: &str) -> Counted {
        let apps = self.apps.lock();
        let days = apps.get(app).into_iter().flatten();
        let mut days = days.filter(|(day, _)| self::date(**day) == date);
        days.next().map(|(_, counted)| *counted).unwrap_or_default()
    }

    /// An app is gone.
    pub(crate) fn forget(&self, app: &App) {
        self.apps.lock().remove(app);
    }

    /// All that was counted since the server started, of all apps.
    pub(crate) fn total(&self) -> Counted {
        Counted {
            requests: self.requests.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
        }
    }
}

fn today() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs() / DAY
}

/// A day since 1970 as `2026-11-22`.
fn date(day: u64) -> String {
    let mut text = workers::deployments::rfc3339(day * DAY * 1_000);
    text.truncate("2026-11-22".len());
    text
}

/// Today's date, in UTC.
pub(crate) fn today_as_date() -> String {
    date(today())
}

#[cfg(test)]
mod tests {
    use super::*;
    use workers::{Environment, Repository};

    #[test]
    fn days_are_counted_apart_and_the_oldest_go() {
        let app = App {
            repository: Repository::parse("acme/shop").unwrap(),
            environment: Environment::of_branch("main").unwrap(),
        };
        let usage = Usage::default();
        for day in 20_000..20_020 {
            usage.answered_on(&app, StatusCode::OK, day);
            usage.answered_on(&app, StatusCode::BAD_GATEWAY, day);
        }
        let both = Counted {
            requests: 2,
            errors: 1,
        };
        assert_eq!(usage.on(&app, &date(20_019)), both);
        assert_eq!(usage.on(&app, &date(20_012)), both);
        assert_eq!(usage.on(&app, &date(20_011)), Counted::default());
        assert_eq!(date(20_414), "2025-11-22");
        assert_eq!(
            usage.total(),
            Counted {
                requests: 40,
                errors: 20
            }
        );
        usage.forget(&app);
        assert_eq!(usage.on(&app, &date(20_019)), Counted::default());
    }
}
