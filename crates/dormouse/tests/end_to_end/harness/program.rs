//! Programs: ours, and PostgreSQL's.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What a program said, and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: Option<i32>,
}

/// Our program, with nothing of the environment's configuration.
pub(crate) fn dormouse() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse"));
    for (name, _) in std::env::vars_os() {
        let ours = name
            .to_str()
            .is_some_and(|name| name.starts_with("DORMOUSE_"));
        if (ours && name != "DORMOUSE_CACHE") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

/// A program of PostgreSQL: of the version that `cargo xtask test` brings, or else the system's.
/// `None`, and a word about it, if there is none.
pub(crate) fn program(name: &str) -> Option<Command> {
    let tools = std::env::var_os("DORMOUSE_TEST_TOOLS").map(PathBuf::from);
    let path = tools.map_or_else(|| PathBuf::from(name), |tools| tools.join("bin").join(name));
    let mut command = Command::new(&path);
    command.arg("--version").stdout(Stdio::null());
    if !command.status().is_ok_and(|status| status.success()) {
        eprintln!(
            "skipped: there is no {}; run `cargo xtask test`",
            path.display()
        );
        return None;
    }
    Some(Command::new(path))
}

/// Runs a program to its end.
pub(crate) fn run_program(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Output {
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
        code: output.status.code(),
    }
}

impl Output {
    /// What it said, if it did what it was asked.
    #[track_caller]
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// What it said on failing with this exit code.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        self.stderr
    }
}
