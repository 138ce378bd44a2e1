//! The command line of the comparison of sessions with a native server.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use dormouse_fuzz::sessions::options::Options;
use dormouse_fuzz::sessions::run::run;

/// Runs programs of several sessions on `dormouse serve` and on a native server, and compares the answers.
///
/// Exit codes: 0 no difference; 1 some; 2 it could not run.
#[derive(Parser)]
#[command(name = "sessionfuzz", arg_required_else_help = true)]
struct Cli {
    /// The server's program
    #[arg(long, value_name = "FILE")]
    dormouse: PathBuf,
    /// The folder with `postgres` and `initdb` of version 18
    #[arg(long, value_name = "DIR")]
    postgres: PathBuf,
    /// Where data, logs and differences go: an empty folder, or one to be made
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The first program; those after it have the next numbers [default: the clock's]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// End after so many minutes
    #[arg(long, value_name = "M", default_value_t = 1)]
    minutes: u64,
    /// End after so many programs
    #[arg(long, value_name = "N", default_value_t = u64::MAX)]
    programs: u64,
    /// Processes of each database
    #[arg(long, value_name = "N", default_value_t = 3)]
    processes_max: usize,
    /// Let no database go to sleep in the midst of a program
    #[arg(long)]
    no_pauses: bool,
    /// Want no prepared statement behind an error, in a pipeline or a transaction
    #[arg(long)]
    no_skips: bool,
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
    let clock = SystemTime::now().duration_since(UNIX_EPOCH);
    let options = Options {
        dormouse: cli.dormouse,
        postgres: cli.postgres,
        folder: cli.data,
        seed: cli
            .seed
            .unwrap_or_else(|| clock.map_or(0, |clock| clock.as_secs())),
        time: Duration::from_secs(cli.minutes.saturating_mul(60)),
        programs: cli.programs,
        processes_max: cli.processes_max,
        pauses: !cli.no_pauses,
        skips: !cli.no_skips,
        shrink_runs: cli.shrink_runs,
        differences_max: cli.differences_max,
    };
    println!("seed {}", options.seed);
    match run(&options, |line| println!("{line}")).await {
        Ok(summary) => {
            println!("{summary:?}");
            ExitCode::from(u8::from(summary.differences > 0))
        }
        Err(error) => {
            eprintln!("sessionfuzz: {error}");
            ExitCode::from(2)
        }
    }
}
