//! The section `bindings`.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use server::BindingsOptions;

/// The longest path of a folder of sockets, in bytes: their names need the rest of what systems take.
const FOLDER_BYTES_MAX: usize = 80;

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

    pub(super) fn options(&self, data: &Path) -> BindingsOptions {
        let socket_directory = match &self.socket_directory {
            Some(directory) => directory.clone(),
            None => sockets_of(data),
        };
        BindingsOptions {
            file: data.join("bindings"),
            socket_directory,
            clients_max: self.clients_max,
        }
    }
}

/// A folder for sockets: in the data directory, or, where its path is too long for a socket's, among temporary files, by a
/// name that is this data directory's.
fn sockets_of(data: &Path) -> PathBuf {
    let absolute = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    let inside = absolute.join("run");
    if inside.as_os_str().len() <= FOLDER_BYTES_MAX {
        return inside;
    }
    let mut hasher = DefaultHasher::new();
    absolute.hash(&mut hasher);
    std::env::temp_dir().join(format!("dormouse-{:016x}", hasher.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_have_short_paths() {
        let short = sockets_of(Path::new("/var/lib/dormouse"));
        assert_eq!(short, Path::new("/var/lib/dormouse/run"));
        let long = format!("/{}", "x".repeat(90));
        let elsewhere = sockets_of(Path::new(&long));
        assert!(elsewhere.starts_with(std::env::temp_dir()), "{elsewhere:?}");
        assert_ne!(elsewhere, sockets_of(Path::new(&format!("{long}y"))));
    }
}
