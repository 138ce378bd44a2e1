//! Which file an import means.

use super::ROOTS;
use crate::{Archive, Refusal};

/// What is tried after a path, in this order.
const ENDINGS: [&str; 9] = [
    "",
    ".js",
    ".mjs",
    ".ts",
    ".mts",
    "/index.js",
    "/index.mjs",
    "/index.ts",
    "/index.mts",
];

/// Whose modules the runtime has itself.
const RUNTIME_SCHEMES: [&str; 2] = ["node:", "cloudflare:"];

/// What an import leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A module of the runtime.
    Runtime,
    /// A file of the archive.
    File(String),
    /// A relative path that leads to none.
    Nothing,
    /// A name of a package, or another address.
    Foreign,
}

/// The root that an entry is in.
pub(super) fn root_of(entrypoint: &str) -> Result<&'static str, Refusal> {
    let inside = |root: &&str| {
        let rest = entrypoint.strip_prefix(*root);
        rest.is_some_and(|rest| rest.starts_with('/'))
    };
    ROOTS.into_iter().find(inside).ok_or_else(|| {
        let shown = entrypoint.escape_debug();
        Refusal::bad(format!(
            "Native module {shown} must be inside worker/, backend/, or dist/server/."
        ))
    })
}

/// What `request` means in the file `from`.
pub(super) fn resolve(archive: &Archive, root: &str, from: &str, request: &str) -> Target {
    if RUNTIME_SCHEMES
        .iter()
        .any(|scheme| request.starts_with(scheme))
    {
        return Target::Runtime;
    }
    // Bundlers say so of what is to be compiled when the backend starts, which is how it is here anyway.
    let plain = request.strip_suffix("?module");
    let request = plain.filter(|path| is_wasm(path)).unwrap_or(request);
    let base = if let Some(absolute) = request.strip_prefix('/') {
        joined("", absolute)
    } else if request.starts_with("./") || request.starts_with("../") {
        joined(folder(from), request)
    } else {
        return Target::Foreign;
    };
    // Above the archive's root there is nothing.
    let Some(base) = base else {
        return Target::Nothing;
    };
    let candidates = ENDINGS.iter().map(|ending| format!("{base}{ending}"));
    let is_known = |path: &str| is_module(path) || is_wasm(path);
    let fits = |path: &String| within(path, root) && is_known(path) && archive.file(path).is_some();
    candidates
        .into_iter()
        .find(fits)
        .map_or(Target::Nothing, Target::File)
}

/// The path from one module's folder to another module, as a specifier; both are paths from the same root.
pub(super) fn specifier(from: &str, to: &str) -> String {
    let from: Vec<&str> = parts(folder(from)).collect();
    let to: Vec<&str> = parts(to).collect();
    let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = "../".repeat(from.len() - shared);
    let down = to[shared..].join("/");
    if up.is_empty() {
        format!("./{down}")
    } else {
        format!("{up}{down}")
    }
}

/// Whether the platform takes a file for a module.
pub(super) fn is_module(path: &str) -> bool {
    let (_, extension) = path.rsplit_once('.').unwrap_or_default();
    matches!(extension, "js" | "mjs") || is_typescript(path)
}

pub(super) fn is_wasm(path: &str) -> bool {
    let (_, extension) = path.rsplit_once('.').unwrap_or_default();
    extension == "wasm"
}

pub(super) fn is_typescript(path: &str) -> bool {
    let (_, extension) = path.rsplit_once('.').unwrap_or_default();
    matches!(extension, "ts" | "mts")
}

fn within(path: &str, root: &str) -> bool {
    let rest = path.strip_prefix(root);
    rest.is_some_and(|rest| rest.starts_with('/'))
}

fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !matches!(*part, "" | "."))
}

/// A folder and a path from there; `None` if that leads above the root.
fn joined(folder: &str, path: &str) -> Option<String> {
    let mut all: Vec<&str> = parts(folder).collect();
    for part in parts(path) {
        if part == ".." {
            all.pop()?;
        } else {
            all.push(part);
        }
    }
    Some(all.join("/"))
}
