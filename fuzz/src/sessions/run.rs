//! A run: programs, one after the other, on both servers.

use std::fs;
use std::time::{Duration, Instant};

use super::options::Options;
use super::program::Program;
use super::shrink::Sides;
use super::side::Side;
use crate::server::Server;
use native::Native;

/// How long a database without work stays awake, and how long a pause is: some of them end in a sleep.
const IDLE_MS: u64 = 20;
const PAUSE: Duration = Duration::from_millis(150);
/// Nobody has to wait for a process: programs leave one free.
const WAIT_MS: u64 = 3_000;
/// Longer than a native server's start takes.
const START_MAX: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(5);

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Programs.
    pub programs: u64,
    /// Their ops.
    pub ops: u64,
    /// Those that were answered differently.
    pub differences: usize,
}

/// Runs.
///
/// # Errors
/// If a server does not run, or a program cannot be run.
pub async fn run(options: &Options, mut tell: impl FnMut(&str)) -> Result<Summary, String> {
    let begun = Instant::now();
    let settings = [
        (
            "DORMOUSE_DATABASES__PROCESSES_MAX",
            options.processes_max.to_string(),
        ),
        ("DORMOUSE_DATABASES__IDLE_MS", IDLE_MS.to_string()),
        ("DORMOUSE_SESSIONS__WAIT_MS_MAX", WAIT_MS.to_string()),
    ];
    let settings = settings
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec();
    let folder = options.folder.join("dormouse");
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let mut server = Server::start(&options.dormouse, &folder, settings, 0).await?;
    let native = Native::start(
        &options.postgres,
        &options.folder.join("native"),
        &native::Options::default(),
    )?;
    let side = |address| Side {
        address,
        patience: PATIENCE,
        pause: PAUSE,
    };
    let sides = Sides {
        dormouse: side(server.address),
        native: Side {
            pause: Duration::ZERO,
            ..side(native.address)
        },
    };
    sides.native.ready(START_MAX).await?;
    let holders_max = options.processes_max.saturating_sub(1);
    let mut summary = Summary::default();
    let mut told = Instant::now();
    for seed in options.seed.. {
        let program = Program::of(seed, holders_max);
        summary.programs += 1;
        summary.ops += program.ops.len() as u64;
        let found = sides.compare(&program).await;
        let found = found.map_err(|error| format!("{error}; {:?}", server.check(u64::MAX)))?;
        server.check(u64::MAX)?;
        if let Some(difference) = found {
            summary.differences += 1;
            tell(&format!("program {seed}: {}", difference.text));
            let (program, difference) = sides
                .shrink(program, difference, holders_max, options.shrink_runs)
                .await;
            let text = format!("{}\n{program}", difference.text);
            let place = options.folder.join(format!("difference-{seed}.txt"));
            fs::write(place, &text).map_err(|error| error.to_string())?;
            tell(&text);
        }
        if told.elapsed() > Duration::from_secs(60) {
            told = Instant::now();
            tell(&format!("{summary:?}"));
        }
        let is_enough = begun.elapsed() >= options.time
            || summary.programs >= options.programs
            || summary.differences >= options.differences_max;
        if is_enough {
            break;
        }
    }
    server.stop().await?;
    Ok(summary)
}
