//! The section `bindings`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use server::BindingsOptions;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BindingsSection {
    clients_max: usize,
    socket_directory: Option<PathBuf>,
}

impl Default for BindingsSection {
    fn default() -> Self {
        Self {
            clients_max: 10_000,
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
        }
    }
}
