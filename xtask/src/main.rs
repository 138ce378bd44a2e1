//! The commands of this repository that are more than one cargo call.
//!
//! ```text
//! cargo xtask tools          bring what tests and benchmarks need; prints the folder
//! cargo xtask test [ARGS]    tools and the clients of clients/, then the whole workspace's tests
//! cargo xtask bench [ARGS]   release builds, then the comparison with our peers; or, with
//!                            `lifecycle` first, what a database's life costs; with
//!                            `sessions`, what many sessions of one database do; with `pool`,
//!                            the pool of bindings beside PgBouncer
//! cargo xtask regress ARGS   PostgreSQL's own regression tests against a Dormouse database
//! cargo xtask ci             what CI runs: format, clippy, tests
//! ```

mod regress;
mod tools;

use std::{
    env,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

const HELP: &str = "\
The commands of this repository that are more than one cargo call.

Usage: cargo xtask <COMMAND> [ARGS]

Commands:
  tools          Bring what tests and benchmarks need into a cache folder (outside the
                 checkout) and print that folder: bin/ has PostgreSQL 18's programs,
                 node_modules/ has PGlite. Does nothing when it is there.
  test [ARGS]    `tools` and the same for the clients of clients/, then every test of the
                 workspace: with cargo-nextest if it is installed, else with cargo test.
                 ARGS go to the test runner: `clients::psycopg` is one client's suite.
  bench [ARGS]   `tools`, release builds, then the comparison with our peers; the table
                 goes to standard output. ARGS go to it: see `cargo xtask bench --help`.
                 With `lifecycle` as the first of ARGS: what creating, committing, sleeping,
                 waking and forking cost; see `cargo xtask bench lifecycle --help`.
                 With `sessions`: many sessions of one database beside a native PostgreSQL.
                 With `pool`: the pool of bindings beside PgBouncer, which is brought too.
  regress ARGS   PostgreSQL's own regression tests, from its sources, against a Dormouse
                 database: what passes, and the differences. See `--help`.
  ci             What CI runs: cargo fmt --check, clippy with warnings denied, `test`.
  help           This text.

Environment:
  DORMOUSE_TOOLS   The cache folder for `tools`.
                   Default: ${XDG_CACHE_HOME:-$HOME/.cache}/dormouse/tools
";

/// What went wrong, in words for the person at the terminal.
struct Failure(String);

type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Says what was being done when something failed.
trait Context<T> {
    fn context(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Failure(format!("{}: {error}", doing())))
    }
}

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    let command = args.next();
    let rest: Vec<OsString> = args.collect();
    let done = match command.as_deref().and_then(|c| c.to_str()) {
        Some("tools") => no_arguments("tools", &rest).and_then(|()| print_tools()),
        Some("test") => test(&rest),
        Some("bench") => bench(&rest),
        Some("regress") => regress::run(&rest),
        Some("ci") => no_arguments("ci", &rest).and_then(|()| ci()),
        Some("help" | "-h" | "--help") => {
            print!("{HELP}");
            Ok(())
        }
        None => Err(Failure::new(format!("which command?\n\n{HELP}"))),
        Some(other) => Err(Failure::new(format!(
            "there is no command '{other}'\n\n{HELP}"
        ))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn no_arguments(command: &str, rest: &[OsString]) -> Result<()> {
    match rest.first() {
        None => Ok(()),
        Some(arg) => Err(Failure::new(format!(
            "'{command}' takes no arguments, got '{}'",
            arg.display()
        ))),
    }
}

fn print_tools() -> Result<()> {
    println!("{}", tools::bring()?.display());
    Ok(())
}

fn test(args: &[OsString]) -> Result<()> {
    let environment = [
        ("DORMOUSE_TEST_TOOLS", tools::bring()?),
        ("DORMOUSE_TEST_CLIENTS", tools::bring_clients()?),
        ("DORMOUSE_TEST_RUST", build_clients(args)?),
    ];
    let cargo = || {
        let mut cargo = cargo();
        cargo.envs(environment.iter().map(|(name, path)| (name, path)));
        cargo
    };
    if !runs(cargo().args(["nextest", "--version"])) {
        return run(cargo().args(["test", "--workspace"]).args(args));
    }
    // nextest does not run the examples in the documentation. They go first, so that the last
    // lines of the output are the summary that counts.
    if args.is_empty() {
        run(cargo().args(["test", "--workspace", "--doc", "--quiet"]))?;
    }
    run(cargo().args(["nextest", "run", "--workspace"]).args(args))
}

/// Builds the tested clients in Rust, unless ARGS are for other tests; gives their target folder. Their tests
/// would build them too, but then that minute or more would be a test's.
fn build_clients(args: &[OsString]) -> Result<PathBuf> {
    let target = tools::rust_clients()?;
    let wanted = |arg: &OsString| arg.to_string_lossy().contains("clients");
    if args.is_empty() || args.iter().any(wanted) {
        run(cargo()
            .args(["test", "--no-run", "--quiet", "--locked"])
            .args([
                "--test",
                "tokio_postgres",
                "--test",
                "sqlx",
                "--test",
                "diesel",
            ])
            .arg("--target-dir")
            .arg(&target)
            .current_dir(root().join("clients/rust")))?;
    }
    Ok(target)
}

/// Builds in release mode and runs the comparison of `benches/`, or one of its other commands.
fn bench(args: &[OsString]) -> Result<()> {
    let suite = args.first().is_some_and(|arg| {
        ["lifecycle", "sessions", "pool"]
            .iter()
            .any(|suite| arg == suite)
    });
    let (command, args) = args.split_at(usize::from(suite));
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        return run(cargo()
            .args(["run", "--quiet", "--release", "--package", "dormouse-bench"])
            .args(["--bin", "compare", "--"])
            .args(command)
            .arg("--help"));
    }
    let tools = match command.first() {
        Some(command) if command == "pool" => tools::bring_poolers()?,
        _ => tools::bring()?,
    };
    run(cargo().args([
        "build",
        "--release",
        "--package",
        "dormouse-bench",
        "--bins",
    ]))?;
    run(cargo().args([
        "build",
        "--release",
        "--package",
        "dormouse",
        "--bin",
        "dormouse",
    ]))?;
    // The seam for the in-process engine: an example of the library crate that speaks the driver
    // protocol of `benches/README.md`.
    let driver = root().join("crates/dormouse/examples/bench_inprocess.rs");
    let has_driver = driver.exists() && !suite;
    if has_driver {
        run(cargo()
            .args(["build", "--release", "--package", "dormouse"])
            .args(["--example", "bench_inprocess"]))?;
    }
    let release = target_dir()?.join("release");
    let exe = env::consts::EXE_SUFFIX;
    let mut compare = Command::new(release.join(format!("compare{exe}")));
    compare
        .args(command)
        .arg("--tools")
        .arg(&tools)
        .arg("--dormouse")
        .arg(release.join(format!("dormouse{exe}")));
    if has_driver {
        compare
            .arg("--inprocess")
            .arg(release.join(format!("examples/bench_inprocess{exe}")));
    }
    run(compare.args(args).current_dir(root()))
}

fn ci() -> Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo().args([
        "fmt",
        "--check",
        "--manifest-path",
        "clients/rust/Cargo.toml",
    ]))?;
    run(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    test(&[])
}

/// The checkout.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("BUG: xtask's folder is inside the checkout")
}

fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// Where cargo puts what it builds, whatever set it (variable, configuration file, default).
fn target_dir() -> Result<PathBuf> {
    let output = cargo()
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .output()
        .context(|| "running cargo metadata".into())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let key = "\"target_directory\":\"";
    text.split_once(key)
        .and_then(|(_, rest)| rest.split_once('"'))
        .map(|(folder, _)| PathBuf::from(folder.replace("\\\\", "\\")))
        .ok_or_else(|| Failure::new("cargo metadata did not say where the target folder is"))
}

/// Runs a command and fails if it does.
fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .context(|| format!("running {}", words(command)))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::new(format!(
            "failed ({status}): {}",
            words(command)
        )))
    }
}

/// Runs a command quietly; what it wrote to standard error becomes the failure's text.
fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .context(|| format!("running {}", words(command)))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(format!(
        "failed ({}): {}\n{}",
        output.status,
        words(command),
        said.trim()
    )))
}

/// Whether a command can be run and succeeds.
fn runs(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

fn words(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text
}
