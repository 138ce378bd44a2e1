//! The Python clients that are tested: `clients/python/requirements.txt`, installed by pip into a virtual
//! environment.

use super::{complete, hash};
use crate::{Context as _, Failure, Result, output, root};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const REQUIREMENTS: &str = "clients/python/requirements.txt";

/// The name of the installed folder: the interpreter and the packages' hashes, hashed.
pub(super) fn name() -> Result<String> {
    let version = output(Command::new("python3").args(["-VV"])).map_err(|failure| {
        Failure::new(format!(
            "python3 does not run: the tests of Python clients need Python 3.11 or newer, with venv \
             ({failure})"
        ))
    })?;
    let path = root().join(REQUIREMENTS);
    let text = fs::read_to_string(&path).context(|| format!("reading {}", path.display()))?;
    Ok(format!("python-{:016x}", hash(&[&version, &text])))
}

/// Installs the packages unless they are there; gives the environment's folder.
pub(super) fn bring(cache: &Path, name: &str) -> Result<PathBuf> {
    let place = cache.join(name);
    if !place.is_dir() {
        eprintln!("tools: pip install (packages of {REQUIREMENTS})");
        complete(&place, |making| {
            output(Command::new("python3").args(["-m", "venv"]).arg(making)).map_err(
                |failure| {
                    Failure::new(format!(
                        "python3 has no working venv: on Debian and its like install python3-venv \
                     ({failure})"
                    ))
                },
            )?;
            // Programs with pip's name in them point to this folder, which is renamed; the module does not.
            // Nothing is built here: what has no wheel for this machine is an error.
            output(
                Command::new(making.join("bin/python"))
                    .args(["-m", "pip", "install", "--quiet", "--require-hashes"])
                    .args(["--only-binary", ":all:", "--requirement"])
                    .arg(root().join(REQUIREMENTS)),
            )
            .map(drop)
        })?;
    }
    Ok(place)
}
