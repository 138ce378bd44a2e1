//! Poolers to compare ours with. Only a benchmark wants them.
//!
//! On Debian and its like they come from a newer suite's packages. Elsewhere installed ones are used.

use super::{complete, debian, find_program, link};
use crate::{Context as _, Failure, Result, output};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// One of them: the name of its package and its program.
pub(super) struct Pooler {
    name: &'static str,
    /// Name of the folder; the number after `r` grows when this recipe changes.
    pub(super) part: &'static str,
    /// Where the package has the program.
    folder: &'static str,
    /// The oldest version that will do.
    oldest: (u32, u32),
}

/// From the version on that knows prepared statements in transaction mode.
pub(super) const PGBOUNCER: Pooler = Pooler {
    name: "pgbouncer",
    part: "pgbouncer-r1",
    folder: "usr/sbin",
    oldest: (1, 21),
};

pub(super) const ODYSSEY: Pooler = Pooler {
    name: "odyssey",
    part: "odyssey-r1",
    folder: "usr/bin",
    oldest: (1, 4),
};

impl Pooler {
    /// Brings it unless it is there; gives the folder that it is in.
    pub(super) fn bring(&self, cache: &Path) -> Result<PathBuf> {
        let place = cache.join(self.part);
        if place.is_dir() {
            return Ok(place.join("bin"));
        }
        let from_debian =
            debian::is_here().and_then(|()| complete(&place, |making| self.unpack(making)));
        let from_debian = match from_debian {
            Ok(()) => return Ok(place.join("bin")),
            Err(failure) => failure,
        };
        match complete(&place, |making| self.take_installed(making)) {
            Ok(()) => Ok(place.join("bin")),
            Err(failure) => Err(Failure::new(format!(
                "{} {}.{} or newer is what the pool is compared with.\n\
                 - From Debian's packages: {from_debian}\n\
                 - From this machine: {failure}\n\
                 Install it and put it on the PATH, then run this again.",
                self.name, self.oldest.0, self.oldest.1
            ))),
        }
    }

    fn unpack(&self, making: &Path) -> Result<()> {
        let Self { name, folder, .. } = self;
        let root = debian::unpack(making, name, |package| package == *name)?;
        let home = format!("usr/lib/{name}-wrapped");
        let bin = root.join(&home).join("bin");
        fs::create_dir_all(&bin).context(|| format!("creating {}", bin.display()))?;
        let program = root.join(folder).join(name);
        fs::rename(&program, bin.join(name)).context(|| format!("moving {}", program.display()))?;
        debian::wrap(&root, &home)?;
        link(Path::new(&format!("root/{home}/bin")), &making.join("bin"))?;
        self.check(&making.join("bin").join(name))
    }

    /// A link to an installed one.
    fn take_installed(&self, making: &Path) -> Result<()> {
        let program = find_program(self.name);
        let program =
            program.ok_or_else(|| Failure::new(format!("'{}' is not on the PATH", self.name)))?;
        self.check(&program)?;
        let bin = making.join("bin");
        fs::create_dir_all(&bin).context(|| format!("creating {}", bin.display()))?;
        link(&program, &bin.join(self.name))
    }

    /// Whether a program runs and is new enough.
    fn check(&self, program: &Path) -> Result<()> {
        let said = output(Command::new(program).arg("--version"))?;
        match version(&said) {
            Some(version) if version >= self.oldest => Ok(()),
            _ => Err(Failure::new(format!(
                "{} is '{}'",
                program.display(),
                said.lines().next().unwrap_or("").trim()
            ))),
        }
    }
}

/// The first version in what a program answers to `--version`.
fn version(said: &str) -> Option<(u32, u32)> {
    let mut words = said.split(|c: char| !c.is_ascii_digit() && c != '.');
    words.find_map(|word| {
        let mut parts = word.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(version("PgBouncer 1.25.0\nlibevent 2\n"), Some((1, 25)));
        assert_eq!(version("odyssey (version: 1.4.1-rc)\n"), Some((1, 4)));
        assert!(version("PgBouncer 1.18.0\n") < Some(PGBOUNCER.oldest));
        assert_eq!(version("something else"), None);
    }
}
