//! The processes that a server begins backends with, for tests: `compile`, and `launch PROGRAM ARGS`.

use std::{env, io, process::ExitCode};

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    let done = match args.next().as_deref().and_then(|name| name.to_str()) {
        Some("compile") => {
            dormouse_workers::modules::answer(io::stdin().lock(), io::stdout().lock())
        }
        Some("launch") => Err(dormouse_workers::runtime::launch(args)),
        _ => Err(io::Error::other("'compile' or 'launch'?")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
