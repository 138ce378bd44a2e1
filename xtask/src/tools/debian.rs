//! Programs of a newer Debian suite, unpacked beside the system.
//!
//! Packages are downloaded by apt with state of its own (never the system's) and signatures checked as
//! ever, and unpacked into the cache folder, never installed. Such a suite needs a newer C library too,
//! so each program is a small script that starts the real one through the unpacked dynamic linker.

use super::find_program;
use crate::{Context as _, Failure, Result, output};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Debian suites that are newer than what machines run, the calmest first.
const SUITES: [&str; 2] = ["forky", "sid"];

/// Whether this machine can unpack Debian's packages.
pub(super) fn is_here() -> Result<()> {
    let is_here = |name: &&str| find_program(name).is_some();
    match ["apt-get", "dpkg-deb"].iter().all(is_here) {
        true => Ok(()),
        false => Err(Failure::new(
            "apt-get and dpkg-deb are not here to unpack Debian's packages",
        )),
    }
}

/// Unpacks a package, what it needs of libraries, and what else of its closure is wanted; gives the root.
pub(super) fn unpack(
    making: &Path,
    package: &str,
    wanted: impl Fn(&str) -> bool,
) -> Result<PathBuf> {
    let archive = archive()?;
    let apt = Apt::new(&making.join("apt"))?;
    let mut failures = Vec::new();
    for suite in SUITES {
        eprintln!("tools: looking for {package} in Debian {suite}");
        let mut packages = match apt.closure(&archive, suite, package) {
            Ok(packages) => packages,
            Err(failure) => {
                failures.push(format!("{suite}: {failure}"));
                continue;
            }
        };
        packages.retain(|name| is_library(name) || wanted(name));
        eprintln!(
            "tools: downloading {} packages from Debian {suite}",
            packages.len()
        );
        let root = making.join("root");
        for package in apt.download(&packages)? {
            output(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&root))?;
        }
        fs::remove_dir_all(&apt.folder).context(|| format!("{}", apt.folder.display()))?;
        return Ok(root);
    }
    Err(Failure::new(failures.join("; ")))
}

/// Where this machine's own Debian packages come from, and the keys that sign them.
struct Archive {
    address: String,
    keyring: String,
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

    /// The names of all that an empty system would get with a package.
    fn closure(&self, archive: &Archive, suite: &str, package: &str) -> Result<Vec<String>> {
        let Archive { address, keyring } = archive;
        let source =
            format!("deb [signed-by={keyring} target=Packages lang=none] {address} {suite} main\n");
        self.write("sources.list", &source)?;
        output(self.get().args(["update", "--error-on=any"]))?;
        let plan = output(self.get().args([
            "--print-uris",
            "--yes",
            "--no-install-recommends",
            "install",
            package,
        ]))?;
        // `'ADDRESS' NAME_VERSION_ARCH.deb SIZE HASH`.
        let files = plan.lines().filter_map(|line| line.split(' ').nth(1));
        let names = files.filter_map(|file| file.split('_').next());
        Ok(names.map(str::to_owned).collect())
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

/// Shared libraries; not what only maintainer scripts and services use.
fn is_library(package: &str) -> bool {
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
        _ => {
            package.starts_with("lib")
                && !package.ends_with("-perl")
                && !OTHERS.iter().any(|other| package.starts_with(other))
        }
    }
}

/// Puts a script in place of each program in the folder `bin` of `home`, a folder in the root.
///
/// The scripts find everything relative to themselves, so the folder can be moved or copied. The
/// real program is told the script's path as its own name: PostgreSQL's programs look for each
/// other, and for their share folder, relative to that.
pub(super) fn wrap(root: &Path, home: &str) -> Result<()> {
    // From `bin` back to the root.
    let back = "../".repeat(home.split('/').count() + 1);
    let home = root.join(home);
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
             lib=$bin/{back}usr/lib/{linker}\n\
             exec \"$lib\" --library-path \"${{lib%/*}}\" --argv0 \"$bin/{name}\" \
             \"$bin/../elf/{name}\" \"$@\"\n"
        );
        let path = bin.join(&*name);
        fs::write(&path, script).context(|| format!("writing {}", path.display()))?;
        executable(&path)?;
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
    fn libraries_alone_come_along() {
        for name in ["libc6", "zlib1g", "libpq5", "libicu78", "libevent-2.1-7t64"] {
            assert!(is_library(name), "{name}");
        }
        for name in ["perl-base", "libjson-perl", "libc-bin", "systemd"] {
            assert!(!is_library(name), "{name}");
        }
    }
}
