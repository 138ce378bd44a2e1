//! Programs: ours, and PostgreSQL's.

use std::path::PathBuf;
use std::process::Command;

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
/// `None`, and a word about it, if there is none of this major version or a later one.
pub(crate) fn program(name: &str, version: u32) -> Option<Command> {
    let tools = std::env::var_os("DORMOUSE_TEST_TOOLS").map(PathBuf::from);
    let path = tools.map_or_else(|| PathBuf::from(name), |tools| tools.join("bin").join(name));
    let said = Command::new(&path).arg("--version").output();
    // `psql (PostgreSQL) 18.6 (Debian 18.6-3)`
    let said = said.map_or_else(
        |_| String::new(),
        |output| String::from_utf8(output.stdout).unwrap(),
    );
    let found = said
        .split([' ', '.'])
        .find_map(|word| word.parse::<u32>().ok());
    if found < Some(version) {
        eprintln!("skipped: no {name} of version {version}; `cargo xtask test` brings it");
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
