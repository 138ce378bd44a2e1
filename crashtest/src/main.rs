//! The crash test's command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Parser, ValueEnum};
use dormouse_crashtest::{Durability, Failure, Options, Until, run};

/// Kills `dormouse serve` at random moments under a workload, restarts it, and checks that it kept
/// its promises.
///
/// Exit codes: 0 no promise broken; 1 one was, and the data is kept; 2 the test could not run.
#[derive(Parser)]
#[command(name = "dormouse-crashtest", arg_required_else_help = true)]
struct Cli {
    /// The server's program
    #[arg(long, value_name = "FILE")]
    dormouse: PathBuf,
    /// Where data and logs go: an empty folder, or one to be made. It is kept
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    until: UntilArgs,
    /// Most databases at once
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u64).range(2..=2_000))]
    databases: u64,
    /// Decides everything but the machine's timing [default: the clock's]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// What a commit that was acknowledged before a kill must be
    #[arg(long, value_enum, default_value_t = Level::Local)]
    durability: Level,
    /// The same as --durability relaxed
    #[arg(long)]
    relaxed: bool,
    /// With --relaxed: how much of the time before a kill may be lost, the time of a flush on a
    /// busy disk included
    #[arg(long, value_name = "MS", default_value_t = 2_000)]
    lag_ms: u64,
    /// Check every database after each Nth restart, and a quarter of them after the others
    #[arg(long, value_name = "N", default_value_t = 10)]
    check_all_every: u64,
    /// How long a database without a session stays awake
    #[arg(long, value_name = "MS", default_value_t = 300)]
    idle_ms: u64,
    /// Copy the data directory to DIR/evidence after each kill, so that a failing run shows what
    /// the restart found
    #[arg(long)]
    evidence: bool,
    /// Variables of the server's environment
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct UntilArgs {
    /// End after so many kills
    #[arg(long, value_name = "N")]
    kills: Option<u64>,
    /// End after so many minutes
    #[arg(long, value_name = "M")]
    minutes: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    /// It is there
    Local,
    /// It is there if it was acknowledged more than --lag-ms before
    Relaxed,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is expected")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Cli {
    fn options(self) -> Options {
        let relaxed = self.relaxed || self.durability == Level::Relaxed;
        let clock = SystemTime::now().duration_since(UNIX_EPOCH);
        let until = match self.until.minutes {
            Some(minutes) => Until::Elapsed(Duration::from_secs(minutes.saturating_mul(60))),
            None => Until::Kills(self.until.kills.unwrap_or_default()),
        };
        Options {
            dormouse: self.dormouse,
            folder: self.data,
            until,
            databases: self.databases as usize,
            seed: self
                .seed
                .unwrap_or_else(|| clock.map_or(0, |clock| clock.as_micros() as u64)),
            durability: if relaxed {
                Durability::Relaxed(Duration::from_millis(self.lag_ms))
            } else {
                Durability::Local
            },
            check_all_every: self.check_all_every,
            idle: Duration::from_millis(self.idle_ms),
            evidence: self.evidence,
            settings: self.settings,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Cli::parse().options();
    println!("seed {}", options.seed);
    let enough = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&enough);
    tokio::spawn(async move {
        // Without the signal the run ends by itself.
        if tokio::signal::ctrl_c().await.is_ok() {
            println!("ending with this kill");
            asked.store(true, Ordering::Relaxed);
        }
    });
    match run(options, enough, |line| println!("{line}")).await {
        Ok(summary) => {
            print!("{summary}");
            ExitCode::SUCCESS
        }
        Err(failure @ Failure::Broken(_)) => {
            println!("FAILED: {failure}");
            ExitCode::from(1)
        }
        Err(failure) => {
            eprintln!("dormouse-crashtest: {failure}");
            ExitCode::from(2)
        }
    }
}
