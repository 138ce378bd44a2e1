//! A native PostgreSQL server.

use super::{Created, DATABASE, Host, NOT_RUNNING, Programs, Started, create_by_sql, free_address};
use crate::{
    pgwire::{Address, Client},
    process::{Memory, Running},
    session::{Result, Session, us},
};
use std::{path::Path, time::Instant};

pub(crate) struct Native {
    programs: Programs,
    fsync: bool,
    server: Option<Server>,
    /// Further settings, as `name=value`.
    settings: Vec<String>,
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
        Ok(Self {
            programs: Programs::new(&tools.join("bin"), work, &["postgres", "initdb"])?,
            fsync,
            server: None,
            settings: Vec::new(),
        })
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

    fn initialize(&self, data: &Path) -> Result<()> {
        let mut initdb = self.programs.command("initdb");
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
        self.programs.check()
    }

    fn start(&mut self, data: &Path) -> Result<Started> {
        let folder = data
            .parent()
            .ok_or("BUG: a data folder is inside the run's")?;
        self.programs.give(folder)?;
        let port = free_address()?;
        let start = Instant::now();
        if !data.exists() {
            self.initialize(data)?;
        }
        let mut command = self.programs.command("postgres");
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
        let version = self
            .programs
            .command("postgres")
            .arg("--version")
            .output()?;
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
