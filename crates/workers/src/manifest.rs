//! `w7s.json`: what a deployment asks of the platform.
//!
//! Errors are those of the W7S platform, word for word where it has them. Keys that nobody knows are ignored, as it
//! ignores them, and whoever deploys is told. A kind of binding that is known there and not offered here is refused by name.

mod foreign;
mod unknown;
mod values;

pub use unknown::UnknownKeys;
pub use values::Values;

use crate::Refusal;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// The name of the manifest's file.
pub const MANIFEST_FILE: &str = "w7s.json";

/// Names of `env` that the platform itself gives a value.
pub const PLATFORM_NAMES: [&str; 4] =
    ["W7S_OWNER", "W7S_REPO", "W7S_REPOSITORY", "W7S_ENVIRONMENT"];

/// A Postgres that a backend has as `env.<binding>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresBinding {
    /// The name in `env`.
    pub binding: String,
    /// The id of the binding's configuration; in a manifest also its name.
    pub id: String,
}

/// What a manifest asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The application's own name in a repository of many.
    pub name: Option<String>,
    /// `bindings.hyperdrive`, in the order of the file.
    pub hyperdrive: Vec<PostgresBinding>,
    /// Names of variables; their values come with the deployment.
    pub vars: Vec<String>,
    /// Names of secrets; their values come with the deployment.
    pub secrets: Vec<String>,
    /// Which hosts lead to the application.
    pub routing: Routing,
    /// What was not read, as nobody knows it.
    pub unknown: UnknownKeys,
}

/// Which hosts lead to an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routing {
    /// Whether the host that the platform makes up does.
    pub default_domain: bool,
    /// Whether another branch's hosts have its name before them.
    pub prefixed_branches: bool,
}

impl Default for Routing {
    fn default() -> Self {
        Self {
            default_domain: true,
            prefixed_branches: true,
        }
    }
}

impl Manifest {
    /// Reads the text of a `w7s.json`.
    ///
    /// # Errors
    /// 400 with what is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        // JSON files of some editors begin with it.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let root: Value = serde_json::from_str(text)
            .map_err(|error| Refusal::bad(format!("Invalid w7s.json: {error}")))?;
        let root = object(&root, MANIFEST_FILE)?;
        let nothing = Map::new();
        let bindings = match root.get("bindings") {
            None => &nothing,
            Some(bindings) => object(bindings, "bindings")?,
        };
        let mut names = Names::default();
        let manifest = Self {
            name: optional_text(root, "name")?,
            hyperdrive: hyperdrive(bindings, &mut names)?,
            vars: environment_names(root, "vars", &mut names)?,
            secrets: environment_names(root, "secrets", &mut names)?,
            routing: routing(root)?,
            unknown: UnknownKeys::of(root, bindings),
        };
        foreign::refuse(root, bindings, &mut names)?;
        Ok(manifest)
    }
}

/// The names that a manifest has put into `env` so far.
#[derive(Debug, Default)]
struct Names(BTreeSet<String>);

impl Names {
    /// Takes a name, which must be free. `field` is where it stands.
    fn take(&mut self, name: &str, field: &str) -> Result<(), Refusal> {
        if PLATFORM_NAMES.contains(&name) {
            return Err(Refusal::bad(format!(
                "{field} is {name}, which the platform sets itself."
            )));
        }
        if !self.0.insert(name.to_owned()) {
            return Err(Refusal::bad(format!("{field} duplicates {name}.")));
        }
        Ok(())
    }
}

fn hyperdrive(
    bindings: &Map<String, Value>,
    names: &mut Names,
) -> Result<Vec<PostgresBinding>, Refusal> {
    let entries = array(bindings.get("hyperdrive"), "bindings.hyperdrive")?;
    let read = |(index, entry): (usize, &Value)| {
        let field = format!("bindings.hyperdrive[{index}]");
        let entry = object(entry, &field)?;
        let binding = binding_name(entry.get("binding"), &format!("{field}.binding"))?;
        names.take(binding, &format!("{field}.binding"))?;
        let id = entry
            .get("id")
            .and_then(Value::as_str)
            .ok_or_else(|| Refusal::bad(format!("{field}.id must be a string.")))?
            .trim();
        if id.is_empty() {
            return Err(Refusal::bad(format!("{field}.id must not be empty.")));
        }
        Ok(PostgresBinding {
            binding: binding.to_owned(),
            id: id.to_owned(),
        })
    };
    entries.iter().enumerate().map(read).collect()
}

fn environment_names(
    root: &Map<String, Value>,
    field: &str,
    names: &mut Names,
) -> Result<Vec<String>, Refusal> {
    let entries = array(root.get(field), field)?;
    let read = |(index, entry): (usize, &Value)| {
        let field = format!("{field}[{index}]");
        let name = entry
            .as_str()
            .filter(|name| is_environment_name(name))
            .ok_or_else(|| {
                Refusal::bad(format!(
                    "{field} must be a valid environment variable name."
                ))
            })?;
        names.take(name, &field)?;
        Ok(name.to_owned())
    };
    entries.iter().enumerate().map(read).collect()
}

fn routing(root: &Map<String, Value>) -> Result<Routing, Refusal> {
    let mut routing = Routing::default();
    let Some(value) = root.get("routing") else {
        return Ok(routing);
    };
    let value = object(value, "routing")?;
    if let Some(default) = value.get("defaultDomain") {
        routing.default_domain = default
            .as_bool()
            .ok_or_else(|| Refusal::bad("routing.defaultDomain must be a boolean."))?;
    }
    if let Some(mode) = value.get("customDomainBranchMode") {
        routing.prefixed_branches = match mode.as_str() {
            Some("prefixed") => true,
            Some("direct") => false,
            _ => {
                let message = "routing.customDomainBranchMode must be prefixed or direct.";
                return Err(Refusal::bad(message));
            }
        };
    }
    Ok(routing)
}

fn object<'a>(value: &'a Value, field: &str) -> Result<&'a Map<String, Value>, Refusal> {
    let refused = || Refusal::bad(format!("{field} must be an object."));
    value.as_object().ok_or_else(refused)
}

/// The entries of an array; none if there is no such field.
fn array<'a>(value: Option<&'a Value>, field: &str) -> Result<&'a [Value], Refusal> {
    match value {
        None => Ok(&[]),
        Some(Value::Array(entries)) => Ok(entries),
        Some(_) => Err(Refusal::bad(format!("{field} must be an array."))),
    }
}

fn optional_text(root: &Map<String, Value>, field: &str) -> Result<Option<String>, Refusal> {
    match root.get(field) {
        None => Ok(None),
        Some(Value::String(text)) => {
            Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
        }
        Some(_) => Err(Refusal::bad(format!("{field} must be a string."))),
    }
}

fn binding_name<'a>(value: Option<&'a Value>, field: &str) -> Result<&'a str, Refusal> {
    let name = value.and_then(Value::as_str);
    name.filter(|name| is_identifier(name, |c| c == '$'))
        .ok_or_else(|| Refusal::bad(format!("{field} must be a valid Worker binding name.")))
}

fn is_environment_name(text: &str) -> bool {
    is_identifier(text, |_| false)
}

/// ASCII letters, digits that do not come first, `_`, and what else is allowed.
fn is_identifier(text: &str, also: impl Fn(char) -> bool) -> bool {
    let begins = |c: char| c.is_ascii_alphabetic() || c == '_' || also(c);
    text.starts_with(begins) && text.chars().all(|c| begins(c) || c.is_ascii_digit())
}

#[cfg(test)]
mod tests;
