//! Keys of a manifest that nobody knows: one that was mistyped leaves out what it was to say.

use super::foreign::{BINDINGS, CALLERS, LISTS};
use crate::draft::Warning;
use serde_json::{Map, Value};

/// Keys of the manifest itself that are read; an editor reads `$schema`.
const KEYS: [&str; 6] = ["name", "bindings", "vars", "secrets", "routing", "$schema"];

/// The kind of binding that is read.
const KIND: &str = "hyperdrive";

/// Most keys that are told one by one.
const TOLD_MAX: usize = 10;

/// Most characters of a key that are told.
const KEY_CHARS_MAX: usize = 100;

/// Keys that nobody knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnknownKeys {
    /// Where they stand, the first of them.
    told: Vec<String>,
    /// How many there are besides.
    more: usize,
}

impl UnknownKeys {
    pub(super) fn of(root: &Map<String, Value>, bindings: &Map<String, Value>) -> Self {
        let known = [&KEYS[..], &LISTS, &CALLERS].concat();
        let of_root = root.keys().filter(|key| !known.contains(&key.as_str()));
        let of_root = of_root.map(|key| shown(key));
        let is_kind = |key: &str| key == KIND || BINDINGS.contains(&key);
        let of_bindings = bindings.keys().filter(|key| !is_kind(key));
        let of_bindings = of_bindings.map(|key| format!("bindings.{}", shown(key)));
        let mut all = of_root.chain(of_bindings);
        Self {
            told: all.by_ref().take(TOLD_MAX).collect(),
            more: all.count(),
        }
    }

    /// What whoever deploys is told.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = Warning> {
        let told = self.told.iter().map(|key| {
            let read = match key.starts_with("bindings.") {
                true => "bindings.hyperdrive is the one kind of binding that it reads",
                false => "it reads name, bindings, vars, secrets and routing",
            };
            let message = format!(
                "w7s.json has {key}, which Dormouse does not know: it was left out; {read}."
            );
            (key.clone(), message)
        });
        let more = (self.more > 0).then(|| {
            let message = format!(
                "w7s.json has {} more keys that Dormouse does not know: they were left out.",
                self.more
            );
            (super::MANIFEST_FILE.to_owned(), message)
        });
        told.chain(more).map(|(target, message)| Warning {
            code: "unknown_key".to_owned(),
            target,
            message,
        })
    }
}

fn shown(key: &str) -> String {
    let mut shown: String = key.chars().take(KEY_CHARS_MAX).collect();
    if shown.len() < key.len() {
        shown.push('…');
    }
    shown.escape_debug().to_string()
}
