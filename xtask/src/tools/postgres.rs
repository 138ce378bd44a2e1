//! A native PostgreSQL 18: the server to compare with, and the client programs that tests use.
//!
//! On Debian and its like it comes from a newer suite's packages. They are downloaded by apt with
//! state of its own (never the system's) and signatures checked as ever, and unpacked into the
//! cache folder, never installed. Such a suite needs a newer C library too, so each program is a
//! small script that starts the real one through the unpacked dynamic linker. Elsewhere an
//! installed PostgreSQL 18 is used.

use super::{complete, find_program, link};
use crate::{Context as _, Failure, Result, output};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Name of the folder; the number after `r` grows when this recipe changes.
pub(super) const NAME: &str = "postgresql-18-r1";

const MAJOR: u32 = 18;

/// Debian suites that have PostgreSQL 18, the calmest first.
const SUITES: [&str; 2] = ["forky", "sid"];

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
    let from_debian = if ["apt-get", "dpkg-deb"]
        .iter()
        .all(|name| find_program(name).is_some())
    {
        match complete(&place, from_debian) {
            Ok(()) => return Ok(place.join("bin")),
            Err(failure) => failure.to_string(),
        }
    } else {
        "apt-get and dpkg-deb are not here to unpack Debian's packages".into()
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

/// Where this machine's own Debian packages come from, and the keys that sign them.
struct Archive {
    address: String,
    keyring: String,
}

fn from_debian(making: &Path) -> Result<()> {
    let archive = archive()?;
    let apt = Apt::new(&making.join("apt"))?;
    let mut failures = Vec::new();
    for suite in SUITES {
        eprintln!("tools: looking for PostgreSQL {MAJOR} in Debian {suite}");
        let packages = match apt.closure(&archive, suite) {
            Ok(packages) => packages,
            Err(failure) => {
                failures.push(format!("{suite}: {failure}"));
                continue;
            }
        };
        eprintln!(
            "tools: downloading {} packages from Debian {suite}",
            packages.len()
        );
        let root = making.join("root");
        for package in apt.download(&packages)? {
            output(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&root))?;
        }
        fs::remove_dir_all(&apt.folder).context(|| format!("{}", apt.folder.display()))?;
        return wrap(making, &root);
    }
    Err(Failure::new(failures.join("; ")))
}

fn archive() -> Result<Archive> {
    // One line for each configured index: `address keyring`, the keyring empty if the source
    // names none. Security updates have an archive of their own without the other suites.
    let targets = output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(SIGNED_BY)",
        "Created-By: Packages",
        "Origin: Debian",
        "Label: Debian",
    ]))?;
    let line = targets
        .lines()
        .find(|line| !line.trim().is_empty())
        .ok_or_else(|| {
            Failure::new("apt knows no Debian archive here (has `apt-get update` ever been run?)")
        })?;
    let (address, keyring) = line.split_once(' ').unwrap_or((line, ""));
    let keyring = Some(keyring.trim())
        .filter(|keyring| keyring.starts_with('/'))
        .map_or_else(
            || "/usr/share/keyrings/debian-archive-keyring.gpg".to_owned(),
            str::to_owned,
        );
    Ok(Archive {
        address: address.to_owned(),
        keyring,
    })
}

/// apt with lists, caches and sources of its own, and a system where nothing is installed.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    fn new(folder: &Path) -> Result<Self> {
        for inner in ["state/lists/partial", "cache/archives/partial", "packages"] {
            let inner = folder.join(inner);
            fs::create_dir_all(&inner).context(|| format!("creating {}", inner.display()))?;
        }
        let path = folder.display();
        // Read after the machine's own apt configuration, which may say how to reach the archive.
        let configuration = format!(
            "Dir::State \"{path}/state\";\n\
             Dir::State::status \"{path}/state/status\";\n\
             Dir::Cache \"{path}/cache\";\n\
             Dir::Etc::sourcelist \"{path}/sources.list\";\n\
             Dir::Etc::sourceparts \"/dev/null\";\n\
             Dir::Etc::preferences \"/dev/null\";\n\
             Dir::Etc::preferencesparts \"/dev/null\";\n\
             APT::Default-Release \"\";\n\
             APT::Sandbox::User \"root\";\n\
             #clear APT::Update::Pre-Invoke;\n\
             #clear APT::Update::Post-Invoke;\n\
             #clear APT::Update::Post-Invoke-Success;\n"
        );
        let apt = Self {
            folder: folder.to_owned(),
        };
        apt.write("apt.conf", &configuration)?;
        apt.write("state/status", "")?;
        Ok(apt)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, text).context(|| format!("writing {}", path.display()))
    }

    fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        command
            .arg("-c")
            .arg(self.folder.join("apt.conf"))
            .arg("-qq");
        command
    }

    /// The server, the client programs and the libraries that they need.
    fn closure(&self, archive: &Archive, suite: &str) -> Result<Vec<String>> {
        let Archive { address, keyring } = archive;
        let source =
            format!("deb [signed-by={keyring} target=Packages lang=none] {address} {suite} main\n");
        self.write("sources.list", &source)?;
        output(self.get().args(["update", "--error-on=any"]))?;
        let server = format!("postgresql-{MAJOR}");
        let plan = output(self.get().args([
            "--print-uris",
            "--yes",
            "--no-install-recommends",
            "install",
            &server,
        ]))?;
        // `'ADDRESS' NAME_VERSION_ARCH.deb SIZE HASH`: everything that an empty system would get.
        let files = plan.lines().filter_map(|line| line.split(' ').nth(1));
        let names = files.filter_map(|file| file.split('_').next());
        Ok(names
            .filter(|name| wanted(name))
            .map(str::to_owned)
            .collect())
    }

    /// Downloads the packages; apt checks their hashes against the signed index.
    fn download(&self, packages: &[String]) -> Result<Vec<PathBuf>> {
        let folder = self.folder.join("packages");
        output(
            self.get()
                .arg("download")
                .args(packages)
                .current_dir(&folder),
        )?;
        let entries = fs::read_dir(&folder).context(|| format!("reading {}", folder.display()))?;
        let mut files = Vec::new();
        for entry in entries {
            files.push(
                entry
                    .context(|| format!("reading {}", folder.display()))?
                    .path(),
            );
        }
        Ok(files)
    }
}

