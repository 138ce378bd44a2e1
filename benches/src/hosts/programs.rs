//! Programs of peers that refuse to run as root.

use crate::session::Result;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A folder of programs, and who runs them.
pub(crate) struct Programs {
    bin: PathBuf,
    /// Nobody else if this is not root.
    user: Option<User>,
    /// Those that have to be there.
    needed: &'static [&'static str],
}

#[derive(Clone, Copy)]
struct User {
    id: u32,
    group: u32,
}

impl Programs {
    /// `work` is a folder for this run, where the programs are copied to if they have to run as
    /// somebody who cannot reach them where they are.
    pub(crate) fn new(bin: &Path, work: &Path, needed: &'static [&'static str]) -> Result<Self> {
        let mut programs = Self {
            bin: bin.to_owned(),
            user: unprivileged(work)?,
            needed,
        };
        let is_here = needed.iter().try_fold(true, |is, name| {
            fs::exists(bin.join(name)).map(|here| is && here)
        })?;
        if programs.user.is_some() && is_here && programs.check().is_err() {
            programs.copy(work)?;
        }
        Ok(programs)
    }

    /// Copies the unpacked packages, into which `bin` is a link.
    fn copy(&mut self, work: &Path) -> Result<()> {
        let bin = fs::canonicalize(&self.bin)?;
        let root = bin
            .ancestors()
            .find(|folder| folder.file_name() == Some("root".as_ref()));
        let Some((root, part)) = root.and_then(|root| Some((root, root.parent()?.file_name()?)))
        else {
            return Ok(());
        };
        let copy = work.join(part);
        if !copy.exists() {
            Command::new("cp").arg("-a").arg(root).arg(&copy).status()?;
        }
        self.bin = copy.join(bin.strip_prefix(root)?);
        Ok(())
    }

    /// The command that runs one of them.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        #[cfg(unix)]
        if let Some(User { id, group }) = self.user {
            use std::os::unix::process::CommandExt as _;
            command.uid(id).gid(group);
        }
        command.current_dir("/");
        command
    }

    /// Whether they run.
    pub(crate) fn check(&self) -> Result<()> {
        for name in self.needed {
            let output = self.command(name).arg("--version").output();
            if !output
                .map_err(|error| format!("{name}: {error}"))?
                .status
                .success()
            {
                return Err(format!("{name} does not run").into());
            }
        }
        Ok(())
    }

    /// Makes a folder theirs.
    pub(crate) fn give(&self, folder: &Path) -> Result<()> {
        #[cfg(unix)]
        if let Some(User { id, group }) = self.user {
            std::os::unix::fs::chown(folder, Some(id), Some(group))?;
        }
        #[cfg(not(unix))]
        let _ = folder;
        Ok(())
    }
}

/// Somebody harmless to run them as, if this is root.
#[cfg(unix)]
fn unprivileged(work: &Path) -> Result<Option<User>> {
    use std::os::unix::fs::MetadataExt as _;
    // The folder was made by this process.
    if fs::metadata(work)?.uid() != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let line = users.lines().find(|line| line.starts_with("nobody:"));
    let mut fields = line
        .ok_or("there is no user 'nobody' to run programs as")?
        .split(':');
    let mut number = |nth| fields.nth(nth).and_then(|field| field.parse().ok());
    let (id, group) = (number(2), number(0));
    Ok(Some(User {
        id: id.ok_or("nobody's id")?,
        group: group.ok_or("nobody's group")?,
    }))
}

#[cfg(not(unix))]
fn unprivileged(_work: &Path) -> Result<Option<User>> {
    Ok(None)
}
