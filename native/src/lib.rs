//! A native PostgreSQL server of one's own: for tests that compare with it, and for those that have it as an origin.
//!
//! It listens on a free port of loopback, belongs to `nobody` where this program is root (PostgreSQL refuses to be),
//! and is killed when it is dropped.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(60);

/// How a server is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// The password of `postgres`; without one everybody is let in.
    pub password: Option<String>,
    /// `scram-sha-256`, `md5`, `password` or `cert`, where there is a password.
    pub method: String,
    /// Settings as `name=value`, after those that every server gets here.
    pub settings: Vec<String>,
    /// Files to put into the data directory, for its owner only: certificates and keys.
    pub files: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            password: None,
            method: "scram-sha-256".to_owned(),
            settings: Vec::new(),
            files: Vec::new(),
        }
    }
}

/// A server that runs, or is stopped.
#[derive(Debug)]
pub struct Native {
    child: Option<Child>,
    bin: PathBuf,
    folder: PathBuf,
    user: Option<(u32, u32)>,
    settings: Vec<String>,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Native {
    /// Makes a server in a folder, which must be empty, and starts it.
    ///
    /// # Errors
    /// Why it does not run.
    pub fn start(bin: &Path, folder: &Path, options: &Options) -> Result<Self, String> {
        fs::create_dir_all(folder).map_err(text)?;
        // The programs do not work where this one does.
        let folder = fs::canonicalize(folder).map_err(text)?;
        let user = unprivileged(&folder)?;
        let bin = match user {
            Some(ids) => {
                own(&folder, ids)?;
                reachable(bin, &folder)?
            }
            None => bin.to_owned(),
        };
        let address = TcpListener::bind("127.0.0.1:0")
            .and_then(|free| free.local_addr())
            .map_err(text)?;
        let mut native = Self {
            child: None,
            bin,
            folder,
            user,
            settings: options.settings.clone(),
            address,
        };
        native.initialize(options)?;
        native.run()?;
        Ok(native)
    }

    fn initialize(&self, options: &Options) -> Result<(), String> {
        let mut initdb = self.program("initdb");
        initdb.args(["--username=postgres", "--encoding=UTF8", "--no-sync"]);
        initdb.args(["--locale-provider=builtin", "--locale=C.UTF-8"]);
        match &options.password {
            None => {
                initdb.arg("--auth=trust");
            }
            Some(password) => {
                let file = self.folder.join("password");
                fs::write(&file, password).map_err(text)?;
                if let Some(ids) = self.user {
                    own(&file, ids)?;
                }
                // initdb itself would check a certificate's user.
                let method = match options.method.as_str() {
                    "cert" => "scram-sha-256",
                    method => method,
                };
                initdb.arg("--pwfile").arg(file);
                initdb.arg(format!("--auth={method}"));
            }
        }
        let made = initdb.output().map_err(text)?;
        if !made.status.success() {
            return Err(format!("initdb: {}", String::from_utf8_lossy(&made.stderr)));
        }
        let data = self.data();
        if options.method == "cert" {
            let rules = "hostssl all all 127.0.0.1/32 cert\n";
            fs::write(data.join("pg_hba.conf"), rules).map_err(text)?;
        }
        for (name, content) in &options.files {
            let path = data.join(name);
            fs::write(&path, content).map_err(text)?;
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
                .map_err(text)?;
            if let Some(ids) = self.user {
                own(&path, ids)?;
            }
        }
        Ok(())
    }

    /// Starts it again, at the same address.
    ///
    /// # Errors
    /// Why it does not run.
    pub fn run(&mut self) -> Result<(), String> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))
            .map_err(text)?;
        let mut postgres = self.program("postgres");
        let own = [
            format!("port={}", self.address.port()),
            "listen_addresses=127.0.0.1".to_owned(),
            "unix_socket_directories=".to_owned(),
            "fsync=off".to_owned(),
            "max_connections=60".to_owned(),
        ];
        for setting in own.iter().chain(&self.settings) {
            postgres.arg("-c").arg(setting);
        }
        let child = postgres.stdout(Stdio::null()).stderr(log).spawn();
        self.child = Some(child.map_err(text)?);
        let until = Instant::now() + START;
        while !self.is_ready() {
            let ended = self.child.as_mut().map(Child::try_wait);
            if let Some(Ok(Some(status))) = ended {
                return Err(format!("postgres ended, {status}: {}", self.log()));
            }
            if Instant::now() > until {
                return Err(format!("postgres does not get ready: {}", self.log()));
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "another process gets ready, and tells nobody when"
            )]
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Kills it as a crash does: all of its processes at once.
    ///
    /// # Errors
    /// If it does not end.
    pub fn kill(&mut self) -> Result<(), String> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        // A process that finds its postmaster gone ends by itself.
        child.kill().map_err(text)?;
        child.wait().map_err(text)?;
        let pid_file = self.data().join("postmaster.pid");
        if pid_file.exists() {
            fs::remove_file(pid_file).map_err(text)?;
        }
        Ok(())
    }

    /// It says so in the last line of its file when recovery is done.
    fn is_ready(&self) -> bool {
        let file = fs::read_to_string(self.data().join("postmaster.pid"));
        file.is_ok_and(|file| {
            file.lines()
                .last()
                .is_some_and(|line| line.trim() == "ready")
        })
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        let log = fs::read(self.folder.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        if let Some((id, group)) = self.user {
            command.uid(id).gid(group);
        }
        command
            .current_dir("/")
            .arg("-D")
            .arg(self.data())
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kill();
    }
}

fn own(path: &Path, (user, group): (u32, u32)) -> Result<(), String> {
    std::os::unix::fs::chown(path, Some(user), Some(group)).map_err(text)
}

/// The programs where somebody harmless can run them.
fn reachable(bin: &Path, folder: &Path) -> Result<PathBuf, String> {
    // `bin` may be a link into the folder of the unpacked packages.
    let bin = fs::canonicalize(bin).map_err(text)?;
    let root = bin
        .ancestors()
        .find(|folder| folder.file_name() == Some("root".as_ref()));
    // Root's own home has the same name, and more than programs in it.
    let Some(root) = root.filter(|root| root.parent() != Some(Path::new("/"))) else {
        return Ok(bin);
    };
    let copy = folder.join("programs");
    if !copy.exists() {
        let copied = Command::new("cp").arg("-a").arg(root).arg(&copy).status();
        if !copied.map_err(text)?.success() {
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
