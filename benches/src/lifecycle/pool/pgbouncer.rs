//! PgBouncer as a process.

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

/// Who its clients are.
const USER: &str = "bench";

/// The password of [`USER`].
const PASSWORD: &str = "a password of no importance";

/// A running PgBouncer.
pub(super) struct PgBouncer {
    running: Running,
    pub(super) version: String,
    pub(super) target: Target,
}

impl PgBouncer {
    /// Starts it before an origin. `verifier` is what the origin has made of a password.
    pub(super) fn start(
        run: &Run,
        origin: SocketAddr,
        verifier: impl FnOnce(&str, &str) -> Result<String>,
    ) -> Result<Self> {
        let programs = Programs::new(&run.tools.join("pgbouncer"), &run.folder, &["pgbouncer"])?;
        programs.check().map_err(|error| {
            format!("PgBouncer: {error}: `cargo xtask bench pool` brings it where it can")
        })?;
        let said = programs.command("pgbouncer").arg("--version").output()?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let home = run.folder.join("pgbouncer");
        fs::create_dir(&home)?;
        programs.give(&home)?;
        let address = free_address()?;
        let verifier = verifier(USER, PASSWORD)?;
        fs::write(home.join("users"), format!("\"{USER}\" \"{verifier}\"\n"))?;
        let file = home.join("configuration");
        fs::write(&file, configuration(&home, origin, address))?;
        let mut command = programs.command("pgbouncer");
        let mut running = Running::start(command.arg(&file), &home.join("log"), false)?;
        running.until_ready(|| Ok(TcpStream::connect(address)?))?;
        Ok(Self {
            running,
            version: said.lines().next().unwrap_or("PgBouncer").to_owned(),
            target: Target {
                name: "PgBouncer",
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

    pub(super) fn stop(self) -> Result<()> {
        // SIGINT waits for clients, SIGTERM does not.
        self.running.stop("TERM")
    }
}

/// What matters is as with us: so many connections, transactions, prepared statements, logins by SCRAM with what is
/// stored of a password, no lines about each client.
fn configuration(home: &Path, origin: SocketAddr, address: SocketAddr) -> String {
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
        origin.ip(),
        origin.port(),
        address.ip(),
        address.port(),
        home.join("users").display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_connections_as_ours() {
        let [origin, own] = ["127.0.0.1:7", "127.0.0.1:8"].map(|at| at.parse().unwrap());
        let text = configuration(Path::new("/x"), origin, own);
        assert!(text.contains("port=7 ") && text.contains("listen_port = 8\n"));
        assert!(text.contains("default_pool_size = 20\n"));
    }
}
