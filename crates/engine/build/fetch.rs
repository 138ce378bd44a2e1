//! Where the npm packages lie: a folder laid out like `node_modules`.

use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, fs, io};

use sha2::{Digest, Sha256};

use crate::Result;
use crate::checked::List;

/// Names a folder to take the packages from instead of asking npm.
pub(crate) const OVERRIDE: &str = "DORMOUSE_ARTEFACTS";

const MANIFESTS: [&str; 2] = ["package.json", "package-lock.json"];

/// A folder laid out like `node_modules`, and who is responsible for what it holds.
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    pub(crate) source: Source,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The user named it in `DORMOUSE_ARTEFACTS`.
    Override,
    /// npm filled it; it can be thrown away.
    Npm,
}

/// The folder with the packages, filled by npm if no earlier build has done so.
pub(crate) fn folder(artefacts: &Path, out_dir: &Path, list: &List) -> Result<Folder> {
    if let Some(path) = env::var_os(OVERRIDE).filter(|value| !value.is_empty()) {
        return overriding(PathBuf::from(path));
    }

    let name = folder_name(artefacts)?;
    // Profiles and worktrees share the cache; a build without a home, or with a read-only one,
    // keeps its own copy.
    let homes: Vec<PathBuf> = cache_home()
        .into_iter()
        .chain([out_dir.join("artefacts")])
        .collect();
    if let Some(installed) = homes
        .iter()
        .map(|home| home.join(&name))
        .find(|path| path.is_dir())
    {
        return Ok(from_npm(&installed));
    }
    let home = homes
        .iter()
        .find(|home| is_writable(home))
        .ok_or_else(|| format!("cannot write to {}", out_dir.display()))?;
    install(artefacts, &home.join(&name), list)
}

fn overriding(path: PathBuf) -> Result<Folder> {
    if !path.is_absolute() || !path.is_dir() {
        return Err(format!(
            "{OVERRIDE}={} is not the absolute path of a folder.\n\
             It must name a folder laid out like node_modules: see docs/artefacts.md.",
            path.display()
        ));
    }
    Ok(Folder {
        path,
        source: Source::Override,
    })
}

fn from_npm(installed: &Path) -> Folder {
    Folder {
        path: installed.join("node_modules"),
        source: Source::Npm,
    }
}

/// One folder per content of the manifests, so that an upgrade never meets the old files.
fn folder_name(artefacts: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    for manifest in MANIFESTS {
        hasher.update(read(&artefacts.join(manifest))?);
    }
    Ok(hasher
        .finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn cache_home() -> Option<PathBuf> {
    let absolute = |variable| {
        env::var_os(variable)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let cache = absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("LOCALAPPDATA"))
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("dormouse").join("artefacts"))
}

fn is_writable(home: &Path) -> bool {
    let probe = home.join(format!(".{}", unique()));
    fs::create_dir_all(&probe)
        .and_then(|()| fs::remove_dir(&probe))
        .is_ok()
}

/// Runs npm in a folder of its own and moves it to `target` when it is complete, so that builds at
/// the same time, or one that is killed, leave either nothing or a whole folder there.
fn install(artefacts: &Path, target: &Path, list: &List) -> Result<Folder> {
    let partial = target.with_extension(format!("partial-{}", unique()));
    let result = run_npm(artefacts, &partial, target, list).and_then(|()| {
        match fs::rename(&partial, target) {
            Err(_) if target.is_dir() => Ok(()), // another build was faster
            moved => moved.map_err(|e| {
                format!(
                    "cannot move {} to {}: {e}",
                    partial.display(),
                    target.display()
                )
            }),
        }
    });
    // Gone if it was moved, and only waste otherwise.
    let _ = fs::remove_dir_all(&partial);
    result.map(|()| from_npm(target))
}

fn run_npm(artefacts: &Path, partial: &Path, target: &Path, list: &List) -> Result<()> {
    fs::create_dir_all(partial).map_err(|e| format!("cannot create {}: {e}", partial.display()))?;
    for manifest in MANIFESTS {
        fs::copy(artefacts.join(manifest), partial.join(manifest))
            .map_err(|e| format!("cannot copy {manifest} to {}: {e}", partial.display()))?;
    }

    let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
    // No script of a package is run; npm checks each tarball against the lock's sha512.
    let output = Command::new(npm)
        .args([
            "ci",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--omit=dev",
        ])
        .current_dir(partial)
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "npm could not bring the files of PGlite (npm ci: {}):\n{}\n\
             If this machine has no network, {}",
            output.status,
            indented(&String::from_utf8_lossy(&output.stderr)),
            alternative(list)
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!(
            "npm is not on the PATH, and the files of PGlite are not yet in {}.\n\
             Install Node.js 20 or newer, which brings npm, and build again; or else {}",
            target.display(),
            alternative(list)
        )),
        Err(error) => Err(format!("npm could not be started: {error}")),
    }
}

/// How to build without npm, as the end of a sentence.
fn alternative(list: &List) -> String {
    format!(
        "set {OVERRIDE} to the absolute path\n\
         of a folder laid out like node_modules that holds the {} files listed in\n\
         crates/engine/artefacts/files.sha256, such as @electric-sql/pglite/dist/pglite.wasm.\n\
         See docs/artefacts.md.",
        list.names().count()
    )
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

/// A name that no other build uses, on this machine or another that shares the folder.
fn unique() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    format!("{}-{}", process::id(), now.as_nanos())
}

/// The version of PGlite that `package.json` asks for.
pub(crate) fn pglite_version(artefacts: &Path) -> Result<String> {
    let path = artefacts.join("package.json");
    let manifest: serde_json::Value = serde_json::from_slice(&read(&path)?)
        .map_err(|e| format!("{} is not JSON: {e}", path.display()))?;
    manifest["dependencies"]["@electric-sql/pglite"]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| format!("{} does not name @electric-sql/pglite", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}
