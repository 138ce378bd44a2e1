//! The server that is attacked.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crashtest::child::{Child, Launch};

use crate::log::Log;
use crate::memory;

/// A running server.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: Log,
    /// Where it speaks PostgreSQL's protocol.
    pub address: SocketAddr,
}

impl Server {
    /// Starts it in a folder for the `number`th time, with variables of the environment.
    ///
    /// # Errors
    /// Why it does not run.
    pub async fn start(
        program: &Path,
        folder: &Path,
        settings: Vec<(String, String)>,
        number: u64,
    ) -> Result<Self, String> {
        // The server works in its folder.
        let absolute = |path| std::path::absolute(path).map_err(|error| error.to_string());
        let launch = Launch {
            program: absolute(program)?,
            folder: absolute(folder)?,
            settings,
        };
        let failed = |error: std::io::Error| format!("{}: {error}", program.display());
        let mut child = launch.start(number).map_err(failed)?;
        let (address, _) = child.ready().await?;
        let log = Log::open(&log_path(folder, number)).map_err(|error| error.to_string())?;
        Ok(Self {
            child,
            log,
            address,
        })
    }

    /// What is wrong with it: it has ended, its log has what it should not have, or it has too much
    /// memory.
    ///
    /// # Errors
    /// Just that.
    pub fn check(&mut self, memory_bytes_max: u64) -> Result<u64, String> {
        let alarms = self.log.alarms().map_err(|error| error.to_string())?;
        if !alarms.is_empty() {
            return Err(format!("the server's log: {}", alarms.join("; ")));
        }
        let Some(id) = self.child.id() else {
            return Err(format!("the server ended: {}", self.child.told()));
        };
        let bytes = memory::private_bytes(id);
        match bytes > memory_bytes_max {
            true => Err(format!(
                "the server has {bytes} bytes of memory, more than {memory_bytes_max}"
            )),
            false => Ok(bytes),
        }
    }

    /// Stops it as an operator does.
    ///
    /// # Errors
    /// If it does not stop.
    pub async fn stop(mut self) -> Result<(), String> {
        self.child.stop().await
    }
}

/// As `Launch` names it, for a number below eight.
fn log_path(folder: &Path, number: u64) -> PathBuf {
    folder.join("log").join(format!("serve-{number}.log"))
}
