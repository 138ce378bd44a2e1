//! The command line. [`args`] is what can be typed; every command is a file.

mod apps;
mod args;
mod bindings;
mod config;
mod databases;
mod deploy;
mod deployments;
mod dev;
mod doctor;
mod failure;
mod logs;
mod password;
mod progress;
mod reload;
mod reloader;
mod remote;
mod serve;
mod settings;
mod sql;
mod table;
mod target;
mod telemetry;
mod tokens;
mod top;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Args, Command};
use failure::Failure;

/// Runs the program.
pub(crate) fn run() -> ExitCode {
    let args = Args::parse();
    // The only one there is; whoever was first has installed the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let done = match args.command {
        Command::Serve(args) => serve::run(args),
        Command::Config(options) => config::load(&options).map(|loaded| print(&loaded.to_toml())),
        Command::Password => password::run(),
        Command::Sql(args) => wait_for(sql::run(args)),
        Command::Db(args) => wait_for(databases::run(args)),
        Command::Doctor(args) => wait_for(doctor::run(args)),
        Command::Reload(args) => wait_for(reload::run(args)),
        Command::Binding(args) => wait_for(bindings::run(args)),
        Command::Token(args) => wait_for(tokens::run(args)),
        Command::Top(args) => wait_for(top::run(args)),
        Command::Deploy(args) => wait_for(deploy::run(args)),
        Command::Dev(args) => dev::run(args),
        Command::Apps(args) => wait_for(deployments::list(args)),
        Command::Logs(args) => wait_for(deployments::logs(args)),
        Command::Rollback(args) => wait_for(deployments::roll_back(args)),
        Command::Undeploy(args) => wait_for(deployments::undeploy(args)),
        Command::BackendCompile => compile(),
        Command::BackendLaunch { args } => {
            let error = workers::runtime::launch(args);
            Err(Failure::unavailable(error.to_string()))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// What this program does in a process of its own: it reads what is to be compiled, and writes what became of it.
fn compile() -> Result<(), Failure> {
    let (input, output) = (std::io::stdin().lock(), std::io::stdout().lock());
    workers::modules::answer(input, output).map_err(|error| Failure::unavailable(error.to_string()))
}

/// Writes to standard output. Whoever closed it has read enough.
fn print(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn wait_for<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    runtime()?.block_on(future)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::unavailable(format!("cannot start threads: {error}")))
}
