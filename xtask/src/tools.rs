//! What tests and benchmarks need beside the Rust toolchain, kept outside the checkout.
//!
//! The cache folder holds one folder for each version of each part (`postgresql-18-r1`,
//! `pgbouncer-r1`, `odyssey-r1`, `node-HASH`, `python-HASH`), made beside its place and renamed into it when complete, and one *set*
//! for each combination: `set-HASH/{bin,node_modules}`, for the clients that are tested
//! `clients-HASH/{node_modules,python}`, and for the benchmark of pools `pool-HASH/{bin,pgbouncer,odyssey,node_modules}`;
//! links into the parts. A set that exists is complete, so
//! checking for it is all that a run needs to do when nothing has changed.

mod debian;
mod node;
mod pooler;
mod postgres;
mod python;

use crate::{Context as _, Failure, Result};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
};

/// In the name of a folder that is not complete yet.
const MAKING: &str = ".making-";

/// Folders of the checkout that name packages of Node.js.
const PEERS: &str = "xtask/node";
const CLIENTS: &str = "clients/node";

/// Brings PostgreSQL's programs and PGlite unless they are there; gives the set's folder.
pub(crate) fn bring() -> Result<PathBuf> {
    let node = node::name(PEERS)?;
    let name = format!("set-{:016x}", hash(&[postgres::NAME, &node]));
    set(&name, |cache| {
        Ok(vec![
            ("bin", postgres::bring(cache)?),
            ("node_modules", node::bring(cache, PEERS, &node)?),
        ])
    })
}

/// Brings PostgreSQL's programs, PgBouncer, Odyssey where it can be had, and what deploys and runs a backend; gives the set's folder.
pub(crate) fn bring_poolers() -> Result<PathBuf> {
    let clients = node::name(CLIENTS)?;
    let name = format!(
        "pool-{:016x}",
        hash(&[
            postgres::NAME,
            pooler::PGBOUNCER.part,
            pooler::ODYSSEY.part,
            &clients,
        ])
    );
    set(&name, |cache| {
        let mut parts = vec![
            ("bin", postgres::bring(cache)?),
            ("pgbouncer", pooler::PGBOUNCER.bring(cache)?),
            ("node_modules", node::bring(cache, CLIENTS, &clients)?),
        ];
        match pooler::ODYSSEY.bring(cache) {
            Ok(place) => parts.push(("odyssey", place)),
            Err(failure) => eprintln!("tools: without Odyssey: {failure}"),
        }
        Ok(parts)
    })
}

/// Brings the clients that are tested, of Node.js and Python; gives the set's folder.
pub(crate) fn bring_clients() -> Result<PathBuf> {
    let (node, python) = (node::name(CLIENTS)?, python::name()?);
    let name = format!("clients-{:016x}", hash(&[&node, &python]));
    set(&name, |cache| {
        Ok(vec![
            ("node_modules", node::bring(cache, CLIENTS, &node)?),
            ("python", python::bring(cache, &python)?),
        ])
    })
}

/// Where the tested clients in Rust are built.
pub(crate) fn rust_clients() -> Result<PathBuf> {
    Ok(cache_folder()?.join("clients-rust"))
}

/// A folder of links to parts, which `bring` makes unless they are there.
fn set(
    name: &str,
    bring: impl FnOnce(&Path) -> Result<Vec<(&'static str, PathBuf)>>,
) -> Result<PathBuf> {
    let cache = cache_folder()?;
    let set = cache.join(name);
    if set.is_dir() {
        return Ok(set);
    }
    fs::create_dir_all(&cache).context(|| format!("creating {}", cache.display()))?;
    let lock_path = cache.join("lock");
    let lock = fs::File::create(&lock_path).context(|| format!("{}", lock_path.display()))?;
    // Held until this returns: a second run waits here, then finds everything in place.
    lock.lock()
        .context(|| format!("locking {}", lock_path.display()))?;
    if set.is_dir() {
        return Ok(set);
    }

    sweep(&cache)?;
    let parts = bring(&cache)?;
    complete(&set, |making| {
        parts
            .iter()
            .try_for_each(|(name, part)| link(part, &making.join(name)))
    })?;
    Ok(set)
}

fn cache_folder() -> Result<PathBuf> {
    let set = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let folder = set("DORMOUSE_TOOLS")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("dormouse/tools")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/dormouse/tools")))
        .ok_or_else(|| {
            Failure::new("no place for the tools: set DORMOUSE_TOOLS to a folder of your choice")
        })?;
    std::path::absolute(&folder).context(|| format!("{}", folder.display()))
}

/// Makes a folder whole or not at all: `fill` works on one beside it, which is then renamed.
fn complete(place: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut making = place.as_os_str().to_owned();
    making.push(format!("{MAKING}{}", process::id()));
    let making = PathBuf::from(making);
    remove(&making)?;
    fs::create_dir_all(&making).context(|| format!("creating {}", making.display()))?;
    if let Err(failure) = fill(&making) {
        remove(&making)?;
        return Err(failure);
    }
    remove(place)?;
    fs::rename(&making, place).context(|| format!("renaming to {}", place.display()))
}

/// Removes what an interrupted run left half made. Only the holder of the lock may.
fn sweep(cache: &Path) -> Result<()> {
    let entries = fs::read_dir(cache).context(|| format!("reading {}", cache.display()))?;
    for entry in entries {
        let path = entry
            .context(|| format!("reading {}", cache.display()))?
            .path();
        if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().contains(MAKING))
        {
            remove(&path)?;
        }
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::new(format!(
            "removing {}: {error}",
            folder.display()
        ))),
        _ => Ok(()),
    }
}

#[cfg(unix)]
fn link(target: &Path, place: &Path) -> Result<()> {
    std::os::unix::fs::symlink(target, place).context(|| format!("linking {}", place.display()))
}

#[cfg(not(unix))]
fn link(_target: &Path, place: &Path) -> Result<()> {
    Err(Failure::new(format!(
        "linking {}: this system is not supported",
        place.display()
    )))
}

/// FNV-1a: a name for some content that is the same in every run and build.
fn hash(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The first executable file of that name on the search path.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_stable_and_separates_parts() {
        assert_eq!(hash(&[]), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(&["a"]), hash(&["a"]));
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
    }

    #[test]
    fn a_folder_is_made_whole_or_not_at_all() {
        let base = env::temp_dir().join(format!("dormouse-xtask-{}", process::id()));
        let place = base.join("part");
        let failed = complete(&place, |making| {
            fs::write(making.join("half"), "x").unwrap();
            Err(Failure::new("stop"))
        });
        assert!(failed.is_err());
        assert_eq!(
            fs::read_dir(&base).unwrap().count(),
            0,
            "nothing is left behind"
        );
        let made = complete(&place, |making| {
            fs::write(making.join("all"), "x").unwrap();
            Ok(())
        });
        assert!(made.is_ok());
        assert!(place.join("all").exists());
        fs::remove_dir_all(&base).unwrap();
    }
}
