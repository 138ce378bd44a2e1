//! Packages of Node.js, installed by the npm client: PGlite and its socket server (`xtask/node/`), and the
//! clients that are tested (`clients/node/`).

use super::{complete, find_program, hash};
use crate::{Context as _, Failure, Result, output, root};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const MANIFESTS: [&str; 2] = ["package.json", "package-lock.json"];

/// The name of the installed folder: the packages' versions and integrity hashes, hashed.
pub(super) fn name(source: &str) -> Result<String> {
    let mut texts = Vec::new();
    for file in MANIFESTS {
        let path = root().join(source).join(file);
        texts.push(fs::read_to_string(&path).context(|| format!("reading {}", path.display()))?);
    }
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    Ok(format!("node-{:016x}", hash(&texts)))
}

/// Installs the packages that a folder of the checkout names, unless they are there; gives their
/// `node_modules`.
pub(super) fn bring(cache: &Path, source: &str, name: &str) -> Result<PathBuf> {
    let place = cache.join(name);
    if !place.is_dir() {
        for program in ["node", "npm"] {
            if find_program(program).is_none() {
                return Err(Failure::new(format!(
                    "'{program}' is not installed: the tests need Node.js (20 or newer, with npm)"
                )));
            }
        }
        eprintln!("tools: npm ci (packages of {source})");
        complete(&place, |making| {
            for file in MANIFESTS {
                let from = root().join(source).join(file);
                fs::copy(&from, making.join(file))
                    .context(|| format!("copying {}", from.display()))?;
            }
            // npm checks every package against the integrity hash in the lock file.
            output(
                Command::new("npm")
                    .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
                    .current_dir(making),
            )
            .map(drop)
        })?;
    }
    Ok(place.join("node_modules"))
}
