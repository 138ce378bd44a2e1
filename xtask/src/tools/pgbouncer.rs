//! PgBouncer: the pooler to compare with. Only a benchmark wants it.
//!
//! On Debian and its like it comes from a newer suite's packages. Elsewhere an installed one is used.

use super::{complete, debian, find_program, link};
use crate::{Context as _, Failure, Result, output};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Name of the folder; the number after `r` grows when this recipe changes.
pub(super) const NAME: &str = "pgbouncer-r1";

/// The first version that knows prepared statements in transaction mode.
const OLDEST: (u32, u32) = (1, 21);

/// Brings PgBouncer unless it is there; gives the folder that it is in.
pub(super) fn bring(cache: &Path) -> Result<PathBuf> {
    let place = cache.join(NAME);
    if place.is_dir() {
        return Ok(place.join("bin"));
    }
    let from_debian = match debian::is_here().and_then(|()| complete(&place, from_debian)) {
        Ok(()) => return Ok(place.join("bin")),
        Err(failure) => failure,
    };
    match complete(&place, from_path) {
        Ok(()) => Ok(place.join("bin")),
        Err(failure) => Err(Failure::new(format!(
            "PgBouncer {}.{} or newer is what the pool is compared with.\n\
             - From Debian's packages: {from_debian}\n\
             - From this machine: {failure}\n\
             Install it and put it on the PATH, then run this again.",
            OLDEST.0, OLDEST.1
        ))),
    }
}

fn from_debian(making: &Path) -> Result<()> {
    let root = debian::unpack(making, "pgbouncer", |package| package == "pgbouncer")?;
    let bin = root.join("usr/lib/pgbouncer/bin");
    fs::create_dir_all(&bin).context(|| format!("creating {}", bin.display()))?;
    let program = root.join("usr/sbin/pgbouncer");
    fs::rename(&program, bin.join("pgbouncer"))
        .context(|| format!("moving {}", program.display()))?;
    debian::wrap(&root, "usr/lib/pgbouncer")?;
    link(Path::new("root/usr/lib/pgbouncer/bin"), &making.join("bin"))?;
    new_enough(&making.join("bin/pgbouncer"))
}

/// A link to an installed one.
fn from_path(making: &Path) -> Result<()> {
    let program = find_program("pgbouncer");
    let program = program.ok_or_else(|| Failure::new("'pgbouncer' is not on the PATH"))?;
    new_enough(&program)?;
    let bin = making.join("bin");
    fs::create_dir_all(&bin).context(|| format!("creating {}", bin.display()))?;
    link(&program, &bin.join("pgbouncer"))
}

fn new_enough(program: &Path) -> Result<()> {
    let said = output(Command::new(program).arg("--version"))?;
    match version(&said) {
        Some(version) if version >= OLDEST => Ok(()),
        _ => Err(Failure::new(format!(
            "{} is '{}'",
            program.display(),
            said.lines().next().unwrap_or("").trim()
        ))),
    }
}

/// The version in what PgBouncer answers to `--version`.
fn version(said: &str) -> Option<(u32, u32)> {
    let number = said.lines().next()?.strip_prefix("PgBouncer ")?;
    let mut parts = number.trim().split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(version("PgBouncer 1.25.0\nlibevent 2\n"), Some((1, 25)));
        assert!(version("PgBouncer 1.18.0\n") < Some(OLDEST));
        assert_eq!(version("something else"), None);
    }
}
