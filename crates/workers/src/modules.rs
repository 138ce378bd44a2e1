//! The modules of a backend: its entry, what that imports, and how the runtime shall run them.
//!
//! The rules are the W7S platform's: relative imports inside the entry's root, with extensions and `index` looked for;
//! `node:` and `cloudflare:` are the runtime's; other names are refused, as nothing is installed here. A relative import of a
//! `.wasm` file is its module, with or without `?module` behind it, as bundlers write it.
//! Specifiers are rewritten where the platform's lookup finds what the runtime's own would not.

mod child;
mod graph;
mod metadata;
mod resolve;
mod source;

pub use child::{Compiler, answer};
pub use metadata::{COMPATIBILITY_DATE, Compatibility};

use crate::{Archive, DeployLimits, Refusal};
use serde::{Deserialize, Serialize};

/// Roots of backends, the first that has an entry is taken.
pub const ROOTS: [&str; 3] = ["worker", "backend", "dist/server"];

/// Entries of backends, in the order in which they are looked for.
pub const ENTRYPOINTS: [&str; 10] = [
    "worker/index.ts",
    "worker/index.mts",
    "worker/index.js",
    "worker/index.mjs",
    "backend/index.ts",
    "backend/index.mts",
    "backend/index.js",
    "backend/index.mjs",
    "dist/server/index.js",
    "dist/server/index.mjs",
];

/// A module as the runtime gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Its path from the root of the backend.
    pub name: String,
    /// What it is.
    pub code: Code,
}

/// What a module is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Code {
    /// JavaScript.
    Script(String),
    /// WebAssembly, whose default export is a `WebAssembly.Module`.
    Wasm(Vec<u8>),
}

impl Code {
    /// Of a module by this name.
    pub(crate) fn of(name: &str, bytes: Vec<u8>) -> Self {
        match resolve::is_wasm(name) {
            true => Self::Wasm(bytes),
            // It was text when it was kept, and its hash is that of what was kept.
            false => Self::Script(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    /// As it is kept.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Script(text) => text.as_bytes(),
            Self::Wasm(bytes) => bytes,
        }
    }
}

/// A backend that can be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// The path of its entry in the archive.
    pub entrypoint: String,
    /// The modules, the entry first.
    pub modules: Vec<Module>,
    /// How the runtime shall behave.
    pub compatibility: Compatibility,
}

/// The entry of an archive's backend, if it has one.
#[must_use]
pub fn entrypoint(archive: &Archive) -> Option<&'static str> {
    let there = |path: &&str| archive.file(path).is_some();
    ENTRYPOINTS.into_iter().find(there)
}

/// The folders of an archive that look like a backend's, with or without an entry.
#[must_use]
pub fn roots(archive: &Archive) -> Vec<&'static str> {
    let there = |root: &&str| archive.has_folder(root);
    ROOTS.into_iter().filter(there).collect()
}

/// What a backend must have, for errors.
#[must_use]
pub fn requirement() -> String {
    let (last, others) = ENTRYPOINTS.split_last().unwrap_or((&"", &[]));
    format!("{}, or {last}", others.join(", "))
}

/// Reads the backend whose entry is `entrypoint`. Source text is parsed by recursion: whoever does not trust it does
/// this in a process of its own ([`Compiler`]).
///
/// # Errors
/// 400 for imports that lead nowhere or outside, TypeScript that does not parse, text that is not UTF-8, too many
/// modules.
pub fn backend(
    archive: &Archive,
    entrypoint: &str,
    limits: DeployLimits,
) -> Result<Backend, Refusal> {
    let root = resolve::root_of(entrypoint)?;
    Ok(Backend {
        entrypoint: entrypoint.to_owned(),
        modules: graph::modules(archive, root, entrypoint, limits)?,
        compatibility: metadata::read(archive, root)?,
    })
}

#[cfg(test)]
mod tests;
