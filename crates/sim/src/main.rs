//! `sim`: runs histories and says which promise was broken in which step of which.

use std::process::ExitCode;

use clap::Parser;
use dormouse_sim::{History, Summary, WorkloadKind};

/// Random histories on a simulated disk, checked against a model. A seed gives the same history
/// every time.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Arguments {
    /// What is done and checked; all of them if none is named.
    #[arg(long)]
    workload: Option<WorkloadKind>,
    /// The seed of the first history; a random one if none is given.
    #[arg(long)]
    seed: Option<u64>,
    /// Steps of each history.
    #[arg(long, default_value_t = 1_000)]
    steps: u64,
    /// How many histories, each with the seed after the one before.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Print each step.
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let first = match arguments.seed.map_or_else(getrandom::u64, Ok) {
        Ok(seed) => seed,
        Err(error) => {
            eprintln!("no random seed from the system: {error}; give one with --seed");
            return ExitCode::FAILURE;
        }
    };
    let workloads = match arguments.workload {
        Some(workload) => vec![workload],
        None => WorkloadKind::ALL.to_vec(),
    };
    for workload in workloads {
        let mut summary = Summary::default();
        for n in 0..arguments.seeds {
            let history = History {
                workload,
                seed: first.wrapping_add(n),
                steps: arguments.steps,
            };
            println!("{workload}: seed {}", history.seed);
            match history.run(arguments.trace) {
                Ok(more) => summary.add(more),
                Err(failure) => {
                    println!("{failure}");
                    return ExitCode::FAILURE;
                }
            }
        }
        println!("{workload}: {summary}");
    }
    ExitCode::SUCCESS
}
