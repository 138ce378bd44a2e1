//! What the command lines of the fuzzers have in common.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;

/// What each run is told.
#[derive(Debug, Args)]
pub struct Common {
    /// The server's program
    #[arg(long, value_name = "FILE")]
    pub dormouse: PathBuf,
    /// End after so many minutes
    #[arg(long, value_name = "M", default_value_t = 1)]
    minutes: u64,
    /// Processes of each database
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub processes_max: usize,
}

impl Common {
    /// When the run ends.
    pub fn time(&self) -> Duration {
        Duration::from_secs(self.minutes.saturating_mul(60))
    }
}

/// The time since 1970, for a seed that nobody gave.
pub fn clock() -> Duration {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH);
    clock.unwrap_or_default()
}

/// Says how the run of a fuzzer ended: its exit code is 0 if nothing was `found`, 1 if something was, 2 if
/// it could not run.
pub fn end<S>(
    fuzzer: &str,
    outcome: Result<S, impl Display>,
    found: impl FnOnce(&S) -> (String, bool),
) -> ExitCode {
    match outcome {
        Ok(summary) => {
            let (text, found) = found(&summary);
            println!("{text}");
            ExitCode::from(u8::from(found))
        }
        Err(error) => {
            eprintln!("{fuzzer}: {error}");
            ExitCode::from(2)
        }
    }
}
