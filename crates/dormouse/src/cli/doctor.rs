//! `dormouse doctor`: what would keep a server from doing its work, here and where it runs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Resource, getrlimit};
use serde::Serialize;
use workers::runtime::NoWorkerd;

use super::args::DoctorArgs;
use super::config::{self, Config};
use super::failure::Failure;
use super::remote::Remote;

/// Files that a server has open beside its connections: journal, volumes that are awake, listeners.
const OTHER_FILES: u64 = 1_000;

/// Free bytes of the disk below which databases may soon not grow, as a multiple of `disk.reserve_bytes`.
const RESERVES: u64 = 4;

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// It works, and may not always.
    Warn,
    /// It does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    state: State,
    message: String,
}

/// Looks at everything, and says what it found. Fails if anything does not work.
pub(crate) async fn run(args: DoctorArgs) -> Result<(), Failure> {
    let mut findings = match config::load(&args.serve) {
        Ok(loaded) => of_configuration(&loaded.config),
        Err(failure) => vec![fail("configuration", failure.message())],
    };
    findings.extend(of_server(&args).await);
    super::print(&match args.json {
        true => json(&findings),
        false => text(&findings),
    });
    let worst = findings.iter().map(|finding| finding.state).max();
    match worst {
        Some(State::Fail) => Err(Failure::unavailable("something does not work: see above")),
        _ => Ok(()),
    }
}

fn of_configuration(config: &Config) -> Vec<Finding> {
    let files = match config.server_options() {
        Ok(_) => ok(
            "configuration",
            "it can be read, and all files that it names".to_owned(),
        ),
        Err(failure) => fail("configuration", failure.message()),
    };
    let options = config.database_options();
    let limits = &options.limits;
    vec![
        files,
        folder("data directory", &options.data_directory),
        room(&options.data_directory, limits.disk_reserve_bytes),
        folder("cache", &options.cache_directory),
        open_files(config.connections_max()),
        memory(limits.memory_bytes(), database::machine_memory_bytes()),
        runtime(config),
    ]
}

/// Whether files can be made in a folder, or in the one that it will be made in.
fn folder(what: &'static str, path: &Path) -> Finding {
    let there = existing(path);
    let probe = there.join(format!(".dormouse-doctor-{}", std::process::id()));
    let made = std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe));
    match made {
        Ok(()) if there == path => ok(what, format!("{} can be written", path.display())),
        Ok(()) => ok(
            what,
            format!("{} is not there yet, and can be made", path.display()),
        ),
        Err(error) => fail(
            what,
            format!("{} cannot be written: {error}", there.display()),
        ),
    }
}

/// The folder, or the nearest one above it that is there.
fn existing(path: &Path) -> PathBuf {
    let above = path.ancestors().find(|above| above.is_dir());
    above.map_or_else(|| PathBuf::from("."), Path::to_owned)
}

fn room(data: &Path, reserve: u64) -> Finding {
    let what = "disk";
    let stat = match rustix::fs::statvfs(existing(data)) {
        Ok(stat) => stat,
        Err(error) => return fail(what, format!("its free room cannot be found out: {error}")),
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let message = format!("{} MiB are free", free >> 20);
    if free <= reserve {
        fail(
            what,
            format!("{message}: below disk.reserve_bytes, {reserve}, databases may not grow"),
        )
    } else if free / RESERVES <= reserve {
        warn(
            what,
            format!("{message}: below disk.reserve_bytes, {reserve}, databases may not grow"),
        )
    } else {
        ok(what, message)
    }
}

fn open_files(connections_max: u64) -> Finding {
    let what = "open files";
    let wanted = connections_max + OTHER_FILES;
    // A server raises its own limit so far.
    match getrlimit(Resource::Nofile).maximum {
        Some(limit) if limit < wanted => warn(
            what,
            format!(
                "the system allows {limit}, and the configured connections alone may need {wanted}: raise the \
                 hard limit (ulimit -Hn, LimitNOFILE), or lower the connections_max of pgwire, http and websocket"
            ),
        ),
        Some(limit) => ok(what, format!("the system allows {limit}")),
        None => ok(what, "the system allows any number".to_owned()),
    }
}

fn memory(allowed: u64, machine: u64) -> Finding {
    let what = "memory";
    let message = format!(
        "node.memory_bytes_max is {} MiB of the machine's {} MiB",
        allowed >> 20,
        machine >> 20
    );
    match allowed > machine {
        true => warn(
            what,
            format!("{message}: the system may end the server first"),
        ),
        false => ok(what, message),
    }
}

/// Whether backends can be run: what runs them says its version.
fn runtime(config: &Config) -> Finding {
    let what = "workerd";
    let program = match config.workerd() {
        Ok(program) => program,
        Err(error @ NoWorkerd::NotFound) => {
            return ok(
                what,
                format!("backends cannot be deployed, sites can: {error}"),
            );
        }
        Err(error) => return fail(what, error.to_string()),
    };
    let said = Command::new(&program)
        .arg("--version")
        .stdin(Stdio::null())
        .output();
    match said {
        Ok(said) if said.status.success() => {
            let version = String::from_utf8_lossy(&said.stdout);
            ok(
                what,
                format!("{} runs: {}", program.display(), version.trim()),
            )
        }
        Ok(said) => fail(
            what,
            format!("{} does not run: {}", program.display(), said.status),
        ),
        Err(error) => fail(what, format!("{} does not run: {error}", program.display())),
    }
}

async fn of_server(args: &DoctorArgs) -> Vec<Finding> {
    let what = "server";
    let remote = match Remote::new(&args.server, &args.access) {
        Ok(remote) => remote,
        Err(failure) => return vec![fail(what, failure.message())],
    };
    let server = &args.server;
    let readiness = match remote.readiness().await {
        Ok(None) => ok(what, format!("{server} is ready")),
        Ok(Some(reason)) => warn(what, format!("{server} is there, and not ready: {reason}")),
        Err(failure) if args.expect_server => fail(what, failure.message()),
        Err(_) => ok(what, format!("none answers at {server}")),
    };
    vec![readiness]
}

fn ok(what: &'static str, message: String) -> Finding {
    Finding {
        what,
        state: State::Ok,
        message,
    }
}

fn warn(what: &'static str, message: String) -> Finding {
    Finding {
        state: State::Warn,
        ..ok(what, message)
    }
}

fn fail(what: &'static str, message: String) -> Finding {
    Finding {
        state: State::Fail,
        ..ok(what, message)
    }
}

fn text(findings: &[Finding]) -> String {
    let line = |finding: &Finding| {
        let state = match finding.state {
            State::Ok => "ok  ",
            State::Warn => "warn",
            State::Fail => "FAIL",
        };
        format!("{state}  {}: {}\n", finding.what, finding.message)
    };
    findings.iter().map(line).collect()
}

fn json(findings: &[Finding]) -> String {
    format!("{}\n", serde_json::json!({ "findings": findings }))
}
