//! A native PostgreSQL server of one's own.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct Native {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Native {
    /// Makes a cluster in a folder and starts it. `bin` has the programs.
    ///
    /// # Errors
    /// Why it does not run.
    pub fn start(bin: &Path, folder: &Path) -> Result<Self, String> {
        fs::create_dir_all(folder).map_err(text)?;
        // The programs do not work where this one does.
        let folder = &fs::canonicalize(folder).map_err(text)?;
        let user = unprivileged(folder)?;
        let bin = match user {
            Some(ids) => {
                std::os::unix::fs::chown(folder, Some(ids.0), Some(ids.1)).map_err(text)?;
                reachable(bin, folder)?
            }
            None => bin.to_owned(),
        };
        let data = folder.join("data");
        let program = |name: &str| {
            let mut command = Command::new(bin.join(name));
            if let Some((id, group)) = user {
                command.uid(id).gid(group);
            }
            command
                .current_dir("/")
                .arg("-D")
                .arg(&data)
                .stdin(Stdio::null());
            command
        };
        let mut initdb = program("initdb");
        initdb.args([
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-sync",
        ]);
        initdb.args(["--locale-provider=builtin", "--locale=C.UTF-8"]);
        let made = initdb.output().map_err(text)?;
        if !made.status.success() {
            return Err(format!("initdb: {}", String::from_utf8_lossy(&made.stderr)));
        }
        let address = TcpListener::bind("127.0.0.1:0")
            .and_then(|free| free.local_addr())
            .map_err(text)?;
        let log = File::create(folder.join("log")).map_err(text)?;
        let mut postgres = program("postgres");
        for setting in [
            format!("port={}", address.port()),
            "listen_addresses=127.0.0.1".to_owned(),
            "unix_socket_directories=".to_owned(),
            "fsync=off".to_owned(),
            "max_connections=60".to_owned(),
        ] {
            postgres.arg("-c").arg(setting);
        }
        let child = postgres
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(text)?;
        Ok(Self { child, address })
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The programs where somebody harmless can run them: PostgreSQL refuses to be root.
fn reachable(bin: &Path, folder: &Path) -> Result<PathBuf, String> {
    // `bin` may be a link into the folder of the unpacked packages.
    let bin = fs::canonicalize(bin).map_err(text)?;
    let root = bin
        .ancestors()
        .find(|folder| folder.file_name() == Some("root".as_ref()));
    let Some(root) = root else {
        return Ok(bin);
    };
    let copy = folder.join("programs");
    if !copy.exists() {
        let copied = Command::new("cp")
            .arg("-a")
            .arg(root)
            .arg(&copy)
            .status()
            .map_err(text)?;
        if !copied.success() {
            return Err("the programs could not be copied".to_owned());
        }
    }
    bin.strip_prefix(root)
        .map(|rest| copy.join(rest))
        .map_err(text)
}

/// The ids of `nobody`, if this is root.
fn unprivileged(folder: &Path) -> Result<Option<(u32, u32)>, String> {
    // The folder was made by this process.
    if fs::metadata(folder).map_err(text)?.uid() != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").map_err(text)?;
    let line = users.lines().find_map(|line| line.strip_prefix("nobody:"));
    let mut fields = line.ok_or("there is no user 'nobody'")?.split(':').skip(1);
    let mut number = || fields.next().and_then(|field| field.parse().ok());
    let ids = number().zip(number());
    ids.map(Some).ok_or_else(|| "nobody's ids".to_owned())
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
