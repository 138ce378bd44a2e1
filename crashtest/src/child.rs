//! The server's process.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child as Process, ChildStdout, Command};
use tokio::time::timeout;

/// Logs of the last starts that are kept.
const LOGS_MAX: u64 = 8;
/// Longer than a start may take, a first one with its compiling included.
const START_MAX: Duration = Duration::from_secs(300);
/// Longer than a stop in order may take.
const STOP_MAX: Duration = Duration::from_secs(60);
/// Lines of the log that a message quotes.
const QUOTED_LINES: usize = 15;

/// How to start it.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its `data` and `log` are in here.
    pub folder: PathBuf,
    /// Variables of the environment; no other setting is handed on but the cache's place.
    pub settings: Vec<(String, String)>,
}

/// `dormouse serve`. Dropping it kills it.
#[derive(Debug)]
pub struct Child {
    process: Process,
    lines: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
    started: Instant,
}

impl Launch {
    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Starts the server for the `number`th time, on free ports.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(&self, number: u64) -> io::Result<Child> {
        let logs = self.folder.join("log");
        fs::create_dir_all(&logs)?;
        let log = logs.join(format!("serve-{}.log", number % LOGS_MAX));
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name == "RUST_LOG" || (name.starts_with("DORMOUSE_") && name != "DORMOUSE_CACHE") {
                command.env_remove(name.as_ref());
            }
        }
        command
            .args(["serve", "--pg", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .arg("--data")
            .arg(self.data())
            .current_dir(&self.folder)
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .kill_on_drop(true);
        let started = Instant::now();
        let mut process = command.spawn()?;
        let stdout = process
            .stdout
            .take()
            .ok_or_else(|| io::Error::other("the server has no standard output"))?;
        Ok(Child {
            process,
            lines: BufReader::new(stdout).lines(),
            log,
            started,
        })
    }
}

impl Child {
    /// When it was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Its process, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Waits until it says where it listens: for PostgreSQL's protocol, and for HTTP. May be
    /// dropped, but not called again.
    ///
    /// # Errors
    /// What it did instead, with the end of its log.
    pub async fn ready(&mut self) -> Result<(SocketAddr, SocketAddr), String> {
        let addresses = async {
            let pg = self.address("PostgreSQL: postgres://postgres@").await?;
            let http = self.address("HTTP:       http://").await?;
            Ok::<_, String>((pg, http))
        };
        let failure = match timeout(START_MAX, addresses).await {
            Ok(Ok(addresses)) => return Ok(addresses),
            Ok(Err(failure)) => failure,
            Err(_) => format!("nothing within {} s", START_MAX.as_secs()),
        };
        Err(format!(
            "the server did not start: {failure}; {}",
            self.told()
        ))
    }

    async fn address(&mut self, prefix: &str) -> Result<SocketAddr, String> {
        let line = self.lines.next_line().await;
        let line = line.map_err(|error| error.to_string())?;
        let address = line.as_deref().and_then(|line| line.strip_prefix(prefix));
        let address = address.and_then(|rest| rest.split('/').next()?.parse().ok());
        address.ok_or_else(|| format!("no {prefix}ADDRESS on its standard output, but {line:?}"))
    }

    /// Waits for an end that nobody asked for: what there is to say about it.
    pub async fn died(&mut self) -> String {
        let status = self.process.wait().await;
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        format!("the server ended by itself ({status}); {}", self.told())
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    /// If it had ended by itself, or cannot be killed.
    pub async fn kill(&mut self) -> Result<(), String> {
        if self.process.try_wait().map_err(text)?.is_some() {
            return Err(self.died().await);
        }
        self.process.kill().await.map_err(text)
    }

    /// Asks it to stop, and kills it if it has not within `grace`: how it ended, or `None` if it
    /// was killed.
    ///
    /// # Errors
    /// If it cannot be asked or killed.
    pub async fn stop_or_kill(&mut self, grace: Duration) -> Result<Option<ExitStatus>, String> {
        self.ask_to_stop()?;
        match timeout(grace, self.process.wait()).await {
            Ok(status) => status.map(Some).map_err(text),
            Err(_) => self.process.kill().await.map(|()| None).map_err(text),
        }
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Errors
    /// If it ends with a failure, or not within a minute.
    pub async fn stop(&mut self) -> Result<(), String> {
        match self.stop_or_kill(STOP_MAX).await? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("the stop failed ({status}); {}", self.told())),
            None => Err(format!(
                "the server did not stop within {} s; {}",
                STOP_MAX.as_secs(),
                self.told()
            )),
        }
    }

    fn ask_to_stop(&self) -> Result<(), String> {
        let id = self.process.id().and_then(|id| i32::try_from(id).ok());
        let pid = id.and_then(Pid::from_raw).ok_or("the server has ended")?;
        kill_process(pid, Signal::TERM).map_err(text)
    }

    /// The end of the log.
    pub fn told(&self) -> String {
        quote(&self.log)
    }
}

fn quote(log: &Path) -> String {
    match fs::read(log) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let lines: Vec<&str> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(QUOTED_LINES)..];
            format!("the end of its log {}:\n{}", log.display(), last.join("\n"))
        }
        Err(error) => format!("its log {}: {error}", log.display()),
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
