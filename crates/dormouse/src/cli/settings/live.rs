//! Which settings hold as soon as the configuration is read again; all others need a restart.

/// A whole section ends in a dot. What is in [`EXCEPT`] is not meant.
const LIVE: &[&str] = &[
    "log.filter",
    "log.slow_query_ms",
    "log.slow_query_plan",
    "log.query_bytes_max",
    "telemetry.sample_ratio",
    "telemetry.query_text",
    "telemetry.metrics_databases_max",
    "server.drain_ms_max",
    "pgwire.connections_max",
    "pgwire.message_bytes_max",
    "pgwire.startup_timeout_ms",
    "auth.timeout_ms",
    "http.",
    "routing.",
    "websocket.",
    "databases.auto_create",
    "databases.idle_ms",
    "databases.spares_max",
    "databases.wake_ms_max",
    "maintenance.",
    "sessions.",
    "backend.",
    "volume.",
    "durability.level",
    "journal.",
    "limits.",
    "metrics.",
];

const EXCEPT: &[&str] = &[
    "http.listen",
    "http.tls",
    "http.result_cache_entries_max",
    "http.result_cache_bytes_max",
    "http.result_cache_ttl_ms",
];

/// Whether a setting needs no restart.
pub(super) fn is_live(key: &str) -> bool {
    let is_meant = |live: &str| live == key || (live.ends_with('.') && key.starts_with(live));
    LIVE.iter().any(|live| is_meant(live)) && !EXCEPT.contains(&key)
}

#[cfg(test)]
mod tests {
    use super::super::all;
    use super::*;

    #[test]
    fn what_is_listed_is_there() {
        for listed in LIVE.iter().chain(EXCEPT) {
            let is_there = all().any(|setting| match listed.ends_with('.') {
                true => setting.key.starts_with(listed),
                false => setting.key == *listed,
            });
            assert!(is_there, "{listed}");
        }
    }
}
