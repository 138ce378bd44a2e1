//! Brings the files of PGlite and packs them into the one archive that the engine embeds.
//!
//! fetch (npm, or the folder in `DORMOUSE_ARTEFACTS`) -> check against `artefacts/files.sha256` ->
//! lay out as one file tree -> compress into `$OUT_DIR/distribution.bin`. What is brought, how it
//! is upgraded and what each error means is in `docs/artefacts.md`.

#[path = "build/checked.rs"]
mod checked;
#[path = "build/fetch.rs"]
mod fetch;
#[path = "src/distribution/format.rs"]
#[allow(dead_code, reason = "written here, read by the library")]
mod format;
#[path = "build/pack.rs"]
mod pack;
#[path = "build/table.rs"]
mod table;
#[path = "build/tree.rs"]
mod tree;

use std::path::PathBuf;
use std::{env, fs};

/// What went wrong and what to do about it, for the person who runs the build.
type Result<T> = std::result::Result<T, String>;

/// All that the build script and the `artefacts` folder consist of.
const INPUTS: [&str; 4] = [
    "build.rs",
    "build",
    "artefacts",
    "src/distribution/format.rs",
];

fn main() {
    for input in INPUTS {
        println!("cargo::rerun-if-changed={input}");
    }
    println!("cargo::rerun-if-env-changed={}", fetch::OVERRIDE);

    if let Err(message) = run() {
        for line in message.lines() {
            println!("cargo::error={line}");
        }
    }
}

fn run() -> Result<()> {
    let out_dir = directory("OUT_DIR")?;
    let artefacts = directory("CARGO_MANIFEST_DIR")?.join("artefacts");

    let list = checked::List::read(&artefacts.join("files.sha256"))?;
    let folder = fetch::folder(&artefacts, &out_dir, &list)?;
    if folder.source == fetch::Source::Override {
        for file in list.names() {
            println!(
                "cargo::rerun-if-changed={}",
                folder.path.join(file).display()
            );
        }
    }

    let files = list.load(&folder)?;
    let tree = tree::build(&files)?;
    let archive = pack::pack(&files, &tree)?;
    let path = out_dir.join("distribution.bin");
    fs::write(&path, archive).map_err(|e| format!("cannot write {}: {e}", path.display()))?;

    println!(
        "cargo::rustc-env=DORMOUSE_PGLITE_VERSION={}",
        fetch::pglite_version(&artefacts)?
    );
    println!(
        "cargo::rustc-env=DORMOUSE_POSTGRES_VERSION={}",
        tree::postgres_version(&tree)?
    );
    Ok(())
}

fn directory(variable: &str) -> Result<PathBuf> {
    let value = env::var_os(variable).ok_or_else(|| format!("cargo did not set {variable}"))?;
    Ok(PathBuf::from(value))
}
