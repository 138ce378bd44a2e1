//! Where things are kept that can be made again.

use std::env;
use std::path::PathBuf;

/// The folder for compiled code and templates, which all data directories of a user share:
/// `$DORMOUSE_CACHE`, or `${XDG_CACHE_HOME:-$HOME/.cache}/dormouse`. Without any of these
/// variables it is in the system's folder for temporary files.
pub fn default_cache_directory() -> PathBuf {
    let variable = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    variable("DORMOUSE_CACHE").unwrap_or_else(|| {
        variable("XDG_CACHE_HOME")
            .or_else(|| variable("HOME").map(|home| home.join(".cache")))
            .unwrap_or_else(env::temp_dir)
            .join("dormouse")
    })
}
