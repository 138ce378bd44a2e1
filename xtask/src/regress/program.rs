//! PostgreSQL's programs as `pg_regress` runs them.

use super::options::Options;
use crate::{Context as _, Failure, Result};
use std::{
    ffi::OsStr,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc,
    thread,
    time::Duration,
};

/// The folder above the data directory, as a backend sees it. The schedule's data files are put
/// into the data directory itself (`prepare`), so scripts find `/data/NAME.data` below it.
const SERVER_SOURCES: &str = "/pglite";

/// A folder that has a folder `results`, as a backend sees it (`prepare`).
const SERVER_BUILD: &str = "/pglite/data/pg_replslot";

/// Where the distribution's libraries are, as a backend sees it. `regress.so` is not among them.
const SERVER_LIBRARIES: &str = "/pglite/lib/postgresql";

/// Runs scripts against one server.
pub(super) struct Client<'a> {
    psql: PathBuf,
    address: &'a str,
    options: &'a Options,
}

/// What a script printed.
pub(super) struct Printed {
    pub(super) bytes: Vec<u8>,
    pub(super) ran_out_of_time: bool,
}

impl<'a> Client<'a> {
    pub(super) fn new(tools: &Path, address: &'a str, options: &'a Options) -> Self {
        Self {
            psql: tools.join("bin/psql"),
            address,
            options,
        }
    }

    /// Runs one file of the suite.
    pub(super) fn run(&self, name: &str, script: &Path) -> Result<Printed> {
        let database = self.options.suite().database();
        let mut command = match &self.options.isolationtester {
            Some(tester) => {
                let mut command = self.command(tester);
                command.env("PGAPPNAME", format!("isolation/{name}"));
                command.arg(format!("dbname={database}"));
                command
            }
            None => {
                let mut command = self.command(&self.psql);
                command.env("PGAPPNAME", format!("pg_regress/{name}"));
                command.args(["-X", "-a", "-q", "-d", database]);
                command.args(["-v", "HIDE_TABLEAM=on", "-v", "HIDE_TOAST_COMPRESSION=on"]);
                command
            }
        };
        // psql itself writes these results; with all others it is the backend.
        if name == "psql" {
            command.env("PG_ABS_BUILDDIR", &self.options.output);
        }
        let script = File::open(script).context(|| format!("{}", script.display()))?;
        command.stdin(script);
        within(command, self.options.limit)
    }

    /// Runs statements and psql's own commands; what they print, or why they failed.
    pub(super) fn psql(&self, database: &str, commands: &[String]) -> Result<String> {
        let mut psql = self.command(&self.psql);
        psql.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            database,
        ]);
        for command in commands {
            psql.args(["-c", command]);
        }
        crate::output(&mut psql)
    }

    /// With the environment that `pg_regress` makes, and nothing of the caller's that matters.
    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let ours = std::env::vars_os().filter(|(name, _)| {
            let name = name.to_string_lossy();
            name.starts_with("PG") || name.starts_with("LC_") || name.starts_with("LANG")
        });
        for (name, _) in ours {
            command.env_remove(name);
        }
        let (host, port) = self
            .address
            .rsplit_once(':')
            .unwrap_or((self.address, "5432"));
        command
            .env("PGHOST", host)
            .env("PGPORT", port)
            .env("PGUSER", "postgres")
            .env("PGTZ", "America/Los_Angeles")
            .env("PGDATESTYLE", "Postgres, MDY")
            // `compute_query_id`: this value is PostgreSQL's own for its tests, since
            // pg_stat_statements is preloaded here and would show in each EXPLAIN VERBOSE.
            .env(
                "PGOPTIONS",
                "-c intervalstyle=postgres_verbose -c compute_query_id=regress",
            )
            .env("LC_MESSAGES", "C")
            .env("PG_ABS_SRCDIR", SERVER_SOURCES)
            .env("PG_ABS_BUILDDIR", SERVER_BUILD)
            .env("PG_LIBDIR", SERVER_LIBRARIES)
            .env("PG_DLSUFFIX", ".so");
        command
    }
}

/// Runs a program to its end or to that of its time.
fn within(mut command: Command, limit: Duration) -> Result<Printed> {
    let name = command.get_program().to_string_lossy().into_owned();
    let doing = || format!("running {name}");
    let (mut reader, writer) = std::io::pipe().context(doing)?;
    command.stdout(writer.try_clone().context(doing)?);
    command.stderr(writer);
    let mut child = command.spawn().context(doing)?;
    // It holds the pipe's other end: the reader would never see an end of it.
    drop(command);

    let (sender, printed) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = reader.read_to_end(&mut bytes).map(|_| bytes);
        // Nobody listens if the program could not even be ended.
        let _ = sender.send(read);
    });
    let in_time = printed.recv_timeout(limit);
    let ran_out_of_time = in_time.is_err();
    if ran_out_of_time {
        child.kill().context(|| format!("ending {name}"))?;
    }
    child.wait().context(doing)?;
    let bytes = in_time
        .or_else(|_| printed.recv())
        .map_err(|_| Failure::new(format!("{name}: its output was lost")))?
        .context(doing)?;
    Ok(Printed {
        bytes,
        ran_out_of_time,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Printed {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        within(command, limit).ok().unwrap()
    }

    #[test]
    fn both_outputs_in_their_order() {
        let printed = shell("echo a; echo b >&2; echo c", Duration::from_secs(60));
        assert_eq!(printed.bytes, b"a\nb\nc\n");
        assert!(!printed.ran_out_of_time);
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let printed = shell("echo a; exec sleep 600", Duration::from_millis(200));
        assert!(printed.ran_out_of_time);
        assert_eq!(printed.bytes, b"a\n");
    }
}
