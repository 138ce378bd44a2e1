//! A native PostgreSQL server.

use super::{Created, DATABASE, Host, NOT_RUNNING, Started, create_by_sql, free_address};
use crate::{
    pgwire::{Address, Client},
    process::{Memory, Running},
    session::{Result, Session, us},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

pub(crate) struct Native {
    bin: PathBuf,
    fsync: bool,
    /// Who the server runs as: it refuses to be root.
    user: Option<User>,
    server: Option<Server>,
    /// Further settings, as `name=value`.
    settings: Vec<String>,
}

#[derive(Clone, Copy)]
struct User {
    id: u32,
    group: u32,
}

struct Server {
    running: Running,
    tcp: Address,
    unix: Address,
    others: Vec<Client>,
}

impl Native {
    /// `work` is a folder for this run, where the programs are copied to if they have to run as
    /// somebody who cannot reach them where they are.
    pub(crate) fn new(tools: &Path, work: &Path, fsync: bool) -> Result<Self> {
        let mut native = Self {
            bin: tools.join("bin"),
            fsync,
            user: unprivileged(work)?,
            server: None,
            settings: Vec::new(),
        };
        let Some(_) = native.user else {
            return Ok(native);
        };
        let copy = work.join("postgresql");
        if native.check().is_err() && fs::exists(native.bin.join("postgres"))? {
            // `bin` is a link into the folder of the unpacked packages.
            let bin = fs::canonicalize(&native.bin)?;
            let root = bin
                .ancestors()
                .find(|folder| folder.file_name() == Some("root".as_ref()));
            if let Some(root) = root {
                if !copy.exists() {
                    Command::new("cp").arg("-a").arg(root).arg(&copy).status()?;
                }
                native.bin = copy.join(bin.strip_prefix(root)?);
            }
        }
        Ok(native)
    }

    /// Adds a setting, `name=value`, for the next start.
    #[cfg(target_os = "linux")]
    pub(crate) fn set(&mut self, setting: &str) {
        self.settings.push(setting.to_owned());
    }

    /// The first process of the running server, and where it listens.
    #[cfg(target_os = "linux")]
    pub(crate) fn process(&self) -> (u32, &Address) {
        let server = self.server.as_ref().expect(NOT_RUNNING);
        (server.running.child.id(), &server.tcp)
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        #[cfg(unix)]
        if let Some(User { id, group }) = self.user {
            use std::os::unix::process::CommandExt as _;
            command.uid(id).gid(group);
        }
        command.current_dir("/");
        command
    }

    fn initialize(&self, data: &Path) -> Result<()> {
        let mut initdb = self.program("initdb");
        initdb
            .arg("--pgdata")
            .arg(data)
            .args(["--username=postgres", "--auth=trust"])
            .args([
                "--encoding=UTF8",
                "--locale-provider=builtin",
                "--locale=C.UTF-8",
            ]);
        if !self.fsync {
            initdb.arg("--no-sync");
        }
        let output = initdb.output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("initdb: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
    }

    fn server(&mut self) -> &mut Server {
        self.server.as_mut().expect(NOT_RUNNING)
    }
}

impl Host for Native {
    fn name(&self) -> &'static str {
        if self.fsync {
            "native"
        } else {
            "native-fsync-off"
        }
    }

    fn ways(&self) -> &'static [&'static str] {
        if self.fsync {
            &["PostgreSQL, unix socket", "PostgreSQL, TCP"]
        } else {
            &[
                "PostgreSQL fsync=off, unix socket",
                "PostgreSQL fsync=off, TCP",
            ]
        }
    }

    fn check(&self) -> Result<()> {
        for name in ["postgres", "initdb"] {
            let output = self.program(name).arg("--version").output();
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

    fn start(&mut self, data: &Path) -> Result<Started> {
        let folder = data
            .parent()
            .ok_or("BUG: a data folder is inside the run's")?;
        #[cfg(unix)]
        if let Some(User { id, group }) = self.user {
            std::os::unix::fs::chown(folder, Some(id), Some(group))?;
        }
        let port = free_address()?;
        let start = Instant::now();
        if !data.exists() {
            self.initialize(data)?;
        }
        let mut command = self.program("postgres");
        command.arg("-D").arg(data);
        for setting in [
            format!("port={}", port.port()),
            "listen_addresses=127.0.0.1".to_owned(),
            format!("unix_socket_directories={}", folder.display()),
            format!("fsync={}", if self.fsync { "on" } else { "off" }),
            // One session alone: parallel plans are asked for where they are measured.
            "max_parallel_workers_per_gather=0".to_owned(),
        ] {
            command.arg("-c").arg(setting);
        }
        for setting in &self.settings {
            command.arg("-c").arg(setting);
        }
        let mut running = Running::start(&mut command, &data.with_extension("log"), false)?;
        let tcp = Address::Tcp(port);
        let mut client = running.until_ready(|| Client::connect(&tcp, DATABASE))?;
        client.execute("select 1")?;
        let ready_us = us(start);
        let unix = Address::Unix(folder.join(format!(".s.PGSQL.{}", port.port())));
        self.server = Some(Server {
            running,
            tcp,
            unix,
            others: Vec::new(),
        });
        let version = self.program("postgres").arg("--version").output()?;
        let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
        Ok(Started {
            ready_us,
            open_us: None,
            version,
        })
    }

    fn stop(&mut self) -> Result<()> {
        // SIGINT is Postgres' fast shutdown: sessions end, a checkpoint is made.
        self.server
            .take()
            .map_or(Ok(()), |server| server.running.stop("INT"))
    }

    fn database(&self, _way: &str) -> &'static str {
        DATABASE
    }

    fn session(&mut self, way: &str) -> Result<Box<dyn Session>> {
        let server = self.server();
        let address = if way.ends_with("TCP") {
            &server.tcp
        } else {
            &server.unix
        };
        Ok(Box::new(Client::connect(address, DATABASE)?))
    }

    fn create(&mut self, way: &str, name: &str) -> Result<Created> {
        let server = self.server();
        let address = if way.ends_with("TCP") {
            &server.tcp
        } else {
            &server.unix
        };
        let mut client = Client::connect(address, DATABASE)?;
        let (created, other) = create_by_sql(&mut client, address, name)?;
        server.others.push(other);
        Ok(created)
    }

    fn release(&mut self) -> Result<()> {
        self.server().others.clear();
        Ok(())
    }

    fn memory(&self) -> Result<Memory> {
        self.server.as_ref().expect(NOT_RUNNING).running.memory()
    }
}

/// Somebody harmless to run the server as, if this is root.
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
        .ok_or("there is no user 'nobody' to run PostgreSQL as")?
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
