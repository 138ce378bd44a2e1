//! The entry of a backend and all that it imports.

use super::{
    Code, Module,
    resolve::{self, Target},
    source::{self, Import},
};
use crate::{Archive, DeployLimits, Refusal, limits::too_large};
use std::collections::{BTreeSet, VecDeque};

/// The modules of a backend, the entry first, each once.
pub(super) fn modules(
    archive: &Archive,
    root: &str,
    entrypoint: &str,
    limits: DeployLimits,
) -> Result<Vec<Module>, Refusal> {
    let mut modules = Vec::new();
    let mut seen = BTreeSet::from([entrypoint.to_owned()]);
    let mut queue = VecDeque::from([entrypoint.to_owned()]);
    while let Some(path) = queue.pop_front() {
        let limit = limits.modules();
        if limit.exceeded_by(modules.len() as u64 + 1) {
            return Err(too_large(vec![
                limit.sentence("The backend has too many modules"),
            ]));
        }
        let name = path[root.len() + 1..].to_owned();
        if resolve::is_wasm(&path) {
            let bytes = archive.file(&path).unwrap_or_default().to_vec();
            let code = Code::Wasm(bytes);
            modules.push(Module { name, code });
            continue;
        }
        let mut code = code_of(archive, &path)?;
        let mut rewritten = Vec::new();
        for import in source::imports(&code) {
            let Some(found) = target(archive, root, &path, &import)? else {
                continue;
            };
            let specifier = resolve::specifier(&path, &found);
            if specifier != import.specifier {
                rewritten.push((import.literal, specifier));
            }
            if seen.insert(found.clone()) {
                queue.push_back(found);
            }
        }
        source::replace(&mut code, rewritten);
        let code = Code::Script(code);
        modules.push(Module { name, code });
    }
    Ok(modules)
}

/// JavaScript of a file.
fn code_of(archive: &Archive, path: &str) -> Result<String, Refusal> {
    let text = archive.text(path)?.unwrap_or_default();
    if text.trim().is_empty() {
        return Err(Refusal::bad(format!("Worker module {path} is empty.")));
    }
    if resolve::is_typescript(path) {
        source::javascript(text, path)
    } else {
        Ok(text.to_owned())
    }
}

/// The file that an import means, or `None` if that is the runtime's affair.
fn target(
    archive: &Archive,
    root: &str,
    path: &str,
    import: &Import,
) -> Result<Option<String>, Refusal> {
    let request = import.specifier.as_str();
    match resolve::resolve(archive, root, path, request) {
        Target::File(found) => Ok(Some(found)),
        Target::Runtime => Ok(None),
        // An import that may never come to pass: the runtime says so if it does.
        Target::Nothing | Target::Foreign if import.dynamic => Ok(None),
        Target::Nothing => Err(Refusal::bad(format!(
            "Could not resolve {request} from {path}."
        ))),
        Target::Foreign => Err(Refusal::bad(format!(
            "Native deploy currently supports only relative imports inside {root}/. Unsupported import: {request}"
        ))
        .detailed(vec![format!(
            "{path} imports '{request}': nothing is installed here, so bundle it before the deployment \
             (esbuild, for example, into dist/server/index.js)."
        )])),
    }
}
