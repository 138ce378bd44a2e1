//! The section `bindings`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use serde::{Deserialize, Serialize};
use server::{BindingsOptions, CacheOptions};

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
            socket_directory: None,
        }
    }
}

impl BindingsSection {
    pub(super) fn clients_max(&self) -> usize {
        self.clients_max
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
        }
    }
}