/// Shared libraries and PostgreSQL itself; not what only maintainer scripts and services use.
fn wanted(package: &str) -> bool {
    const OTHERS: [&str; 9] = [
        "libc-",
        "libdb",
        "libdebconf",
        "libgdbm",
        "libpam-modules",
        "libperl",
        "libproc",
        "libsemanage",
        "libsystemd-shared",
    ];
    match package {
        "zlib1g" => true,
        _ if package.starts_with("postgresql-") => package.ends_with(&format!("-{MAJOR}")),
        _ => {
            package.starts_with("lib")
                && !package.ends_with("-perl")
                && !OTHERS.iter().any(|other| package.starts_with(other))
        }
    }
}

/// Puts a script in place of each program, and checks that what is needed runs.
///
/// The scripts find everything relative to themselves, so the folder can be moved or copied. The
/// real program is told the script's path as its own name: PostgreSQL's programs look for each
/// other, and for their share folder, relative to that.
fn wrap(making: &Path, root: &Path) -> Result<()> {
    let home = root.join(format!("usr/lib/postgresql/{MAJOR}"));
    let bin = home.join("bin");
    let elf = home.join("elf");
    let linker = linker(&root.join("usr/lib"))?;
    fs::rename(&bin, &elf).context(|| format!("renaming {}", bin.display()))?;
    fs::create_dir(&bin).context(|| format!("creating {}", bin.display()))?;
    for entry in fs::read_dir(&elf).context(|| format!("reading {}", elf.display()))? {
        let entry = entry.context(|| format!("reading {}", elf.display()))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let script = format!(
            "#!/bin/sh\n\
             bin=${{0%/*}}\n\
             lib=$bin/../../../{linker}\n\
             exec \"$lib\" --library-path \"${{lib%/*}}\" --argv0 \"$bin/{name}\" \
             \"$bin/../elf/{name}\" \"$@\"\n"
        );
        let path = bin.join(&*name);
        fs::write(&path, script).context(|| format!("writing {}", path.display()))?;
        executable(&path)?;
    }
    let relative = format!("root/usr/lib/postgresql/{MAJOR}/bin");
    link(Path::new(&relative), &making.join("bin"))?;
    for name in CLIENTS.iter().chain(&SERVER) {
        let program = making.join("bin").join(name);
        let version = output(Command::new(&program).arg("--version"))?;
        if major(&version) != Some(MAJOR) {
            return Err(Failure::new(format!("{name} says '{}'", version.trim())));
        }
    }
    Ok(())
}

/// The dynamic linker that came with the packages, relative to `usr/lib`: `TRIPLET/ld-linux-…`.
fn linker(lib: &Path) -> Result<String> {
    let entries = |folder: &Path| {
        fs::read_dir(folder)
            .into_iter()
            .flatten()
            .filter_map(std::result::Result::ok)
            .map(|entry| entry.path())
            .collect::<Vec<_>>()
    };
    entries(lib)
        .iter()
        .flat_map(|triplet| entries(triplet))
        .filter_map(|file| Some(file.strip_prefix(lib).ok()?.to_str()?.to_owned()))
        .find(|path| path.contains("/ld-linux") || path.contains("/ld64.so"))
        .ok_or_else(|| Failure::new("the C library's package has no dynamic linker"))
}

#[cfg(unix)]
fn executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .context(|| format!("making {} executable", path.display()))
}

#[cfg(not(unix))]
fn executable(_path: &Path) -> Result<()> {
    Ok(())
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
    fn only_libraries_and_postgresql_are_unpacked() {
        for name in [
            "libc6",
            "zlib1g",
            "libpq5",
            "libicu78",
            "postgresql-client-18",
        ] {
            assert!(wanted(name), "{name}");
        }
        for name in [
            "perl-base",
            "libjson-perl",
            "libc-bin",
            "postgresql-common",
            "systemd",
        ] {
            assert!(!wanted(name), "{name}");
        }
    }
}
