//! A native PostgreSQL 18: the server to compare with, and the client programs that tests use.
//!
//! On Debian and its like it comes from a newer suite's packages. Elsewhere an installed PostgreSQL 18
//! is used.

use super::{complete, debian, find_program, link};
use crate::{Context as _, Failure, Result, output};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Name of the folder; the number after `r` grows when this recipe changes.
pub(super) const NAME: &str = "postgresql-18-r1";

const MAJOR: u32 = 18;

/// What tests cannot do without.
const CLIENTS: [&str; 6] = [
    "psql",
    "pg_dump",
    "pg_restore",
    "pgbench",
    "createdb",
    "dropdb",
];
/// What only the benchmark wants.
const SERVER: [&str; 3] = ["postgres", "initdb", "pg_ctl"];

/// Brings PostgreSQL's programs unless they are there; gives the folder that they are in.
pub(super) fn bring(cache: &Path) -> Result<PathBuf> {
    let place = cache.join(NAME);
    if place.is_dir() {
        return Ok(place.join("bin"));
    }
    let from_debian = match debian::is_here().and_then(|()| complete(&place, from_debian)) {
        Ok(()) => return Ok(place.join("bin")),
        Err(failure) => failure.to_string(),
    };
    match complete(&place, from_path) {
        Ok(()) => {
            eprintln!("tools: using the installed PostgreSQL ({from_debian})");
            Ok(place.join("bin"))
        }
        Err(failure) => Err(Failure::new(format!(
            "PostgreSQL {MAJOR} is needed by the tests ({}).\n\
             - From Debian's packages: {from_debian}\n\
             - From this machine: {failure}\n\
             Install PostgreSQL {MAJOR} and put its programs on the PATH, then run this again.",
            CLIENTS.join(", ")
        ))),
    }
}

/// Links to the programs of an installed PostgreSQL 18.
fn from_path(making: &Path) -> Result<()> {
    let bin = making.join("bin");
    fs::create_dir_all(&bin).context(|| format!("creating {}", bin.display()))?;
    for name in CLIENTS.iter().chain(&SERVER) {
        let needed = CLIENTS.contains(name);
        let Some(program) = find_program(name) else {
            if needed {
                return Err(Failure::new(format!("'{name}' is not on the PATH")));
            }
            continue;
        };
        let version = output(Command::new(&program).arg("--version"))?;
        if major(&version) == Some(MAJOR) {
            link(&program, &bin.join(name))?;
        } else if needed {
            return Err(Failure::new(format!(
                "{} is '{}', not version {MAJOR}",
                program.display(),
                version.trim()
            )));
        }
    }
    Ok(())
}

/// The major version in what a PostgreSQL program answers to `--version`.
fn major(version: &str) -> Option<u32> {
    let (_, number) = version.split_once("(PostgreSQL) ")?;
    let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

fn from_debian(making: &Path) -> Result<()> {
    let root = debian::unpack(making, &format!("postgresql-{MAJOR}"), wanted)?;
    let home = format!("usr/lib/postgresql/{MAJOR}");
    debian::wrap(&root, &home)?;
    link(Path::new(&format!("root/{home}/bin")), &making.join("bin"))?;
    for name in CLIENTS.iter().chain(&SERVER) {
        let program = making.join("bin").join(name);
        let version = output(Command::new(&program).arg("--version"))?;
        if major(&version) != Some(MAJOR) {
            return Err(Failure::new(format!("{name} says '{}'", version.trim())));
        }
    }
    Ok(())
}

/// PostgreSQL itself.
fn wanted(package: &str) -> bool {
    package.starts_with("postgresql-") && package.ends_with(&format!("-{MAJOR}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn major_version() {
        assert_eq!(major("psql (PostgreSQL) 18.6 (Debian 18.6-3)\n"), Some(18));
        assert_eq!(major("postgres (PostgreSQL) 19beta1\n"), Some(19));
        assert_eq!(major("something else 18"), None);
    }

    #[test]
    fn of_postgresql_one_version_is_unpacked() {
        assert!(wanted("postgresql-client-18"));
        assert!(!wanted("postgresql-common"));
    }
}
