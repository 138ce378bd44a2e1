//! `wrangler.json` beside an entry: how the runtime shall behave.

use crate::{Archive, Refusal};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The date of a backend that names none: the platform's.
pub const COMPATIBILITY_DATE: &str = "2026-05-23";

/// How the runtime shall behave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compatibility {
    /// As the runtime of which day, `YYYY-MM-DD`.
    pub date: String,
    /// With which flags beside; the runtime knows which there are.
    pub flags: Vec<String>,
}

impl Default for Compatibility {
    fn default() -> Self {
        Self {
            date: COMPATIBILITY_DATE.to_owned(),
            flags: Vec::new(),
        }
    }
}

/// Reads the metadata of a root. Unlike the platform, which ignores a file that is no JSON and then runs the backend
/// without the flags that it needs, this says so.
pub(super) fn read(archive: &Archive, root: &str) -> Result<Compatibility, Refusal> {
    let mut compatibility = Compatibility::default();
    let path = format!("{root}/wrangler.json");
    let Some(text) = archive.text(&path)? else {
        return Ok(compatibility);
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let root: Value = serde_json::from_str(text)
        .map_err(|error| Refusal::bad(format!("Invalid {path}: {error}")))?;
    if let Some(date) = root.get("compatibility_date").and_then(Value::as_str)
        && !date.trim().is_empty()
    {
        date.trim().clone_into(&mut compatibility.date);
    }
    if let Some(flags) = root.get("compatibility_flags").and_then(Value::as_array) {
        for flag in flags.iter().filter_map(Value::as_str).map(str::trim) {
            // The runtime refuses a flag that is named twice.
            if !flag.is_empty() && !compatibility.flags.iter().any(|known| known == flag) {
                compatibility.flags.push(flag.to_owned());
            }
        }
    }
    Ok(compatibility)
}
