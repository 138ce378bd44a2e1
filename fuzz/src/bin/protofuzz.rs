//! The command line of the fuzzer of frontend messages.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use dormouse_fuzz::cli::{self, Common};
use dormouse_fuzz::protocol::options::{Options, Until};
use dormouse_fuzz::protocol::run::run;

/// Sends arbitrary frontend messages to `dormouse serve` over many connections, and looks for answers that
/// cannot be right.
///
/// Exit codes: 0 nothing found; 1 something was; 2 it could not run.
#[derive(Parser)]
#[command(name = "protofuzz", arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    common: Common,
    /// Where data, logs and failures go; it is kept
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Decides everything but the machine's timing [default: the clock's]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// End after so many rounds, whatever the time
    #[arg(long, value_name = "N")]
    rounds: Option<u64>,
    /// Begin with this round of the seed
    #[arg(long, value_name = "R", default_value_t = 0)]
    first_round: u64,
    /// Play one story alone, by its seed, in place of rounds
    #[arg(long, value_name = "S")]
    story: Option<u64>,
    /// Connections at once
    #[arg(long, value_name = "N", default_value_t = 12)]
    connections: usize,
    /// Databases
    #[arg(long, value_name = "N", default_value_t = 3)]
    databases: usize,
    /// Stories of each connection in a round
    #[arg(long, value_name = "N", default_value_t = 8)]
    stories: usize,
    /// The longest silence before an answer
    #[arg(long, value_name = "MS", default_value_t = 25_000)]
    patience_ms: u64,
    /// The most private memory that the server may have
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30)]
    memory_bytes_max: u64,
    /// Send a Sync before each simple query: PostgreSQL 18 itself goes out of step without
    #[arg(long)]
    no_mixed_queries: bool,
    /// Variables of the server's environment
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
    /// End after so many failures
    #[arg(long, value_name = "N", default_value_t = 20)]
    failures_max: usize,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is expected")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let minutes = cli.common.time();
    let options = Options {
        dormouse: cli.common.dormouse,
        folder: cli.data,
        seed: cli.seed.unwrap_or_else(|| cli::clock().as_micros() as u64),
        first_round: cli.first_round,
        until: cli.rounds.map_or(Until::Elapsed(minutes), Until::Rounds),
        story: cli.story,
        connections: cli.connections,
        databases: cli.databases.max(1),
        processes_max: cli.common.processes_max,
        stories: cli.stories,
        patience: Duration::from_millis(cli.patience_ms),
        memory_bytes_max: cli.memory_bytes_max,
        mixed_queries: !cli.no_mixed_queries,
        settings: cli.settings,
        failures_max: cli.failures_max,
    };
    println!("seed {}", options.seed);
    let outcome = run(&options, |line| println!("{line}")).await;
    cli::end("protofuzz", outcome, |summary| {
        (summary.to_string(), summary.failures > 0)
    })
}
