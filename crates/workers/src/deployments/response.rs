//! The answer to a deployment, with the fields that the platform's own action reads.

use super::Deployed;
use crate::{Refusal, domains::host_of, store::Version};
use serde_json::{Map, Value, json};

/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;

/// The body of the answer to a deployment. `url` is where it can be reached, if it can.
#[must_use]
pub fn envelope(deployed: &Deployed, url: Option<&str>) -> Value {
    let version = &deployed.version;
    let mut data = Map::new();
    data.insert("deployment".to_owned(), deployment(version));
    data.insert("url".to_owned(), url.into());
    data.insert("new".to_owned(), deployed.new.into());
    if !deployed.warnings.is_empty() {
        data.insert("deploymentWarnings".to_owned(), json!(deployed.warnings));
    }
    if !version.domains.is_empty() {
        let host = |name: &String| host_of(&version.app, &version.routing, name);
        let hosts: Vec<_> = version.domains.iter().map(host).collect();
        data.insert("customDomains".to_owned(), json!(hosts));
    }
    if !deployed.blocked.is_empty() {
        data.insert("blockedCustomDomains".to_owned(), json!(deployed.blocked));
    }
    json!({ "status": "success", "data": data })
}

/// The body of the answer to one that was not taken.
#[must_use]
pub fn failure(refusal: &Refusal) -> Value {
    refusal.body()
}

/// What is said of a version.
#[must_use]
pub fn deployment(version: &Version) -> Value {
    let mut targets = Map::new();
    if let Some(backend) = &version.backend {
        let worker = json!({
            "entrypoint": backend.entrypoint,
            "compatibilityDate": backend.compatibility.date,
            "compatibilityFlags": backend.compatibility.flags,
        });
        targets.insert("worker".to_owned(), worker);
    }
    if let Some(site) = &version.site {
        let size: u64 = site.values().map(|file| file.bytes).sum();
        let site = json!({
            "fileCount": site.len(),
            "totalSize": size,
            "hasIndex": site.contains_key(crate::site::INDEX),
        });
        targets.insert("static".to_owned(), site);
    }
    json!({
        "version": version.number,
        "orgSlug": version.app.repository.owner(),
        "repoSlug": version.app.repository.name(),
        "repository": version.source.repository,
        "environment": version.app.environment.as_str(),
        "branch": version.source.branch,
        "commitSha": version.source.commit_sha,
        "deployedAt": rfc3339(version.deployed_at_ms),
        "targets": targets,
        "bindings": {
            "kv": [], "r2": [], "d1": [],
            "hyperdrive": version.hyperdrive,
            "vars": version.var_names,
            "secrets": version.secret_names,
        },
    })
}

/// A time as `2026-11-22T01:02:03.004Z`.
#[must_use]
pub fn rfc3339(at_ms: u64) -> String {
    let (year, month, day) = civil(at_ms / DAY_MS);
    let ms = at_ms % DAY_MS;
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        ms % 1_000
    )
}

/// Year, month and day of a day since 1970, by the Gregorian calendar: years begin in March, so a leap day ends one.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_others_write_them() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_795_311_178_206, "2026-11-22T01:32:58.206Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
        }
    }
}
