//! PGlite behind its own socket server: one database, one client at a time.

use super::{Created, DATABASE, Host, NOT_RUNNING, Started, free_address};
use crate::{
    pgwire::{Address, Client},
    process::{Memory, Running},
    session::{Result, Session, Unsupported, us},
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

pub(crate) struct Socket {
    package: PathBuf,
    server: Option<(Running, Address)>,
}

impl Socket {
    pub(crate) fn new(tools: &Path) -> Self {
        Self {
            package: tools.join("node_modules/@electric-sql/pglite-socket"),
            server: None,
        }
    }

    fn script(&self) -> PathBuf {
        self.package.join("dist/scripts/server.js")
    }
}

impl Host for Socket {
    fn name(&self) -> &'static str {
        "pglite-socket"
    }

    fn ways(&self) -> &'static [&'static str] {
        &["PGlite, pglite-socket"]
    }

    fn check(&self) -> Result<()> {
        let script = self.script();
        if script.exists() {
            return Ok(());
        }
        Err(format!("{} is not there", script.display()).into())
    }

    fn start(&mut self, data: &Path) -> Result<Started> {
        let listen = free_address()?;
        let mut command = Command::new("node");
        command
            .arg(self.script())
            .arg(format!("--db={}", data.display()))
            .arg(format!("--port={}", listen.port()));
        let address = Address::Tcp(listen);
        let start = Instant::now();
        let mut running = Running::start(&mut command, &data.with_extension("log"), false)?;
        let mut client = running.until_ready(|| Client::connect(&address, DATABASE))?;
        client.execute("select 1")?;
        let ready_us = us(start);
        self.server = Some((running, address));
        let manifest = fs::read_to_string(self.package.join("package.json"))?;
        let manifest: Value = serde_json::from_str(&manifest)?;
        let version = manifest["version"].as_str().unwrap_or("unknown version");
        Ok(Started {
            ready_us,
            open_us: None,
            version: format!("pglite-socket {version}"),
        })
    }

    fn stop(&mut self) -> Result<()> {
        self.server
            .take()
            .map_or(Ok(()), |(running, _)| running.stop("INT"))
    }

    fn database(&self, _way: &str) -> &'static str {
        DATABASE
    }

    fn session(&mut self, _way: &str) -> Result<Box<dyn Session>> {
        let (running, address) = self.server.as_mut().expect(NOT_RUNNING);
        // It refuses a client until it has noticed that the last one has gone.
        Ok(Box::new(
            running.until_ready(|| Client::connect(address, DATABASE))?,
        ))
    }

    fn create(&mut self, _way: &str, _name: &str) -> Result<Created> {
        Err(Unsupported("one database each process").into())
    }

    fn release(&mut self) -> Result<()> {
        Ok(())
    }

    fn memory(&self) -> Result<Memory> {
        self.server.as_ref().expect(NOT_RUNNING).0.memory()
    }
}
