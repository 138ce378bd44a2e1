//! The `dormouse` program: a server, and a client for it.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
