//! The section `bindings`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use server::{BindingsOptions, CacheOptions, Keepalive};

use crate::cli::failure::Failure;

/// Linux takes no more seconds for either time of TCP's keepalive, and no more looks.
const KEEPALIVE_SECONDS_MAX: u64 = 32_767;
const KEEPALIVES_MAX: u64 = 127;

/// An hour: who cancels has long given up.
const CANCEL_MS_MAX: u64 = 3_600_000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BindingsSection {
    clients_max: usize,
    app_clients_max: usize,
    threads: usize,
    metrics_max: usize,
    cache_bytes_max: usize,
    cache_entries_max: NonZeroUsize,
    cache_result_bytes_max: usize,
    cache_query_bytes_max: usize,
    cancels_max: NonZeroUsize,
    cancel_ms_max: u64,
    keepalive_ms: u64,
    keepalive_each_ms: u64,
    keepalives_max: u32,
    socket_directory: Option<PathBuf>,
}

impl Default for BindingsSection {
    fn default() -> Self {
        let cache = CacheOptions::default();
        Self {
            clients_max: 10_000,
            app_clients_max: 2_500,
            threads: 0,
            metrics_max: 100,
            cache_bytes_max: cache.cache_bytes_max,
            cache_entries_max: cache.cache_entries_max,
            cache_result_bytes_max: cache.result_bytes_max,
            cache_query_bytes_max: cache.query_bytes_max,
            cancels_max: const { NonZeroUsize::new(10).unwrap() },
            cancel_ms_max: 10_000,
            keepalive_ms: 30_000,
            keepalive_each_ms: 10_000,
            keepalives_max: 3,
            socket_directory: None,
        }
    }
}

impl BindingsSection {
    pub(super) fn clients_max(&self) -> usize {
        self.clients_max
    }

    /// Whether the kernel would take it.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let seconds = 1_000..=KEEPALIVE_SECONDS_MAX * 1_000;
        let ranges = [
            ("cancel_ms_max", self.cancel_ms_max, 1..=CANCEL_MS_MAX),
            ("keepalive_ms", self.keepalive_ms, seconds.clone()),
            ("keepalive_each_ms", self.keepalive_each_ms, seconds),
            (
                "keepalives_max",
                self.keepalives_max.into(),
                1..=KEEPALIVES_MAX,
            ),
        ];
        for (name, value, range) in ranges {
            if !range.contains(&value) {
                return Err(Failure::Usage(format!(
                    "bindings.{name} is {value}: it must be from {} to {}",
                    range.start(),
                    range.end()
                )));
            }
        }
        Ok(())
    }

    pub(super) fn options(&self, data: &Path, sockets: &Path) -> BindingsOptions {
        let socket_directory = self.socket_directory.as_deref().unwrap_or(sockets);
        BindingsOptions {
            file: data.join("bindings"),
            socket_directory: socket_directory.to_owned(),
            clients_max: self.clients_max,
            app_clients_max: self.app_clients_max,
            threads: match self.threads {
                0 => available_parallelism().map_or(1, NonZeroUsize::get),
                threads => threads,
            },
            metrics_max: self.metrics_max,
            cache: CacheOptions {
                cache_bytes_max: self.cache_bytes_max,
                cache_entries_max: self.cache_entries_max,
                result_bytes_max: self.cache_result_bytes_max,
                query_bytes_max: self.cache_query_bytes_max,
            },
            cancels_max: self.cancels_max.get(),
            cancel_max: Duration::from_millis(self.cancel_ms_max),
            keepalive: Keepalive {
                after: Duration::from_millis(self.keepalive_ms),
                each: Duration::from_millis(self.keepalive_each_ms),
                max: self.keepalives_max,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_pools_have_ranges() {
        let section = BindingsSection::default();
        let options = section.options(Path::new("/data"), Path::new("/sockets"));
        assert_eq!(options.keepalive, Keepalive::default());
        assert!(section.check().is_ok());
        let told = |change: fn(&mut BindingsSection)| {
            let mut section = BindingsSection::default();
            change(&mut section);
            match section.check() {
                Err(Failure::Usage(text)) => text,
                other => panic!("{other:?}"),
            }
        };
        let text = told(|section| section.keepalive_ms = 999);
        assert_eq!(
            text,
            "bindings.keepalive_ms is 999: it must be from 1000 to 32767000"
        );
        let text = told(|section| section.keepalive_each_ms = 32_767_001);
        assert!(text.starts_with("bindings.keepalive_each_ms is 32767001: "));
        let text = told(|section| section.keepalives_max = 128);
        assert!(text.ends_with(" it must be from 1 to 127"), "{text}");
        let text = told(|section| section.cancel_ms_max = 0);
        assert!(text.starts_with("bindings.cancel_ms_max is 0: "), "{text}");
    }
}
