//! Our server as a process: started on a data folder, asked, ended, killed.

use super::{
    Run,
    usage::{self, Memory},
};
use crate::{
    http,
    process::{Running, pause},
    session::{Result, us},
};
use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ChildStdout, Command},
    time::{Duration, Instant},
};

/// A running server; killed when dropped.
pub(super) struct Server {
    running: Running,
    /// Kept open: the server may print more.
    _output: BufReader<ChildStdout>,
    log: PathBuf,
    /// Where PostgreSQL's protocol is spoken.
    pub(super) pg: SocketAddr,
    /// Where HTTP is spoken.
    pub(super) http: SocketAddr,
    /// From the start of the program to the line that says where it listens, microseconds.
    pub(super) ready_us: f64,
    /// When the program was started.
    pub(super) started: Instant,
}

/// A setting by its variable, and its value.
pub(super) type Setting<'a> = (&'a str, u64);

/// Settings by their variables.
pub(super) type Settings = Vec<(&'static str, String)>;

/// How long a database stays awake without a session.
pub(super) const IDLE_MS: &str = "DORMOUSE_DATABASES__IDLE_MS";

/// What one backend may use.
pub(super) const BACKEND_BYTES: &str = "DORMOUSE_BACKEND__MEMORY_BYTES_MAX";

/// Longer than any part takes: nothing falls asleep while a session pauses.
pub(super) const IDLE_NEVER: u64 = 3_600_000;

/// How long databases may take to fall asleep.
const ASLEEP_WITHIN: Duration = Duration::from_secs(600);

impl Server {
    /// Starts the server on `data` in the run's folder, with settings, and waits until it listens.
    pub(super) fn start(run: &Run, settings: &[Setting<'_>]) -> Result<Self> {
        let settings = settings.iter();
        let settings = settings.map(|(variable, value)| (*variable, value.to_string()));
        // The lines that say how long a wake took inside.
        Self::start_logging(
            run,
            "warn,database::slot=debug,dormouse_database=debug",
            settings,
        )
    }

    /// The same with settings of any kind, and no more in the log than usual.
    pub(super) fn start_with(run: &Run, settings: Settings) -> Result<Self> {
        Self::start_logging(run, "info", settings)
    }

    fn start_logging<'a>(
        run: &Run,
        log_filter: &str,
        settings: impl IntoIterator<Item = (&'a str, String)>,
    ) -> Result<Self> {
        let log = run.folder.join("server.log");
        let mut command = Command::new(&run.program);
        command
            .current_dir(&run.folder)
            .arg("serve")
            .arg("--data")
            .arg(data(run))
            .args(["--pg", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .args(["--log", log_filter])
            .env("DORMOUSE_PGWIRE__CONNECTIONS_MAX", "100000")
            .env("DORMOUSE_HTTP__CONNECTIONS_MAX", "100000");
        command.envs(settings);
        let started = Instant::now();
        let mut running = Running::start(&mut command, &log, true)?;
        let output = running.child.stdout.take();
        let mut output = BufReader::new(output.ok_or("BUG: the output is piped")?);
        let mut pg = None;
        let mut line = String::new();
        loop {
            line.clear();
            if output.read_line(&mut line)? == 0 {
                return Err(running.explain("the server ended before it listened".into()));
            }
            if let Some(address) = address(&line, "postgres@") {
                pg = Some(address);
            } else if let Some(http) = address(&line, "http://") {
                return Ok(Self {
                    ready_us: us(started),
                    pg: pg.ok_or("the server did not say where it speaks pgwire")?,
                    running,
                    _output: output,
                    log,
                    http,
                    started,
                });
            }
        }
    }

    /// The process.
    pub(super) fn id(&self) -> u32 {
        self.running.child.id()
    }

    /// Its memory now.
    pub(super) fn memory(&self) -> Result<Memory> {
        Memory::of(self.id())
    }

    /// Seconds of processor time so far.
    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        usage::cpu_seconds(self.id())
    }

    /// A client of the directory, and of a database.
    pub(super) fn http(&self, database: &str) -> Result<http::Client> {
        http::Client::connect(self.http, database)
    }

    /// Waits until a database is asleep; microseconds from now.
    pub(super) fn until_asleep(&self, name: &str) -> Result<f64> {
        // A connection of its own: the server ends one that has been quiet for long.
        let mut client = self.http(name)?;
        let path = format!("/v1/databases/{name}");
        until(&format!("{name} is asleep"), || {
            Ok(client.get(&path)?["state"] == "asleep")
        })
    }

    /// Waits until every database is asleep; microseconds from now.
    pub(super) fn until_all_asleep(&self) -> Result<f64> {
        let mut client = self.http("postgres")?;
        until("all databases are asleep", || {
            Ok(client.get("/health")?["databases"]["awake"] == 0)
        })
    }

    /// How many lines the log has.
    pub(super) fn log_lines(&self) -> Result<usize> {
        Ok(fs::read_to_string(&self.log)?.lines().count())
    }

    /// The wakes that the log tells of after so many lines.
    pub(super) fn wakes(&self, after: usize) -> Result<Vec<Wake>> {
        let text = fs::read_to_string(&self.log)?;
        Ok(text.lines().skip(after).filter_map(Wake::of).collect())
    }

    /// Stops it as a person does.
    pub(super) fn stop(self) -> Result<()> {
        self.running.stop("TERM")
    }

    /// Ends it by SIGKILL, wherever it is.
    pub(super) fn kill(self) {
        drop(self.running);
    }
}

/// The data folder of a run.
pub(super) fn data(run: &Run) -> PathBuf {
    run.folder.join("data")
}

/// Puts the data folder of a stopped server aside, for the next one to have none. It is removed with
/// the run's folder, after its figures are printed: large files can take minutes to remove.
pub(super) fn put_data_aside(run: &Run) -> Result<()> {
    let mut nth = 0;
    let aside = loop {
        let aside = run.folder.join(format!("done{nth}"));
        if !aside.exists() {
            break aside;
        }
        nth += 1;
    };
    Ok(fs::rename(data(run), aside)?)
}

/// One wake, as the server's log tells of it.
#[derive(Debug, PartialEq)]
pub(super) struct Wake {
    /// Of the wake alone, without connection and statement.
    pub(super) us: f64,
    /// What the line says of where the backend came from.
    pub(super) how: String,
}

impl Wake {
    fn of(line: &str) -> Option<Self> {
        let mut how = Vec::new();
        let mut us = None;
        for word in line.split_whitespace() {
            match word.split_once('=') {
                Some(("elapsed_us", number)) => us = number.parse().ok(),
                Some(("database" | "name", _)) | None => {}
                Some(_) => how.push(word),
            }
        }
        line.contains("awake").then_some(Self {
            us: us?,
            how: how.join(" "),
        })
    }
}

/// Asks until it is so; microseconds from now.
fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<f64> {
    let start = Instant::now();
    while !is_so()? {
        if start.elapsed() > ASLEEP_WITHIN {
            return Err(format!("not after {} s: {what}", ASLEEP_WITHIN.as_secs()).into());
        }
        pause(Duration::from_millis(1));
    }
    Ok(us(start))
}

/// The address after a word in a line.
fn address(line: &str, word: &str) -> Option<SocketAddr> {
    let (_, rest) = line.trim().split_once(word)?;
    rest.split('/').next()?.parse().ok()
}

/// Bytes of the directory of all databases.
pub(super) fn directory_bytes(data: &Path) -> Result<u64> {
    Ok(fs::metadata(data.join("directory.redb"))?.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_server() {
        let at = |line, word| address(line, word).map(|address| address.port());
        assert_eq!(
            at(
                "PostgreSQL: postgres://postgres@127.0.0.1:5/postgres\n",
                "postgres@"
            ),
            Some(5)
        );
        assert_eq!(at("HTTP:       http://127.0.0.1:6\n", "http://"), Some(6));
        assert_eq!(at("something else\n", "http://"), None);
        let line = "2026 DEBUG database::slot: awake database=a from_image=true elapsed_us=12";
        assert_eq!(
            Wake::of(line),
            Some(Wake {
                us: 12.0,
                how: "from_image=true".into()
            })
        );
        assert_eq!(Wake::of("DEBUG asleep"), None);
    }
}
