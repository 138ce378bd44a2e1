//! Poolers of others, as processes.

use super::CONNECTIONS;
use crate::{
    hosts::{Programs, free_address},
    lifecycle::{Run, pgbench::Target},
    process::Running,
    session::Result,
};
use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
};

/// Who clients are, and with which password.
const USER: &str = "bench";
const PASSWORD: &str = "of no importance";

/// A kind of them.
pub(super) struct Kind {
    name: &'static str,
    /// The program, in the tools' folder of the same name.
    program: &'static [&'static str; 1],
    configuration: fn(&Place<'_>) -> String,
}

/// Where one is to be.
struct Place<'a> {
    home: &'a Path,
    origin: SocketAddr,
    address: SocketAddr,
    /// What an origin stores of the password.
    verifier: &'a str,
}

pub(super) const PGBOUNCER: Kind = Kind {
    name: "PgBouncer",
    program: &["pgbouncer"],
    configuration: pgbouncer,
};

pub(super) const ODYSSEY: Kind = Kind {
    name: "Odyssey",
    program: &["odyssey"],
    configuration: odyssey,
};

/// A running one.
pub(super) struct Other {
    running: Running,
    /// What it says of its version.
    pub(super) version: String,
    pub(super) target: Target,
}

impl Other {
    /// Starts one before an origin, which makes a verifier of a role and a password.
    pub(super) fn start(
        run: &Run,
        kind: &Kind,
        origin: SocketAddr,
        verifier: impl FnOnce(&str, &str) -> Result<String>,
    ) -> Result<Self> {
        let [program] = kind.program;
        let programs = Programs::new(&run.tools.join(program), &run.folder, kind.program)?;
        programs.check().map_err(|error| {
            format!(
                "{}: {error}: `cargo xtask bench pool` brings it where it can",
                kind.name
            )
        })?;
        let said = programs.command(program).arg("--version").output()?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let home = run.folder.join(program);
        fs::create_dir(&home)?;
        programs.give(&home)?;
        let address = free_address()?;
        let place = Place {
            home: &home,
            origin,
            address,
            verifier: &verifier(USER, PASSWORD)?,
        };
        fs::write(
            home.join("users"),
            format!("\"{USER}\" \"{}\"\n", place.verifier),
        )?;
        let file = home.join("configuration");
        fs::write(&file, (kind.configuration)(&place))?;
        let mut command = programs.command(program);
        let mut running = Running::start(command.arg(&file), &home.join("log"), false)?;
        running.until_ready(|| Ok(TcpStream::connect(address)?))?;
        Ok(Self {
            running,
            version: said.lines().next().unwrap_or(kind.name).to_owned(),
            target: Target {
                name: kind.name,
                address,
                user: USER.to_owned(),
                password: PASSWORD.to_owned(),
                database: "postgres".to_owned(),
            },
        })
    }

    /// Its process.
    pub(super) fn id(&self) -> u32 {
        self.running.child.id()
    }

    /// Ends it, without waiting for clients.
    pub(super) fn stop(self) -> Result<()> {
        self.running.stop("TERM")
    }
}

// What matters is as with us: so many connections, transactions, prepared statements, logins by SCRAM with what is
// stored of a password, no lines about each client, one thread.

fn pgbouncer(place: &Place<'_>) -> String {
    format!(
        "[databases]\n\
         postgres = host={} port={} user=postgres dbname=postgres\n\
         [pgbouncer]\n\
         listen_addr = {}\n\
         listen_port = {}\n\
         unix_socket_dir =\n\
         auth_type = scram-sha-256\n\
         auth_file = {}\n\
         pool_mode = transaction\n\
         default_pool_size = {CONNECTIONS}\n\
         max_client_conn = 5000\n\
         max_prepared_statements = 200\n\
         log_connections = 0\n\
         log_disconnections = 0\n",
        place.origin.ip(),
        place.origin.port(),
        place.address.ip(),
        place.address.port(),
        place.home.join("users").display(),
    )
}

fn odyssey(place: &Place<'_>) -> String {
    format!(
        "daemonize no\n\
         log_to_stdout yes\n\
         log_format \"%p %t %l [%i %s] (%c) %m\\n\"\n\
         log_session no\n\
         log_stats no\n\
         workers 1\n\
         listen {{ host \"{}\" port {} }}\n\
         storage \"origin\" {{ type \"remote\" host \"[{}]:{}\" }}\n\
         database \"postgres\" {{\n\
         user \"{USER}\" {{\n\
         authentication \"scram-sha-256\"\n\
         password \"{}\"\n\
         storage \"origin\"\n\
         storage_user \"postgres\"\n\
         pool \"transaction\"\n\
         pool_size {CONNECTIONS}\n\
         pool_reserve_prepared_statement yes\n\
         pool_discard no\n\
         }}\n\
         }}\n",
        place.address.ip(),
        place.address.port(),
        place.origin.ip(),
        place.origin.port(),
        place.verifier,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_connections_as_ours() {
        let [origin, address] = ["127.0.0.1:7", "127.0.0.1:8"].map(|at| at.parse().unwrap());
        let place = Place {
            home: Path::new("/x"),
            origin,
            address,
            verifier: "SCRAM",
        };
        let text = pgbouncer(&place);
        assert!(text.contains("port=7 ") && text.contains("listen_port = 8\n"));
        assert!(text.contains("default_pool_size = 20\n"));
        let text = odyssey(&place);
        assert!(text.contains("[127.0.0.1]:7") && text.contains("port 8 }"));
        assert!(text.contains("pool_size 20\n"));
    }
}
