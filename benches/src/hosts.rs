//! The peers: programs that are started, and the ways to reach a database in each.

mod dormouse;
mod driven;
mod native;
mod programs;
mod socket;

pub(crate) use {
    dormouse::Dormouse, driven::Driven, native::Native, programs::Programs, socket::Socket,
};

use crate::{
    pgwire::{self, Address},
    process::Memory,
    session::{Result, Session, us},
};
use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    time::Instant,
};

/// The database that everything is measured in, where a peer has more than one.
const DATABASE: &str = "postgres";

/// A program that serves databases, here for as long as it runs.
pub(crate) trait Host {
    /// A word for folders and logs.
    fn name(&self) -> &'static str;

    /// The ways to reach it; each is a row of the tables.
    fn ways(&self) -> &'static [&'static str];

    /// What must be there before it can be started.
    fn check(&self) -> Result<()>;

    /// Starts it on a data folder, made first if it is not there, and waits for an answer to
    /// `select 1`.
    fn start(&mut self, data: &Path) -> Result<Started>;

    /// Ends it cleanly.
    fn stop(&mut self) -> Result<()>;

    /// The database that a way leads to: ways with the same one share its tables.
    fn database(&self, way: &str) -> &'static str;

    /// A client.
    fn session(&mut self, way: &str) -> Result<Box<dyn Session>>;

    /// Creates a database, and asks it `select 1`; it stays awake until `release`.
    fn create(&mut self, way: &str, name: &str) -> Result<Created>;

    /// Lets go of what `create` made.
    fn release(&mut self) -> Result<()>;

    /// Memory of all its processes.
    fn memory(&self) -> Result<Memory>;
}

pub(crate) struct Started {
    /// From the start of the program to the first answer, microseconds.
    pub(crate) ready_us: f64,
    /// What opening the database took inside of the process, if it says so.
    pub(crate) open_us: Option<f64>,
    pub(crate) version: String,
}

pub(crate) struct Created {
    pub(crate) create_us: f64,
    /// With the first answer from the new database.
    pub(crate) first_us: f64,
}

/// Creates a database by SQL, and asks it something on a connection of its own.
fn create_by_sql(
    client: &mut pgwire::Client,
    address: &Address,
    name: &str,
) -> Result<(Created, pgwire::Client)> {
    let start = Instant::now();
    client.execute(&format!("create database {name}"))?;
    let create_us = us(start);
    let mut created = pgwire::Client::connect(address, name)?;
    created.execute("select 1")?;
    Ok((
        Created {
            create_us,
            first_us: us(start),
        },
        created,
    ))
}

/// A loopback address that nobody listens on just now.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

const NOT_RUNNING: &str = "BUG: a host is asked only while it runs";
