//! Names of an archive's entries.

use super::unreadable;
use crate::Refusal;

/// Longest path of a file, in bytes.
const PATH_BYTES_MAX: usize = 1_024;

/// A name as a path from the archive's root: `\` is `/`, parts that are empty or `.` are left out. One that leads
/// out of the root is refused, not bent.
pub(super) fn checked(name: &str) -> Result<String, Refusal> {
    let refused = |why: &str| {
        let shown: String = name.chars().take(200).collect();
        unreadable(&format!("the name '{}' {why}", shown.escape_debug()))
    };
    let name = name.replace('\\', "/");
    if name.starts_with('/') || has_drive(&name) {
        return Err(refused("is an absolute path"));
    }
    if name.chars().any(char::is_control) {
        return Err(refused("has control characters"));
    }
    if name.len() > PATH_BYTES_MAX {
        return Err(refused("is too long"));
    }
    let parts: Vec<&str> = name
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    if parts.contains(&"..") {
        return Err(refused("leads out of the archive"));
    }
    if parts.is_empty() {
        return Err(refused("is no path"));
    }
    Ok(parts.join("/"))
}

/// `C:` and the like.
fn has_drive(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic()) && chars.next() == Some(':')
}
