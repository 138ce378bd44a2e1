//! The command line of the comparison of sessions with a native server.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use dormouse_fuzz::cli::{self, Common};
use dormouse_fuzz::sessions::options::Options;
use dormouse_fuzz::sessions::run::run;

/// Runs programs of several sessions on `dormouse serve` and on a native server, and compares the answers.
///
/// Exit codes: 0 no difference; 1 some; 2 it could not run.
#[derive(Parser)]
#[command(name = "sessionfuzz", arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    common: Common,
    /// The folder with `postgres` and `initdb` of version 18
    #[arg(long, value_name = "DIR")]
    postgres: PathBuf,
    /// Where data, logs and differences go: an empty folder, or one to be made
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The first program; those after it have the next numbers [default: the clock's]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// End after so many programs
    #[arg(long, value_name = "N", default_value_t = u64::MAX)]
    programs: u64,
    /// Most runs to make a program that differs smaller
    #[arg(long, value_name = "N", default_value_t = 200)]
    shrink_runs: usize,
    /// End after so many differences
    #[arg(long, value_name = "N", default_value_t = 20)]
    differences_max: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let time = cli.common.time();
    let options = Options {
        dormouse: cli.common.dormouse,
        postgres: cli.postgres,
        folder: cli.data,
        seed: cli.seed.unwrap_or_else(|| cli::clock().as_secs()),
        time,
        programs: cli.programs,
        processes_max: cli.common.processes_max,
        shrink_runs: cli.shrink_runs,
        differences_max: cli.differences_max,
    };
    println!("seed {}", options.seed);
    let outcome = run(&options, |line| println!("{line}")).await;
    cli::end("sessionfuzz", outcome, |summary| {
        (format!("{summary:?}"), summary.differences > 0)
    })
}
