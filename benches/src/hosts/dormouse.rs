//! Our server, by pgwire and by HTTP.

use super::{Created, DATABASE, Host, NOT_RUNNING, Started, create_by_sql, free_address};
use crate::{
    http,
    pgwire::{self, Address},
    process::{Memory, Running},
    session::{Result, Session, us},
};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

const PGWIRE: &str = "Dormouse pgwire";
const HTTP: &str = "Dormouse HTTP";

pub(crate) struct Dormouse {
    program: PathBuf,
    server: Option<Server>,
}

struct Server {
    running: Running,
    pg: Address,
    http: SocketAddr,
    others: Vec<Box<dyn Session>>,
}

impl Dormouse {
    pub(crate) fn new(program: PathBuf) -> Self {
        Self {
            program,
            server: None,
        }
    }

    fn server(&mut self) -> &mut Server {
        self.server.as_mut().expect(NOT_RUNNING)
    }
}

impl Host for Dormouse {
    fn name(&self) -> &'static str {
        "dormouse"
    }

    fn ways(&self) -> &'static [&'static str] {
        &[PGWIRE, HTTP]
    }

    fn check(&self) -> Result<()> {
        if self.program.exists() {
            return Ok(());
        }
        Err(format!("{} is not there (--dormouse)", self.program.display()).into())
    }

    fn start(&mut self, data: &Path) -> Result<Started> {
        let (listen, http) = (free_address()?, free_address()?);
        let mut command = Command::new(&self.program);
        command.arg("serve").arg("--data").arg(data);
        command
            .arg("--pg")
            .arg(listen.to_string())
            .arg("--http")
            .arg(http.to_string());
        let pg = Address::Tcp(listen);
        let start = Instant::now();
        let mut running = Running::start(&mut command, &data.with_extension("log"), false)?;
        let mut client = running.until_ready(|| pgwire::Client::connect(&pg, DATABASE))?;
        client.execute("select 1")?;
        let ready_us = us(start);
        self.server = Some(Server {
            running,
            pg,
            http,
            others: Vec::new(),
        });
        let version = Command::new(&self.program).arg("--version").output()?;
        let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
        Ok(Started {
            ready_us,
            open_us: None,
            version,
        })
    }

    fn stop(&mut self) -> Result<()> {
        self.server
            .take()
            .map_or(Ok(()), |server| server.running.stop("TERM"))
    }

    /// Each way has its own database, so that neither waits for the other's session.
    fn database(&self, way: &str) -> &'static str {
        if way == HTTP {
            "bench_http"
        } else {
            "bench_pgwire"
        }
    }

    fn session(&mut self, way: &str) -> Result<Box<dyn Session>> {
        let database = self.database(way);
        let server = self.server();
        if way == HTTP {
            return Ok(Box::new(http::Client::connect(server.http, database)?));
        }
        Ok(Box::new(pgwire::Client::connect(&server.pg, database)?))
    }

    fn create(&mut self, way: &str, name: &str) -> Result<Created> {
        let server = self.server();
        if way == HTTP {
            let mut client = http::Client::connect(server.http, name)?;
            let start = Instant::now();
            client.create(name)?;
            let create_us = us(start);
            client.execute("select 1")?;
            let created = Created {
                create_us,
                first_us: us(start),
            };
            server.others.push(Box::new(client));
            return Ok(created);
        }
        let mut client = pgwire::Client::connect(&server.pg, DATABASE)?;
        let (created, other) = create_by_sql(&mut client, &server.pg, name)?;
        server.others.push(Box::new(other));
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
