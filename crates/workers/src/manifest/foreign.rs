//! Kinds of bindings that the W7S platform has and that are not offered here.

use super::{Names, array, binding_name, object};
use crate::Refusal;
use serde_json::{Map, Value};

/// Keys of `bindings`.
pub(super) const BINDINGS: [&str; 9] = [
    "kv",
    "fs",
    "r2",
    "db",
    "d1",
    "durableObjects",
    "durable_objects",
    "ai",
    "email",
];

/// Keys of the manifest itself, each an array.
pub(super) const LISTS: [&str; 3] = ["queues", "schedules", "workflows"];

/// Keys of the manifest itself, each an object with `allow`.
pub(super) const CALLERS: [&str; 3] = ["queue", "workflow", "rpc"];

/// Refuses a manifest that asks for any of them, with a line for each. One that names a kind and asks for nothing of
/// it is fine.
pub(super) fn refuse(
    root: &Map<String, Value>,
    bindings: &Map<String, Value>,
    names: &mut Names,
) -> Result<(), Refusal> {
    let mut asked = Vec::new();
    for kind in BINDINGS {
        asked.extend(of_bindings(bindings.get(kind), kind, names)?);
    }
    for kind in LISTS {
        let entries = array(root.get(kind), kind)?;
        asked.extend(entries.iter().map(|entry| line(kind, label(entry))));
    }
    for kind in CALLERS {
        let Some(value) = root.get(kind) else {
            continue;
        };
        let field = format!("{kind}.allow");
        let entries = array(object(value, kind)?.get("allow"), &field)?;
        asked.extend(entries.iter().map(|entry| line(&field, label(entry))));
    }
    if asked.is_empty() {
        return Ok(());
    }
    Err(Refusal::bad(format!(
        "w7s.json asks for what Dormouse does not offer: {}. It offers bindings.hyperdrive, vars and secrets; \
         remove the others.",
        asked.join(", ")
    ))
    .detailed(asked))
}

/// What is asked of a kind of binding: `ai` may be one entry, the others are arrays.
fn of_bindings(
    value: Option<&Value>,
    kind: &str,
    names: &mut Names,
) -> Result<Vec<String>, Refusal> {
    let field = format!("bindings.{kind}");
    let alone = kind == "ai" || kind == "email";
    let entries = match value {
        Some(Value::Null) => &[],
        Some(entry @ (Value::String(_) | Value::Object(_))) if alone => std::slice::from_ref(entry),
        value => array(value, &field)?,
    };
    let mut asked = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let place = format!("{field}[{index}]");
        let (value, place) = match entry {
            Value::String(_) => (Some(entry), place),
            Value::Object(entry) => (entry.get("binding"), format!("{place}.binding")),
            _ => return Err(Refusal::bad(format!("{place} must be an object."))),
        };
        let name = binding_name(value, &place)?;
        names.take(name, &place)?;
        asked.push(line(&field, Some(name)));
    }
    Ok(asked)
}

/// What a person calls an entry.
fn label(entry: &Value) -> Option<&str> {
    let of = |key| entry.get(key).and_then(Value::as_str);
    entry
        .as_str()
        .or_else(|| of("name"))
        .or_else(|| of("cron"))
        .or_else(|| of("path"))
}

fn line(field: &str, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("{field} ({name})"),
        None => field.to_owned(),
    }
}
